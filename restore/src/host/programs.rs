//! What an installation of PostgreSQL and the libraries it is linked to say of themselves, without a server that runs.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::sorting::Icu;
use crate::server::Installation;

/// What every server of 14 to 18 has among its libraries, however it is packaged.
const ALWAYS_THERE: &str = "dict_snowball";

/// What a program that sorts with ICU names as a library that it needs; the version follows.
const ICU_LIBRARY: &[u8] = b"libicui18n.";

/// How much of a program is read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// The suffixes of shared libraries: Linux and the BSDs, and macOS (16 and on; before it was `.so` there too).
pub const SUFFIXES: [&str; 2] = [".so", ".dylib"];

/// `$libdir`: asked of `pg_config`, else looked for where packagers put it beside the programs.
pub fn library_directory(installation: &Installation) -> Option<PathBuf> {
    let asked = || {
        let mut command = installation.command("pg_config", None);
        let output = command.arg("--pkglibdir").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(PathBuf::from(text.trim())).filter(|_| output.status.success())
    };
    let bin = installation.bin();
    // The source's default and Debian; a prefix that is not PostgreSQL's own; Fedora.
    let beside = ["../lib", "../lib/postgresql", "../lib64/pgsql", "../lib/pgsql"].map(|path| bin.join(path));
    asked().into_iter().chain(beside).find(|directory| {
        SUFFIXES.iter().any(|suffix| directory.join(format!("{ALWAYS_THERE}{suffix}")).is_file())
    })
}

/// The version of this host's C library, as a server here would tell it; `None` where it is not glibc.
pub fn libc_here() -> Option<String> {
    let said = |program: &str, argument: &str| {
        let mut command = Command::new(program);
        let output = command.arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    };
    let getconf = said("getconf", "GNU_LIBC_VERSION").and_then(|text| glibc_of(&text));
    getconf.or_else(|| {
        said("ldd", "--version").filter(|text| text.starts_with("ldd (")).and_then(|text| glibc_of(&text))
    })
}

/// The version at the end of the first line: `glibc 2.36`, `ldd (Debian GLIBC 2.36-9+deb12u10) 2.36`.
fn glibc_of(text: &str) -> Option<String> {
    let last = text.lines().next()?.split_whitespace().last()?;
    let version = last.starts_with(|c: char| c.is_ascii_digit())
        && last.chars().all(|c| c.is_ascii_digit() || c == '.');
    version.then(|| last.to_owned())
}

/// The ICU that a server here would sort with.
pub fn icu_of_server(installation: &Installation) -> Icu {
    match icu_of(&installation.bin().join("postgres")) {
        Ok(Some(version)) => Icu::Version(version),
        Ok(None) => Icu::None,
        Err(_) => Icu::Unknown,
    }
}

/// The major version of the ICU that a program is linked to; `None` where it is linked to none.
///
/// # Errors
/// The program cannot be read.
pub fn icu_of(program: &Path) -> io::Result<Option<u16>> {
    let mut file = File::open(program)?;
    let mut window = Vec::new();
    loop {
        let read = file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut window)?;
        if let Some(version) = icu_in(&window) {
            return Ok(Some(version));
        }
        if read == 0 {
            return Ok(None);
        }
        // A name may lie across the seam.
        window.drain(..window.len().saturating_sub(2 * ICU_LIBRARY.len()));
    }
}

/// The version in `libicui18n.so.72` or `libicui18n.72.dylib`.
fn icu_in(bytes: &[u8]) -> Option<u16> {
    bytes.windows(ICU_LIBRARY.len()).enumerate().filter(|(_, part)| *part == ICU_LIBRARY).find_map(
        |(at, _)| {
            let rest = bytes.get(at + ICU_LIBRARY.len()..)?;
            let rest = rest.strip_prefix(b"so.").unwrap_or(rest);
            let digits: Vec<u8> = rest.iter().copied().take_while(u8::is_ascii_digit).collect();
            // The end of what was read may be the middle of the number.
            rest.get(digits.len())?;
            String::from_utf8(digits).ok()?.parse().ok()
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]
    use super::*;

    #[test]
    fn the_version_of_the_c_library_is_what_a_server_tells() {
        assert_eq!(glibc_of("glibc 2.36\n").as_deref(), Some("2.36"));
        assert_eq!(glibc_of("ldd (Debian GLIBC 2.36-9+deb12u10) 2.36\nCopyright").as_deref(), Some("2.36"));
        assert_eq!(glibc_of("undefined\n"), None);
        assert_eq!(glibc_of(""), None);
    }

    /// libxml2 brings ICU's other library into servers that do not sort with it.
    #[test]
    fn the_icu_of_a_program_is_found_wherever_it_stands() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("postgres");
        let of = |at: usize, name: &str| {
            let mut bytes = vec![0; at];
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&[0; 100]);
            std::fs::write(&program, bytes).unwrap();
            icu_of(&program).unwrap()
        };
        for at in CHUNK_BYTES - 20..CHUNK_BYTES + 2 {
            assert_eq!(of(at, "libicui18n.so.72"), Some(72), "{at}");
        }
        assert_eq!(of(7, "libicui18n.74.dylib"), Some(74));
        assert_eq!(of(7, "libicuuc.so.72"), None);
        assert_eq!(of(7, "libicui18n.so"), None);
        assert!(icu_of(&directory.path().join("absent")).is_err());
    }
}
