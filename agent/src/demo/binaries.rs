//! Finding PostgreSQL's programs on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::report;

/// An installation of the server.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// Its bin directory.
    pub bin: PathBuf,
    /// Its major version.
    pub major: u32,
    /// A directory of libraries that the programs need and the system does not know.
    pub libraries: Option<PathBuf>,
}

/// The majors that are supported, newest first.
const MAJORS: [u32; 5] = [18, 17, 16, 15, 14];

impl Binaries {
    /// The newest supported installation, or the one in `chosen`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn find(chosen: Option<&Path>) -> anyhow::Result<Self> {
        let candidates = match chosen {
            Some(bin) => vec![bin.to_path_buf()],
            None => candidates(),
        };
        let mut found: Vec<Self> = candidates.iter().filter_map(|bin| Self::look_at(bin)).collect();
        found.sort_by_key(|binaries| binaries.major);
        found.pop().ok_or_else(|| {
            report::failed(
                "no PostgreSQL server, 14 to 18, was found on this machine",
                "install one (Debian and Ubuntu: apt install postgresql; Fedora: dnf install postgresql-server), \
                 or name its bin directory with --postgres-bin",
            )
        })
    }

    /// A program of the installation, with the libraries it needs.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// What lies in a bin directory, if it is a whole installation of a supported major.
    fn look_at(bin: &Path) -> Option<Self> {
        let whole = ["postgres", "initdb", "pg_ctl"].iter().all(|program| bin.join(program).is_file());
        if !whole {
            return None;
        }
        let beside = bin.parent()?.join("lib");
        let libraries = beside.join("libpq.so.5").exists().then_some(beside);
        let mut binaries = Self { bin: bin.to_path_buf(), major: 0, libraries };
        let output = binaries.command("postgres").arg("--version").output().ok()?;
        binaries.major = major_of(&String::from_utf8_lossy(&output.stdout))?;
        MAJORS.contains(&binaries.major).then_some(binaries)
    }
}

/// The places where packages and people put servers.
fn candidates() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = Vec::new();
    for major in MAJORS {
        places.push(format!("/usr/lib/postgresql/{major}/bin").into());
        places.push(format!("/usr/pgsql-{major}/bin").into());
        places.push(format!("/var/cache/highwater/postgresql/{major}/bin").into());
        if let Some(home) = std::env::home_dir() {
            places.push(home.join(format!(".cache/highwater/postgresql/{major}/bin")));
        }
    }
    places.push("/usr/local/pgsql/bin".into());
    places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    places
}

/// `postgres (PostgreSQL) 17.6 (Debian …)` → 17.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().nth(2)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_read_as_packages_print_them() {
        assert_eq!(super::major_of("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"), Some(15));
        assert_eq!(super::major_of("postgres (PostgreSQL) 19rc1"), Some(19));
        assert_eq!(super::major_of("something else"), None);
    }
}
