//! Objects by key: the truth of the fleet.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod directory;
#[cfg(feature = "s3")]
mod s3;

use std::time::Duration;

pub use self::directory::Directory;
#[cfg(feature = "s3")]
pub use self::s3::{Address, Bucket, Object, S3};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No object has that key.
    #[error("no object `{0}` in the store")]
    NotFound(String),
    /// The text is not a key.
    #[error("`{key}` is not a key: {cause}")]
    Key {
        /// The refused text.
        key: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The bytes are not those that were put.
    #[error(
        "object `{key}` is damaged: its SHA-256 is {found}, not {expected}; delete its file in the store's folder and run the \
         command again: what comes with the project is put back, the rest is made or imported anew"
    )]
    Damaged {
        /// The key.
        key: String,
        /// The digest that was recorded, in hexadecimal.
        expected: String,
        /// The digest of what is there, in hexadecimal.
        found: String,
    },
    /// There is no space left.
    #[error("no space left for object `{key}` at {endpoint}; free some or choose another place, then try again")]
    Full {
        /// The key.
        key: String,
        /// The store's address or folder.
        endpoint: String,
    },
    /// Writing is not allowed.
    #[error(
        "the store at {endpoint} cannot be written (`{key}`: {cause}); check its permissions or choose another place"
    )]
    Denied {
        /// The key.
        key: String,
        /// The store's address or folder.
        endpoint: String,
        /// What the system said.
        cause: String,
    },
    /// The source of a streamed put failed; nothing was stored.
    #[error("the content for object `{key}` could not be read: {cause}; nothing was stored")]
    Source {
        /// The key.
        key: String,
        /// What the source said.
        cause: String,
    },
    /// The store cannot be reached, or failed.
    #[error("the store at {endpoint} failed on `{key}`: {cause}")]
    Backend {
        /// The key or prefix.
        key: String,
        /// The store's address or folder.
        endpoint: String,
        /// What it said.
        cause: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Backend { .. })
    }
}

/// Result of a store's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Content in pieces. An error in it makes a put fail with [`Error::Source`].
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The key.
    pub key: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
}

/// Who won a [`Store::put_if_absent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// This call made the object.
    Created,
    /// An object was there and is unchanged.
    Exists,
}

/// An object store. Cheap to share behind an `Arc`; every method may be called from many tasks and processes at once.
///
/// Keys are parts joined by `/`, as [`check_key`] says. A reader sees an object whole or not at all. What a put has
/// returned survives the death of every process; a put whose future was dropped happened whole or not at all.
#[async_trait]
pub trait Store: Send + Sync {
    /// The object's bytes, checked against its digest.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Damaged`], [`Error::Key`], [`Error::Backend`].
    async fn get(&self, key: &str) -> Result<Bytes>;

    /// The object's bytes in pieces. The digest is checked at the end: the last item is an error where it is wrong.
    ///
    /// # Errors
    /// As [`Store::get`].
    async fn get_stream(&self, key: &str) -> Result<ByteStream>;

    /// Makes or replaces the object.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Denied`], [`Error::Key`], [`Error::Backend`].
    async fn put(&self, key: &str, content: Bytes) -> Result<Head>;

    /// Makes or replaces the object from pieces, holding few of them at a time.
    ///
    /// # Errors
    /// As [`Store::put`], and [`Error::Source`].
    async fn put_stream(&self, key: &str, content: ByteStream) -> Result<Head>;

    /// Makes the object unless one is there. Of any number of callers at once exactly one creates it.
    ///
    /// # Errors
    /// As [`Store::put`].
    async fn put_if_absent(&self, key: &str, content: Bytes) -> Result<Put>;

    /// What is known of the object; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Backend`].
    async fn head(&self, key: &str) -> Result<Option<Head>>;

    /// The keys that start with `prefix`, sorted. The prefix may end anywhere, also within a part; empty means all.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Backend`].
    async fn list(&self, prefix: &str) -> Result<Vec<String>>;

    /// Removes the object; does nothing where there is none.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Key`], [`Error::Backend`].
    async fn delete(&self, key: &str) -> Result<()>;

    /// Makes the place where objects lie, such as a bucket, unless it is there. A store in a folder makes it when it is opened.
    ///
    /// # Errors
    /// [`Error::Denied`] where it is not there and may not be made, [`Error::Backend`].
    async fn create(&self) -> Result<()> {
        Ok(())
    }

    /// A link by which whoever has it can read the object for a while (at most 7 days), without this program and without
    /// its digest being checked; `None` where the store gives no links. Whether the object exists is not looked at.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Backend`].
    async fn presign_get(&self, key: &str, _valid_for: Duration) -> Result<Option<String>> {
        check_key(key)?;
        Ok(None)
    }
}

/// Checks that `key` is a key: 1 to 1,024 bytes in parts joined by `/`, each of 1 to 200 bytes, not starting with a dot,
/// without control characters and backslashes. No key is another's beginning up to a `/`: a part is a folder or an
/// object.
///
/// # Errors
/// [`Error::Key`] with the reason.
pub fn check_key(key: &str) -> Result<()> {
    let refuse = |cause: &str| Err(Error::Key { key: key.chars().take(200).collect(), cause: cause.to_owned() });
    if key.len() > 1024 {
        return refuse("it is longer than 1024 bytes");
    }
    if key.chars().any(|c| c.is_control() || c == '\\') {
        return refuse("it has a control character or a backslash");
    }
    for part in key.split('/') {
        match part {
            "" => return refuse("it is empty, or starts or ends with `/`, or has two in a row"),
            part if part.starts_with('.') => return refuse("a part of it starts with a dot"),
            part if part.len() > 200 => return refuse("a part of it is longer than 200 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// Checks that `prefix` is the beginning of a key: as [`check_key`], but it may be empty or end with `/`.
///
/// # Errors
/// [`Error::Key`] with the reason.
pub fn check_prefix(prefix: &str) -> Result<()> {
    match prefix.strip_suffix('/').unwrap_or(prefix) {
        "" if prefix.is_empty() => Ok(()),
        key => check_key(key),
    }
}
