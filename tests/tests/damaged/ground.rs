//! Copies of a sound repository, what is done to each, and what the commands then say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use highwater_tests::python::decrypt_py;
use highwater_tests::{Finished, Scratch, command_as_server_user, files, highwater_binary};

use crate::case::Answer;
use crate::fixture;

/// What stands for a part of a path in the cases, by fixture.
const NAMES: &[(&str, &str, &str)] = &[
    ("damaged/whole", "$LINEAGE", "clusters/main/6a3d64eaf9dd52525e1b3033a84f7293"),
    ("damaged/whole", "$OLDER", "20261120T133612Z-d6092c04"),
    ("damaged/whole", "$NEWER", "20261120T133613Z-51efcbc9"),
    ("format-1/plain", "$LINEAGE", "clusters/second/6e0ee5f3e2fec447677278e2e830ee86"),
];

/// The sound repositories, and the WAL that they hold as files of a data directory.
pub struct Ground {
    scratch: Scratch,
    next: AtomicUsize,
    /// What the sound repository answers, by fixture and command.
    sound: Mutex<BTreeMap<(String, String), Raw>>,
}

/// What a command left.
#[derive(Clone)]
struct Raw {
    code: i32,
    stdout: Vec<String>,
    stderr: Vec<String>,
    /// The file that archive-get wrote.
    got: Option<Vec<u8>>,
    /// The objects that it added to the repository or took away.
    stored: Vec<String>,
}

impl Ground {
    pub fn new() -> Self {
        let scratch = Scratch::in_memory();
        for name in ["damaged/whole", "format-1/plain"] {
            for (path, file) in files(&fixture(name)) {
                place(&scratch, &format!("sound/{name}/{path}"), &fs::read(file).expect("an object"));
            }
        }
        let ground = Self { scratch, next: AtomicUsize::new(0), sound: Mutex::default() };
        ground.collect_wal();
        ground
    }

    /// The files of WAL that archive-push is to be called with, out of the sound repository.
    fn collect_wal(&self) {
        let sound = self.scratch.join("sound/damaged/whole");
        let names: Vec<String> = files(&sound)
            .into_keys()
            .filter(|path| path.contains("/wal/") && !path.ends_with("/claim"))
            .map(|path| path.rsplit('/').next().expect("a name").to_owned())
            .collect();
        let run = self.prepare("damaged/whole", &[]);
        for name in names {
            run.highwater(&format!("archive-get {name} got")).success();
            let bytes = fs::read(run.data().join("got")).expect("a file of WAL");
            place(&self.scratch, &format!("wal/{name}"), &bytes);
        }
    }

    /// What `command` says of the repository after `damages`, as far as it differs from what it says of the sound one.
    pub fn answer(&self, repository: &str, damages: &[String], command: &str) -> Answer {
        let found = self.prepare(repository, damages).run(command);
        let key = (repository.to_owned(), command.to_owned());
        let known = self.sound.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        // Two threads may both find out; they find the same.
        let sound = known.unwrap_or_else(|| self.prepare(repository, &[]).run(command));
        self.sound.lock().unwrap_or_else(PoisonError::into_inner).insert(key, sound.clone());
        found.beside(&sound)
    }

    /// A copy of the repository that is damaged so, with a configuration and a data directory for it.
    fn prepare(&self, repository: &str, damages: &[String]) -> Run<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let root = self.scratch.dir(format!("run{number}"));
        let run = Run { ground: self, number, root, repository: repository.to_owned() };
        let sound = self.scratch.join("sound").join(repository);
        for (path, file) in files(&sound) {
            let to = run.repository_dir().join(path);
            self.scratch
                .dir(to.parent().expect("a parent").strip_prefix(self.scratch.path()).expect("below"));
            // The content is shared: nothing changes an object, and a damage replaces the file.
            fs::hard_link(file, to).expect("a link");
        }
        run.host();
        for damage in damages {
            run.damage(damage);
        }
        run
    }
}

/// Writes a file below the scratch directory, with the directories on the way.
fn place(scratch: &Scratch, name: &str, bytes: &[u8]) {
    if let Some(parent) = Path::new(name).parent() {
        scratch.dir(parent);
    }
    scratch.file(name, bytes);
}

/// One command on one copy.
struct Run<'a> {
    ground: &'a Ground,
    number: usize,
    root: PathBuf,
    repository: String,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Run<'_> {
    fn repository_dir(&self) -> PathBuf {
        self.root.join("repo")
    }

    fn data(&self) -> PathBuf {
        self.root.join("pg")
    }

    fn place(&self, name: &str, bytes: &[u8]) {
        place(&self.ground.scratch, &format!("run{}/{name}", self.number), bytes);
    }

    /// A configuration, a key, and as much of a data directory as archiving looks at.
    fn host(&self) {
        let read = |name: &str| fs::read(fixture(name)).expect("a fixture");
        let (cluster, key) = match self.repository.as_str() {
            "format-1/plain" => ("second", "format-1/keys/second.key"),
            _ => ("main", "damaged/host/main.key"),
        };
        self.place("main.key", &read(key));
        let root = self.root.display();
        let config = format!(
            "[cluster]\nname = \"{cluster}\"\ndata_dir = \"{root}/pg\"\nconnection = \"host={root} user=postgres\"\n\
             [repository.primary]\nurl = \"file://{root}/repo\"\nkey_file = \"{root}/main.key\"\n"
        );
        self.place("main.toml", config.as_bytes());
        self.place("pg/pg_wal/.keep", b"");
        if self.repository == "damaged/whole" {
            self.place("pg/global/pg_control", &read("damaged/host/pg_control"));
            self.place("pg/PG_VERSION", &read("damaged/host/PG_VERSION"));
            let state = String::from_utf8(read("damaged/host/lineage.json")).expect("JSON");
            self.place("pg/highwater/lineage.json", state.as_bytes());
        }
    }

    /// Puts the names in a line of a case in.
    fn named(&self, line: &str) -> String {
        NAMES
            .iter()
            .filter(|(fixture, _, _)| *fixture == self.repository)
            .fold(line.to_owned(), |line, (_, name, value)| line.replace(name, value))
            .replace("$DIR", &self.root.display().to_string())
    }

    /// The path below the directory of this run: `host:` stands for that, and all else is in the repository.
    fn below(&self, path: &str) -> String {
        match path.strip_prefix("host:") {
            Some(path) => path.to_owned(),
            None => format!("repo/{path}"),
        }
    }

    /// Does what a line of a case says.
    fn damage(&self, line: &str) {
        let line = self.named(line);
        let words: Vec<&str> = line.split(' ').collect();
        let at = |path: &str| match path.strip_prefix("format-1:") {
            Some(path) => fixture("format-1").join(path),
            None => self.root.join(self.below(path)),
        };
        let read = |path: &str| fs::read(at(path)).unwrap_or_else(|error| panic!("{line}: {error}"));
        let offset = |text: &str, length: usize| match (text, text.strip_prefix('-')) {
            ("half", _) => length / 2,
            (_, Some(back)) => length - back.parse::<usize>().expect("a number"),
            (_, None) => text.parse().expect("a number"),
        };
        let put = |path: &str, bytes: &[u8]| {
            let _ = fs::remove_file(at(path));
            self.place(&self.below(path), bytes);
        };
        match words.as_slice() {
            ["remove", path] => {
                let path = at(path);
                let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
                removed.unwrap_or_else(|error| panic!("{line}: {error}"));
            }
            ["move", from, to] => {
                let bytes = read(from);
                fs::remove_file(at(from)).expect("a file to move");
                put(to, &bytes);
            }
            ["copy", from, to] => put(to, &read(from)),
            ["swap", one, other] => {
                let (first, second) = (read(one), read(other));
                put(one, &second);
                put(other, &first);
            }
            ["cut", path, "at", place] => {
                let bytes = read(path);
                put(path, &bytes[..offset(place, bytes.len())]);
            }
            ["flip", path, "at", place] => {
                let mut bytes = read(path);
                let place = offset(place, bytes.len());
                bytes[place] ^= 0x10;
                put(path, &bytes);
            }
            ["append", path, text @ ..] => {
                put(path, &[read(path), (text.join(" ") + "\n").into_bytes()].concat())
            }
            ["write", path, text @ ..] => put(path, text.join(" ").as_bytes()),
            ["replace", path, old, "by", new] => {
                let text = String::from_utf8(read(path)).expect("a text");
                assert!(text.contains(old), "{line}: {text}");
                put(path, text.replace(old, new).as_bytes());
            }
            ["directory", path] => {
                let _ = fs::remove_file(at(path));
                self.ground.scratch.dir(Path::new(&format!("run{}", self.number)).join(self.below(path)));
            }
            ["link", path, to] => std::os::unix::fs::symlink(to, at(path)).expect("a link"),
            ["line", path, begin, value @ ..] => {
                let text = String::from_utf8(read(path)).expect("a text");
                let named = |line: &&str| line.split(' ').next() == Some(begin);
                assert_eq!(text.lines().filter(named).count(), 1, "{line}: {text}");
                let value = value.join(" ");
                let lines = text.lines().map(|line| if named(&line) { value.as_str() } else { line });
                put(path, (lines.collect::<Vec<_>>().join("\n") + "\n").as_bytes());
            }
            ["bytes", path, hex] => put(path, &hex::decode(hex).expect("hexadecimal")),
            ["mode", mode, path] => {
                let mode = u32::from_str_radix(mode, 8).expect("a mode");
                let bytes = read(path);
                put(path, &bytes);
                fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).expect("a mode");
            }
            _ => panic!("no damage: {line}"),
        }
    }

    fn highwater(&self, command: &str) -> Finished {
        let mut process = command_as_server_user(highwater_binary());
        for (name, _) in std::env::vars_os() {
            // The harness's own variables are none of the binary's.
            if name.to_string_lossy().starts_with("HIGHWATER") {
                process.env_remove(name);
            }
        }
        process.arg("--config").arg(self.root.join("main.toml")).args(command.split(' '));
        Finished::of(process.current_dir(self.data()))
    }

    fn run(&self, command: &str) -> Raw {
        let command = self.named(command);
        let before: BTreeSet<String> = files(&self.repository_dir()).into_keys().collect();
        let mut got = None;
        let finished = match command.split(' ').collect::<Vec<_>>().as_slice() {
            ["archive-get", file] => {
                let finished = self.highwater(&format!("archive-get {file} pg_wal/RECOVERYXLOG"));
                got = fs::read(self.data().join("pg_wal/RECOVERYXLOG")).ok();
                finished
            }
            ["archive-push", file] => {
                let bytes = fs::read(self.ground.scratch.join("wal").join(file)).expect("a file of WAL");
                self.place(&format!("pg/pg_wal/{file}"), &bytes);
                self.highwater(&format!("archive-push pg_wal/{file}"))
            }
            ["restore", ..] => {
                let target = self.root.join("restored");
                let finished = self.highwater(&format!("{command} --target-dir {}", target.display()));
                // PostgreSQL starts where there is a pg_control; one that failed must not be such a place.
                assert!(finished.code == Some(0) || !target.join("global/pg_control").exists(), "{finished}");
                finished
            }
            ["decrypt.py", what, rest @ ..] => {
                let (repository, key) = (self.repository_dir(), self.root.join("main.key"));
                let mut arguments = vec![what.to_string(), repository.display().to_string()];
                let named = ["--cluster", "main", "--key", &key.to_string_lossy()].map(str::to_owned);
                arguments.extend(named);
                arguments.extend(rest.iter().map(|word| (*word).to_owned()));
                if *what != "list" {
                    arguments.extend(["-o".to_owned(), self.root.join("out").display().to_string()]);
                }
                let finished = decrypt_py(&arguments);
                got = fs::read(self.root.join("out")).ok();
                finished
            }
            _ => self.highwater(&command),
        };
        let after: BTreeSet<String> = files(&self.repository_dir()).into_keys().collect();
        let lost: Vec<&String> = before.difference(&after).collect();
        assert!(lost.is_empty(), "{command} took away {lost:?}");
        Raw {
            code: finished.code.unwrap_or_else(|| panic!("ended by a signal: {finished}")),
            // The recovery kit is another one at each call.
            stdout: if command == "init" { Vec::new() } else { self.lines(&finished.stdout) },
            stderr: self.lines(&finished.stderr),
            got,
            stored: after.difference(&before).cloned().collect(),
        }
    }

    /// The lines of an output, without what differs from run to run.
    fn lines(&self, text: &str) -> Vec<String> {
        let root = self.root.display().to_string();
        text.replace(&format!("{root}/"), "$DIR/")
            .replace(&format!("{root} "), "$DIR ")
            .lines()
            // Free space, and how long it took.
            .filter(|line| !line.starts_with("space ") && !line.starts_with("restored "))
            .map(|line| line.trim_end().to_owned())
            .collect()
    }
}

/// The lines of `these` that are not among `those`, each with a sign.
fn missing(these: &[String], those: &[String], sign: char) -> Vec<String> {
    let mut those: Vec<&String> = those.iter().collect();
    let mut left = Vec::new();
    for line in these {
        match those.iter().position(|other| *other == line) {
            Some(at) => drop(those.swap_remove(at)),
            None => left.push(format!("{sign} {}", line.trim_start())),
        }
    }
    left
}

impl Raw {
    /// As it stands in a case: what differs on standard output, all of standard error, what became of the files.
    fn beside(&self, sound: &Self) -> Answer {
        let mut lines = Vec::new();
        // What a command that failed did not come to say is no difference.
        if self.code == sound.code {
            lines.extend(missing(&sound.stdout, &self.stdout, '-'));
        }
        lines.extend(missing(&self.stdout, &sound.stdout, '+'));
        lines.extend(self.stderr.iter().cloned());
        match (&self.got, &sound.got) {
            (Some(got), Some(sound)) if got != sound => lines.push("(it wrote something else)".to_owned()),
            (Some(_), None) => lines.push("(it wrote a file)".to_owned()),
            (None, Some(_)) if self.code == 0 => lines.push("(it wrote no file)".to_owned()),
            _ => {}
        }
        lines.extend(self.stored.iter().map(|path| format!("(stored {path})")));
        Answer { code: self.code, lines }
    }
}
