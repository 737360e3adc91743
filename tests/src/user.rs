//! Who servers run as. PostgreSQL refuses to run as root, so root's tests run it, and Highwater beside it, as `postgres`
//! (or `nobody`, where no package has made that user); anyone else's tests run both as themselves.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// A row of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The primary group's id.
    pub gid: u32,
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether whoever runs the tests may mount in a namespace of their own. A container may forbid it even to root.
///
/// # Panics
/// When [`left_out`] does.
pub fn may_mount() -> bool {
    let mut unshare = Command::new("unshare");
    if !is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]);
    let may = unshare.output().is_ok_and(|output| output.status.success());
    if !may {
        left_out("cannot mount in a namespace of its own");
    }
    may
}

/// Says that a test is left out because the machine lacks what it needs. The same from root in CI is a failure: there the tests run with
/// every right, and one that silently tests nothing would never be noticed.
///
/// # Panics
/// When root runs the tests in CI.
pub fn left_out(lacks: &str) {
    assert!(!(is_root() && std::env::var_os("CI").is_some()), "CI must be able to run this: root {lacks}");
    eprintln!("NOTHING WAS TESTED: whoever runs this {lacks}");
}

/// The user that servers and Highwater run as.
pub fn server_user() -> &'static User {
    static USER: OnceLock<User> = OnceLock::new();
    USER.get_or_init(|| {
        if is_root() {
            let users = passwd();
            let find = |name: &str| users.iter().find(|user| user.name == name).cloned();
            return find("postgres")
                .or_else(|| find("nobody"))
                .expect("user postgres or nobody in /etc/passwd");
        }
        let uid = rustix::process::geteuid().as_raw();
        passwd().into_iter().find(|user| user.uid == uid).unwrap_or_else(|| User {
            name: uid.to_string(),
            uid,
            gid: rustix::process::getegid().as_raw(),
        })
    })
}

fn passwd() -> Vec<User> {
    let text = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd can be read");
    text.lines().filter_map(passwd_line).collect()
}

fn passwd_line(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let _password = fields.next()?;
    Some(User { name, uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}

/// A command that runs `program` as the server user, from a directory that user may be in, without the locale and the
/// `PG…` variables of whoever runs the tests, and without their proxies: all services are of this machine.
pub fn command_as_server_user(program: impl AsRef<OsStr>) -> Command {
    let mut command = if is_root() {
        let user = server_user();
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
        command.args(["--clear-groups", "--"]).arg(program);
        command.env("HOME", "/").env("USER", &user.name).env("LOGNAME", &user.name);
        command
    } else {
        Command::new(program)
    };
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_lowercase();
        if text.starts_with("pg") || text.ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.current_dir("/").env("LC_ALL", "C").env("TZ", "UTC");
    command
}

/// Gives one path (not what lies below it) to the server user.
pub fn give_to_server_user(path: &Path) {
    if is_root() {
        let user = server_user();
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
            .unwrap_or_else(|error| panic!("chown {}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_passwd_names_user_and_ids() {
        let expected = User { name: "postgres".into(), uid: 101, gid: 104 };
        assert_eq!(passwd_line("postgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash"), Some(expected));
        assert_eq!(passwd_line("+@netgroup"), None);
    }

    #[test]
    fn commands_run_as_the_server_user() {
        let output = command_as_server_user("id").arg("-u").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), server_user().uid.to_string());
        assert_ne!(server_user().uid, 0);
    }
}
