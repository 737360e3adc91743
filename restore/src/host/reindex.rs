//! The commands that put right what is sorted otherwise: a script for psql.
//!
//! The server is asked for the indexes, and not the backup's relation map: WAL that was replayed after the backup made others. What the
//! server cannot know is given as it was found: a database of 14 has no version of its own, and a collation whose version was declared
//! anew may have been sorted by another library all the same. Only when every index is rebuilt are the versions declared; psql stops at
//! the first error, and the script can be run again.

use super::sorting::{DEFAULT, Difference, Resorted};
use crate::server::{ServerError, ServerOptions, query};

/// Where the script lies, below the data directory.
pub const SCRIPT_FILE: &str = "highwater/reindex.sql";

/// The first major whose databases have a version of their own.
const DATABASES_HAVE_VERSIONS: u16 = 15;

/// The script. `resorted` are the databases that it is for.
pub fn script(major: u16, resorted: &[Resorted]) -> String {
    let mut text = String::from(
        "-- Rebuilds the indexes whose text this host's libraries sort in another order, and then declares the versions.\n\
         -- Written by highwater restore. Run it as a superuser when the server takes writes, before anybody else uses it:\n\
         --   psql -f reindex.sql\n\
         -- REINDEX stands still for who reads the table; write REINDEX INDEX CONCURRENTLY below where that may not be.\n\
         \\set ON_ERROR_STOP on\n",
    );
    for database in resorted {
        let Some(connect) = connect(&database.database) else {
            text.push_str(
                "-- A database whose name holds a line end is left out: do the same in it by hand.\n",
            );
            continue;
        };
        text.push('\n');
        for differs in &database.differences {
            text.push_str(&format!(
                "-- {}: {} {} sorted it, here it is {}\n",
                one_line(&differs.collation),
                differs.library,
                differs.original,
                differs.here
            ));
        }
        text.push_str(&connect);
        text.push_str("SET search_path = pg_catalog;\n");
        text.push_str(&format!(
            "SELECT format('REINDEX INDEX %I.%I;', n.nspname, c.relname)\n{} ORDER BY 1 \\gexec\n",
            indexes(major, Some(database))
        ));
        for (schema, name) in &database.range_partitioned {
            text.push_str(&format!(
                "-- Rows of {} may lie in a partition that is not theirs now: see that each is within its bounds.\n",
                one_line(&format!("{schema}.{name}"))
            ));
        }
        text.push_str(
            "SELECT format('ALTER COLLATION %I.%I REFRESH VERSION;', n.nspname, s.collname)\n\
             FROM pg_collation s JOIN pg_namespace n ON n.oid = s.collnamespace\n\
             WHERE s.collversion <> pg_collation_actual_version(s.oid) ORDER BY 1 \\gexec\n",
        );
        if major >= DATABASES_HAVE_VERSIONS {
            text.push_str(
                "SELECT format('ALTER DATABASE %I REFRESH COLLATION VERSION;', datname) FROM pg_database\n\
                 WHERE datname = current_database() AND datcollversion <> pg_database_collation_actual_version(oid) \\gexec\n",
            );
        }
    }
    text
}

/// What a running server says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// Databases whose text is sorted otherwise.
    pub resorted: Vec<Resorted>,
    /// Databases that could not be asked: each a sentence.
    pub failures: Vec<String>,
}

/// Asks a server that can be read, database by database, what is sorted otherwise. `known` is what was found before it ran; it stands where
/// a database does not answer.
///
/// # Errors
/// [`ServerError`]: the server does not even say which databases it has.
pub fn ask(options: &ServerOptions, major: u16, known: &[Resorted]) -> Result<Answers, ServerError> {
    let names = "SELECT to_json(datname::text) FROM pg_database WHERE datallowconn ORDER BY oid";
    let mut answers = Answers::default();
    for line in query(options, "postgres", names)?.lines() {
        let Ok(name) = serde_json::from_str::<String>(line) else { continue };
        let known = known.iter().find(|database| database.database == name);
        match query(options, &name, &question(major, known)) {
            Ok(answer) => {
                let begun = Resorted {
                    differences: known.map(|database| database.differences.clone()).unwrap_or_default(),
                    range_partitioned: known
                        .map(|database| database.range_partitioned.clone())
                        .unwrap_or_default(),
                    database: name,
                    indexes: Vec::new(),
                    index_count: 0,
                };
                answers.resorted.extend(read(begun, &answer));
            }
            Err(error) => {
                answers.failures.push(format!("not known which text is sorted otherwise here: {error}"));
                answers.resorted.extend(known.cloned());
            }
        }
    }
    Ok(answers)
}

/// What is sorted otherwise in one database: first its collations, then the indexes, a JSON list each.
fn question(major: u16, known: Option<&Resorted>) -> String {
    let own = if major >= DATABASES_HAVE_VERSIONS {
        format!(
            "SELECT 0, json_build_array('{DEFAULT}', datlocprovider, datcollversion, \
             pg_database_collation_actual_version(oid)) FROM pg_database WHERE datname = current_database() \
             AND datcollversion <> pg_database_collation_actual_version(oid) UNION ALL "
        )
    } else {
        String::new()
    };
    format!(
        "SET search_path = pg_catalog; SELECT j FROM ({own}\
         SELECT 0, json_build_array(n.nspname || '.' || s.collname, s.collprovider, s.collversion, \
         pg_collation_actual_version(s.oid)) FROM pg_collation s JOIN pg_namespace n ON n.oid = s.collnamespace \
         WHERE s.collversion <> pg_collation_actual_version(s.oid) AND (s.oid >= 16384 \
         OR EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_collation'::regclass AND d.refobjid = s.oid) \
         OR EXISTS (SELECT FROM pg_attribute a WHERE a.attcollation = s.oid)) UNION ALL \
         SELECT 1, json_build_array(n.nspname, c.relname) {}) q(k, j) ORDER BY k, j::text",
        indexes(major, known)
    )
}

/// `FROM …` of the indexes that depend on a collation that is sorted otherwise.
fn indexes(major: u16, known: Option<&Resorted>) -> String {
    let own = match known {
        Some(known) if known.by_default() => "true",
        _ if major >= DATABASES_HAVE_VERSIONS => {
            "(SELECT datcollversion <> pg_database_collation_actual_version(oid) FROM pg_database \
             WHERE datname = current_database())"
        }
        _ => "false",
    };
    let names = known
        .map(|known| &known.differences)
        .into_iter()
        .flatten()
        .map(|differs| literal(&differs.collation));
    let names: Vec<String> = names.collect();
    let named = if names.is_empty() {
        String::new()
    } else {
        format!(
            " OR EXISTS (SELECT FROM pg_namespace sn WHERE sn.oid = s.collnamespace \
             AND sn.nspname || '.' || s.collname IN ({}))",
            names.join(", ")
        )
    };
    format!(
        "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'i' AND c.relpersistence <> 't' AND EXISTS (SELECT FROM \
         (SELECT unnest(i.indcollation::oid[]) UNION SELECT m[1]::oid FROM \
         regexp_matches(concat(i.indexprs, i.indpred), ':inputcollid ([1-9][0-9]*)', 'g') m) u(o) \
         JOIN pg_collation s ON s.oid = u.o WHERE CASE WHEN s.collprovider = 'd' THEN {own} \
         ELSE coalesce(s.collversion <> pg_collation_actual_version(s.oid), false){named} END)"
    )
}

/// Reads the answer to [`question`]; nothing where the server has nothing to say and nothing was known.
fn read(mut found: Resorted, answer: &str) -> Option<Resorted> {
    for line in answer.lines() {
        match serde_json::from_str::<Vec<String>>(line).unwrap_or_default().as_slice() {
            [collation, _, _, _] if found.differences.iter().any(|known| known.collation == *collation) => {}
            [collation, provider, original, here] => found.differences.push(Difference {
                collation: collation.clone(),
                library: match provider.as_str() {
                    "c" => "the C library",
                    "i" => "ICU",
                    _ => "PostgreSQL",
                },
                original: original.clone(),
                here: here.clone(),
            }),
            [schema, name] => found.push_index(schema, name),
            _ => {}
        }
    }
    (!found.differences.is_empty()).then_some(found)
}

/// psql's line that goes on in this database (`appendPsqlMetaConnect` in `string_utils.c`).
fn connect(database: &str) -> Option<String> {
    if database.contains(['\n', '\r']) {
        return None;
    }
    let value = database.replace('\\', "\\\\").replace('\'', "\\'");
    Some(format!("\\connect -reuse-previous=on \"dbname='{}'\"\n", value.replace('"', "\"\"")))
}

fn literal(text: &str) -> String {
    if text.contains('\\') {
        return format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// A name in a comment: nothing in it may begin a line of its own.
fn one_line(name: &str) -> String {
    name.replace(|c: char| c.is_control(), "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resorted(collations: &[&str]) -> Resorted {
        let differs = |collation: &&str| Difference {
            collation: (*collation).to_owned(),
            library: "the C library",
            original: "2.31".into(),
            here: "2.36".into(),
        };
        Resorted {
            database: "a \"b\" 'c'\\d".into(),
            differences: collations.iter().map(differs).collect(),
            indexes: Vec::new(),
            index_count: 0,
            range_partitioned: vec![("public".into(), "p\n\\! rm".into())],
        }
    }

    #[test]
    fn names_of_others_stay_names() {
        let text = script(17, &[resorted(&["it's\n.x"])]);
        assert!(text.contains(r#"\connect -reuse-previous=on "dbname='a ""b"" \'c\'\\d'""#), "{text}");
        assert!(text.contains("IN ('it''s\n.x')"), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("\\!")), "{text}");
        assert!(text.contains("public.p?\\! rm"), "{text}");
        assert_eq!(connect("a\nb"), None);
        assert_eq!(literal("a\\'"), "E'a\\\\'''");
    }

    /// 14 records nothing of a database's own collation: what is known decides.
    #[test]
    fn what_the_server_cannot_know_is_given() {
        let own = script(14, &[resorted(&[DEFAULT])]);
        assert!(own.contains("'d' THEN true") && !own.contains("datcollversion"), "{own}");
        assert!(script(14, &[resorted(&["public.x"])]).contains("'d' THEN false"));
        assert!(script(15, &[resorted(&["public.x"])]).contains("ALTER DATABASE"));
    }

    #[test]
    fn answers_are_read() {
        let answer = "[\"pg_catalog.default\", \"c\", \"1.0\", \"2.36\"]\n[\"public\", \"t_pkey\"]\n";
        let found = read(Resorted { differences: Vec::new(), ..resorted(&[]) }, answer).unwrap();
        assert!(found.by_default());
        assert_eq!((found.index_count, found.indexes.len()), (1, 1));
        assert_eq!(read(resorted(&[]), ""), None);
    }
}
