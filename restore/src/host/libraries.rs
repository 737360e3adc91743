//! The shared libraries that a cluster loads, and whether this host's server has them.
//!
//! A server looks for a library as `expand_dynamic_library_name` in `dfmgr.c` does: a plain name in each directory of
//! `dynamic_library_path`, a path as it is with `$libdir` at its beginning replaced, each once as it stands and once with the
//! suffix of shared libraries. From 18 on `$libdir/name` is also looked for in that path. A library to preload that is missing ends
//! the server (`shared_preload_libraries`) or each login (the other two); one that functions are in fails when they are called.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater_archive::manifest::{Database, PostgresInfo};

use super::programs::SUFFIXES;
use super::words::some_of;

/// The first major that looks for `$libdir/name` along the path.
const STRIPS_LIBDIR: u16 = 18;

/// What is not here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// The setting and the library without which the server does not start.
    pub at_start: Option<(String, String)>,
    /// The same of archiving, which is off in a copy until it takes production's place.
    pub archiving: Option<String>,
    /// Without which logins fail: the setting, whose it is, the library.
    pub at_login: Vec<(String, String)>,
    /// Without which functions fail: library and extension, and the databases.
    pub functions: BTreeMap<(String, Option<String>), Vec<String>>,
}

impl Missing {
    /// Each in a sentence.
    pub fn warnings(&self, bin: &Path) -> Vec<String> {
        let mut said = Vec::new();
        let here = format!("the server in {}", bin.display());
        if let Some((setting, library)) = &self.at_start {
            said.push(format!(
                "{here} does not have {library}, which {setting} names, and will not start without it: install {}, or take it \
                 out at the end of postgresql.auto.conf in the copy",
                package_like(library)
            ));
        }
        if let Some(library) = &self.archiving {
            said.push(format!(
                "{here} does not have {library}, which archive_library names: archiving will fail"
            ));
        }
        for (whose, library) in &self.at_login {
            said.push(format!(
                "{here} does not have {library}, which {whose} names: logins that it is for fail until {} is installed",
                package_like(library)
            ));
        }
        for ((library, extension), databases) in &self.functions {
            let what = match extension {
                Some(extension) => format!("extension {extension}"),
                None => "functions made without an extension".into(),
            };
            said.push(format!(
                "{here} does not have {library}: {what} will fail in database {} until {} is installed",
                some_of(databases),
                package_like(library)
            ));
        }
        said
    }
}

/// What of the backup's libraries is not in `libdir` or where its settings lead.
pub fn missing(postgres: &PostgresInfo, databases: &[Database], libdir: PathBuf) -> Missing {
    let settings = &postgres.settings;
    let set = |name: &str| settings.get(name).map_or("", String::as_str);
    let search = Search::new(
        libdir,
        settings.get("dynamic_library_path").map_or("$libdir", String::as_str),
        postgres.major,
    );
    let absent = |setting: &str, value: &str| {
        let names = split_list(value).into_iter().map(|name| as_loaded(setting, &name));
        names.filter(|name| !search.finds(name)).collect::<Vec<String>>()
    };
    let shared = "shared_preload_libraries";
    let at_start = absent(shared, set(shared)).into_iter().next().map(|library| (shared.to_owned(), library));
    let archiving = Some(set("archive_library").to_owned())
        .filter(|library| !library.is_empty() && !search.finds(library));
    let mut at_login = Vec::new();
    for setting in ["session_preload_libraries", "local_preload_libraries"] {
        at_login
            .extend(absent(setting, set(setting)).into_iter().map(|library| (setting.to_owned(), library)));
    }
    for preload in postgres.login_preloads.iter().flatten() {
        let mut whose = preload.setting.clone();
        whose.extend(preload.role.iter().map(|role| format!(" of role {role}")));
        whose.extend(preload.database.iter().map(|database| format!(" in database {database}")));
        let libraries = absent(&preload.setting, &preload.value).into_iter();
        at_login.extend(libraries.map(|library| (whose.clone(), library)));
    }
    let mut functions: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for database in databases {
        for library in database.libraries.iter().flatten().filter(|library| !search.finds(&library.library)) {
            let key = (library.library.clone(), library.extension.clone());
            functions.entry(key).or_default().push(database.name.clone());
        }
    }
    Missing { at_start, archiving, at_login, functions }
}

/// A note on a backup whose libraries were not recorded.
pub fn not_recorded(databases: &[Database]) -> Option<String> {
    let unknown = databases.iter().filter(|database| database.examined && database.libraries.is_none());
    let mut extensions: Vec<&str> = unknown
        .flat_map(|database| &database.extensions)
        .map(|extension| extension.name.as_str())
        .filter(|name| *name != "plpgsql")
        .collect();
    extensions.sort_unstable();
    extensions.dedup();
    (!extensions.is_empty()).then(|| {
        format!(
            "the Highwater that made this backup did not record which libraries its extensions need: see that this host has {}",
            extensions.join(", ")
        )
    })
}

/// A library's name as a package may be called, or searched by: `$libdir/timescaledb-2.17.2` is `timescaledb-2.17.2`.
pub fn package_like(library: &str) -> &str {
    let name = library.rsplit('/').next().unwrap_or(library);
    SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// What a preload setting loads for a name (`load_libraries` in `miscinit.c`): who may set the local one for themselves gets no
/// further than one directory.
fn as_loaded(setting: &str, name: &str) -> String {
    if setting == "local_preload_libraries" && !name.contains('/') {
        return format!("$libdir/plugins/{name}");
    }
    name.to_owned()
}

/// The names in a list (`SplitDirectoriesString` in `varlena.c`): parted by commas, each bare or in double quotes.
fn split_list(value: &str) -> Vec<String> {
    let (mut names, mut name, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = value.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                name.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(std::mem::take(&mut name)),
            other => name.push(other),
        }
    }
    names.push(name);
    names.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Where a server looks.
struct Search {
    libdir: PathBuf,
    path: Vec<PathBuf>,
    strips_libdir: bool,
}

impl Search {
    fn new(libdir: PathBuf, dynamic_library_path: &str, major: u16) -> Search {
        let directories = dynamic_library_path.split(':').filter(|item| !item.is_empty());
        let path = directories.map(|item| substitute(item, &libdir)).collect();
        Search { libdir, path, strips_libdir: major >= STRIPS_LIBDIR }
    }

    fn finds(&self, name: &str) -> bool {
        let plain = if self.strips_libdir { name.strip_prefix("$libdir/").unwrap_or(name) } else { name };
        let along_path =
            !plain.contains('/') && self.path.iter().any(|directory| is_library(&directory.join(plain)));
        along_path || (name.contains('/') && is_library(&substitute(name, &self.libdir)))
    }
}

fn substitute(path: &str, libdir: &Path) -> PathBuf {
    match path.strip_prefix("$libdir") {
        Some("") => libdir.to_owned(),
        Some(rest) if rest.starts_with('/') => libdir.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(path),
    }
}

fn is_library(path: &Path) -> bool {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    path.is_file() || SUFFIXES.into_iter().any(|suffix| with(suffix).is_file())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]
    use super::*;

    #[test]
    fn a_library_is_looked_for_where_the_server_looks() {
        let directory = tempfile::tempdir().unwrap();
        let (libdir, other) = (directory.path().join("lib"), directory.path().join("other"));
        for (place, name) in [(&libdir, "a.so"), (&other, "b.so"), (&libdir, "plugins/c.so")] {
            let path = place.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let path = format!("$libdir:{}", other.display());
        let (old, new) = (Search::new(libdir.clone(), &path, 17), Search::new(libdir.clone(), &path, 18));
        for found in ["a", "a.so", "$libdir/a", "$libdir/a.so", "b", "$libdir/plugins/c"] {
            assert!(old.finds(found) && new.finds(found), "{found}");
        }
        assert!(new.finds("$libdir/b") && !old.finds("$libdir/b"));
        for absent in ["c", "$libdir/c", "plugins/c", "$libdir", "d", "/nowhere/a"] {
            assert!(!old.finds(absent) && !new.finds(absent), "{absent}");
        }
        assert!(old.finds(other.join("b").to_str().unwrap()));
        assert!(!Search::new(libdir, "", 17).finds("a"));
        assert_eq!(as_loaded("local_preload_libraries", "c"), "$libdir/plugins/c");
        assert_eq!(as_loaded("session_preload_libraries", "c"), "c");
    }

    #[test]
    fn lists_are_split_as_the_server_splits_them() {
        assert_eq!(split_list(" a, \"b, c\" ,$libdir/d,,"), ["a", "b, c", "$libdir/d"]);
        assert_eq!(split_list("\"q\"\"r\""), ["q\"r"]);
        assert!(split_list("").is_empty());
    }

    #[test]
    fn a_missing_library_is_named_as_it_may_be_installed() {
        assert_eq!(package_like("$libdir/timescaledb-2.17.2"), "timescaledb-2.17.2");
        assert_eq!(package_like("/opt/x/auto_explain.so"), "auto_explain");
        assert_eq!(package_like("pg_cron"), "pg_cron");
    }

    fn database(name: &str, more: serde_json::Value) -> Database {
        let mut value = serde_json::json!({
            "oid": 5, "name": name, "encoding": "UTF8", "collate": "C", "ctype": "C", "locale_provider": "c",
            "collation_version": null, "examined": true, "collations": {},
            "extensions": [{"name": "plpgsql", "version": "1.0"}, {"name": "hstore", "version": "1.8"}],
        });
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    /// By the setting, the login or the database that names it; a copy that archives later needs its library then.
    #[test]
    fn what_is_missing_is_found_by_all_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("plpgsql.so"), "").unwrap();
        let postgres: PostgresInfo = serde_json::from_value(serde_json::json!({
            "major": 17, "version": "", "system_identifier": "1", "catalog_version": 1, "control_version": 1700,
            "block_bytes": 8192, "relation_segment_blocks": 131_072, "wal_segment_bytes": 16_777_216,
            "data_checksums": true, "settings": {
                "shared_preload_libraries": "plpgsql, pg_cron", "archive_library": "basic_archive",
                "session_preload_libraries": "auto_explain",
            },
            "login_preloads": [{"database": "app", "role": null, "setting": "local_preload_libraries", "value": "x"}],
        }))
        .unwrap();
        let library = |library: &str, extension: Option<&str>| serde_json::json!({"library": library, "extension": extension, "functions": 1});
        let libraries =
            [library("$libdir/plpgsql", Some("plpgsql")), library("$libdir/hstore", Some("hstore"))];
        let recorded = serde_json::json!({"libraries": libraries});
        let databases = [
            database("app", recorded.clone()),
            database("web", recorded),
            database("old", serde_json::json!({})),
        ];
        let missing = missing(&postgres, &databases, directory.path().to_owned());
        assert_eq!(missing.at_start, Some(("shared_preload_libraries".into(), "pg_cron".into())));
        assert_eq!(missing.archiving.as_deref(), Some("basic_archive"));
        let at_login = [
            ("session_preload_libraries".to_owned(), "auto_explain".to_owned()),
            ("local_preload_libraries in database app".to_owned(), "$libdir/plugins/x".to_owned()),
        ];
        assert_eq!(missing.at_login, at_login);
        let hstore = (
            ("$libdir/hstore".to_owned(), Some("hstore".to_owned())),
            vec!["app".to_owned(), "web".to_owned()],
        );
        assert_eq!(missing.functions, BTreeMap::from([hstore]));
        // A backup of before: what is not known is said, with what there is to go by.
        assert!(not_recorded(&databases).unwrap().ends_with("see that this host has hstore"));
        assert_eq!(not_recorded(&databases[..2]), None);
    }

    #[test]
    fn each_missing_library_is_one_sentence() {
        let databases: Vec<String> = (1..=7).map(|n| format!("db{n}")).collect();
        let missing = Missing {
            at_start: Some(("shared_preload_libraries".into(), "pg_cron".into())),
            archiving: None,
            at_login: vec![("session_preload_libraries of role x".into(), "auto_explain".into())],
            functions: BTreeMap::from([(("$libdir/hstore".into(), Some("hstore".into())), databases)]),
        };
        let said = missing.warnings(Path::new("/bin"));
        assert_eq!(said.len(), 3);
        assert!(said[0].contains("will not start without it: install pg_cron"), "{said:?}");
        assert!(said[1].contains("session_preload_libraries of role x names: logins"), "{said:?}");
        assert!(
            said[2].contains("extension hstore will fail in database db1, db2, db3, db4, db5 and 2 more"),
            "{said:?}"
        );
    }
}
