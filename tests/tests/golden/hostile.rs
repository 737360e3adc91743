//! A file list that tries to leave: `docs/decrypt.py` refuses it as a restore does. Only who holds the keys could write one, and
//! a key that was stolen must not be worth the files of whoever reads with it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use highwater_archive::keyring::Unlock;
use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{
    BackupId, FileLine, FileListWriter, Manifest, list_backups, read_manifest, write_manifest,
};
use highwater_archive::repository::Repository;
use highwater_archive::store::local::LocalStore;
use highwater_tests::Finished;
use highwater_tests::python::decrypt_py;

use crate::{copy_of, fixture, keys};

/// The lineage of the fixture that has a complete backup, with its manifest.
async fn opened(repository: &Path) -> (Lineage, Manifest) {
    let unlock = Unlock::from_text(&keys()["main"]).expect("a key");
    let repository = Repository::open(Arc::new(LocalStore::new(repository))).await.expect("a repository");
    let locked = repository.cluster(&"main".parse().expect("a name")).await.expect("a cluster");
    let cluster = locked.unlock(&unlock).await.expect("the keyring opens");
    for lineage in cluster.lineages().await.expect("lineages") {
        if let [backup, ..] = list_backups(&lineage).await.expect("backups").complete.as_slice() {
            let manifest = read_manifest(&lineage, backup).await.expect("a manifest");
            return (lineage, manifest);
        }
    }
    panic!("the fixture has a backup");
}

fn dir(path: &str) -> FileLine {
    FileLine::Dir { path: path.parse().expect("a path"), mode: 0o700 }
}

fn link(path: &str, target: &str) -> FileLine {
    FileLine::Symlink { path: path.parse().expect("a path"), target: target.to_owned() }
}

fn tablespace(path: &str) -> FileLine {
    FileLine::Tablespace { path: path.parse().expect("a path"), target: "/srv/fast".to_owned(), mode: 0o700 }
}

/// No link is made that may lead out of the data directory or its tablespace, none stands where a directory belongs, and nothing is
/// written through one; those that stay inside are made as they are.
#[tokio::test]
async fn decrypt_py_makes_no_link_that_leaves() {
    let copy = copy_of("plain");
    let (lineage, manifest) = opened(copy.path()).await;
    let scratch = tempfile::tempdir().expect("a directory");
    let key = fixture("keys/main.key");
    let mut number = 0_u8;
    let mut rebuilt = async |lines: Vec<FileLine>| -> (Finished, std::path::PathBuf) {
        number += 1;
        let id = BackupId::new(manifest.started_at, [9, 9, 9, number]);
        let mut list = FileListWriter::new(lineage.clone(), id.clone(), manifest.extent_bytes);
        for line in &lines {
            list.push(line).await.expect("a line");
        }
        let file_list = list.finish().await.expect("the list");
        let written = Manifest { backup: id.clone(), file_list, ..manifest.clone() };
        write_manifest(&lineage, &written).await.expect("a manifest");
        let output = scratch.path().join(number.to_string());
        let (repository, key) = (copy.path().to_string_lossy(), key.to_string_lossy());
        let (id, into) = (id.to_string(), output.to_string_lossy().into_owned());
        let arguments = [
            "files",
            &repository,
            "--cluster",
            "main",
            "--key",
            &key,
            "--lineage",
            &lineage.id().to_string(),
            &id,
            "-o",
            &into,
        ]
        .map(str::to_owned);
        (decrypt_py(arguments), output)
    };

    let leaves = "may be outside the data directory";
    let table = |below: &str, target: &str| {
        let version = "pg_tblspc/16384/PG_17";
        vec![
            dir("pg_tblspc"),
            tablespace("pg_tblspc/16384"),
            dir(version),
            link(&format!("{version}/{below}"), target),
        ]
    };
    for (lines, words) in [
        (vec![link("away", "/etc/passwd")], leaves),
        (vec![link("away", "..")], leaves),
        (vec![dir("conf.d"), link("conf.d/away", "../../x")], leaves),
        (vec![dir("conf.d"), link("conf.d/away", "../conf.d/../../x")], leaves),
        (vec![link("away", "")], leaves),
        // Above a tablespace lies something else than its path in the list says.
        (table("away", "../../x"), leaves),
        (vec![link("global", "elsewhere")], "where a directory belongs"),
        (vec![link("pg_wal", "elsewhere")], "where a directory belongs"),
        (vec![dir("pg_tblspc"), link("pg_tblspc/16384", "../base")], "where a directory belongs"),
        (vec![link("backup_label", "PG_VERSION")], "in the place of one"),
        (vec![dir("pg_tblspc"), tablespace("pg_tblspc/x")], "not the link of a tablespace"),
    ] {
        let (refused, output) = rebuilt(lines.clone()).await;
        refused.failure(126, &[words]);
        assert!(!output.join("global/pg_control").exists(), "{lines:?}");
    }
    assert!(!scratch.path().join("x").exists());

    let mut kept = vec![dir("conf.d"), link("conf.d/current", "../base%41.conf"), dir("global")];
    kept.extend(table("near", "../other"));
    let (done, output) = rebuilt(kept).await;
    done.success();
    for (path, target) in [("conf.d/current", "../base%41.conf"), ("pg_tblspc/16384/PG_17/near", "../other")]
    {
        assert_eq!(fs::read_link(output.join(path)).expect("a link"), Path::new(target));
    }
}
