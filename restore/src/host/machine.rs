//! The machine the cluster comes from, beside this one.
//!
//! The server's own look at `pg_control` covers byte order, alignment and floats. It does not cover two things that decide what is in an
//! index: whether `char` is signed (x86 says yes, ARM says no; 18 and on keep in `pg_control` what the cluster began with), and
//! whose C library sorts. Both are in what `version()` said, as in `PostgreSQL 17.5 on x86_64-pc-linux-gnu, compiled by …`.

use highwater_archive::manifest::PostgresInfo;

/// The first major that keeps the signedness of `char` in `pg_control`.
const KEEPS_SIGNEDNESS: u16 = 18;

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// Another processor, and what that means.
    pub warning: Option<String>,
    /// The original ran on a system with another C library altogether, by its name.
    pub other_system: Option<String>,
}

/// Holds the original's machine against this one.
pub fn compare(original: &PostgresInfo) -> Compared {
    let Some((processor, system)) = platform(&original.version) else { return Compared::default() };
    let this = this_processor();
    let other_processor = processor != this && original.major < KEEPS_SIGNEDNESS;
    let other_sign = signed_char(processor, system) != signed_char(this, this_system());
    let warning = (other_processor && other_sign).then(|| {
        format!(
            "the cluster comes from a machine of type {processor} and this one is {this}: `char` has a sign on one of them \
             only, and indexes of pg_trgm and others that store it may miss rows until they are rebuilt: REINDEX"
        )
    });
    let other_system = (!same_system(system)).then(|| system.to_owned());
    Compared { warning, other_system }
}

/// Processor and system in `version()`.
fn platform(version: &str) -> Option<(&str, &str)> {
    let (_, rest) = version.split_once(" on ")?;
    let triplet = rest.split([',', ' ']).next()?;
    let (processor, rest) = triplet.split_once('-')?;
    // `pc`, `unknown` and the like say nothing, and Meson's builds leave them out.
    let vendor = rest.split_once('-').filter(|(vendor, _)| {
        !["linux", "darwin", "freebsd", "openbsd", "netbsd"].iter().any(|system| vendor.starts_with(system))
    });
    Some((processor, vendor.map_or(rest, |(_, system)| system)))
}

/// This machine's processor, as configure's `config.guess` calls it.
fn this_processor() -> &'static str {
    match std::env::consts::ARCH {
        "powerpc64" => "powerpc64le",
        other => other,
    }
}

/// Whether C's `char` has a sign there. Apple gives it one on ARM too.
fn signed_char(processor: &str, system: &str) -> bool {
    let unsigned = ["aarch64", "arm", "powerpc", "ppc", "s390", "riscv"];
    system.starts_with("darwin") || !unsigned.iter().any(|family| processor.starts_with(family))
}

fn this_system() -> &'static str {
    if cfg!(target_os = "macos") { "darwin" } else { std::env::consts::OS }
}

/// Whether the C library of `system`, as in `linux-gnu`, may be this host's. What is not said is not held against it.
fn same_system(system: &str) -> bool {
    let musl_here = std::fs::metadata("/etc/alpine-release").is_ok();
    match std::env::consts::OS {
        "linux" => system.starts_with("linux") && (system == "linux" || system.contains("musl") == musl_here),
        _ => system.starts_with(this_system()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_from_what_version_says() {
        let of = |text: &str| {
            platform(&format!("PostgreSQL 17.5 {text}")).map(|(a, b)| (a.to_owned(), b.to_owned()))
        };
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        let debian = "(Debian 17.5-1) on x86_64-pc-linux-gnu, compiled by gcc 12, 64-bit";
        assert_eq!(of(debian), pair("x86_64", "linux-gnu"));
        assert_eq!(of("on aarch64-unknown-linux-musl, compiled"), pair("aarch64", "linux-musl"));
        assert_eq!(of("on x86_64-linux, compiled by gcc-12"), pair("x86_64", "linux"));
        assert_eq!(of("on aarch64-apple-darwin23.6.0, compiled"), pair("aarch64", "darwin23.6.0"));
        assert_eq!(of("on x86_64-portbld-freebsd14.1, compiled"), pair("x86_64", "freebsd14.1"));
        assert_eq!(of(""), None);
    }

    /// A processor of the other kind is a warning before 18, and none after.
    #[test]
    fn another_processor_is_a_warning_where_it_matters() {
        let original = |major: u16, processor: &str| -> PostgresInfo {
            serde_json::from_value(serde_json::json!({
                "major": major, "version": format!("PostgreSQL on {processor}-pc-{}-gnu, compiled", this_system()),
                "system_identifier": "1", "catalog_version": 1, "control_version": 1700, "block_bytes": 8192,
                "relation_segment_blocks": 131_072, "wal_segment_bytes": 16_777_216, "data_checksums": true, "settings": {},
            }))
            .unwrap()
        };
        let (this, other) =
            (this_processor(), if this_processor() == "x86_64" { "aarch64" } else { "x86_64" });
        assert_eq!(compare(&original(17, this)).warning, None);
        assert_eq!(compare(&original(18, other)).warning, None);
        if signed_char(this, this_system()) != signed_char(other, this_system()) {
            assert!(compare(&original(17, other)).warning.unwrap().contains(other));
        }
    }

    #[test]
    fn the_sign_of_char_is_said_where_the_server_does_not_keep_it() {
        assert!(signed_char("x86_64", "linux-gnu") && signed_char("aarch64", "darwin23"));
        assert!(!signed_char("aarch64", "linux-gnu") && !signed_char("powerpc64le", "linux"));
    }
}
