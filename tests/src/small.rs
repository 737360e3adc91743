//! A filesystem that can be filled to the last byte, or has only so many inodes.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::highwater::Finished;
use crate::user::{is_root, server_user};

/// A filesystem in memory, unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallFilesystem {
    path: PathBuf,
}

impl SmallFilesystem {
    /// Mounts one, with tmpfs's own options such as `size=1m` or `nr_inodes=3`, that belongs to the server's user; none where that is not
    /// allowed.
    pub fn mount(path: &Path, options: &str) -> Option<Self> {
        let user = server_user();
        let options = format!("{options},mode=0700,uid={},gid={}", user.uid, user.gid);
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(path);
        let mounted = is_root() && mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self { path: path.to_owned() })
    }

    /// Changes its options.
    pub fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{options}")]).arg(&self.path);
        Finished::of(&mut mount).success();
    }

    /// Lets it have so many inodes more than are in use.
    pub fn leave_inodes(&self, more: u64) {
        let used = rustix::fs::statvfs(&self.path).unwrap();
        self.remount(&format!("nr_inodes={}", used.f_files - used.f_ffree + more));
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills it but for so many bytes.
    pub fn fill_but(&self, bytes: u64) {
        let mut filler = File::create(self.filler()).unwrap();
        for piece in [1 << 20, 4096] {
            while filler.write_all(&vec![1; piece]).is_ok() {}
        }
        let full = filler.metadata().unwrap().len();
        filler.set_len(full.saturating_sub(bytes)).unwrap();
    }

    /// Takes away what fills it.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// What stands under a temporary name of ours.
    pub fn leftovers(&self) -> Vec<String> {
        let found = Command::new("find").arg(&self.path).args(["-name", ".highwater-tmp*"]).output().unwrap();
        String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for SmallFilesystem {
    fn drop(&mut self) {
        // Whoever still works in it must not keep the next test from starting.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).output();
    }
}
