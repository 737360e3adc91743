//! Variables that seem to be meant for us and are not read: an option's name with one underscore where two belong, or in small letters.
//!
//! They are no error, since Kubernetes injects `HIGHWATER_…` for a Service of that name; but none of those ends like an option does.

use super::options;
use super::raw::{PREFIX, environment_name, repository_name};

/// A sentence for each such variable of this process.
pub fn overlooked() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let sentence = |name: String| {
        let key = meant(&name)?;
        Some(format!("the variable {name} is not read: did you mean {}?", environment_name(&key)))
    };
    names.filter_map(sentence).collect()
}

/// The option that a variable is named like when all underscores and letters are alike.
fn meant(variable: &str) -> Option<String> {
    if variable.starts_with(PREFIX) {
        return None;
    }
    let spelled = plain(variable);
    let below = spelled.strip_prefix("highwater_")?;
    let mut keys = options::ALL.iter().map(|option| option.spec().key);
    if let Some(key) = keys.clone().find(|key| plain(key) == below) {
        return Some(key.to_owned());
    }
    // Of two options that it ends like, such as `key_file` and `secret_access_key_file`, the one that leaves the shorter name.
    let named = keys.by_ref().filter_map(|key| Some((repository(key, below)?, key)));
    let (name, key) = named.min_by_key(|(name, _)| name.len())?;
    Some(key.replace('*', name))
}

/// What stands for the `*` of a key.
fn repository<'n>(key: &str, below: &'n str) -> Option<&'n str> {
    let (before, after) = key.split_once('*')?;
    let name = below.strip_prefix(&plain(before))?.strip_suffix(&plain(after))?;
    let name = name.strip_prefix('_')?.strip_suffix('_')?;
    repository_name(name).then_some(name)
}

fn plain(name: &str) -> String {
    let words: Vec<&str> = name.split(['_', '.']).filter(|word| !word.is_empty()).collect();
    words.join("_").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_an_option_but_for_underscores_is_told() {
        for (variable, key) in [
            ("HIGHWATER_CLUSTER_NAME", Some("cluster.name")),
            ("HIGHWATER_CLUSTER_DATA_DIR", Some("cluster.data_dir")),
            ("highwater__cluster__name", Some("cluster.name")),
            ("HIGHWATER_REPOSITORY_PRIMARY_URL", Some("repository.primary.url")),
            ("HIGHWATER_REPOSITORY__PRIMARY__KEY_FILE", Some("repository.primary.key_file")),
            ("HIGHWATER_REPOSITORY_S3_SECRET_ACCESS_KEY_FILE", Some("repository.s3.secret_access_key_file")),
            ("HIGHWATER_REPOSITORY_URL", None),
            // The real ones are looked at where they are read.
            ("HIGHWATER__CLUSTER__NAMES", None),
            // What Kubernetes injects, and what tests are told.
            ("HIGHWATER_SERVICE_HOST", None),
            ("HIGHWATER_PORT_9735_TCP_ADDR", None),
            ("HIGHWATER_REPOSITORY_PRIMARY_SERVICE_PORT", None),
            ("HIGHWATER_BIN", None),
        ] {
            assert_eq!(meant(variable).as_deref(), key, "{variable}");
        }
    }
}
