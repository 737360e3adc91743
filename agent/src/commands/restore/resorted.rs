//! What is said of text that this host sorts otherwise: the indexes to rebuild, for people and for programs.

use std::fmt;

use highwater_restore::host::Resorted;
use serde_json::{Value, json};

/// How many indexes of one database are printed.
const INDEXES_PRINTED: usize = 20;

/// The commands, a line each, and where all of them are.
pub struct Listed<'a>(pub &'a [Resorted]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|database| list(f, database))
    }
}

fn list(f: &mut fmt::Formatter<'_>, database: &Resorted) -> fmt::Result {
    writeln!(f, "reindex     in database {}:", database.database)?;
    for (schema, name) in database.indexes.iter().take(INDEXES_PRINTED) {
        writeln!(f, "              {}", command(schema, name))?;
    }
    let printed = database.indexes.len().min(INDEXES_PRINTED) as u64;
    let more = database.index_count.saturating_sub(printed);
    if more > 0 {
        writeln!(f, "              and {more} more: highwater/reindex.sql in the copy finds all of them")?;
    }
    for (schema, name) in &database.range_partitioned {
        writeln!(
            f,
            "              # {schema}.{name} is partitioned by ranges of such text: look through its rows"
        )?;
    }
    Ok(())
}

/// The same for programs.
pub fn json(resorted: &[Resorted]) -> Value {
    let databases = resorted.iter().map(|database| {
        let collations: Vec<Value> = database
            .differences
            .iter()
            .map(|differs| {
                json!({
                    "collation": differs.collation,
                    "library": differs.library,
                    "original": differs.original,
                    "here": differs.here,
                })
            })
            .collect();
        let names = |all: &[(String, String)]| {
            all.iter().map(|(schema, name)| qualified(schema, name)).collect::<Vec<String>>()
        };
        json!({
            "database": database.database,
            "collations": collations,
            "indexes": names(&database.indexes),
            "index_count": database.index_count,
            "range_partitioned": names(&database.range_partitioned),
        })
    });
    databases.collect()
}

fn command(schema: &str, name: &str) -> String {
    format!("REINDEX INDEX {};", qualified(schema, name))
}

fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

/// As SQL takes it: bare where that is certain, in double quotes otherwise.
fn identifier(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_and_names_are_quoted() {
        let indexes: Vec<_> = (0..30).map(|n| ("public".to_owned(), format!("X{n}"))).collect();
        let resorted = [Resorted {
            database: "app".into(),
            differences: Vec::new(),
            indexes,
            index_count: 100_000,
            range_partitioned: vec![("s".into(), "a\"b".into())],
        }];
        let text = Listed(&resorted).to_string();
        assert_eq!(text.lines().count(), 1 + INDEXES_PRINTED + 2);
        assert!(text.contains("REINDEX INDEX public.\"X0\";") && text.contains("and 99980 more"), "{text}");
        assert_eq!(json(&resorted)[0]["range_partitioned"][0], "s.\"a\"\"b\"");
    }
}
