//! The binary under test. It is built once a process, unless `HIGHWATER_BIN` names one (as `./dev test` does), and copied to a
//! place where the server user may run it when the tree is closed to that user, as root's home is.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::user::command_as_server_user;

/// The path of a `highwater` that the server user may run.
pub fn highwater_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built = std::env::var_os("HIGHWATER_BIN").map_or_else(build, PathBuf::from);
        let built = built.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", built.display()));
        if runs(&built) { built } else { copy(&built) }
    })
}

/// Builds the binary in the profile of this test and gives its path.
fn build() -> PathBuf {
    // target/<profile>/deps/<this test>
    let profile = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(workspace());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo runs").success(), "highwater does not build");
    profile.join("highwater")
}

/// The root of the repository.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn runs(binary: &Path) -> bool {
    command_as_server_user(binary).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Copies the binary to where root keeps PostgreSQL for these tests, once for all of them: the name holds its size and the
/// moment it was built. Only root comes here: anyone else runs what they built. Copies of older builds are removed.
fn copy(binary: &Path) -> PathBuf {
    let metadata = binary.metadata().unwrap();
    let directory = Path::new("/var/cache/highwater/bin");
    let name = format!("{:x}-{:x}-{:x}", metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    let copied = directory.join(name).join("highwater");
    if !copied.exists() {
        std::fs::create_dir_all(directory).unwrap();
        remove_older(directory);
        let own = directory.join(format!("copying-{}", std::process::id()));
        std::fs::create_dir_all(copied.parent().unwrap()).unwrap();
        std::fs::copy(binary, &own).unwrap();
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&own, &copied).unwrap();
    }
    assert!(runs(&copied), "{} does not run as the server user", copied.display());
    copied
}

/// Removes copies made more than an hour ago: no test runs longer on a binary that has been built again since.
fn remove_older(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let age = entry.metadata().ok().and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
        if age.is_some_and(|age| age.as_secs() > 3600) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
