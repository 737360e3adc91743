//! The PostgreSQL installations of this machine. Looked for in this order, the first of a major wins: the directory that
//! `tests/postgresql/install` fills, Debian's and Fedora's places, the search path.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::user::command_as_server_user;

/// The majors that Highwater supports.
pub const MAJORS: [u32; 5] = [14, 15, 16, 17, 18];

/// One installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// 14 to 18.
    pub major: u32,
    /// The directory of `postgres`, `initdb` and the rest.
    pub bin: PathBuf,
}

impl Postgres {
    /// A command that runs one of its programs as the server user.
    pub fn command(&self, program: &str) -> Command {
        command_as_server_user(self.bin.join(program))
    }

    /// Runs one of its programs to the end and gives its standard output; fails the test where it fails.
    pub fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> String {
        let output = self.command(program).args(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("{program} of PostgreSQL {}: {error}", self.major));
        assert!(
            output.status.success(),
            "{program} of PostgreSQL {} failed ({}):\n{}{}",
            self.major,
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// All installations, oldest major first, narrowed by `HIGHWATER_POSTGRES_MAJORS`. Fails the test if there is none.
pub fn installed() -> &'static [Postgres] {
    static FOUND: OnceLock<Vec<Postgres>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let mut by_major = BTreeMap::new();
        for bin in places().into_iter().filter(|bin| bin.join("initdb").exists()) {
            if let Some(major) = major_of(&bin) {
                by_major.entry(major).or_insert(Postgres { major, bin });
            }
        }
        let wanted = wanted(std::env::var("HIGHWATER_POSTGRES_MAJORS").ok().as_deref());
        by_major.into_values().filter(|found| wanted.contains(&found.major)).collect()
    });
    assert!(!found.is_empty(), "no PostgreSQL 14 to 18 on this machine; `./dev setup` installs them");
    found
}

/// The newest installation.
pub fn newest() -> &'static Postgres {
    installed().last().unwrap()
}

/// The oldest installation.
pub fn oldest() -> &'static Postgres {
    &installed()[0]
}

fn wanted(majors: Option<&str>) -> Vec<u32> {
    match majors {
        Some(text) => {
            text.split(',').map(|major| major.trim().parse().expect("HIGHWATER_POSTGRES_MAJORS")).collect()
        }
        None => MAJORS.to_vec(),
    }
}

fn places() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> =
        std::env::var_os("HIGHWATER_POSTGRES_DIR").map(PathBuf::from).into_iter().collect();
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    roots.extend(cache.map(|cache| cache.join("highwater/postgresql")));
    roots.push("/var/cache/highwater/postgresql".into());
    roots.push("/usr/lib/postgresql".into());
    let by_root = roots.iter().flat_map(|root| MAJORS.map(|major| root.join(major.to_string()).join("bin")));
    let fedora = MAJORS.map(|major| PathBuf::from(format!("/usr/pgsql-{major}/bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    by_root.chain(fedora).chain(std::env::split_paths(&path)).collect()
}

/// The major of the installation in `bin`, asked as the server user, who must be able to run it. None if it is no supported one.
fn major_of(bin: &Path) -> Option<u32> {
    let output = command_as_server_user(bin.join("postgres")).arg("--version").output().ok()?;
    major_in(&String::from_utf8_lossy(&output.stdout)).filter(|major| MAJORS.contains(major))
}

fn major_in(version: &str) -> Option<u32> {
    version.strip_prefix("postgres (PostgreSQL) ")?.split(['.', ' ', '\n']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_is_read_from_what_postgres_says() {
        assert_eq!(major_in("postgres (PostgreSQL) 15.12 (Debian 15.12-0+deb12u2)\n"), Some(15));
        assert_eq!(major_in("postgres (PostgreSQL) 18.6\n"), Some(18));
        assert_eq!(major_in("postgres (PostgreSQL) 19rc1\n"), None);
    }

    #[test]
    fn majors_can_be_narrowed() {
        assert_eq!(wanted(Some("14, 18")), [14, 18]);
        assert_eq!(wanted(None), MAJORS);
    }
}
