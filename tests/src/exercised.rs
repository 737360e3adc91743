//! Which majors a run exercised. `./dev test` names a directory in `HIGHWATER_EXERCISED`; a test leaves `<test>/<major>` there
//! when it has passed on that major, and `tests/tests/versions.rs` looks at them last. So a supported major cannot rot unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use crate::postgres::{Postgres, installed, newest, oldest};
use crate::seed::{Scale, scale};

/// Runs a test on every major of this machine, oldest first, and says on which one it failed.
pub fn for_each_major(test: impl Fn(&'static Postgres)) {
    for postgres in installed() {
        run(postgres, &test);
        mark(postgres.major);
    }
}

/// The same for a test that costs much and hardly depends on the major: in CI the oldest and the newest, by `./dev soak` all.
pub fn for_ends_of_majors(test: impl Fn(&'static Postgres)) {
    let ends = [oldest().major, newest().major];
    for postgres in installed() {
        if scale() == Scale::Soak || ends.contains(&postgres.major) {
            run(postgres, &test);
        }
    }
}

fn run(postgres: &'static Postgres, test: &impl Fn(&'static Postgres)) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(postgres))) {
        eprintln!("failed on PostgreSQL {} in {}", postgres.major, postgres.bin.display());
        resume_unwind(panic);
    }
}

fn directory() -> Option<PathBuf> {
    std::env::var_os("HIGHWATER_EXERCISED").map(PathBuf::from)
}

fn mark(major: u32) {
    let Some(directory) = directory() else { return };
    let test = std::thread::current().name().unwrap_or("unnamed").replace("::", "-");
    let marks = directory.join(test);
    std::fs::create_dir_all(&marks).and_then(|()| std::fs::write(marks.join(major.to_string()), "")).unwrap();
}

/// The majors that each test of this run has passed on, by the test's name.
pub fn exercised(directory: &Path) -> BTreeMap<String, BTreeSet<u32>> {
    let list = |path: &Path| {
        let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        entries.map(|entry| entry.unwrap()).collect::<Vec<_>>()
    };
    let majors = |path: &Path| {
        list(path).iter().map(|mark| mark.file_name().to_str().unwrap().parse().unwrap()).collect()
    };
    list(directory)
        .iter()
        .map(|test| (test.file_name().into_string().unwrap(), majors(&test.path())))
        .collect()
}
