//! The supported PostgreSQL majors cannot rot: `./dev test` runs this last, and it looks at which majors the other tests have
//! passed on. In CI that must be all of them, elsewhere all that the machine has.

use std::collections::BTreeSet;
use std::path::PathBuf;

use highwater_tests::{MAJORS, exercised, installed};

/// Every test that runs on each major has passed on each, and there are such tests of the product, not of the harness alone.
#[test]
#[ignore = "looks at what the other tests have left; ./dev test runs it last"]
fn every_supported_major_was_exercised() {
    let directory = std::env::var_os("HIGHWATER_EXERCISED").map(PathBuf::from).expect("run by ./dev test");
    let wanted: BTreeSet<u32> = match std::env::var_os("CI") {
        Some(_) => MAJORS.into(),
        None => installed().iter().map(|postgres| postgres.major).collect(),
    };
    let tests = exercised(&directory);
    for (test, majors) in &tests {
        assert_eq!(majors, &wanted, "{test} has not passed on every major");
    }
    assert!(tests.len() >= 2, "no test ran on every major: {tests:?}");
    println!("{} tests passed on each of PostgreSQL {wanted:?}", tests.len());
}
