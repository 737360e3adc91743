//! Databases and the relation map, asked while the files are copied.
//!
//! Each database has catalogs of its own, so each is connected to in turn. A database that cannot be connected to, or does not answer
//! (it was dropped meanwhile, a catalog of it is damaged), is in the manifest with `examined` false: a backup does not fail for what
//! only helps people.

use std::collections::BTreeMap;
use std::pin::pin;

use futures::TryStreamExt as _;
use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{
    BackupId, DataPageFailure, Database, FilePath, Manifest, Part, RelationLine, RelationMapReader,
    RelationMapWriter,
};
use tokio_postgres::Row;

use super::databases;
use super::error::BackupError;
use super::listing::Totals;
use super::names::RelationFile;
use crate::config::Config;
use crate::pg::{PgError, Session};

/// Relations with storage, by the name of their files. `$1`: the shared ones, or those of this database. `$2`: whether the order
/// of the database's own collation may change. What an index is on has collations in `indcollation`; what its expressions and
/// its condition compare by stands in their parse trees alone.
const RELATIONS: &str = "SELECT pg_relation_filepath(c.oid), n.nspname::text, c.relname::text, c.relkind::text, c.oid, \
     pn.nspname || '.' || p.relname, \
     CASE WHEN i.indexrelid IS NOT NULL THEN (SELECT array_agg(sn.nspname || '.' || s.collname ORDER BY sn.nspname, s.collname) FROM \
     (SELECT unnest(i.indcollation::oid[]) UNION SELECT m[1]::oid FROM \
     regexp_matches(concat(i.indexprs, i.indpred), ':inputcollid ([1-9][0-9]*)', 'g') m) u(o) \
     JOIN pg_collation s ON s.oid = u.o JOIN pg_namespace sn ON sn.oid = s.collnamespace \
     WHERE CASE WHEN s.collprovider = 'd' THEN $2 ELSE s.collversion IS NOT NULL END) END \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_index i ON i.indexrelid = c.oid \
     LEFT JOIN pg_class t ON c.relkind = 't' AND t.reltoastrelid = c.oid \
     LEFT JOIN pg_class p ON p.oid = coalesce(i.indrelid, t.oid) \
     LEFT JOIN pg_namespace pn ON pn.oid = p.relnamespace \
     WHERE c.relkind IN ('r', 'i', 'S', 't', 'm') AND c.relpersistence <> 't' AND c.relisshared = $1 \
     ORDER BY pg_relation_filepath(c.oid) COLLATE \"C\"";

/// Asks about all databases, and writes the relation map of `backup`.
pub async fn examine(
    config: &Config,
    session: &Session,
    lineage: &Lineage,
    backup: &BackupId,
) -> Result<(Vec<Database>, Vec<Part>), BackupError> {
    let mut map = RelationMapWriter::new(lineage.clone(), backup.clone());
    map.push(&RelationLine::Database { database: String::new(), oid: 0 }).await?;
    answered(write_relations(session, true, false, &mut map).await, "the shared catalogs")?;
    let mut databases = Vec::new();
    for (mut database, reachable) in databases::list(session).await? {
        if reachable {
            match Session::connect_to(config, &database.name).await {
                Ok(inside) => {
                    let looked = look_into(&inside, &mut map, &mut database).await;
                    database.examined = answered(looked, &format!("database {}", database.name))?;
                    inside.close().await;
                }
                Err(error) => tracing::warn!("database {} was not looked into: {error}", database.name),
            }
        }
        databases.push(database);
    }
    Ok((databases, map.finish().await?))
}

/// What the catalogs of one database say: all of it, or nothing but the relations that came before the failure.
async fn look_into(
    inside: &Session,
    map: &mut RelationMapWriter,
    database: &mut Database,
) -> Result<(), BackupError> {
    map.push(&RelationLine::Database { database: database.name.clone(), oid: database.oid }).await?;
    write_relations(inside, false, databases::order_may_change(database), map).await?;
    databases::describe(inside, database).await
}

/// Whether the server answered to the end; that it did not is said, and no reason to fail. Everything else is.
fn answered(looked: Result<(), BackupError>, what: &str) -> Result<bool, BackupError> {
    match looked {
        Ok(()) => Ok(true),
        Err(BackupError::Server(error)) => {
            tracing::warn!("{what} could not be looked into: {error}");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The rows come one by one: a database of a million relations is no reason to hold them.
async fn write_relations(
    session: &Session,
    shared: bool,
    order_may_change: bool,
    map: &mut RelationMapWriter,
) -> Result<(), BackupError> {
    let failed = |error| PgError::query("list its relations", &error);
    let rows = session.client().query_raw(RELATIONS, [shared, order_may_change]).await.map_err(failed)?;
    let mut rows = pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        if let Some(line) = relation(&row).map_err(failed)? {
            map.push(&line).await?;
        }
    }
    Ok(())
}

/// A row of [`RELATIONS`]; `None` for a relation that was dropped between the catalog and its file.
fn relation(row: &Row) -> Result<Option<RelationLine>, tokio_postgres::Error> {
    let path: Option<String> = row.try_get(0)?;
    let Some(relation) = path.and_then(|path| FilePath::from_bytes(path).ok()) else { return Ok(None) };
    Ok(Some(RelationLine::Relation {
        relation,
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        kind: row.try_get(3)?,
        oid: row.try_get(4)?,
        of: row.try_get(5)?,
        collations: row.try_get::<_, Option<Vec<String>>>(6)?.unwrap_or_default(),
    }))
}

/// Gives the bad pages the names of their relations, from the map that was just written.
pub async fn name_failures(
    lineage: &Lineage,
    manifest: &Manifest,
    totals: &Totals,
) -> Result<Vec<DataPageFailure>, BackupError> {
    let mut wanted = BTreeMap::new();
    for (file, _) in &totals.bad_pages {
        if let Some(relation) = main_fork(file) {
            wanted.insert(relation, None);
        }
    }
    if !wanted.is_empty() {
        let mut map = RelationMapReader::new(lineage.clone(), manifest);
        let mut of_database = String::new();
        while let Some(line) = map.next().await? {
            match line {
                RelationLine::Database { database, .. } => of_database = database,
                RelationLine::Relation { relation, schema, name, .. } => {
                    if let Some(known) = wanted.get_mut(&relation) {
                        let parts = [of_database.as_str(), &schema, &name];
                        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                        *known = Some(parts.join("."));
                    }
                }
            }
        }
    }
    let failures = totals.bad_pages.iter().map(|(file, page)| DataPageFailure {
        file: file.clone(),
        block: page.block,
        relation: main_fork(file).and_then(|relation| wanted.get(&relation).cloned().flatten()),
        problem: page.problem.clone(),
    });
    Ok(failures.collect())
}

/// The path that the relation map knows a relation file by.
fn main_fork(file: &FilePath) -> Option<FilePath> {
    let name = file.components().last()?;
    let number = RelationFile::parse(name)?.number.to_string();
    let mut path = file.parent()?.to_vec();
    path.push(b'/');
    path.extend_from_slice(number.as_bytes());
    FilePath::from_bytes(path).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The server's answer only helps people; a part of the map that cannot be stored is a backup that cannot be read.
    #[test]
    fn only_what_the_server_does_not_answer_is_done_without() {
        assert!(answered(Ok(()), "database a").unwrap());
        let (what, reason) = ("list its relations".to_owned(), "cache lookup failed".to_owned());
        let refused = PgError::Query { what, reason, code: Some("XX000".to_owned()) };
        assert!(!answered(Err(refused.into()), "database a").unwrap());
        let other = BackupError::PackMissing { path: "packs/1".to_owned() };
        assert!(matches!(answered(Err(other), "database a"), Err(BackupError::PackMissing { .. })));
    }

    #[test]
    fn a_relation_file_leads_to_its_main_fork() {
        let main = |path: &str| main_fork(&path.parse().unwrap()).map(|path| path.to_string());
        assert_eq!(main("base/5/16384_vm.2").as_deref(), Some("base/5/16384"));
        assert_eq!(
            main("pg_tblspc/16390/PG_17_202406281/5/16391").as_deref(),
            Some("pg_tblspc/16390/PG_17_202406281/5/16391")
        );
        assert_eq!(main("base/5/PG_VERSION"), None);
    }
}
