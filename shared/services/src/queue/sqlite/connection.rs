//! A connection to the file, used from async code.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::{ErrorCode, TransactionBehavior};
use tokio::task::{self, JoinHandle};

use crate::queue::{Error, Result};

/// How long a call waits for other processes' transactions.
const BUSY: Duration = Duration::from_secs(30);

/// The layout of the tables, as SQLite's `user_version`.
const LAYOUT: i32 = 1;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS queues (
        name TEXT PRIMARY KEY,
        delivery_limit INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS messages (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        queue TEXT NOT NULL REFERENCES queues (name),
        id TEXT NOT NULL,
        payload BLOB NOT NULL,
        headers TEXT NOT NULL,
        returns INTEGER NOT NULL DEFAULT 0,
        consumer TEXT
    ) STRICT;
    CREATE INDEX IF NOT EXISTS messages_ready ON messages (queue, consumer, number);
    CREATE INDEX IF NOT EXISTS messages_leased ON messages (consumer) WHERE consumer IS NOT NULL;
    CREATE TABLE IF NOT EXISTS consumers (
        id TEXT PRIMARY KEY,
        queue TEXT NOT NULL,
        pid INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS dead_letters (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        queue TEXT NOT NULL,
        id TEXT NOT NULL,
        payload BLOB NOT NULL,
        headers TEXT NOT NULL,
        reason TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS notices (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        topic TEXT,
        payload BLOB NOT NULL
    ) STRICT;
";

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// The disk: survives a loss of power.
    Full,
    /// The operating system: survives the death of every process.
    Normal,
}

/// A connection to the file. Clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    endpoint: Arc<str>,
    db: Arc<Mutex<rusqlite::Connection>>,
}

impl Connection {
    pub(super) fn open(file: &Path, durability: Durability) -> Result<Self> {
        let endpoint: Arc<str> = file.display().to_string().into();
        let db = prepare(file, durability).map_err(|error| translate(&endpoint, error.into()))?;
        Ok(Self { endpoint, db: Arc::new(Mutex::new(db)) })
    }

    /// Runs `work` on a thread where it may block, in one transaction that is undone where it fails.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T> {
        match self.start(work).await {
            Ok(result) => result,
            Err(stopped) => Err(self.stopped(&stopped)),
        }
    }

    /// As [`Connection::call`], for callers that keep the handle: the work goes on when nobody waits for it.
    pub(super) fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction) -> Result<T, Failed> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let connection = self.clone();
        task::spawn_blocking(move || connection.transact(work))
    }

    pub(super) fn transact<T>(&self, work: impl FnOnce(&rusqlite::Transaction) -> Result<T, Failed>) -> Result<T> {
        // A panic within a transaction undoes it; the connection remains usable.
        let mut db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        let result: Result<T, Failed> = run();
        result.map_err(|failed| translate(&self.endpoint, failed))
    }

    /// Runs `work`, which only reads, without waiting for writers.
    pub(super) fn look<T>(&self, work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>) -> Result<T> {
        let db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        work(&db).map_err(|error| translate(&self.endpoint, error.into()))
    }

    pub(super) fn stopped(&self, stopped: &task::JoinError) -> Error {
        Error::Backend { endpoint: self.endpoint.to_string(), cause: format!("an operation was stopped: {stopped}") }
    }

    pub(super) fn failed(&self, cause: impl std::fmt::Display) -> Error {
        Error::Backend { endpoint: self.endpoint.to_string(), cause: cause.to_string() }
    }
}

/// Why work within a transaction failed.
pub(super) enum Failed {
    /// The file.
    File(rusqlite::Error),
    /// What was asked for.
    Asked(Error),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::File(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Asked(error)
    }
}

fn translate(endpoint: &str, failed: Failed) -> Error {
    let error = match failed {
        Failed::Asked(error) => return error,
        Failed::File(error) => error,
    };
    let (endpoint, cause) = (endpoint.to_owned(), error.to_string());
    let next = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            return Error::Unreachable { endpoint, cause: "another process holds it".to_owned() };
        }
        Some(ErrorCode::DiskFull) => "free some space on its disk",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "check its folder's permissions"
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "move it away: what is not done is published again from the store"
        }
        _ => "try again",
    };
    Error::Backend { endpoint, cause: format!("{cause}; {next}") }
}

fn prepare(file: &Path, durability: Durability) -> Result<rusqlite::Connection, rusqlite::Error> {
    let mut db = rusqlite::Connection::open(file)?;
    db.busy_timeout(BUSY)?;
    // Changing to the write-ahead log needs the file for itself, and does not wait for it by itself.
    let started = Instant::now();
    loop {
        match db.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && started.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(5));
            }
            changed => {
                changed?;
                break;
            }
        }
    }
    db.pragma_update(None, "synchronous", if durability == Durability::Full { "FULL" } else { "NORMAL" })?;
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let layout: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match layout {
        0 => {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", LAYOUT)?;
        }
        LAYOUT => {}
        other => {
            let cause = format!("its layout is version {other}, this program knows {LAYOUT}");
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB),
                Some(cause),
            ));
        }
    }
    transaction.commit()?;
    Ok(db)
}
