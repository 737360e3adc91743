//! How the text of a value becomes a value. An error says what would be right.

use std::path::PathBuf;
use std::time::Duration;

use highwater_archive::names::{ClusterName, ClusterNameError};
use highwater_archive::seal::Codec;
use highwater_archive::store::{Credentials, Encryption, UploadChecksum};

use super::resolve::RequiredRepositories;

/// Any text but the empty one.
pub fn text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// The name of a cluster, which is part of object names.
pub fn name(text: &str) -> Result<ClusterName, String> {
    text.parse().map_err(|error: ClusterNameError| error.to_string())
}

/// A path that does not depend on the current directory, which PostgreSQL sets to the data directory for its commands.
pub fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("must be an absolute path".to_owned()) }
}

/// `true` or `false`.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// A compression codec.
pub fn codec(text: &str) -> Result<Codec, String> {
    match text {
        "lz4" => Ok(Codec::Lz4),
        "zstd" => Ok(Codec::Zstd),
        "none" => Ok(Codec::None),
        _ => Err("must be lz4, zstd or none".to_owned()),
    }
}

/// A kind of credentials.
pub fn credentials(text: &str) -> Result<Credentials, String> {
    match text {
        "auto" => Ok(Credentials::Auto),
        "static" => Ok(Credentials::Static),
        "web_identity" => Ok(Credentials::WebIdentity),
        "container" => Ok(Credentials::Container),
        "instance" => Ok(Credentials::Instance),
        _ => Err("must be auto, static, web_identity, container or instance".to_owned()),
    }
}

/// How S3 encrypts.
pub fn encryption(text: &str) -> Result<Encryption, String> {
    match text {
        "sse-s3" => Ok(Encryption::SseS3),
        "sse-kms" => Ok(Encryption::SseKms),
        _ => Err("must be sse-s3 or sse-kms".to_owned()),
    }
}

/// What a put is held against by S3.
pub fn upload_checksum(text: &str) -> Result<UploadChecksum, String> {
    match text {
        "none" => Ok(UploadChecksum::None),
        "crc64nvme" => Ok(UploadChecksum::Crc64Nvme),
        "sha256" => Ok(UploadChecksum::Sha256),
        _ => Err("must be crc64nvme, sha256 or none".to_owned()),
    }
}

/// A proxy's URL, which must not carry a password into a file.
pub fn proxy(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|error| format!("must be http://host:port: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not carry a password; set HTTPS_PROXY in the environment instead".to_owned());
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must be http://host:port or https://host:port".to_owned());
    }
    Ok(text.to_owned())
}

/// `all`, or how many.
pub fn required(text: &str) -> Result<RequiredRepositories, String> {
    if text == "all" {
        return Ok(RequiredRepositories::All);
    }
    match text.parse() {
        Ok(count) if count > 0 => Ok(RequiredRepositories::AtLeast(count)),
        Ok(_) | Err(_) => Err("must be \"all\" or a number from 1".to_owned()),
    }
}

/// Units of time, longest first, with their length in milliseconds. PostgreSQL's own names are among them.
const TIME_UNITS: &[(&str, u64)] = &[
    ("min", 60_000),
    ("ms", 1),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
];

/// A whole number with a unit: `500ms`, `5s`, `15min`, `2h`, `14d`, `4w`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a number with a unit: ms, s, min, h, d or w".to_owned();
    let (unit, ms) = TIME_UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(wrong)?;
    let number = text.strip_suffix(unit).ok_or_else(wrong)?.trim_end();
    let count: u64 = number.parse().map_err(|_| wrong())?;
    if count == 0 {
        return Err("must be longer than nothing".to_owned());
    }
    count.checked_mul(*ms).map(Duration::from_millis).ok_or_else(|| "is too long".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_carries_no_password() {
        assert!(proxy("http://proxy:3128").is_ok());
        assert!(proxy("http://me:hush@proxy:3128").unwrap_err().contains("HTTPS_PROXY"));
        assert!(proxy("socks5://proxy:1080").is_err() && proxy("proxy").is_err());
    }

    #[test]
    fn durations_need_a_unit_and_read_each_of_them() {
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(duration("15min").unwrap(), Duration::from_secs(900));
        assert_eq!(duration("2 h").unwrap(), Duration::from_secs(7200));
        assert_eq!(duration("14d").unwrap(), Duration::from_secs(14 * 86_400));
        assert_eq!(duration("4w").unwrap(), Duration::from_secs(28 * 86_400));
        for wrong in ["", "5", "s", "-5s", "1.5h", "0s", "99999999999999999w", "5 parsecs"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
