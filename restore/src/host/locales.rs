//! Locales and time zones that the cluster names, and whether this host has them.
//!
//! Nobody can connect to a database whose `LC_COLLATE` or `LC_CTYPE` the C library does not know (`CheckMyDatabase` in
//! `postinit.c`), whatever sorts its text; and a server does not start with a locale or a time zone in its settings that it cannot
//! find. The server that will run the cluster is asked about each, in a trial.

use std::collections::BTreeMap;

use highwater_archive::manifest::{Database, PostgresInfo};

use super::trial::Trial;
use super::words::some_of;

/// Settings whose value is something that a host must have.
const SETTINGS: [&str; 6] =
    ["lc_messages", "lc_monetary", "lc_numeric", "lc_time", "TimeZone", "log_timezone"];

/// The setting by which a locale is tried: it takes any that the C library knows.
const ANY_LOCALE: &str = "lc_monetary";

/// How many locales are tried, each by a server that starts and ends.
const LOCALES_TRIED: usize = 50;

/// The settings of the original that a host may be unable to give a server.
pub fn settings(postgres: &PostgresInfo) -> Vec<(&str, &str)> {
    let set = |name: &'static str| postgres.settings.get(name).map(|value| (name, value.as_str()));
    SETTINGS.into_iter().filter_map(set).collect()
}

/// Locales of databases that are not on this host, each with its databases.
pub fn missing(trial: &Trial<'_>, databases: &[Database]) -> BTreeMap<String, Vec<String>> {
    let mut used = used(databases);
    for locale in used.keys().take(LOCALES_TRIED).cloned().collect::<Vec<String>>() {
        let (_, refused) = trial.judge(&[(ANY_LOCALE, &locale)]);
        if refused.is_empty() {
            used.remove(&locale);
        }
    }
    let tried = used.into_iter().take(LOCALES_TRIED);
    tried.collect()
}

/// Every locale with the databases that have it. What `C` and `POSIX` are needs no library.
fn used(databases: &[Database]) -> BTreeMap<String, Vec<String>> {
    let mut used: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for database in databases.iter().filter(|database| database.name != "template0") {
        for locale in [&database.collate, &database.ctype] {
            let databases = used.entry(locale.clone()).or_default();
            if !databases.contains(&database.name) {
                databases.push(database.name.clone());
            }
        }
    }
    used.retain(|locale, _| !["", "C", "POSIX"].contains(&locale.as_str()));
    used
}

/// What it means that a locale is not here, in a sentence.
pub fn warning(locale: &str, databases: &[String]) -> String {
    format!(
        "locale {locale} is not on this host: nobody can connect to database {} until it is (Debian and Ubuntu: locale-gen; \
         Fedora: the glibc-langpack of its language)",
        some_of(databases)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_locale_is_looked_for_once() {
        let database = |name: &str, collate: &str, ctype: &str| -> Database {
            serde_json::from_value(serde_json::json!({
                "oid": 5, "name": name, "encoding": "UTF8", "collate": collate, "ctype": ctype, "locale_provider": "c",
                "collation_version": null, "examined": true, "extensions": [], "collations": {},
            }))
            .unwrap()
        };
        let databases = [
            database("template0", "x", "x"),
            database("a", "de_DE", "de_DE"),
            database("b", "C", "de_DE"),
            database("c", "POSIX", "C"),
        ];
        assert_eq!(
            used(&databases),
            BTreeMap::from([("de_DE".to_owned(), vec!["a".to_owned(), "b".to_owned()])])
        );
        assert!(warning("de_DE", &["a".into(), "b".into()]).contains("connect to database a, b until"));
    }
}
