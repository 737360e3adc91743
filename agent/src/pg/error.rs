//! What can go wrong between us and the server.

use std::path::PathBuf;

/// The cluster could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// The connection string cannot be used.
    #[error("cluster.connection: {reason}")]
    Conninfo {
        /// What is wrong with it.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// No connection.
    #[error("cannot connect to PostgreSQL ({target}): {reason}")]
    Connect {
        /// Host, port, database and user.
        target: String,
        /// Why, in the server's words where it spoke.
        reason: String,
        /// SQLSTATE, where the server spoke.
        code: Option<String>,
    },
    /// The server answered a query with an error, or not at all.
    #[error("PostgreSQL refused to {what}: {reason}")]
    Query {
        /// What was asked, in words.
        what: String,
        /// The server's message.
        reason: String,
        /// SQLSTATE, where the server spoke.
        code: Option<String>,
    },
    /// A server older or newer than those that are known.
    #[error("PostgreSQL {version} is not supported")]
    Version {
        /// The server's own text.
        version: String,
    },
    /// A value of a form that the documentation does not know.
    #[error("PostgreSQL's {name} is {value:?}, which cannot be read")]
    Value {
        /// The setting or column.
        name: String,
        /// Its text.
        value: String,
    },
    /// A password file that others may read.
    #[error("the password file {path} is readable by others")]
    OpenPassfile {
        /// The file.
        path: PathBuf,
    },
    /// A file of the data directory cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl PgError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Conninfo { hint, .. } => hint.clone(),
            Self::Connect { code: Some(code), .. } if code == "28P01" || code == "28000" => {
                "check the user of cluster.connection, its line in pg_hba.conf and the password in ~/.pgpass".to_owned()
            }
            Self::Connect { code: Some(_), .. } => return None,
            Self::Connect { code: None, .. } => {
                "is the server running? cluster.connection must name its socket directory or host, and its port".to_owned()
            }
            Self::Query { code: Some(code), .. } if code == "42501" => {
                "the user of cluster.connection lacks a privilege; `highwater check` prints the GRANT lines".to_owned()
            }
            Self::Query { .. } | Self::Value { .. } => return None,
            Self::Version { .. } => "14, 15, 16, 17 and 18 are supported".to_owned(),
            Self::OpenPassfile { path } => format!("run: chmod 600 {}", path.display()),
            Self::Unreadable { .. } => "run as the owner of the data directory, usually postgres".to_owned(),
        })
    }

    /// An error of a query that was to do `what`.
    pub fn query(what: &str, error: &tokio_postgres::Error) -> Self {
        let (reason, code) = told(error);
        Self::Query { what: what.to_owned(), reason, code }
    }
}

/// The server's message and SQLSTATE; else the causes of the error on one line.
pub fn told(error: &tokio_postgres::Error) -> (String, Option<String>) {
    if let Some(db) = error.as_db_error() {
        return (db.message().to_owned(), Some(db.code().code().to_owned()));
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let part = cause.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = cause.source();
    }
    (text, None)
}
