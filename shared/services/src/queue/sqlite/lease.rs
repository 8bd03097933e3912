//! Who consumes, and who is dead: each consumer holds a lock on a file that the system releases with its process.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use rusqlite::params;

use super::{Shared, rows};
use crate::queue::{Error, Result};

/// A consumer's lock. Dropped, the consumer counts as dead.
pub(super) struct Lease {
    /// The consumer's name.
    pub(super) consumer: String,
    path: PathBuf,
    _file: File,
}

impl Lease {
    /// Registers a consumer of `queue`. Blocks.
    pub(super) fn register(shared: &Shared, queue: &str) -> Result<Self> {
        let consumer = crate::nonce();
        let path = shared.leases.join(&consumer);
        let locked = File::create_new(&path).and_then(|file| file.lock().map(|()| file));
        let file = locked.map_err(|error| failed(shared, &path, &error))?;
        // Others look only at consumers that have a row, and those are locked.
        let lease = Self { consumer, path, _file: file };
        shared.durable.transact(|db| {
            rows::check_exists(db, queue)?;
            db.execute(
                "INSERT INTO consumers (id, queue, pid) VALUES (?1, ?2, ?3)",
                params![lease.consumer, queue, std::process::id()],
            )?;
            Ok(())
        })?;
        Ok(lease)
    }

    /// Returns the consumer's deliveries and removes its traces. Blocks.
    pub(super) fn release(self, shared: &Shared) -> Result<()> {
        bury(shared, &self.consumer)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the deliveries of every consumer whose lock is free.
pub(super) async fn return_abandoned(shared: &std::sync::Arc<Shared>) -> Result<()> {
    let here = shared.clone();
    let done = tokio::task::spawn_blocking(move || return_abandoned_blocking(&here)).await;
    done.unwrap_or_else(|stopped| Err(shared.durable.stopped(&stopped)))
}

/// As [`return_abandoned`]. Blocks.
pub(super) fn return_abandoned_blocking(shared: &Shared) -> Result<()> {
    let consumers: Vec<String> = shared.durable.look(|db| {
        let mut select = db.prepare_cached("SELECT id FROM consumers")?;
        select.query_map([], |row| row.get(0))?.collect()
    })?;
    for consumer in consumers {
        let path = shared.leases.join(&consumer);
        if is_free(&path).map_err(|error| failed(shared, &path, &error))? {
            bury(shared, &consumer)?;
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

fn is_free(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn bury(shared: &Shared, consumer: &str) -> Result<()> {
    let returned = shared.durable.transact(|db| {
        let returned = rows::give_back(db, None, consumer)?;
        db.execute("DELETE FROM consumers WHERE id = ?1", [consumer])?;
        Ok(returned)
    })?;
    if returned > 0 {
        shared.messages.notify_waiters();
    }
    Ok(())
}

fn failed(shared: &Shared, path: &Path, error: &io::Error) -> Error {
    shared.durable.failed(format!("{}: {error}; check the folder's permissions", path.display()))
}
