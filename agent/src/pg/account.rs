//! Accounts of this host, from /etc/passwd.

/// A user of the operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its first group.
    pub gid: u32,
}

/// The account of this name.
pub fn by_name(name: &str) -> Option<Account> {
    accounts().into_iter().find(|account| account.name == name)
}

/// The account that this process runs as; its number stands for a name where /etc/passwd has none.
pub fn own() -> Account {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let known = accounts().into_iter().find(|account| account.uid == uid);
    known.unwrap_or_else(|| Account { name: uid.to_string(), uid, gid })
}

fn accounts() -> Vec<Account> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

/// `name:password:uid:gid:…`
fn parse(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(Account { name, uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_passwd_is_read_and_a_broken_one_skipped() {
        let account = Account { name: "postgres".to_owned(), uid: 107, gid: 115 };
        assert_eq!(parse("postgres:x:107:115:PostgreSQL,,,:/var/lib/postgresql:/bin/bash"), Some(account));
        assert_eq!(parse("+::::::"), None);
        assert_eq!(parse(""), None);
    }
}
