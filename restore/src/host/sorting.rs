//! Whether this host sorts text as the original did.
//!
//! PostgreSQL leaves the order of text to the C library or to ICU, and an index is only right for the order it was built in. The versions
//! that decide it: of the C library, as servers tell it (`pg_collation_actual_version`); of ICU the major version that the server's
//! program is linked to, since the version of ICU's rules is not to be had without a server that runs. What a catalog
//! records (`datcollversion`, `collversion`) may be older than the library was: then the original's indexes are in doubt already, and that
//! is said as well. The functions here take values and give values.

use highwater_archive::manifest::{Database, PostgresInfo};

use super::words::some_of;

/// The most indexes of one database that are kept by name.
const INDEXES_NAMED: usize = 1000;

/// How many collations are named in one sentence.
const DIFFERENCES_NAMED: usize = 3;

/// The name by which the relation map knows a database's own collation.
pub const DEFAULT: &str = "pg_catalog.default";

/// What this host sorts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// The C library's version.
    pub libc: Option<String>,
    /// ICU.
    pub icu: Icu,
}

/// The ICU of a server's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icu {
    /// Its major version.
    Version(u16),
    /// It is built without.
    None,
    /// The program could not be read.
    Unknown,
}

/// A collation that sorts otherwise than when its indexes were built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `schema.name`; the database's own is `pg_catalog.default`.
    pub collation: String,
    /// `the C library`, `ICU`, `PostgreSQL`.
    pub library: &'static str,
    /// The version that its indexes were built with.
    pub original: String,
    /// The version here.
    pub here: String,
}

/// A database some of whose text is sorted otherwise here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resorted {
    /// Its name.
    pub database: String,
    /// Its collations that are.
    pub differences: Vec<Difference>,
    /// The first indexes that depend on them, as `schema` and name.
    pub indexes: Vec<(String, String)>,
    /// How many do in all.
    pub index_count: u64,
    /// Tables partitioned by ranges of such text, as `schema` and name.
    pub range_partitioned: Vec<(String, String)>,
}

impl Resorted {
    /// Whether one of these collations is sorted otherwise.
    fn concerns(&self, collations: &[String]) -> bool {
        collations.iter().any(|name| self.differences.iter().any(|differs| differs.collation == *name))
    }

    /// Adds an index, if it depends on one of the collations.
    pub fn add_index(&mut self, schema: &str, name: &str, collations: &[String]) {
        if self.concerns(collations) {
            self.push_index(schema, name);
        }
    }

    /// Adds an index that depends on one of the collations.
    pub fn push_index(&mut self, schema: &str, name: &str) {
        self.index_count += 1;
        if self.indexes.len() < INDEXES_NAMED {
            self.indexes.push((schema.to_owned(), name.to_owned()));
        }
    }

    /// What it means, in a sentence.
    pub fn warning(&self) -> String {
        let differences: Vec<String> = self
            .differences
            .iter()
            .take(DIFFERENCES_NAMED)
            .map(|differs| {
                let Difference { collation, library, original, here } = differs;
                let collation = if collation == DEFAULT { "its own collation" } else { collation };
                format!("{collation}: {library} {original}, here {here}")
            })
            .collect();
        let more = self.differences.len().saturating_sub(DIFFERENCES_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let tables = if self.range_partitioned.is_empty() {
            String::new()
        } else {
            format!(
                ", and rows of tables partitioned by it ({}) may lie in a partition that is not theirs",
                self.range_partitioned.len()
            )
        };
        format!(
            "database {} sorts text otherwise on this host ({}{more}): indexes that are known to depend on it ({}) may miss \
             rows and let in duplicates until they are rebuilt{tables}",
            self.database,
            differences.join("; "),
            self.index_count
        )
    }

    /// Whether the database's own collation is sorted otherwise.
    pub fn by_default(&self) -> bool {
        self.differences.iter().any(|differs| differs.collation == DEFAULT)
    }
}

/// What comparing gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// Databases whose text is sorted otherwise.
    pub resorted: Vec<Resorted>,
    /// What will not work at all.
    pub warnings: Vec<String>,
    /// What could not be compared.
    pub notes: Vec<String>,
}

/// Whether the C library's order of this locale is that of the bytes, in every version: PostgreSQL records no version for these
/// (`get_collation_actual_version` in `pg_locale.c`).
pub fn sorts_plainly(locale: &str) -> bool {
    let upper = locale.to_ascii_uppercase();
    upper == "C" || upper == "POSIX" || upper.starts_with("C.")
}

/// Holds what was recorded against what is here. `other_system`: the original ran on a system with another C library, of this name.
pub fn compare(
    postgres: &PostgresInfo,
    databases: &[Database],
    here: &Here,
    other_system: Option<String>,
) -> Compared {
    let mut compared = Compared::default();
    let (mut unrecorded, mut unknown_here) = (Vec::new(), Vec::new());
    let original = Original { postgres, other_system: other_system.as_deref() };
    for database in databases {
        let mut differences = Vec::new();
        for used in used(database) {
            match original.compare(&used, here) {
                Verdict::Same => {}
                Verdict::Differs(difference) => differences.push(difference),
                Verdict::NotRecorded => unrecorded.push(database.name.as_str()),
                Verdict::NotKnownHere => unknown_here.push(database.name.as_str()),
                Verdict::NoIcu => compared.warnings.push(format!(
                    "database {} sorts by ICU ({}), and the server here seems to be built without it: {}",
                    database.name,
                    used.name,
                    if used.name == DEFAULT {
                        "nobody can connect to it"
                    } else {
                        "queries that use it fail"
                    }
                )),
            }
        }
        if !differences.is_empty() {
            let mut resorted = Resorted {
                database: database.name.clone(),
                differences,
                indexes: Vec::new(),
                index_count: 0,
                range_partitioned: Vec::new(),
            };
            let tables =
                database.range_partitioned.iter().filter(|table| resorted.concerns(&table.collations));
            resorted.range_partitioned =
                tables.map(|table| (table.schema.clone(), table.name.clone())).collect();
            compared.resorted.push(resorted);
        }
    }
    compared.notes.extend(sentence(
        unrecorded,
        "which version of the library sorted its text was not recorded: REINDEX what the server says has changed, \
         or everything on text if this host is not like the original",
    ));
    compared.notes.extend(sentence(
        unknown_here,
        "which library sorts text on this host is not known before a server runs: it says itself whether it has changed",
    ));
    compared
}

fn sentence(mut databases: Vec<&str>, what: &str) -> Option<String> {
    databases.dedup();
    (!databases.is_empty()).then(|| format!("database {}: {what}", some_of(&databases)))
}

/// A collation in use.
#[derive(Debug)]
struct Used {
    name: String,
    provider: String,
    /// What the catalog records.
    catalog: Option<String>,
    /// What the library had.
    library: Option<String>,
}

fn used(database: &Database) -> Vec<Used> {
    let own = Used {
        name: DEFAULT.to_owned(),
        provider: database.locale_provider.clone(),
        catalog: database.collation_version.clone(),
        library: database.library_collation_version.clone(),
    };
    let plain = own.provider == "c" && sorts_plainly(&database.collate);
    // template0 takes no connections and has nothing that is sorted by it; what is made from it begins with its version.
    let empty = database.name == "template0";
    let mut all: Vec<Used> = Some(own).filter(|_| !plain && !empty).into_iter().collect();
    let libraries = database.collation_libraries.as_ref();
    for (name, catalog) in &database.collations {
        let library = libraries.and_then(|libraries| libraries.get(name));
        // Before the provider was recorded: ICU's versions, as in 153.120, are far from glibc's.
        let guess = || if catalog.split('.').next().is_some_and(|major| major.len() > 2) { "i" } else { "c" };
        all.push(Used {
            name: name.clone(),
            provider: library.map_or_else(|| guess().to_owned(), |library| library.provider.clone()),
            catalog: Some(catalog.clone()),
            library: library.and_then(|library| library.version.clone()),
        });
    }
    all
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    Differs(Difference),
    NotRecorded,
    NotKnownHere,
    NoIcu,
}

struct Original<'a> {
    postgres: &'a PostgresInfo,
    other_system: Option<&'a str>,
}

impl Original<'_> {
    fn compare(&self, used: &Used, here: &Here) -> Verdict {
        let differs = |library: &'static str, original: &str, here: &str| {
            let (original, here) = (original.to_owned(), here.to_owned());
            Verdict::Differs(Difference { collation: used.name.clone(), library, original, here })
        };
        // Declared for an older library than the original had: in doubt wherever it is restored.
        let stale = match (&used.catalog, &used.library) {
            (Some(catalog), Some(library)) if catalog != library => {
                Some((catalog.as_str(), library.as_str()))
            }
            _ => None,
        };
        match used.provider.as_str() {
            "c" => {
                if let Some(system) = self.other_system {
                    return differs("the C library", &format!("that of {system}"), "another");
                }
                let recorded = [&used.catalog, &used.library, &self.postgres.libc];
                let mut recorded = recorded.into_iter().flatten().peekable();
                let Some(libc) = &here.libc else {
                    return stale.map_or(Verdict::NotKnownHere, |(catalog, library)| {
                        differs("the C library", catalog, library)
                    });
                };
                if recorded.peek().is_none() {
                    return Verdict::NotRecorded;
                }
                recorded
                    .find(|version| *version != libc)
                    .map_or(Verdict::Same, |version| differs("the C library", version, libc))
            }
            "i" => match (self.postgres.icu, here.icu) {
                (_, Icu::None) => Verdict::NoIcu,
                (Some(there), Icu::Version(here)) if there != here => {
                    differs("ICU", &there.to_string(), &here.to_string())
                }
                _ if stale.is_some() => {
                    stale.map_or(Verdict::Same, |(catalog, library)| differs("ICU", catalog, library))
                }
                (Some(_), Icu::Version(_)) => Verdict::Same,
                (None, _) => Verdict::NotRecorded,
                (_, Icu::Unknown) => Verdict::NotKnownHere,
            },
            // PostgreSQL's own: the same in every server of a major.
            _ => stale.map_or(Verdict::Same, |(catalog, library)| differs("PostgreSQL", catalog, library)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_archive::manifest::CollationLibrary;

    fn postgres(libc: Option<&str>, icu: Option<u16>) -> PostgresInfo {
        serde_json::from_value(serde_json::json!({
            "major": 17, "version": "", "system_identifier": "1", "catalog_version": 1, "control_version": 1700,
            "block_bytes": 8192, "relation_segment_blocks": 131_072, "wal_segment_bytes": 16_777_216,
            "data_checksums": true, "settings": {}, "libc": libc, "icu": icu,
        }))
        .unwrap()
    }

    fn database(provider: &str, collate: &str, catalog: Option<&str>, library: Option<&str>) -> Database {
        serde_json::from_value(serde_json::json!({
            "oid": 5, "name": "app", "encoding": "UTF8", "collate": collate, "ctype": "C", "locale_provider": provider,
            "collation_version": catalog, "library_collation_version": library, "examined": true, "extensions": [],
            "collations": {},
        }))
        .unwrap()
    }

    fn here(libc: &str, icu: Icu) -> Here {
        Here { libc: Some(libc.into()), icu }
    }

    /// The verdicts on all collations of one database.
    fn verdicts(postgres: &PostgresInfo, database: &Database, here: &Here) -> Vec<Verdict> {
        let original = Original { postgres, other_system: None };
        used(database).iter().map(|used| original.compare(used, here)).collect()
    }

    fn original_of(verdicts: &[Verdict]) -> &str {
        match verdicts {
            [Verdict::Differs(difference)] => &difference.original,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_c_library_is_compared_by_whatever_was_recorded() {
        let (new, none) = (here("2.36", Icu::None), Here { libc: None, icu: Icu::None });
        let known = postgres(Some("2.31"), None);
        for plain in ["C", "POSIX", "C.utf8", "c.UTF-8"] {
            assert_eq!(verdicts(&known, &database("c", plain, None, None), &new), [], "{plain}");
        }
        // 14: only the library's own version.
        assert_eq!(original_of(&verdicts(&known, &database("c", "de_DE", None, None), &new)), "2.31");
        let same = database("c", "de_DE", Some("2.36"), Some("2.36"));
        assert_eq!(verdicts(&postgres(Some("2.36"), None), &same, &new), [Verdict::Same]);
        // An older manifest has the catalog's word alone.
        let older = database("c", "de_DE", Some("2.31"), None);
        assert_eq!(original_of(&verdicts(&postgres(None, None), &older, &new)), "2.31");
        let nothing = database("c", "de_DE", None, None);
        assert_eq!(verdicts(&postgres(None, None), &nothing, &new), [Verdict::NotRecorded]);
        assert_eq!(verdicts(&known, &nothing, &none), [Verdict::NotKnownHere]);
        // In doubt already where it comes from, and here the same library.
        let stale = database("c", "de_DE", Some("2.31"), Some("2.36"));
        assert_eq!(original_of(&verdicts(&postgres(Some("2.36"), None), &stale, &new)), "2.31");
        assert_eq!(original_of(&verdicts(&postgres(Some("2.36"), None), &stale, &none)), "2.31");
    }

    #[test]
    fn icu_is_compared_by_its_major_version() {
        let own = database("i", "en_US", Some("153.120"), Some("153.120"));
        let known = postgres(Some("2.36"), Some(72));
        assert_eq!(verdicts(&known, &own, &here("2.36", Icu::Version(72))), [Verdict::Same]);
        assert_eq!(original_of(&verdicts(&known, &own, &here("2.36", Icu::Version(74)))), "72");
        assert_eq!(verdicts(&known, &own, &here("2.36", Icu::None)), [Verdict::NoIcu]);
        assert_eq!(verdicts(&known, &own, &here("2.36", Icu::Unknown)), [Verdict::NotKnownHere]);
        let unrecorded = postgres(Some("2.36"), None);
        assert_eq!(verdicts(&unrecorded, &own, &here("2.36", Icu::Version(72))), [Verdict::NotRecorded]);
        let stale = database("i", "en_US", Some("153.112"), Some("153.120"));
        assert_eq!(original_of(&verdicts(&known, &stale, &here("2.36", Icu::Version(72)))), "153.112");
    }

    /// Single collations by their provider, or by the look of their version where it was not recorded.
    #[test]
    fn single_collations_are_compared_as_well() {
        let mut database = database("c", "C", None, None);
        database.collations =
            [("public.german".to_owned(), "153.120".to_owned()), ("public.x".to_owned(), "2.31".to_owned())]
                .into();
        let found = verdicts(&postgres(None, Some(72)), &database, &here("2.36", Icu::Version(72)));
        assert!(
            matches!(&found[..], [Verdict::Same, Verdict::Differs(x)] if x.collation == "public.x"),
            "{found:?}"
        );
        let builtin = CollationLibrary { provider: "b".into(), version: Some("1".into()) };
        database.collations = [("pg_catalog.pg_c_utf8".to_owned(), "1".to_owned())].into();
        database.collation_libraries = Some([("pg_catalog.pg_c_utf8".to_owned(), builtin)].into());
        assert_eq!(verdicts(&postgres(None, None), &database, &here("2.36", Icu::None)), [Verdict::Same]);
    }

    /// What compares to nothing is said once for all databases, and what cannot work at all is a warning.
    #[test]
    fn what_cannot_be_compared_is_said() {
        let mut databases = vec![database("c", "de_DE", None, None), database("i", "en_US", None, None)];
        databases[1].name = "web".into();
        let icu = databases[1].clone();
        databases.push(Database { name: "template0".into(), ..database("c", "de_DE", None, None) });
        let found = compare(&postgres(None, None), &databases, &here("2.36", Icu::None), None);
        assert!(
            matches!(&found.notes[..], [one] if one.starts_with("database app: which version")),
            "{found:?}"
        );
        assert!(
            matches!(&found.warnings[..], [one] if one.starts_with("database web sorts by ICU") && one.contains("nobody can connect")),
            "{found:?}"
        );
        assert_eq!(found.resorted, []);
        // Another C library altogether is another order, whatever its version.
        let partitioned = serde_json::json!([{"schema": "s", "name": "p", "collations": [DEFAULT]}]);
        let mut own = database("c", "de_DE", Some("2.36"), Some("2.36"));
        own.range_partitioned = serde_json::from_value(partitioned).unwrap();
        let found = compare(
            &postgres(None, None),
            &[own, icu],
            &here("2.36", Icu::Version(72)),
            Some("linux-musl".into()),
        );
        let [app] = &found.resorted[..] else { panic!("{found:?}") };
        assert!(
            app.by_default() && app.warning().contains("that of linux-musl, here another"),
            "{}",
            app.warning()
        );
        assert!(
            app.warning()
                .ends_with("rows of tables partitioned by it (1) may lie in a partition that is not theirs")
        );
    }

    #[test]
    fn indexes_are_counted_beyond_those_that_are_named() {
        let differs = Difference {
            collation: DEFAULT.into(),
            library: "the C library",
            original: "2.31".into(),
            here: "2.36".into(),
        };
        let mut resorted = Resorted {
            database: "app".into(),
            differences: vec![differs],
            indexes: Vec::new(),
            index_count: 0,
            range_partitioned: Vec::new(),
        };
        for n in 0..INDEXES_NAMED + 5 {
            resorted.add_index("s", &n.to_string(), &[DEFAULT.to_owned()]);
            resorted.add_index("s", "plain", &[]);
        }
        assert_eq!((resorted.indexes.len(), resorted.index_count), (INDEXES_NAMED, INDEXES_NAMED as u64 + 5));
        let said = resorted.warning();
        assert!(said.contains("its own collation: the C library 2.31, here 2.36"), "{said}");
    }
}
