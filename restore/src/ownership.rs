//! Who owns the restored files.
//!
//! Root gives them to the owner of the original data directory *by name* (a number means someone else on another host), or
//! to the one that was asked for. Anyone else owns what they write and can give nothing away.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use highwater_archive::durable::{self, DurableError};
use rustix::process::{getegid, geteuid};

/// A user of this host with a group: who will own files, or run a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The user's name, or its number where it has none.
    pub name: String,
}

/// The account cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// No such user on this host.
    #[error("there is no user `{name}` on this host")]
    NoSuchUser {
        /// The name asked for.
        name: String,
        /// Whether the name came from the backup and not from the command line.
        from_backup: bool,
    },
    /// No such group on this host.
    #[error("there is no group `{name}` on this host")]
    NoSuchGroup {
        /// The name asked for.
        name: String,
    },
    /// An owner other than oneself needs root.
    #[error("only root can give files to `{name}`")]
    NeedsRoot {
        /// The owner asked for.
        name: String,
    },
    /// PostgreSQL refuses to run as root.
    #[error("the owner of a data directory cannot be root: PostgreSQL refuses to run as root")]
    IsRoot,
}

impl OwnerError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSuchUser { from_backup: true, name } => {
                format!(
                    "install PostgreSQL's packages, which make the user `{name}`, or name another with --owner USER[:GROUP]"
                )
            }
            Self::NoSuchUser { .. } | Self::NoSuchGroup { .. } => {
                "name an existing one: --owner USER[:GROUP]".into()
            }
            Self::NeedsRoot { .. } => "leave --owner out to own the files yourself, or run as root".into(),
            Self::IsRoot => "name the user that runs PostgreSQL: --owner USER[:GROUP]".into(),
        })
    }
}

/// The name of a group of this host, or its number where it has none.
pub fn group_name(gid: u32) -> String {
    uzers::get_group_by_gid(gid)
        .map_or_else(|| gid.to_string(), |group| group.name().to_string_lossy().into_owned())
}

impl Account {
    /// The account this process runs as.
    pub fn current() -> Account {
        Account::of(geteuid().as_raw(), getegid().as_raw())
    }

    /// The account with these numbers, by the name that this host's directory of users, whatever it is, has for it.
    pub fn of(uid: u32, gid: u32) -> Account {
        let name = uzers::get_user_by_uid(uid)
            .map_or_else(|| uid.to_string(), |user| user.name().to_string_lossy().into_owned());
        Account { uid, gid, name }
    }

    /// The account `user` or `user:group`, each a name or a number; without a group, the user's own.
    ///
    /// # Errors
    /// [`OwnerError::NoSuchUser`], [`OwnerError::NoSuchGroup`]. A user's number needs no entry if a group is given.
    pub fn parse(text: &str) -> Result<Account, OwnerError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let no_user = || OwnerError::NoSuchUser { name: user.to_owned(), from_backup: false };
        let known =
            uzers::get_user_by_name(user).or_else(|| user.parse().ok().and_then(uzers::get_user_by_uid));
        let (uid, own_group, name) = match &known {
            Some(entry) => {
                (entry.uid(), Some(entry.primary_group_id()), entry.name().to_string_lossy().into_owned())
            }
            None => (user.parse().map_err(|_| no_user())?, None, user.to_owned()),
        };
        let gid = match group {
            Some(group) => uzers::get_group_by_name(group)
                .map(|entry| entry.gid())
                .or_else(|| group.parse().ok())
                .ok_or_else(|| OwnerError::NoSuchGroup { name: group.to_owned() })?,
            None => own_group.ok_or_else(no_user)?,
        };
        Ok(Account { uid, gid, name })
    }

    /// Whether this process can act for the account only by changing who it is.
    pub fn differs_from_current(&self) -> bool {
        geteuid().as_raw() != self.uid
    }

    /// A command that runs `program` as this account. Root leaves its own groups behind and takes the account's, where
    /// `setpriv` can look them up (a TLS key is often readable through a group), else none.
    pub fn command(&self, program: &Path) -> Command {
        if !self.differs_from_current() {
            return Command::new(program);
        }
        if let Some(setpriv) = find_in_path("setpriv") {
            let mut command = Command::new(setpriv);
            let known = uzers::get_user_by_uid(self.uid).is_some();
            command.arg(format!("--reuid={}", self.uid)).arg(format!("--regid={}", self.gid));
            command.arg(if known { "--init-groups" } else { "--clear-groups" }).arg("--").arg(program);
            return command;
        }
        let mut command = Command::new(program);
        command.uid(self.uid).gid(self.gid);
        command
    }
}

/// Decides who owns a restored data directory; `None` means whoever runs this, with nothing to be changed.
///
/// # Errors
/// Any [`OwnerError`]; as root the backup's owner must exist here by name, and be someone other than root.
pub fn decide(
    asked: Option<&str>,
    recorded_user: &str,
    recorded_group: &str,
) -> Result<Option<Account>, OwnerError> {
    let me = Account::current();
    let account = match asked {
        Some(text) => Account::parse(text)?,
        None if me.uid != 0 => return Ok(None),
        None => recorded(recorded_user, recorded_group)?,
    };
    if account.uid == 0 {
        return Err(OwnerError::IsRoot);
    }
    if account.uid == me.uid && account.gid == me.gid {
        return Ok(None);
    }
    if me.uid != 0 {
        return Err(OwnerError::NeedsRoot { name: account.name });
    }
    Ok(Some(account))
}

/// The owner that the backup names, as this host knows the name; a group that is unknown here gives way to the user's own.
fn recorded(user: &str, group: &str) -> Result<Account, OwnerError> {
    let entry = uzers::get_user_by_name(user)
        .ok_or_else(|| OwnerError::NoSuchUser { name: user.to_owned(), from_backup: true })?;
    let gid = uzers::get_group_by_name(group).map_or_else(|| entry.primary_group_id(), |group| group.gid());
    Ok(Account { uid: entry.uid(), gid, name: user.to_owned() })
}

/// Gives the open file or directory to the account, when there is one to give it to.
///
/// # Errors
/// The system's.
pub fn give(file: impl std::os::fd::AsFd, owner: Option<&Account>) -> io::Result<()> {
    match owner {
        Some(account) => Ok(rustix::fs::fchown(
            file,
            Some(rustix::fs::Uid::from_raw(account.uid)),
            Some(rustix::fs::Gid::from_raw(account.gid)),
        )?),
        None => Ok(()),
    }
}

/// Makes the directory and its missing parents, durably and with mode 0700, each given to the account when there is one: it must
/// reach what lies in them. A directory that is there already is given to it too while it is empty: what is in another one is somebody's.
///
/// # Errors
/// [`DurableError::Io`] naming the directory.
pub fn make_directory(path: &Path, owner: Option<&Account>) -> Result<(), DurableError> {
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|above| !above.is_dir()).collect();
    durable::create_dir_all_durable(path)?;
    let failed = |source| DurableError::Io { operation: "look into", path: path.to_owned(), source };
    if std::fs::read_dir(path).map_err(failed)?.next().is_some() {
        return Ok(());
    }
    for directory in missing.into_iter().rev().chain([path]) {
        let failed = |source| DurableError::Io { operation: "give away", path: directory.to_owned(), source };
        give(std::fs::File::open(directory).map_err(failed)?, owner).map_err(failed)?;
        durable::fsync_dir(directory)?;
    }
    Ok(())
}

/// The program `name` in the directories of `PATH`.
fn find_in_path(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names_where_the_host_knows_one() {
        assert_eq!((Account::of(0, 0).name.as_str(), group_name(0).as_str()), ("root", "root"));
        assert_eq!(
            (Account::of(4_000_123, 0).name.as_str(), group_name(4_000_124).as_str()),
            ("4000123", "4000124")
        );
    }

    /// A link that the server's user made may lead root to any directory.
    #[test]
    fn a_directory_that_holds_something_is_given_to_nobody() {
        if !geteuid().is_root() {
            return;
        }
        use std::os::unix::fs::MetadataExt as _;
        let scratch = tempfile::tempdir().unwrap();
        let nobody = Account { uid: 65_534, gid: 65_534, name: "nobody".into() };
        let (etc, space) = (scratch.path().join("etc"), scratch.path().join("disk/space"));
        std::fs::create_dir_all(etc.join("ssh")).unwrap();
        std::os::unix::fs::symlink(&etc, scratch.path().join("link")).unwrap();
        for path in [&etc, &scratch.path().join("link"), &space] {
            make_directory(path, Some(&nobody)).unwrap();
        }
        let owner = |path: &Path| std::fs::metadata(path).unwrap().uid();
        assert_eq!(owner(&etc), 0);
        assert_eq!((owner(&space), owner(&scratch.path().join("disk"))), (65_534, 65_534));
        make_directory(&etc.join("ssh"), Some(&nobody)).unwrap();
        assert_eq!(owner(&etc.join("ssh")), 65_534);
    }

    #[test]
    fn a_name_a_number_and_a_group_are_understood() {
        let root = Account::parse("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(Account::parse("0").unwrap(), root);
        assert_eq!(
            Account::parse("12345:54321").unwrap(),
            Account { uid: 12345, gid: 54321, name: "12345".into() }
        );
        assert!(matches!(Account::parse("no-such-user-here"), Err(OwnerError::NoSuchUser { .. })));
        assert!(matches!(Account::parse("root:no-such-group"), Err(OwnerError::NoSuchGroup { .. })));
        assert!(matches!(Account::parse("12345"), Err(OwnerError::NoSuchUser { .. })));
    }

    /// A restore as root never leaves a data directory that only root can open and PostgreSQL refuses.
    #[test]
    fn root_is_never_the_owner() {
        assert!(matches!(decide(Some("root"), "postgres", "postgres"), Err(OwnerError::IsRoot)));
        if geteuid().is_root() {
            assert!(matches!(decide(None, "root", "root"), Err(OwnerError::IsRoot)));
            assert!(matches!(
                decide(None, "no-such-user-here", "x"),
                Err(OwnerError::NoSuchUser { from_backup: true, .. })
            ));
        } else {
            assert_eq!(decide(None, "no-such-user-here", "x").unwrap(), None);
        }
    }
}
