//! What each database needs of the host it runs on: the libraries its functions are in, and those that sort its text.
//!
//! `pg_database` says some of it of every database; the rest stands in catalogs of the database's own, and is asked inside it. Who restores
//! on another host compares these with what is there, before a byte is written.

use std::collections::BTreeMap;

use highwater_archive::manifest::{CollationLibrary, Database, Extension, Library, Sorted};
use highwater_pitr::wal::PgMajor;
use highwater_restore::host::sorts_plainly;
use tokio_postgres::Row;

use super::error::BackupError;
use crate::pg::{PgError, Session};

/// Versions of collations that something depends on, or that were made by a user. What depends on one of those that are
/// pinned stands in `pg_attribute` alone.
const COLLATIONS: &str = "SELECT n.nspname || '.' || c.collname, c.collversion, c.collprovider::text, \
     pg_collation_actual_version(c.oid) \
     FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace \
     WHERE c.collversion IS NOT NULL AND (c.oid >= 16384 \
     OR EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_collation'::regclass AND d.refobjid = c.oid) \
     OR EXISTS (SELECT FROM pg_attribute a WHERE a.attcollation = c.oid))";

/// The libraries of functions in C, and what brought them. What `initdb` makes is of the server itself.
const LIBRARIES: &str = "SELECT p.probin, e.extname::text, count(*) FROM pg_proc p \
     LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' \
     AND d.refclassid = 'pg_extension'::regclass \
     LEFT JOIN pg_extension e ON e.oid = d.refobjid \
     WHERE p.probin IS NOT NULL AND (p.oid >= 16384 OR e.oid IS NOT NULL) GROUP BY 1, 2 ORDER BY 1, 2";

/// Tables that are partitioned by ranges of text. `$1`: whether the order of the database's own collation may change; `$2`: how many.
const RANGE_PARTITIONED: &str = "SELECT n.nspname::text, c.relname::text, array_agg(DISTINCT sn.nspname || '.' || s.collname) \
     FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_collation s ON s.oid = ANY (p.partcollation::oid[]) JOIN pg_namespace sn ON sn.oid = s.collnamespace \
     WHERE p.partstrat = 'r' AND CASE WHEN s.collprovider = 'd' THEN $1 ELSE s.collversion IS NOT NULL END \
     GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $2";

/// All databases, by oid, and whether each can be asked more.
pub async fn list(session: &Session) -> Result<Vec<(Database, bool)>, BackupError> {
    let failed = |error| PgError::query("list its databases", &error);
    // datcollversion and datlocprovider came with 15; the builtin provider with 17 changed no column that is read here.
    let newer = if session.major() == PgMajor::V14 {
        "NULL::text, 'c'"
    } else {
        "datcollversion, datlocprovider::text"
    };
    let sql = format!(
        "SELECT oid, datname::text, pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text, \
         datallowconn AND has_database_privilege(oid, 'CONNECT'), {newer} FROM pg_database ORDER BY oid"
    );
    let rows = session.client().query(&sql, &[]).await.map_err(failed)?;
    let mut versions = library_versions(session).await;
    let mut databases = Vec::new();
    for row in rows {
        let oid = row.try_get(0).map_err(failed)?;
        let database = Database {
            oid,
            name: row.try_get(1).map_err(failed)?,
            encoding: row.try_get(2).map_err(failed)?,
            collate: row.try_get(3).map_err(failed)?,
            ctype: row.try_get(4).map_err(failed)?,
            collation_version: row.try_get(6).map_err(failed)?,
            locale_provider: row.try_get(7).map_err(failed)?,
            library_collation_version: versions.remove(&oid),
            examined: false,
            extensions: Vec::new(),
            collations: BTreeMap::new(),
            collation_libraries: None,
            libraries: None,
            range_partitioned: Vec::new(),
        };
        databases.push((database, row.try_get(5).map_err(failed)?));
    }
    Ok(databases)
}

/// What the libraries have now for the databases' own collations. To tell it ICU opens each, which may fail: that is no reason to have
/// no backup.
async fn library_versions(session: &Session) -> BTreeMap<u32, String> {
    if session.major() == PgMajor::V14 {
        return BTreeMap::new();
    }
    let sql =
        "SELECT oid, v FROM pg_database, pg_database_collation_actual_version(oid) v WHERE v IS NOT NULL";
    match session.client().query(sql, &[]).await {
        Ok(rows) => {
            rows.iter().filter_map(|row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?))).collect()
        }
        Err(error) => {
            tracing::warn!("not known which libraries sort the text of the databases: {error}");
            BTreeMap::new()
        }
    }
}

/// Whether another library may sort what this database sorts by its own collation in another order.
pub fn order_may_change(database: &Database) -> bool {
    match database.locale_provider.as_str() {
        "c" => !sorts_plainly(&database.collate),
        "i" => true,
        _ => database.collation_version.is_some(),
    }
}

/// What only its own catalogs say: all of it, or nothing.
pub async fn describe(inside: &Session, database: &mut Database) -> Result<(), BackupError> {
    let extensions = extensions(inside).await?;
    let libraries = libraries(inside).await?;
    let range_partitioned = range_partitioned(inside, order_may_change(database)).await?;
    let failed = |error| PgError::query("list its collations", &error);
    let (mut collations, mut of_libraries) = (BTreeMap::new(), BTreeMap::new());
    for row in inside.client().query(COLLATIONS, &[]).await.map_err(failed)? {
        let name: String = row.try_get(0).map_err(failed)?;
        collations.insert(name.clone(), row.try_get(1).map_err(failed)?);
        let library = CollationLibrary {
            provider: row.try_get(2).map_err(failed)?,
            version: row.try_get(3).map_err(failed)?,
        };
        of_libraries.insert(name, library);
    }
    database.extensions = extensions;
    database.libraries = Some(libraries);
    database.range_partitioned = range_partitioned;
    database.collations = collations;
    database.collation_libraries = Some(of_libraries);
    Ok(())
}

async fn extensions(session: &Session) -> Result<Vec<Extension>, BackupError> {
    let failed = |error| PgError::query("list its extensions", &error);
    let sql = "SELECT extname::text, extversion FROM pg_extension ORDER BY 1";
    let rows = session.client().query(sql, &[]).await.map_err(failed)?;
    let extension = |row: &Row| Ok(Extension { name: row.try_get(0)?, version: row.try_get(1)? });
    Ok(rows.iter().map(extension).collect::<Result<_, _>>().map_err(failed)?)
}

async fn libraries(session: &Session) -> Result<Vec<Library>, BackupError> {
    let failed = |error| PgError::query("list the libraries of its functions", &error);
    let rows = session.client().query(LIBRARIES, &[]).await.map_err(failed)?;
    let library = |row: &Row| {
        Ok(Library {
            library: row.try_get(0)?,
            extension: row.try_get(1)?,
            functions: u64::try_from(row.try_get::<_, i64>(2)?).unwrap_or_default(),
        })
    };
    Ok(rows.iter().map(library).collect::<Result<_, _>>().map_err(failed)?)
}

async fn range_partitioned(session: &Session, order_may_change: bool) -> Result<Vec<Sorted>, BackupError> {
    let failed = |error| PgError::query("list its partitioned tables", &error);
    let most = Database::MAX_RANGE_PARTITIONED as i64;
    let rows =
        session.client().query(RANGE_PARTITIONED, &[&order_may_change, &most]).await.map_err(failed)?;
    let sorted = |row: &Row| {
        Ok(Sorted { schema: row.try_get(0)?, name: row.try_get(1)?, collations: row.try_get(2)? })
    };
    Ok(rows.iter().map(sorted).collect::<Result<_, _>>().map_err(failed)?)
}
