//! Moments as PostgreSQL writes them into WAL, and the reading of times that people type.
//!
//! A time without a zone is never guessed: on the worst night of the year the shell may run in UTC and the person may
//! think in local time. `parse_time` therefore refuses it, and its error carries the same time with the host's zone
//! filled in, ready to be pasted. The text is taken apart here, field by field, and only then handed to jiff: jiff's civil
//! parser would accept `…04:17:00+01` and silently drop the offset.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds from the Unix epoch to PostgreSQL's, 2000-01-01 00:00:00 UTC.
const POSTGRES_EPOCH_UNIX_SECONDS: i64 = 946_684_800;

/// A moment: microseconds since 2000-01-01 00:00:00 UTC, PostgreSQL's `TimestampTz`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PgTime(i64);

impl PgTime {
    /// From PostgreSQL's own count, as it stands in WAL records.
    pub const fn from_postgres_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 2000-01-01 00:00:00 UTC.
    pub const fn postgres_micros(self) -> i64 {
        self.0
    }

    /// From whole seconds since 1970, as `pg_control` and checkpoint records hold them (`pg_time_t`).
    /// `None` when the moment does not fit PostgreSQL's range.
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        seconds.checked_sub(POSTGRES_EPOCH_UNIX_SECONDS)?.checked_mul(1_000_000).map(Self)
    }

    /// The same moment for jiff, or `None` beyond the year 9999, where a damaged record may point.
    pub fn to_timestamp(self) -> Option<Timestamp> {
        let unix = POSTGRES_EPOCH_UNIX_SECONDS.checked_mul(1_000_000)?.checked_add(self.0)?;
        Timestamp::from_microsecond(unix).ok()
    }

    /// The microsecond that `timestamp` lies in: what is finer is cut off, never rounded up.
    pub fn from_timestamp(timestamp: Timestamp) -> Self {
        // jiff's range, the years −9999 to 9999, is well inside of 64 bits of microseconds.
        let unix = timestamp.as_nanosecond().div_euclid(1000);
        let micros = unix - i128::from(POSTGRES_EPOCH_UNIX_SECONDS) * 1_000_000;
        Self(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// As PostgreSQL reads it back exactly, for `recovery_target_time`: `2026-11-20 04:17:00.123456+00`.
    /// `None` where `to_timestamp` is.
    pub fn to_postgres_literal(self) -> Option<String> {
        Some(self.to_timestamp()?.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string())
    }
}

/// RFC 3339 in UTC with microseconds: `2026-11-20T04:17:00.123456Z`. Moments that no calendar here reaches are shown as a
/// count of microseconds from PostgreSQL's epoch.
impl fmt::Display for PgTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_timestamp() {
            Some(timestamp) => f.pad(&timestamp.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()),
            None => write!(f, "2000-01-01T00:00:00Z{:+}us", self.0),
        }
    }
}

/// Reads what `Display` writes; any RFC 3339 time is accepted.
impl FromStr for PgTime {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        if let Some(micros) =
            text.strip_prefix("2000-01-01T00:00:00Z").and_then(|rest| rest.strip_suffix("us"))
        {
            return micros
                .parse()
                .map(Self)
                .map_err(|_| TimeError::syntax(text, "the count of microseconds is not a number"));
        }
        parse_time(text, &TimeZone::UTC)
    }
}

impl Serialize for PgTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PgTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text is not one moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// The text is no time at all, or finer than a microsecond.
    #[error("`{text}` is not a time: {reason}")]
    Syntax {
        /// What was given.
        text: String,
        /// Which part does not fit.
        reason: String,
    },
    /// A date and a time of day, but no zone: it names a different moment on every host.
    #[error("the time `{text}` has no time zone")]
    NoZone {
        /// What was given.
        text: String,
        /// What it is in the host's zone.
        here: Reading,
    },
    /// The zone is not in this host's time zone database.
    #[error("the time zone `{zone}` of `{text}` is not known on this host")]
    UnknownZone {
        /// What was given.
        text: String,
        /// The name that was looked up.
        zone: String,
    },
    /// The clocks were set back over this time: it happened twice.
    #[error("`{text}` happened twice: clocks were set back over it")]
    Ambiguous {
        /// What was given.
        text: String,
        /// Both moments, with their offsets.
        candidates: [String; 2],
    },
    /// The clocks were set forward over this time: it never happened.
    #[error("`{text}` never happened: clocks were set forward over it")]
    Nonexistent {
        /// What was given.
        text: String,
        /// As far before the change, and after it, as it seems to lie within.
        candidates: [String; 2],
    },
    /// An offset and a zone that contradict each other.
    #[error("`{text}` contradicts itself: in that zone the offset was {actual} at that time")]
    OffsetConflict {
        /// What was given.
        text: String,
        /// The offset of the zone at that moment.
        actual: String,
    },
}

/// A civil time as a zone knows it, each moment in a form that is read back as that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// One moment.
    Once(String),
    /// Clocks were set back over it: both moments.
    Twice([String; 2]),
    /// Clocks were set forward over it: what it would be if they had been set forward later, and sooner.
    Never([String; 2]),
}

impl TimeError {
    fn syntax(text: &str, reason: impl Into<String>) -> Self {
        Self::Syntax { text: text.to_owned(), reason: reason.into() }
    }

    /// What to type instead.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Syntax { .. } => {
                Some("write it as 2026-11-20T04:17:00Z, '2026-11-20 04:17:00+01' or '2026-11-20 04:17:00[Europe/Berlin]'".to_owned())
            }
            Self::NoZone { here: Reading::Once(one), .. } => {
                Some(format!("in this host's zone it would be '{one}'"))
            }
            Self::NoZone { here: Reading::Twice([first, second]), .. } => {
                Some(format!("in this host's zone clocks were set back over it: it would be '{first}' or, later, '{second}'"))
            }
            Self::NoZone { here: Reading::Never([before, after]), .. } => Some(format!(
                "in this host's zone clocks were set forward over it: '{before}' is before that, '{after}' after it"
            )),
            Self::UnknownZone { .. } => Some("use an offset such as Z, +01:00 or -0530 instead".to_owned()),
            Self::Ambiguous { candidates: [first, second], .. } => Some(format!("choose one: '{first}' or '{second}'")),
            Self::Nonexistent { candidates: [before, after], .. } => {
                Some(format!("choose '{before}', before that, or '{after}', after it"))
            }
            Self::OffsetConflict { .. } => Some("leave out the offset or the zone, whichever is wrong".to_owned()),
        }
    }
}

/// Reads a moment: RFC 3339, or `YYYY-MM-DD HH:MM[:SS[.ffffff]]` followed by `Z`, `UTC`, `±hh`, `±hhmm`, `±hh:mm`,
/// `[Zone/Name]` or an offset and a zone that agree.
///
/// # Errors
///
/// Any other text, a time finer than a microsecond, a time without a zone (the hint has it with `host_zone` filled in), a
/// zone this host does not know, and local times that a change of the clocks doubled or skipped.
pub fn parse_time(text: &str, host_zone: &TimeZone) -> Result<PgTime, TimeError> {
    let parts = split(text)?;
    let timestamp = match (parts.offset, &parts.zone) {
        (None, None) => {
            return Err(TimeError::NoZone {
                text: text.to_owned(),
                here: reading(parts.civil, host_zone).map_err(|reason| TimeError::syntax(text, reason))?,
            });
        }
        (Some(offset), None) => at_offset(text, parts.civil, offset)?,
        (offset, Some(name)) => {
            let zone = TimeZone::get(name)
                .map_err(|_| TimeError::UnknownZone { text: text.to_owned(), zone: name.clone() })?;
            match offset {
                Some(offset) => {
                    let timestamp = at_offset(text, parts.civil, offset)?;
                    let actual = zone.to_offset(timestamp);
                    if actual != offset {
                        return Err(TimeError::OffsetConflict {
                            text: text.to_owned(),
                            actual: show_offset(actual),
                        });
                    }
                    timestamp
                }
                None => in_zone(text, parts.civil, &zone)?,
            }
        }
    };
    Ok(PgTime::from_timestamp(timestamp))
}

struct Parts {
    civil: DateTime,
    offset: Option<Offset>,
    zone: Option<String>,
}

/// Takes the text apart without giving anything to a parser that may overlook a part of it.
fn split(text: &str) -> Result<Parts, TimeError> {
    let trimmed = text.trim();
    let (rest, zone) = match trimmed.strip_suffix(']') {
        Some(open) => {
            let (before, name) =
                open.split_once('[').ok_or_else(|| TimeError::syntax(text, "`]` without `[`"))?;
            if name.is_empty() || name.starts_with(['+', '-', '!']) || name.contains(['[', ']', '=']) {
                return Err(TimeError::syntax(text, format!("`[{name}]` is not the name of a zone")));
            }
            (before.trim_end(), Some(name.to_owned()))
        }
        None => (trimmed, None),
    };

    let mut cursor = Cursor { text, rest };
    let year = cursor.digits(4, "the year has four digits")?;
    cursor.expect('-')?;
    let month = cursor.digits(2, "the month has two digits")?;
    cursor.expect('-')?;
    let day = cursor.digits(2, "the day has two digits")?;
    if cursor.rest.is_empty() {
        return Err(TimeError::syntax(text, "the time of day is missing"));
    }
    if !(cursor.accept('T') || cursor.accept('t') || cursor.accept(' ')) {
        return Err(TimeError::syntax(text, "after the date comes `T` or one space, and the time of day"));
    }
    let hour = cursor.digits(2, "the hour has two digits")?;
    cursor.expect(':')?;
    let minute = cursor.digits(2, "the minute has two digits")?;
    let (second, nanos) = if cursor.accept(':') {
        let second = cursor.digits(2, "the second has two digits")?;
        let nanos = if cursor.accept('.') { cursor.fraction()? } else { 0 };
        (second, nanos)
    } else {
        (0, 0)
    };
    let narrow = |value: u32| i8::try_from(value).unwrap_or(i8::MAX);
    let civil = DateTime::new(
        i16::try_from(year).unwrap_or(i16::MAX),
        narrow(month),
        narrow(day),
        narrow(hour),
        narrow(minute),
        narrow(second),
        nanos,
    )
    .map_err(|error| TimeError::syntax(text, error.to_string()))?;

    cursor.rest = cursor.rest.trim_start();
    let offset = match cursor.rest {
        "" => None,
        "Z" | "z" => Some(Offset::UTC),
        word if word.eq_ignore_ascii_case("UTC") || word.eq_ignore_ascii_case("GMT") => Some(Offset::UTC),
        _ => Some(cursor.offset()?),
    };
    Ok(Parts { civil, offset, zone })
}

struct Cursor<'a> {
    /// The whole input, for messages.
    text: &'a str,
    rest: &'a str,
}

impl Cursor<'_> {
    fn accept(&mut self, wanted: char) -> bool {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), TimeError> {
        if self.accept(wanted) {
            return Ok(());
        }
        Err(TimeError::syntax(self.text, format!("`{wanted}` is missing before `{}`", self.rest)))
    }

    /// Exactly `count` decimal digits.
    fn digits(&mut self, count: usize, otherwise: &str) -> Result<u32, TimeError> {
        let digits = self.rest.get(..count).filter(|head| head.bytes().all(|byte| byte.is_ascii_digit()));
        let value = digits.and_then(|digits| digits.parse().ok());
        let (Some(value), Some(rest)) = (value, self.rest.get(count..)) else {
            return Err(TimeError::syntax(self.text, otherwise));
        };
        self.rest = rest;
        Ok(value)
    }

    /// The digits after the point, as nanoseconds. Digits beyond the sixth must be zeros: PostgreSQL knows microseconds,
    /// and cutting or rounding would name another moment than the one given.
    fn fraction(&mut self) -> Result<i32, TimeError> {
        let end = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        if digits.is_empty() {
            return Err(TimeError::syntax(self.text, "digits are missing after the point"));
        }
        self.rest = rest;
        let (micros, finer) = digits.split_at_checked(6).unwrap_or((digits, ""));
        if finer.bytes().any(|digit| digit != b'0') {
            return Err(TimeError::syntax(
                self.text,
                "PostgreSQL's times are no finer than a microsecond, six digits",
            ));
        }
        let padded = format!("{micros:0<6}000");
        padded.parse().map_err(|_| TimeError::syntax(self.text, "the fraction is not a number"))
    }

    /// `±hh`, `±hhmm`, `±hh:mm` or `±hh:mm:ss`, and then nothing.
    fn offset(&mut self) -> Result<Offset, TimeError> {
        let sign = if self.accept('+') {
            1
        } else if self.accept('-') {
            -1
        } else {
            return Err(TimeError::syntax(
                self.text,
                format!("`{}` is not a zone; abbreviations such as CET stand for several", self.rest),
            ));
        };
        let hours = self.digits(2, "the hours of the offset have two digits")?;
        let mut seconds = hours * 3600;
        if !self.rest.is_empty() {
            let colon = self.accept(':');
            let minutes = self.digits(2, "the minutes of the offset have two digits")?;
            let mut last = 0;
            if colon && self.accept(':') {
                last = self.digits(2, "the seconds of the offset have two digits")?;
            }
            if minutes > 59 || last > 59 {
                return Err(TimeError::syntax(self.text, "an offset's minutes and seconds are below 60"));
            }
            seconds += minutes * 60 + last;
        }
        if !self.rest.is_empty() {
            return Err(TimeError::syntax(
                self.text,
                format!("`{}` is left over after the offset", self.rest),
            ));
        }
        let too_large = || TimeError::syntax(self.text, "the offset is too large");
        // PostgreSQL's own limit: MAX_TZDISP_HOUR in `include/datatype/timestamp.h`.
        if hours > 15 {
            return Err(too_large());
        }
        Offset::from_seconds(sign * i32::try_from(seconds).map_err(|_| too_large())?).map_err(|_| too_large())
    }
}

fn at_offset(text: &str, civil: DateTime, offset: Offset) -> Result<Timestamp, TimeError> {
    offset.to_timestamp(civil).map_err(|error| TimeError::syntax(text, error.to_string()))
}

fn in_zone(text: &str, civil: DateTime, zone: &TimeZone) -> Result<Timestamp, TimeError> {
    let text = || text.to_owned();
    match reading(civil, zone).map_err(|reason| TimeError::syntax(&text(), reason))? {
        Reading::Twice(candidates) => Err(TimeError::Ambiguous { text: text(), candidates }),
        Reading::Never(candidates) => Err(TimeError::Nonexistent { text: text(), candidates }),
        Reading::Once(_) => {
            let moment = zone.to_ambiguous_timestamp(civil).unambiguous();
            moment.map_err(|error| TimeError::syntax(&text(), error.to_string()))
        }
    }
}

/// What a civil time is in a zone. The error is for a time at the end of the calendar.
fn reading(civil: DateTime, zone: &TimeZone) -> Result<Reading, String> {
    Ok(match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => Reading::Once(show_with_offset(civil, offset, zone)),
        AmbiguousOffset::Fold { before, after } => {
            Reading::Twice([before, after].map(|offset| show_with_offset(civil, offset, zone)))
        }
        // With the offset from after the change it lies before it, and the other way round.
        AmbiguousOffset::Gap { before, after } => {
            let moment = |offset: Offset| -> Result<String, String> {
                let moment = offset.to_timestamp(civil).map_err(|error| error.to_string())?;
                let actual = zone.to_offset(moment);
                Ok(show_with_offset(actual.to_datetime(moment), actual, zone))
            };
            Reading::Never([moment(after)?, moment(before)?])
        }
    })
}

fn show_with_offset(civil: DateTime, offset: Offset, zone: &TimeZone) -> String {
    let date_time = format!("{} {}", civil.date(), civil.time());
    if *zone == TimeZone::UTC {
        return format!("{date_time}Z");
    }
    // A host whose zone is not known counts in UTC.
    let name = zone.iana_name().filter(|_| !zone.is_unknown());
    let name = name.map(|name| format!("[{name}]")).unwrap_or_default();
    format!("{date_time}{}{name}", show_offset(offset))
}

fn show_offset(offset: Offset) -> String {
    let seconds = SignedDuration::from_secs(i64::from(offset.seconds())).unsigned_abs().as_secs();
    let sign = if offset.is_negative() { '-' } else { '+' };
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match rest {
        0 => format!("{sign}{hours:02}:{minutes:02}"),
        _ => format!("{sign}{hours:02}:{minutes:02}:{rest:02}"),
    }
}

#[cfg(test)]
#[path = "time_tests.rs"]
mod tests;
