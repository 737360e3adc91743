//! What this host has for the cluster that is to run here, held against what the cluster had where it comes from.
//!
//! In order: the server's program itself is shown the backup's `pg_control` and says whether it would open it ([`control`]); each
//! library that a setting or a function names is looked for where that server would look ([`libraries`]); the versions of the
//! libraries that sort text are compared with the recorded ones ([`sorting`]), and where they differ the relation map tells which
//! indexes may be in the wrong order now ([`reindex`] has the commands). What stops the server is a refusal; what makes it give
//! wrong answers, or fail later, is a warning. What an older backup does not say is a note.

mod control;
mod error;
mod libraries;
mod machine;
mod programs;
mod reindex;
mod sorting;

use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{Manifest, ManifestError, RelationLine, RelationMapReader};

pub use error::HostError;
pub use programs::{icu_of, libc_here};
pub use reindex::{SCRIPT_FILE, ask, script};
pub use sorting::{Difference, Resorted, sorts_plainly};

use crate::ownership::Account;
use crate::server::Installation;
use control::Judgement;
use libraries::Missing;
use sorting::Here;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The backup.
    pub manifest: &'a Manifest,
    /// Where its relation map lies.
    pub lineage: &'a Lineage,
    /// The server that will run it.
    pub installation: &'a Installation,
    /// Who will run it, when that is not this process's user.
    pub owner: Option<&'a Account>,
    /// It will be started at once.
    pub starts: bool,
    /// The settings that the original had are those that the copy will have.
    pub same_settings: bool,
}

/// What there is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What will fail or give wrong answers: each a sentence.
    pub warnings: Vec<String>,
    /// What a person should know: each a sentence.
    pub notes: Vec<String>,
    /// Databases whose text this host sorts otherwise.
    pub resorted: Vec<Resorted>,
}

/// Holds the host against the backup.
///
/// # Errors
/// [`HostError::Incompatible`], [`HostError::PreloadMissing`] where it is to be started; the relation map cannot be read.
pub async fn examine(question: Question<'_>) -> Result<Findings, HostError> {
    let Question { manifest, lineage, installation, owner, .. } = question;
    let mut findings = Findings::default();
    match control::judge(installation, owner, manifest) {
        Judgement::Opens => {}
        Judgement::Refuses { detail } => {
            return Err(HostError::Incompatible { bin: installation.bin().to_owned(), detail });
        }
        Judgement::Unknown { reason } => findings.notes.push(format!(
            "whether the server in {} opens this cluster could not be tried: {reason}",
            installation.bin().display()
        )),
    }
    let machine = machine::compare(&manifest.postgresql);
    findings.warnings.extend(machine.warning);
    let missing = match programs::library_directory(installation) {
        Some(directory) => libraries::missing(manifest, directory),
        None => {
            findings.notes.push(format!(
                "where the server in {} has its libraries is not known: those of the cluster were not looked for",
                installation.bin().display()
            ));
            Missing::default()
        }
    };
    if let (Some((setting, library)), true, true) =
        (&missing.at_start, question.starts, question.same_settings)
    {
        let (setting, library) = (setting.clone(), library.clone());
        return Err(HostError::PreloadMissing { setting, library, bin: installation.bin().to_owned() });
    }
    findings.warnings.extend(missing.warnings(installation.bin()));
    findings.notes.extend(libraries::not_recorded(manifest));

    let here = Here { libc: programs::libc_here(), icu: programs::icu_of_server(installation) };
    let compared = sorting::compare(manifest, &here, machine.other_system);
    findings.notes.extend(compared.notes);
    findings.warnings.extend(compared.warnings);
    findings.resorted = compared.resorted;
    if !findings.resorted.is_empty() {
        add_indexes(lineage, manifest, &mut findings.resorted).await?;
    }
    Ok(findings)
}

/// Reads the relation map once, for the indexes of the collations that are sorted otherwise.
async fn add_indexes(
    lineage: &Lineage,
    manifest: &Manifest,
    resorted: &mut [Resorted],
) -> Result<(), ManifestError> {
    let mut map = RelationMapReader::new(lineage.clone(), manifest);
    let mut of_database: Option<&mut Resorted> = None;
    while let Some(line) = map.next().await? {
        match line {
            RelationLine::Database { database, .. } => {
                of_database = resorted.iter_mut().find(|resorted| resorted.database == database);
            }
            RelationLine::Relation { schema, name, collations, .. } => {
                if let Some(resorted) = of_database.as_mut() {
                    resorted.add_index(&schema, &name, &collations);
                }
            }
        }
    }
    Ok(())
}
