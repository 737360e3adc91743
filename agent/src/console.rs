//! The two streams that people and scripts read.

use std::io::Write as _;

/// Prints a line on standard error. Where nobody reads that any longer, nothing is left to be told, and the macros of the
/// standard library would panic.
pub fn line(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Prints a result on standard output, whose reader may have seen enough.
pub fn result(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}
