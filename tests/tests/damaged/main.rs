//! A museum of damage: repositories in which something is missing, cut, changed, exchanged or in the wrong place, and the exact words
//! that each command has for it. `tests/fixtures/damaged/README.md` says how to read a case.
//!
//! Every command of every case runs on a copy of its own, many at once. Where the words change on purpose,
//! `HIGHWATER_WRITE_DIAGNOSES=1` writes the cases anew, and the difference is there to be read.

mod case;
mod ground;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::{Answer, Cases};
use ground::Ground;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// The files with cases, by name.
fn case_files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(fixture("damaged/cases")).expect("the cases");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() >= 12, "only {} kinds of objects are damaged", files.len());
    files
}

/// Calls `work` with 0, 1, … up to `count`, on a few threads: most of the time goes into processes.
fn in_parallel(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from) + 2;
    // Each has a copy of a repository and what is made of it.
    let threads = threads.min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

/// Damage is named by object, with what is wrong, what it costs and what to do; it hides nothing beside it, nothing that a repository
/// holds is lost, and no command takes what is damaged for what is absent (I6, I9, I14).
#[test]
fn every_damage_gets_its_diagnosis() {
    let ground = Ground::new();
    let mut all: Vec<(PathBuf, Cases)> =
        case_files().into_iter().map(|path| (path.clone(), Cases::read(&path))).collect();
    let jobs: Vec<(usize, usize, usize)> = all
        .iter()
        .enumerate()
        .flat_map(|(file, (_, cases))| {
            let commands = cases.commands.len();
            (0..cases.cases.len())
                .flat_map(move |case| (0..commands).map(move |command| (file, case, command)))
        })
        .collect();
    let answers: Vec<Mutex<Option<Answer>>> = jobs.iter().map(|_| Mutex::default()).collect();
    in_parallel(jobs.len(), |number| {
        let (file, case, command) = jobs[number];
        let cases = &all[file].1;
        let answer = ground.answer(&cases.repository, &cases.cases[case].damages, &cases.commands[command]);
        *answers[number].lock().expect("an answer") = Some(answer);
    });

    let write = std::env::var_os("HIGHWATER_WRITE_DIAGNOSES").is_some();
    let mut wrong = Vec::new();
    for ((file, case, command), answer) in jobs.into_iter().zip(answers) {
        let found = answer.into_inner().expect("an answer").expect("an answer");
        let (path, cases) = &mut all[file];
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let spoken = cases.commands[command].clone();
        let case = &mut cases.cases[case];
        let expected = case.answers.insert(spoken.clone(), found.clone());
        if expected.as_ref() != Some(&found) {
            let expected = expected.map_or_else(|| "nothing\n".to_owned(), |expected| expected.to_string());
            wrong.push(format!("{name}, {}, {spoken}\nexpected {expected}found {found}", case.title));
        }
    }
    if write {
        for (path, cases) in &all {
            std::fs::write(path, cases.to_string()).expect("a file of cases");
        }
    }
    assert!(wrong.is_empty(), "{} answers are others:\n\n{}", wrong.len(), wrong.join("\n"));
}
