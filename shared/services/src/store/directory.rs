//! A store in a directory: one file for each object.
//!
//! The file `{root}/{key}` holds the object's bytes and, after them, one line of fixed length with their SHA-256 and length,
//! so that content and digest appear together and a file that was cut short shows it.
//!
//! A file is written under `{root}/.partial/`, flushed to the disk, and then gets its final name by `rename` (replace) or
//! by a hard link (create only if absent: of any number of processes the system lets one succeed). A partial object
//! is therefore never seen under its final name, whenever the process or the machine stops. Writers hold a lock on their
//! partial file; opening the store removes those that nobody holds.

mod file;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::{sync::mpsc, task};

use self::file::{Footer, PARTIAL, Partial};
use super::{ByteStream, Error, Head, Put, Result, Store, check_key, check_prefix};

/// Bytes read or written at a time by the streaming operations.
const PIECE_BYTES: usize = 1 << 20;

/// A store in a directory. Any number of processes may use one directory at once.
#[derive(Debug, Clone)]
pub struct Directory {
    root: Arc<PathBuf>,
}

impl Directory {
    /// Opens the store below `root`, creating the folder, and removes what dead writers left behind.
    ///
    /// # Errors
    /// [`Error::Denied`] where the folder cannot be written, [`Error::Full`], [`Error::Backend`].
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let store = Self { root: Arc::new(root.into()) };
        let partial = store.root.join(PARTIAL);
        let opened = fs::create_dir_all(&partial).and_then(|()| file::remove_abandoned(&partial));
        opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound => Error::Denied {
                key: PARTIAL.to_owned(),
                endpoint: store.root.display().to_string(),
                cause: error.to_string(),
            },
            _ => store.failed(PARTIAL, error),
        })?;
        Ok(store)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        check_key(key)?;
        Ok(self.root.join(key))
    }

    fn failed(&self, key: &str, error: io::Error) -> Error {
        let (key, endpoint, cause) = (key.to_owned(), self.root.display().to_string(), error.to_string());
        match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound(key),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::Full { key, endpoint }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Error::Denied { key, endpoint, cause }
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                Error::Key { cause: "another object's key is a part of it, or the other way round".to_owned(), key }
            }
            _ => Error::Backend { key, endpoint, cause },
        }
    }

    /// As `failed`, for reading: a folder is no object, and there is nothing below an object.
    fn not_read(&self, key: &str, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => Error::NotFound(key.to_owned()),
            _ => self.failed(key, error),
        }
    }

    /// Runs `work` on a thread where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Self, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (store, name) = (self.clone(), key.to_owned());
        let finished = task::spawn_blocking(move || work(&store, &name)).await;
        finished.unwrap_or_else(|stopped| Err(self.failed(key, io::Error::other(stopped))))
    }

    fn read(&self, key: &str) -> Result<Bytes> {
        let content = fs::read(self.path(key)?).map_err(|error| self.not_read(key, error))?;
        let (footer, length) = Footer::split(key, &content)?;
        let mut content = Bytes::from(content);
        content.truncate(length);
        footer.verify(key, crate::sha256(&content))?;
        Ok(content)
    }

    fn write(&self, key: &str, content: &[u8]) -> Result<(Partial, Head)> {
        self.path(key)?;
        let fail = |error| self.failed(key, error);
        let mut partial = Partial::create(&self.root.join(PARTIAL)).map_err(fail)?;
        partial.append(content).map_err(fail)?;
        let head = partial.finish(key).map_err(fail)?;
        Ok((partial, head))
    }

    fn inspect(&self, key: &str) -> Result<Option<Head>> {
        match Footer::read(key, &self.path(key)?) {
            Ok(footer) => footer.map(|footer| Some(footer.head(key))),
            Err(error) => match self.not_read(key, error) {
                Error::NotFound(_) => Ok(None),
                error => Err(error),
            },
        }
    }

    fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        check_prefix(prefix)?;
        let folder = prefix.rfind('/').map_or("", |end| &prefix[..=end]);
        let mut keys = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(self.root.join(&folder)) {
                Ok(entries) => entries,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(error) => return Err(self.failed(&folder, error)),
            };
            for entry in entries {
                let entry = entry.map_err(|error| self.failed(&folder, error))?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                if name.starts_with('.') {
                    continue;
                }
                let key = format!("{folder}{name}");
                let kind = entry.file_type().map_err(|error| self.failed(&key, error))?;
                if kind.is_dir() {
                    let below = format!("{key}/");
                    if below.starts_with(prefix) || prefix.starts_with(&below) {
                        folders.push(below);
                    }
                } else if kind.is_file() && key.starts_with(prefix) {
                    keys.push(key);
                }
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }
}

#[async_trait]
impl Store for Directory {
    async fn get(&self, key: &str) -> Result<Bytes> {
        self.blocking(key, |store, key| store.read(key)).await
    }

    async fn get_stream(&self, key: &str) -> Result<ByteStream> {
        let mut object = self
            .blocking(key, |store, key| {
                file::Reading::open(key, &store.path(key)?).map_err(|error| store.not_read(key, error))?
            })
            .await?;
        let (send, receive) = mpsc::channel(2);
        task::spawn_blocking(move || {
            loop {
                let piece = object.next(PIECE_BYTES).transpose();
                let Some(piece) = piece else { return };
                let last = piece.is_err();
                // Who asked may have gone.
                if send.blocking_send(piece).is_err() || last {
                    return;
                }
            }
        });
        Ok(futures::stream::unfold(receive, async |mut receive| receive.recv().await.map(|piece| (piece, receive)))
            .boxed())
    }

    async fn put(&self, key: &str, content: Bytes) -> Result<Head> {
        self.blocking(key, move |store, key| {
            let (partial, head) = store.write(key, &content)?;
            partial.replace(&store.root, key).map_err(|error| store.failed(key, error))?;
            Ok(head)
        })
        .await
    }

    async fn put_stream(&self, key: &str, mut content: ByteStream) -> Result<Head> {
        let mut partial = self
            .blocking(key, |store, key| {
                store.path(key)?;
                Partial::create(&store.root.join(PARTIAL)).map_err(|error| store.failed(key, error))
            })
            .await?;
        while let Some(piece) = content.next().await {
            let piece = piece.map_err(|error| Error::Source { key: key.to_owned(), cause: error.to_string() })?;
            partial = self
                .blocking(key, move |store, key| {
                    partial.append(&piece).map_err(|error| store.failed(key, error))?;
                    Ok(partial)
                })
                .await?;
        }
        self.blocking(key, move |store, key| {
            let fail = |error| store.failed(key, error);
            let head = partial.finish(key).map_err(fail)?;
            partial.replace(&store.root, key).map_err(fail)?;
            Ok(head)
        })
        .await
    }

    async fn put_if_absent(&self, key: &str, content: Bytes) -> Result<Put> {
        self.blocking(key, move |store, key| {
            // Spares the writing where the answer is known; the link decides.
            if store.path(key)?.is_file() {
                file::sync_folder(&store.root, key).map_err(|error| store.failed(key, error))?;
                return Ok(Put::Exists);
            }
            let (partial, _) = store.write(key, &content)?;
            partial.link(&store.root, key).map_err(|error| store.failed(key, error))
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>> {
        self.blocking(key, |store, key| store.inspect(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        self.blocking(prefix, |store, prefix| store.keys(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.blocking(key, |store, key| {
            let path = store.path(key)?;
            match fs::remove_file(&path) {
                Err(error) if path.is_file() => Err(store.failed(key, error)),
                _ => Ok(()),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests;
