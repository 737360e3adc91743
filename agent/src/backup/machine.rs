//! The libraries that the running server sorts text with, as far as its process shows them.
//!
//! The server tells the C library's version by any collation of it, but a server of 14 in a small image may have none in the database
//! that was asked; another database may, and where the server sees the same files as we do its library is ours. Which ICU it
//! was linked to stands in its program alone.

use std::path::{Path, PathBuf};

use highwater_archive::manifest::Database;
use highwater_restore::host;
use highwater_restore::server::Postmaster;

/// The version of the C library, by what the databases told or by what is installed here.
pub fn libc(data_dir: &Path, databases: &[Database]) -> Option<String> {
    let told = databases.iter().find_map(|database| {
        let single = database.collation_libraries.iter().flat_map(|all| all.values());
        let single =
            single.filter(|library| library.provider == "c").find_map(|library| library.version.clone());
        let own = Some(&database.library_collation_version).filter(|_| database.locale_provider == "c");
        single.or_else(|| own.cloned().flatten())
    });
    let here = || {
        let mounts = |process: &Path| std::fs::read_link(process.join("ns/mnt")).ok();
        let server = mounts(&process(data_dir)?)?;
        (mounts(Path::new("/proc/self"))? == server).then(host::libc_here)?
    };
    told.or_else(here)
}

/// The major version of ICU; none where the server is not linked to any, or its process is not to be seen from here, as from
/// another container.
pub fn icu(data_dir: &Path) -> Option<u16> {
    host::icu_of(&process(data_dir)?.join("exe")).ok().flatten()
}

fn process(data_dir: &Path) -> Option<PathBuf> {
    let pid = Postmaster::read(data_dir).ok().flatten()?.pid?;
    Some(PathBuf::from(format!("/proc/{pid}")))
}
