//! Everything random in a test comes from one seed. A failure prints it; `HIGHWATER_SEED` replays it.

use std::io::{Read, Write as _};
use std::ops::Range;

/// How much a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// A seeded sample, for every change.
    Ci,
    /// All of it, for hours.
    Soak,
}

impl Scale {
    /// `ci` or `soak`, as this scale asks.
    pub fn pick<T>(self, ci: T, soak: T) -> T {
        match self {
            Self::Ci => ci,
            Self::Soak => soak,
        }
    }
}

/// The scale of this run: `HIGHWATER_SCALE`, `ci` unless set.
pub fn scale() -> Scale {
    match std::env::var("HIGHWATER_SCALE").as_deref() {
        Err(_) | Ok("ci") => Scale::Ci,
        Ok("soak") => Scale::Soak,
        Ok(other) => panic!("HIGHWATER_SCALE is ci or soak, not {other}"),
    }
}

/// What a campaign comes to, in a line: a test tells it when it has passed. `./dev soak` names the file that collects them in
/// `HIGHWATER_CAMPAIGNS`, for `docs/reliability.md`.
pub fn tell_campaign(line: &str) {
    let Some(path) = std::env::var_os("HIGHWATER_CAMPAIGNS") else { return };
    let mut file =
        std::fs::File::options().append(true).create(true).open(path).expect("the campaigns' file");
    let test =
        std::thread::current().name().unwrap_or("unnamed").rsplit("::").next().unwrap_or_default().to_owned();
    file.write_all(format!("- `{test}()`: {line}\n").as_bytes()).expect("a line of it");
}

/// A stream of random numbers (SplitMix64) from one seed. Dropped by a panic it prints the seed.
#[derive(Debug)]
pub struct Seed {
    seed: u64,
    state: u64,
}

impl Seed {
    /// The seed in `HIGHWATER_SEED`, or a fresh one.
    pub fn from_environment() -> Self {
        match std::env::var("HIGHWATER_SEED") {
            Ok(text) => Self::new(text.parse().expect("HIGHWATER_SEED is a decimal number")),
            Err(_) => {
                let mut bytes = [0; 8];
                std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).unwrap();
                Self::new(u64::from_le_bytes(bytes))
            }
        }
    }

    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// The number that replays this stream.
    pub fn number(&self) -> u64 {
        self.seed
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number of the range, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        assert!(!range.is_empty());
        range.start + self.bits() % (range.end - range.start)
    }

    /// One of the items, of which there must be one.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.within(0..items.len() as u64) as usize]
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.within(0..n) == 0
    }

    /// This many random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.bits().to_le_bytes());
        words.flatten().take(len).collect()
    }

    /// A stream of its own, for a thread of its own.
    pub fn split(&mut self) -> Self {
        Self { seed: self.seed, state: self.bits() }
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with HIGHWATER_SEED={}", self.seed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_stream() {
        let draw = |seed| {
            let mut seed = Seed::new(seed);
            (seed.bits(), seed.within(5..9), seed.bytes(11))
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!((5..9).contains(&draw(7).1));
        assert_eq!(draw(7).2.len(), 11);
    }
}
