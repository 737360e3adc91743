//! What this host has for the cluster that is to run here, held against what the cluster had where it comes from.
//!
//! In order: the server's program itself is shown the backup's `pg_control` and says whether it would open it, and takes its settings
//! ([`trial`], [`locales`]); each library that a setting or a function names is looked for where that server would look ([`libraries`]); the versions of the
//! libraries that sort text are compared with the recorded ones ([`sorting`]), and where they differ the relation map tells which
//! indexes may be in the wrong order now ([`reindex`] has the commands). What stops the server is a refusal; what makes it give
//! wrong answers, or fail later, is a warning. What an older backup does not say is a note.

mod error;
mod libraries;
mod locales;
mod machine;
mod programs;
mod reindex;
mod sorting;
mod trial;
mod words;

use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{Manifest, ManifestError, RelationLine, RelationMapReader};

pub use error::HostError;
pub use programs::{icu_of, libc_here};
pub use reindex::{Answers, SCRIPT_FILE, ask, script};
pub use sorting::{Difference, Resorted, sorts_plainly};

use crate::ownership::Account;
use crate::server::Installation;
use libraries::Missing;
use sorting::Here;
use trial::{Judgement, Trial};

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
/// [`HostError::Incompatible`]; where it is to be started, whatever else keeps it from that; the relation map cannot be read.
pub async fn examine(question: Question<'_>) -> Result<Findings, HostError> {
    let Question { manifest, lineage, installation, .. } = question;
    let mut findings = Findings::default();
    try_server(question, &mut findings)?;
    let machine = machine::compare(&manifest.postgresql);
    findings.warnings.extend(machine.warning);
    let missing = match programs::library_directory(installation) {
        Some(directory) => libraries::missing(&manifest.postgresql, &manifest.databases, directory),
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
    findings.notes.extend(libraries::not_recorded(&manifest.databases));

    let here = Here { libc: programs::libc_here(), icu: programs::icu_of_server(installation) };
    let compared = sorting::compare(&manifest.postgresql, &manifest.databases, &here, machine.other_system);
    findings.notes.extend(not_examined(manifest));
    findings.notes.extend(compared.notes);
    findings.warnings.extend(compared.warnings);
    findings.resorted = compared.resorted;
    if !findings.resorted.is_empty() {
        add_indexes(lineage, manifest, &mut findings.resorted).await?;
    }
    Ok(findings)
}

/// Databases that the backup could not ask: templates without connections are no loss.
fn not_examined(manifest: &Manifest) -> Option<String> {
    let unknown =
        manifest.databases.iter().filter(|database| !database.examined && database.name != "template0");
    let names: Vec<&str> = unknown.map(|database| database.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "the backup could not look into database {}: its extensions, and the indexes on its text, are not known here",
            words::some_of(&names)
        )
    })
}

/// What the server itself says before it would start: of the cluster's files, its settings, and the locales of its databases.
fn try_server(question: Question<'_>, findings: &mut Findings) -> Result<(), HostError> {
    let Question { manifest, installation, owner, starts, same_settings, .. } = question;
    let bin = installation.bin();
    let untried = |reason: String| {
        format!("whether the server in {} opens this cluster could not be tried: {reason}", bin.display())
    };
    let trial = match Trial::new(installation, owner, manifest) {
        Ok(trial) => trial,
        Err(error) => {
            findings.notes.push(untried(error.to_string()));
            return Ok(());
        }
    };
    let (judgement, refused) = trial.judge(&locales::settings(&manifest.postgresql));
    match judgement {
        Judgement::Opens => {}
        Judgement::Refuses { detail } => return Err(HostError::Incompatible { bin: bin.to_owned(), detail }),
        Judgement::Unknown { reason } => {
            findings.notes.push(untried(reason));
            return Ok(());
        }
    }
    for refused in refused {
        if starts && same_settings {
            return Err(HostError::SettingRefused { bin: bin.to_owned(), detail: refused.detail });
        }
        findings.warnings.push(format!(
            "the server in {} refuses a setting that the original had, and does not start with it: {}",
            bin.display(),
            refused.detail
        ));
    }
    for (locale, databases) in locales::missing(&trial, &manifest.databases) {
        // Through this one the server is asked how far it is.
        if starts && databases.iter().any(|database| database == "postgres") {
            return Err(HostError::LocaleMissing { locale });
        }
        findings.warnings.push(locales::warning(&locale, &databases));
    }
    Ok(())
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
