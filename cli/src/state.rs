//! The state folder: where one machine keeps its object store, its queue and its model cache.
//!
//! One process at a time runs the coordinator and the worker on a state folder. The lock is the operating system's on an
//! open file, so it goes with the process however that ends; the file's text names the holder for a person to read.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

/// A folder with everything that `hiresmed` remembers between calls.
#[derive(Debug, Clone)]
pub struct StateFolder {
    root: PathBuf,
}

/// The right to run the coordinator and the worker on a state folder; given up when dropped.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl StateFolder {
    /// Opens the folder that `--state` names, else the default one, and creates it when it is missing.
    ///
    /// The default is `$HIRESMED_STATE`, else `$XDG_STATE_HOME/hiresmed`, else `~/.local/state/hiresmed`.
    ///
    /// # Errors
    /// No folder is named and no home is known, or the folder cannot be created.
    pub fn open(explicit: Option<&Path>) -> Result<Self> {
        let root = match explicit {
            Some(path) => path.to_path_buf(),
            None => default_root(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
                .ok_or_else(|| {
                    anyhow!("no state folder: neither HIRESMED_STATE nor HOME is set; name one with --state DIR")
                })?,
        };
        fs::create_dir_all(&root).with_context(|| {
            format!("the state folder {} cannot be created; name another one with --state DIR", root.display())
        })?;
        let root =
            root.canonicalize().with_context(|| format!("the state folder {} cannot be read", root.display()))?;
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The object store's folder.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The queue's database.
    pub fn queue(&self) -> PathBuf {
        self.root.join("queue.sqlite")
    }

    /// The disk cache of the worker: model packages and data sets by digest. Safe to delete.
    pub fn scratch(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Takes the right to run, or says who has it: `Err(holder)` inside `Ok` is not a failure.
    ///
    /// # Errors
    /// The lock file cannot be opened or written, as on a read-only folder.
    pub fn try_lock(&self) -> Result<Result<RunLock, String>> {
        let path = self.root.join("running.lock");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).with_context(|| {
                format!("the state folder cannot be used: {} cannot be opened for writing", path.display())
            })?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| writeln!(file, "{}", std::process::id()))
                    .with_context(|| {
                        format!("the state folder cannot be used: {} cannot be written", path.display())
                    })?;
                Ok(Ok(RunLock { _file: file }))
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // A holder that has not written its number yet, or just left, is still somebody else.
                let _ = file.read_to_string(&mut holder);
                Ok(Err(holder.trim().to_owned()))
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("the lock {} cannot be taken", path.display()))
            }
        }
    }
}

fn default_root(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    variable("HIRESMED_STATE")
        .or_else(|| variable("XDG_STATE_HOME").map(|folder| folder.join("hiresmed")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/state/hiresmed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_root_prefers_the_most_specific_variable() {
        let all = |name: &str| Some(PathBuf::from(format!("/{name}")));
        assert_eq!(default_root(all), Some(PathBuf::from("/HIRESMED_STATE")));
        let without_own = |name: &str| (name != "HIRESMED_STATE").then(|| PathBuf::from(format!("/{name}")));
        assert_eq!(default_root(without_own), Some(PathBuf::from("/XDG_STATE_HOME/hiresmed")));
        let home_only = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/a"));
        assert_eq!(default_root(home_only), Some(PathBuf::from("/home/a/.local/state/hiresmed")));
        assert_eq!(default_root(|_| None), None);
    }

    #[test]
    fn only_one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(Some(folder.path())).unwrap();
        let lock = state.try_lock().unwrap().unwrap();
        assert_eq!(state.try_lock().unwrap().unwrap_err(), std::process::id().to_string());
        drop(lock);
        assert!(state.try_lock().unwrap().is_ok());
    }
}
