//! A command that prints a secret, and anything else that may not come back: each has its time.
//!
//! A command that is not done in time is killed with all that it has started and that can still be told to be its own. So is one that
//! still runs when this process ends earlier, as `archive-push` does by its deadline: PostgreSQL tries again, and each attempt would
//! leave one more behind. They stay in this process's group, since a command may ask the person at the terminal for something, and
//! a terminal's signals reach them there; so they are found by who started whom. What a command has left behind when it ended itself is nobody's any
//! more: that is not waited for, and not killed.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Shells that run now. One is taken off before anybody could be given its number anew.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// How often the family of a command is looked for: who is stopped starts nobody, and this bounds those that cannot be stopped.
const ROUNDS: usize = 8;

/// What a shell command prints, of at most `max_bytes`, if it is done within `limit`. One that is not is killed; what it left behind, and what
/// holds on to its output, is not waited for either.
///
/// # Errors
///
/// It cannot be run, fails, is not done in time, or prints what is not text: a sentence.
pub fn run_within(command: &str, limit: Duration, max_bytes: u64) -> Result<String, String> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| format!("cannot run {command:?}: {error}");
    let until = Instant::now() + limit;
    let mut shell = start(command).map_err(failed)?;
    let stdout = shell.stdout.take();
    let printed = in_time(&format!("{command:?}"), limit, move || {
        let mut output = Vec::new();
        stdout.map_or(Ok(0), |stdout| stdout.take(max_bytes).read_to_end(&mut output)).map(|_| output)
    });
    let status = loop {
        match ended(&mut shell).map_err(failed)? {
            Some(status) => break Some(status),
            None if printed.is_err() || Instant::now() >= until => break None,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let Some(status) = status else {
        give_up(&shell);
        return Err(too_late(&format!("{command:?}"), limit));
    };
    let output = printed?.map_err(failed)?;
    if !status.success() {
        return Err(format!("{command:?} failed: {status}"));
    }
    String::from_utf8(output).map_err(|_| format!("{command:?} printed something that is not text"))
}

/// Kills what still runs, with all that it has started: this process is about to end.
pub fn end_all() {
    running().drain(..).for_each(kill_family);
}

/// Whether a command still runs.
pub fn is_any_running() -> bool {
    !running().is_empty()
}

/// Does `work` on a thread of its own and waits no longer than `limit` for it; what still works then is left behind, as a call of the
/// operating system that does not come back must be.
///
/// # Errors
///
/// The time is over.
pub fn in_time<T: Send + 'static>(
    what: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (answer, answered) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("secret".to_owned())
        .spawn(move || drop(answer.send(work())))
        .map_err(|error| format!("{what}: cannot start a thread: {error}"))?;
    answered.recv_timeout(limit).map_err(|_| too_late(what, limit))
}

fn too_late(what: &str, limit: Duration) -> String {
    format!("{what} was not done within {} s", limit.as_secs())
}

fn running() -> MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(command: &str) -> std::io::Result<Child> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    // Held meanwhile, so that no command is started that nobody knows of when this process ends.
    let mut running = running();
    let shell = shell.spawn()?;
    running.push(Pid::from_child(&shell));
    Ok(shell)
}

/// How it ended, if it has.
fn ended(shell: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let mut running = running();
    let status = shell.try_wait();
    // One that cannot be asked is not this process's child any more, and its number may be anybody's.
    if !matches!(status, Ok(None)) {
        running.retain(|pid| *pid != Pid::from_child(shell));
    }
    status
}

fn give_up(shell: &Child) {
    let (mut running, pid) = (running(), Pid::from_child(shell));
    kill_family(pid);
    running.retain(|known| *known != pid);
}

/// Kills a process that is this one's child, and all that descend from it.
///
/// They are stopped from the top, since whoever is stopped starts nobody, and killed from the bottom: a number stays taken while there is
/// a parent that could ask for it. Were the parent killed first, one that had ended before would be taken over and asked for by another, and its
/// number could be somebody else's when its own turn came.
fn kill_family(pid: Pid) {
    let mut stopped: Vec<Pid> = Vec::new();
    for _ in 0..ROUNDS {
        let further: Vec<Pid> = family(pid).into_iter().filter(|member| !stopped.contains(member)).collect();
        if further.is_empty() {
            break;
        }
        send(further.iter(), Signal::STOP);
        stopped.extend(further);
    }
    send(stopped.iter().rev(), Signal::KILL);
}

/// One that has ended meanwhile, or that became another user's, is not to be had; the others are.
fn send<'a>(members: impl Iterator<Item = &'a Pid>, signal: Signal) {
    for member in members {
        if let Err(error) = kill_process(*member, signal) {
            tracing::debug!(pid = member.as_raw_nonzero(), %error, "a process of a command for a secret is not to be had");
        }
    }
}

/// A process and all that descend from it.
fn family(first: Pid) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: Vec<(Pid, Pid)> = entries
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            Some((pid, parent_of(&std::fs::read(entry.path().join("stat")).ok()?)?))
        })
        .collect();
    let mut family = vec![first];
    let mut above = 0;
    while let Some(parent) = family.get(above).copied() {
        let of_parent = parents.iter().filter(|(pid, of)| *of == parent && !family.contains(pid));
        let further: Vec<Pid> = of_parent.map(|(pid, _)| *pid).collect();
        family.extend(further);
        above += 1;
    }
    family
}

/// The parent in a process's `stat`: the second field behind its name, which stands in brackets and may hold anything (`proc_pid_stat(5)`).
fn parent_of(stat: &[u8]) -> Option<Pid> {
    let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
    let behind = std::str::from_utf8(stat.get(name_ends + 1..)?).ok()?;
    Pid::from_raw(behind.split_ascii_whitespace().nth(1)?.parse().ok()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use super::*;

    const MAX_BYTES: u64 = 1024;

    /// Whatever a command waits for, and whatever it leaves behind, PostgreSQL gets its answer.
    #[test]
    fn a_command_that_hangs_is_given_up_and_named() {
        // What is left behind keeps nobody waiting who reads what the tests say.
        for command in ["sleep 60; :", "sleep 60 2> /dev/null & printf secret"] {
            let begun = Instant::now();
            let error = run_within(command, Duration::from_millis(300), MAX_BYTES).unwrap_err();
            assert!(error.contains("sleep 60") && error.contains("was not done within"), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        }
    }

    /// Neither it nor anything that it has started is left to run, however deep: a program that asks a service hangs, and not the shell that called it.
    #[test]
    fn it_is_killed_with_what_it_has_started() {
        let directory = tempfile::tempdir().unwrap();
        let started = directory.path().join("pid");
        let command = format!("(sleep 600 & echo $$ $! > '{}'; wait); :", started.display());
        // On a machine that is busy it takes longer until it has begun.
        let pids = [1, 4, 16, 64].into_iter().find_map(|seconds| {
            run_within(&command, Duration::from_secs(seconds), MAX_BYTES).unwrap_err();
            let pids = std::fs::read_to_string(&started).ok()?;
            let (shell, further) = pids.trim().split_once(' ')?;
            Some([shell.parse::<i32>().unwrap(), further.parse::<i32>().unwrap()])
        });
        let begun = Instant::now();
        for pid in pids.unwrap() {
            let stat = format!("/proc/{pid}/stat");
            // Whoever is its parent now may not have asked yet how it ended.
            while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                assert!(begun.elapsed() < Duration::from_secs(60), "{pid} still runs");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    #[test]
    fn a_name_in_brackets_is_passed_over() {
        let parent = |stat: &str| parent_of(stat.as_bytes()).map(Pid::as_raw_nonzero).map(i32::from);
        assert_eq!(parent("7 (a) S 5 (b) S 4711 7 7 0"), Some(4711));
        assert_eq!(parent("7 (init) S 0 7"), None);
        assert_eq!(parent("7 (cut"), None);
    }
}
