//! What documents say exists: paths, names of the code, commands, dependencies.

use std::collections::{BTreeMap, BTreeSet};

use super::crates::{imports, section};
use super::sources::{files, mentions, read, root, rust};

/// Documents that describe the code; `docs/format.md` describes bytes and stands on its own.
const DOCUMENTS: [&str; 5] =
    ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/performance.md", "docs/reliability.md"];

/// Names in documents that are PostgreSQL's, of other programs, or of files on a user's host.
const FOREIGN: [&str; 1] = ["VmHWM"];

/// The pieces between single backticks, outside code blocks.
fn quoted(document: &str) -> Vec<String> {
    let mut inside_block = false;
    let lines = document.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside_block ^= fence;
        !fence && !inside_block && !line.starts_with("    ")
    });
    let text: Vec<_> = lines.collect();
    text.join("\n").split('`').skip(1).step_by(2).map(|piece| piece.replace('\n', " ")).collect()
}

/// What kind of claim a quoted piece makes.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    /// A file or folder of the tree.
    Path(String),
    /// A name of the code, by its last component.
    Name(String),
    /// A subcommand of the binary.
    Command(String),
    /// Nothing that can be checked here.
    Nothing,
}

fn claim(piece: &str) -> Claim {
    let folders = ["pitr/", "archive/", "restore/", "agent/", "tests/", "docs/", "packaging/", ".ci/"];
    if folders.iter().any(|folder| piece.starts_with(folder)) && !piece.contains([' ', '<', '*', '{']) {
        return Claim::Path(piece.trim_end_matches('/').to_owned());
    }
    if let Some(rest) = piece.strip_prefix("highwater ") {
        let command = rest.split(' ').next().unwrap();
        let is_command =
            command.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !command.starts_with('-');
        return if is_command { Claim::Command(command.to_owned()) } else { Claim::Nothing };
    }
    let name = piece.trim_end_matches("()");
    let is_path = name.contains("::") && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ':');
    let is_type = name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.contains(|c: char| c.is_ascii_lowercase())
        && name.chars().all(char::is_alphanumeric);
    if is_path || is_type || (piece.ends_with("()") && !name.contains(' ')) {
        return Claim::Name(name.rsplit("::").next().unwrap().to_owned());
    }
    Claim::Nothing
}

#[test]
fn documents_name_what_exists() {
    let code: String = rust().into_iter().map(|source| source.text).collect();
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        for piece in quoted(&read(document)) {
            let stands = FOREIGN.contains(&piece.as_str())
                || match claim(&piece) {
                    Claim::Path(path) => root().join(path).exists(),
                    Claim::Name(name) => mentions(&code, &name),
                    Claim::Command(name) => {
                        root().join(format!("agent/src/commands/{}.rs", name.replace('-', "_"))).exists()
                    }
                    Claim::Nothing => true,
                };
            if !stands {
                wrong.push(format!("{document}: `{piece}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "no longer there: {wrong:#?}");
}

/// The promises that comments and tests name by number (`I7`) stand in docs/reliability.md.
#[test]
fn promises_stand_in_the_document() {
    let document = read("docs/reliability.md");
    let numbered = |text: &str| -> BTreeSet<u32> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        words.filter_map(|word| word.strip_prefix('I')?.parse().ok()).collect()
    };
    let named = rust().iter().flat_map(|source| numbered(&source.text)).collect::<BTreeSet<u32>>();
    let promised: BTreeSet<u32> =
        numbered(&document.lines().filter(|line| line.starts_with("**I")).collect::<String>());
    let missing: Vec<_> = named.difference(&promised).collect();
    assert!(missing.is_empty(), "no promise in docs/reliability.md: {missing:?}");
}

/// Links between documents lead somewhere.
#[test]
fn links_lead_to_files() {
    let mut wrong = Vec::new();
    for document in files().into_iter().filter(|path| path.ends_with(".md")) {
        let directory = document.rsplit_once('/').map_or("", |(directory, _)| directory);
        let text = read(&document);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
            if !root().join(directory).join(target).exists() {
                wrong.push(format!("{document}: {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each direct dependency has its line with the reason for it, and each line its dependency; none is declared and not used.
#[test]
fn every_dependency_is_accounted_for() {
    let external = |manifest: &str, heading: &str| -> BTreeSet<String> {
        section(manifest, heading).into_iter().filter(|name| !name.starts_with("highwater")).collect()
    };
    let (mut used, mut unused) = (BTreeMap::<String, Vec<&str>>::new(), Vec::<String>::new());
    for folder in ["pitr", "archive", "restore", "agent", "tests"] {
        let manifest = read(&format!("{folder}/Cargo.toml"));
        let of_crate = rust().into_iter().filter(|source| source.folder() == folder);
        let code: String = of_crate.map(|source| source.text).collect();
        let mut names = external(&manifest, "[dependencies]");
        names.extend(external(&manifest, "[dev-dependencies]"));
        for name in names {
            if !imports(&code, &name.replace('-', "_")) {
                unused.push(format!("{folder} declares {name}"));
            }
            used.entry(name).or_default().push(folder);
        }
    }
    assert!(unused.is_empty(), "declared and not used: {unused:#?}");
    let declared = external(&read("Cargo.toml"), "[workspace.dependencies]");
    assert_eq!(
        declared,
        used.keys().cloned().collect(),
        "the workspace's dependencies, and those that its crates declare"
    );
    let wanted: Vec<_> =
        used.iter().map(|(name, folders)| format!("| `{name}` | {} |", folders.join(", "))).collect();
    let table = read("docs/dependencies.md");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let documented: Vec<_> =
        rows.map(|row| row.splitn(4, '|').take(3).collect::<Vec<_>>().join("|") + "|").collect();
    assert_eq!(documented, wanted, "docs/dependencies.md, and the manifests");
}

#[test]
fn claims_are_told_apart() {
    assert_eq!(claim("archive/src/seal/"), Claim::Path("archive/src/seal".into()));
    assert_eq!(claim("archive::durable"), Claim::Name("durable".into()));
    assert_eq!(claim("SegmentName"), Claim::Name("SegmentName".into()));
    assert_eq!(claim("seal()"), Claim::Name("seal".into()));
    assert_eq!(claim("highwater archive-get %f %p"), Claim::Command("archive-get".into()));
    assert_eq!(claim("archive_command"), Claim::Nothing);
    assert_eq!(claim("WAL"), Claim::Nothing);
}

#[test]
fn code_blocks_are_not_quoted() {
    assert_eq!(quoted("a `b c` d\n```\n`no`\n```\n    `no`\n`e`"), ["b c", "e"]);
}
