//! Everything that can be known before the first byte is written.
//!
//! In this order, each a reason to refuse: no server runs there, and the directories are absent, empty, or proven to be this
//! restore's to fill ([`crate::standing`]); the archive reaches
//! the target without a gap; the backup's manifest is there and authentic, and where there is something to lose its whole file list
//! and every pack too; every tablespace has a place; the owner exists
//! here and can run `restore_command`; every place can be written and be entered by the server's user, and no configuration file
//! stands where one is to be put; there is space on each filesystem, for so many files too; a server of its major is here, and where it is to be started its
//! port is free; and that server opens it, with its libraries ([`host`](crate::host)). Nothing is created, but for a directory under the system's temporary one that is
//! gone again, and nothing else is ever deleted.

mod apart;
mod runs;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_archive::catalog::{Catalog, Holding, resolve};
use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{BackupId, Manifest, Tablespace, read_manifest};
use highwater_archive::repository::Patience;
use highwater_pitr::control::ControlFile;
use highwater_pitr::plan::{Plan, ReplayedTablespace};
use highwater_pitr::target::{RecoveryTarget, TargetAction};
use highwater_pitr::timeline::TimelineId;

use crate::error::RestoreError;
use crate::filled::Places;
use crate::host::{Findings, Resorted};
use crate::inodes;
use crate::kept_wal::{self, KeptWal};
use crate::mounted;
use crate::outside::Relocation;
use crate::ownership::{self, Account};
use crate::places::{self, Purpose};
use crate::plan_file::RepositoryToPlan;
use crate::rebuild::{OWN_DIRECTORY, RebuildError, version_directory};
use crate::replayed::{self, Destinations, Replayed};
use crate::server::Installation;
use crate::space::{self, Filled, Space};
use crate::standing::{Asked, Found, Named, Standing};
use crate::tablespaces::{self, Known, Mapping, Placed};
use crate::whole;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The new data directory: absent or empty, or what an earlier restore of the same left there.
    pub target_dir: PathBuf,
    /// The data directory may be one of this cluster, to be brought to the state of the backup.
    pub delta: bool,
    /// Where recovery shall stop.
    pub target: RecoveryTarget,
    /// Follow this timeline and no newer one.
    pub timeline: Option<TimelineId>,
    /// Begin with this backup.
    pub backup: Option<BackupId>,
    /// Begin with a backup of the repository with this name; the WAL of the others serves all the same.
    pub from_repository: Option<String>,
    /// Where tablespaces go.
    pub mappings: Vec<Mapping>,
    /// Where `pg_wal` goes, when not in the data directory.
    pub wal_dir: Option<PathBuf>,
    /// Where configuration from outside the data directory goes.
    pub config_to: Option<PathBuf>,
    /// `USER[:GROUP]` to own the files.
    pub owner: Option<String>,
    /// What to do at the target; absent means [`TargetAction::default_for`].
    pub action: Option<TargetAction>,
    /// Make it a standby that goes on.
    pub standby: bool,
    /// It takes production's place: nothing is turned off.
    pub replace_production: bool,
    /// The programs of the server that will run it, or those found.
    pub pg_bin: Option<PathBuf>,
    /// Another host's server will run it: this host's is not held against it.
    pub elsewhere: bool,
    /// It will be started.
    pub start: Option<Start>,
    /// This program, as `restore_command` calls it.
    pub program: PathBuf,
    /// Directories of local repositories, which `restore_command` reads as the server's user.
    pub local_repositories: Vec<PathBuf>,
}

/// How the server is to be started.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// On this port, or the configured one.
    pub port: Option<u16>,
    /// With its socket here, or where it is configured.
    pub socket_dir: Option<PathBuf>,
}

impl Request {
    /// What the server does at the target.
    pub fn action(&self) -> TargetAction {
        self.action.unwrap_or_else(|| TargetAction::default_for(&self.target))
    }
}

/// A restore that nothing known stands against.
#[derive(Debug)]
pub struct Preflight {
    /// The repository that gives the backup, by its name.
    pub repository: String,
    /// The lineage in it.
    pub lineage: Arc<Lineage>,
    /// Backup, timeline, WAL and where recovery stops.
    pub plan: Plan,
    /// The backup.
    pub manifest: Manifest,
    /// What stands at the target.
    pub standing: Standing,
    /// Where `pg_wal` goes, when not in the data directory.
    pub wal_dir: Option<PathBuf>,
    /// Where each tablespace goes.
    pub tablespaces: Vec<Placed>,
    /// The tablespaces that replay makes, each at its own path.
    pub replayed: Vec<Replayed>,
    /// Where configuration from outside the data directory goes.
    pub configuration: Relocation,
    /// Who gets the files, when not this process's user.
    pub owner: Option<Account>,
    /// Space, a filesystem each.
    pub spaces: Vec<Space>,
    /// The server that will run it, where one is here.
    pub installation: Option<Installation>,
    /// What will fail or give wrong answers on this host: each a sentence.
    pub warnings: Vec<String>,
    /// Databases whose text this host sorts otherwise, with the indexes that are to be rebuilt.
    pub resorted: Vec<Resorted>,
    /// What a person should know: each a sentence.
    pub notes: Vec<String>,
}

impl Preflight {
    /// The directories that are filled.
    pub fn places<'a>(&'a self, request: &'a Request) -> Places<'a> {
        let (wal_dir, tablespaces) = (self.wal_dir.as_deref(), self.tablespaces.as_slice());
        Places { target_dir: &request.target_dir, wal_dir, tablespaces }
    }

    /// Looks once more at all places, after a while or under the lock: whether what stands there is still what was found, and is still
    /// this restore's to fill.
    ///
    /// # Errors
    /// As [`preflight`], of what is on this host.
    pub fn look_again(&self, request: &Request) -> Result<(), RestoreError> {
        let Preflight { standing, manifest, owner, .. } = self;
        let (places, own) = (self.places(request), version_directory(manifest));
        let identifier = manifest.postgresql.system_identifier;
        standing.look_again(&request.target_dir, identifier, &manifest.control.bytes)?;
        standing.check_places(places)?;
        apart::check(standing, places, &request.local_repositories, owner.as_ref(), &own)?;
        mounted::check(standing, places, &own)
    }

    /// `cause` broke off the restore after it had begun to write: an error that says what that left, and what to type.
    pub fn unfinished(&self, request: &Request, cause: impl Into<RestoreError>) -> RestoreError {
        let cause = cause.into();
        let mut written: Vec<PathBuf> = self.places(request).all().map(Path::to_owned).collect();
        written.extend(self.configuration.entries());
        match self.standing.found() {
            Found::Cluster => written.clear(),
            Found::Unfinished(record) if record.restore.in_place => written.clear(),
            Found::Unfinished(_) | Found::Nothing => {}
        }
        match &cause {
            // Somebody else writes here: nothing is ours to remove.
            RestoreError::Rebuild(RebuildError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                return cause;
            }
            RestoreError::ConfigExists { path } => written.retain(|entry| !path.starts_with(entry)),
            _ => {}
        }
        RestoreError::Unfinished { path: request.target_dir.clone(), written, cause: Box::new(cause) }
    }
}

/// Looks at everything. Of several repositories that hold the backup, the one that comes first gives it.
///
/// # Errors
/// [`RestoreError`]; nothing was written.
pub async fn preflight(
    repositories: &[RepositoryToPlan<'_>],
    request: &Request,
) -> Result<Preflight, RestoreError> {
    let mut standing = check_directories(request)?;
    let names_wal = request.wal_dir.is_some();
    // What is not asked for otherwise is where it was.
    let request = &Request {
        wal_dir: request.wal_dir.clone().or_else(|| standing.wal_dir()),
        backup: request.backup.clone().or_else(|| standing.backup()),
        ..request.clone()
    };
    let mut notes = Vec::new();
    let held = look_into(repositories, request, &mut notes).await?;
    let holdings: Vec<Holding<'_>> = held
        .iter()
        .map(|(repository, catalog)| Holding {
            lineage: repository.lineage,
            catalog,
            gives_backups: request.from_repository.as_ref().is_none_or(|name| repository.name == name),
        })
        .collect();
    let plan = resolve(&holdings, &request.target, request.timeline, request.backup.as_ref()).await?;
    let unwritable = || RestoreError::Unwritable { text: plan.backup.id.clone() };
    let id: BackupId = plan.backup.id.parse().map_err(|_| unwritable())?;
    let mut givers = held.iter().zip(&holdings).filter(|(_, holding)| holding.gives_backups);
    let giver = givers.find(|((_, catalog), _)| catalog.backup(id.as_str()).is_some());
    let repository = giver.map(|((repository, _), _)| *repository).ok_or_else(unwritable)?;
    let lineage = Arc::new(repository.lineage.clone());
    let manifest = read_manifest(&lineage, &id).await?;
    standing.check_cluster(&request.target_dir, &manifest)?;
    let named = Named { target_dir: &request.target_dir, wal_dir: names_wal, mappings: &request.mappings };
    standing.check_links(&named, &manifest)?;

    let Manifest { tablespaces, tablespace_map, .. } = &manifest;
    let mappings: Vec<Mapping> =
        request.mappings.iter().cloned().chain(standing.mappings(&manifest)).collect();
    let request = &Request { mappings, ..request.clone() };
    let tablespaces = place_tablespaces(tablespaces, tablespace_map, &plan.stop.tablespaces, request)?;
    for placed in &tablespaces {
        standing.check_place(Purpose::Tablespace(placed.oid), &placed.directory)?;
    }
    ControlFile::parse(&manifest.control.bytes)?;
    let mut configuration = match &request.config_to {
        Some(directory) => Relocation::below(directory, &lineage, &manifest).await?,
        None => Relocation::beside(),
    };
    if let Found::Unfinished(record) = standing.found() {
        configuration.go_on(&record.configuration);
    }
    let wal_dir = request.wal_dir.as_deref();
    let places = Places { target_dir: &request.target_dir, wal_dir, tablespaces: &tablespaces };
    let asked = Asked { places, configuration: &configuration, lineage: &lineage.id().to_string() };
    let own = version_directory(&manifest);
    standing.settle(&asked, &manifest, &own)?;
    let owner = ownership::decide(request.owner.as_deref(), &manifest.owner.user, &manifest.owner.group)?;
    apart::check(&standing, places, &request.local_repositories, owner.as_ref(), &own)?;
    mounted::check(&standing, places, &own)?;
    if !standing.is_nothing() {
        let archives: Vec<&Catalog> = held.iter().map(|(_, catalog)| catalog).collect();
        standing.keep(kept_wal::find(
            &request.target_dir,
            &request.target_dir.join(OWN_DIRECTORY),
            wal_dir,
            &archives,
        )?);
        notes.extend(standing.kept_wal().iter().map(KeptWal::note));
        whole::check(&lineage, &manifest).await?;
    }
    configuration.check(places.all())?;
    check_directory_owner(&request.target_dir, owner.as_ref())?;
    runs::check_program(request, owner.as_ref())?;
    let replayed = examine_replayed(&plan, &tablespaces, &standing, owner.as_ref(), request)?;
    // What is filled and was there is given away, what it lies in is not.
    let given = places.all().map(|path| (path, path.parent().unwrap_or(path)));
    for (path, entered) in given.chain(request.config_to.as_deref().map(|path| (path, path))) {
        places::check(path, entered, owner.as_ref())?;
    }
    let spaces =
        space::measure(Filled { places, manifest: &manifest, plan: &plan, present: standing.present() })?;
    if standing.is_nothing() {
        inodes::check(places, &lineage, &manifest, &plan).await?;
    }
    notes.extend(plan.notes.iter().cloned());
    let installation = runs::find_server(request, manifest.postgresql.major, &mut notes)?;
    let Findings { warnings, notes: of_host, resorted } =
        runs::look_at(request, &manifest, &lineage, installation.as_ref(), owner.as_ref()).await?;
    notes.extend(of_host);
    for failure in manifest.page_failures.iter().take(3) {
        let relation = failure.relation.as_deref().unwrap_or("an unknown relation");
        notes.push(format!(
            "the backup holds a damaged page: block {} of {} ({relation}): {}",
            failure.block, failure.file, failure.problem
        ));
    }
    let repository = repository.name.to_owned();
    Ok(Preflight {
        repository,
        lineage,
        plan,
        manifest,
        standing,
        wal_dir: request.wal_dir.clone(),
        tablespaces,
        replayed,
        configuration,
        owner,
        spaces,
        installation,
        warnings,
        resorted,
        notes,
    })
}

/// What each repository holds; all are asked at once. One that cannot be asked is left out by name, unless it is the one asked for or the only one.
async fn look_into<'a>(
    repositories: &[RepositoryToPlan<'a>],
    request: &Request,
    notes: &mut Vec<String>,
) -> Result<Vec<(RepositoryToPlan<'a>, Catalog)>, RestoreError> {
    let (mut held, mut failure) = (Vec::new(), None);
    let catalogs = futures::future::join_all(repositories.iter().map(async |repository| {
        let load = Catalog::load(repository.lineage);
        let loaded = repository.lineage.repository().attend(Patience::USUAL, load).await;
        loaded.map_err(RestoreError::from)?.map_err(RestoreError::from)
    }));
    for (repository, catalog) in repositories.iter().zip(catalogs.await) {
        match catalog {
            Ok(catalog) => held.push((*repository, catalog)),
            Err(error) if request.from_repository.as_deref() == Some(repository.name) => return Err(error),
            Err(error) => {
                notes.push(format!(
                    "what repository {} holds could not be looked at, so what it alone holds is not in this plan: {error}",
                    repository.name
                ));
                failure.get_or_insert(error);
            }
        }
    }
    match failure {
        Some(error) if held.is_empty() => Err(error),
        _ => Ok(held),
    }
}

/// The directories that are to be filled, before the archive is asked anything.
fn check_directories(request: &Request) -> Result<Standing, RestoreError> {
    let target = &request.target_dir;
    for path in [Some(target), request.wal_dir.as_ref(), request.config_to.as_ref()].into_iter().flatten() {
        if !path.is_absolute() {
            return Err(RestoreError::NotAbsolute { path: path.clone() });
        }
        if path.to_str().is_none_or(|text| text.chars().any(char::is_control)) {
            return Err(RestoreError::Unwritable { text: path.display().to_string() });
        }
    }
    let standing = Standing::look(target, request.delta)?;
    if let Some(wal_dir) = request.wal_dir.clone().or_else(|| standing.wal_dir()) {
        standing.check_place(Purpose::Wal, &wal_dir)?;
        if places::overlap(&wal_dir, target) {
            let (first, second) = (wal_dir.display().to_string(), target.display().to_string());
            return Err(tablespaces::TablespaceError::Overlap { first, second }.into());
        }
    }
    Ok(standing)
}

/// PostgreSQL starts only in a directory that its own user owns (`checkDataDir` in `miscinit.c`). Root gives the directory
/// away; anyone else must own it, or make it.
fn check_directory_owner(target: &Path, owner: Option<&Account>) -> Result<(), RestoreError> {
    let Ok(metadata) = std::fs::metadata(target) else { return Ok(()) };
    let me = Account::current();
    if owner.is_none() && metadata.uid() != me.uid {
        return Err(RestoreError::WrongOwner {
            path: target.to_owned(),
            owner: metadata.uid(),
            server: me.name,
        });
    }
    Ok(())
}

/// Finds where the tablespaces go, and that `map`, the backup's `tablespace_map`, can be rewritten for it.
fn place_tablespaces(
    tablespaces: &[Tablespace],
    map: &str,
    replayed: &[ReplayedTablespace],
    request: &Request,
) -> Result<Vec<Placed>, RestoreError> {
    let known: Vec<Known<'_>> = tablespaces
        .iter()
        .filter_map(|tablespace| {
            let path = tablespace.path.as_deref()?;
            Some(Known { oid: tablespace.oid, name: tablespace.name.as_deref(), path })
        })
        .collect();
    let placed = match tablespaces::place(&known, &request.mappings, &request.target_dir) {
        Ok(placed) => placed,
        Err(error) => return Err(replayed::explain(error, replayed)?.into()),
    };
    // It is written when all data is there, which would be late to learn that it cannot be.
    tablespaces::rewrite_map(map, &placed)?;
    Ok(placed)
}

/// Looks at the directories that replay will write into by itself.
fn examine_replayed(
    plan: &Plan,
    placed: &[Placed],
    standing: &Standing,
    owner: Option<&Account>,
    request: &Request,
) -> Result<Vec<Replayed>, RestoreError> {
    let mut directories = vec![request.target_dir.as_path()];
    directories.extend(request.wal_dir.as_deref());
    directories.extend(request.config_to.as_deref());
    let destinations = Destinations { directories: &directories, placed, emptied: standing.emptied(), owner };
    Ok(replayed::examine(&plan.stop.tablespaces, destinations)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::PlaceError;

    fn request(target_dir: PathBuf) -> Request {
        Request {
            target_dir,
            delta: false,
            target: RecoveryTarget::Latest,
            timeline: None,
            backup: None,
            from_repository: None,
            mappings: Vec::new(),
            wal_dir: None,
            config_to: None,
            owner: None,
            action: None,
            standby: false,
            replace_production: false,
            pg_bin: None,
            elsewhere: false,
            start: None,
            program: PathBuf::from("/usr/bin/highwater"),
            local_repositories: Vec::new(),
        }
    }

    /// What is there stays there: anything but an absent or empty directory is refused.
    #[test]
    fn only_an_absent_or_empty_directory_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("data");
        assert!(check_directories(&request(target.clone())).is_ok());
        std::fs::create_dir(&target).unwrap();
        assert!(check_directories(&request(target.clone())).is_ok());
        let occupant = target.join(".hidden");
        std::fs::create_dir(&occupant).unwrap();
        let refused = check_directories(&request(target.clone())).unwrap_err();
        assert!(matches!(refused, RestoreError::Place(PlaceError::NotEmpty { .. })) && refused.is_refusal());
        assert!(occupant.is_dir());
        let dangling = directory.path().join("dangling");
        std::os::unix::fs::symlink("/nowhere/at/all", &dangling).unwrap();
        assert!(check_directories(&request(dangling)).is_err());
        assert!(matches!(
            check_directories(&request("relative".into())),
            Err(RestoreError::NotAbsolute { .. })
        ));
        let overlap = Request { wal_dir: Some(target.join("wal")), ..request(directory.path().join("d2")) };
        assert!(check_directories(&overlap).is_ok());
        // Also by another name.
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        std::fs::remove_dir(&occupant).unwrap();
        for (target, wal_dir) in [("/x/d".into(), "/x/d/wal".into()), (target, link.join("wal"))] {
            let overlap = Request { wal_dir: Some(wal_dir), ..request(target) };
            assert!(matches!(check_directories(&overlap), Err(RestoreError::Tablespace(_))));
        }
    }

    /// A map that cannot be followed is told before anything is fetched.
    #[test]
    fn a_tablespace_map_is_tried_before_a_byte_is_written() {
        let known = [Tablespace { oid: 7, name: None, path: Some("/srv/fast".into()), bytes: 0 }];
        let request = request("/x/d".into());
        let placed = place_tablespaces(&known, "7 /srv/fast\n", &[], &request).unwrap();
        assert_eq!(placed.first().unwrap().directory, Path::new("/srv/fast"));
        for map in ["7 /srv/fast\n8 /srv/slow\n", "rubbish\n"] {
            let refused = place_tablespaces(&known, map, &[], &request).unwrap_err();
            assert!(matches!(refused, RestoreError::Tablespace(_)) && refused.is_refusal(), "{map}");
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_running_server_and_an_unfinished_restore_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("data");
        std::fs::create_dir_all(target.join("highwater")).unwrap();
        std::fs::write(target.join(crate::rebuild::INCOMPLETE_MARKER), "").unwrap();
        assert!(matches!(check_directories(&request(target.clone())), Err(RestoreError::Incomplete { .. })));
        let mut server = crate::server::pretend("postgres", &target);
        std::fs::write(target.join("postmaster.pid"), format!("{}\n", server.id())).unwrap();
        let running = check_directories(&request(target.clone()));
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(matches!(running, Err(RestoreError::Running { .. })));
        std::fs::write(target.join("postmaster.pid"), "999999999\n").unwrap();
        assert!(matches!(check_directories(&request(target)), Err(RestoreError::Incomplete { .. })));
    }
}
