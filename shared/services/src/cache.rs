//! Values that may vanish at any time, and locks that expire. Losing the cache costs time and nothing else.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod memory;
mod nothing;
#[cfg(feature = "fleet")]
mod redis;

use std::time::Duration;

#[cfg(feature = "fleet")]
pub use self::redis::{Address, Redis};
pub use self::{memory::Memory, nothing::Nothing};

use async_trait::async_trait;
use bytes::Bytes;

/// Why the cache did not do what it was asked. Callers go on without it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache cannot be reached, or failed.
    #[error("the cache at {endpoint} failed: {cause}; going on without it is safe")]
    Backend {
        /// The cache's address.
        endpoint: String,
        /// What it said.
        cause: String,
    },
}

/// Result of a cache's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Proof that a lock is held: only who has it can renew or release.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token(String);

impl Token {
    /// A token of a backend's making; it must be impossible to guess or to repeat.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A cache. Cheap to share behind an `Arc`.
#[async_trait]
pub trait Cache: Send + Sync {
    /// The value, if it is still there.
    ///
    /// # Errors
    /// [`Error::Backend`], as for every method.
    async fn get(&self, key: &str) -> Result<Option<Bytes>>;

    /// Keeps a value for at most `time_to_live`. A value that is too large for the cache is not kept, which is no error.
    async fn put(&self, key: &str, value: Bytes, time_to_live: Duration) -> Result<()>;

    /// Forgets a value.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Takes the lock `name` for `time_to_live`, or gives `None` at once where somebody holds it.
    async fn try_lock(&self, name: &str, time_to_live: Duration) -> Result<Option<Token>>;

    /// Holds the lock for `time_to_live` from now; false where it is no longer held with this token.
    async fn renew(&self, name: &str, token: &Token, time_to_live: Duration) -> Result<bool>;

    /// Releases the lock; false where it is not held with this token.
    async fn unlock(&self, name: &str, token: &Token) -> Result<bool>;
}
