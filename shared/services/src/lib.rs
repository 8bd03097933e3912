//! The three services that a fleet stands on, each a trait, its backends and a conformance suite.
//!
//! - [`store`]: objects by key; the truth. Backends: a directory, S3.
//! - [`queue`]: work in flight, events, control. Backends: SQLite, RabbitMQ.
//! - [`cache`]: values that may vanish, and locks. Backends: the process's own memory, Redis, none.
//! - [`settings`]: which backends, and where; [`connect`] opens them.
//!
//! S3, RabbitMQ and Redis come with the feature `fleet`.
//!
//! A backend is right when the conformance suite passes (feature `conformance`); code elsewhere relies on nothing that
//! the suite does not hold. This crate must not know what the bytes mean that it keeps and carries.

pub mod cache;
pub mod queue;
pub mod settings;
pub mod store;

pub use self::settings::{Services, Settings, connect};

use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A text that no other call, process or machine gives: for names of files and tokens of locks, not for secrets.
pub(crate) fn nonce() -> String {
    use std::hash::{BuildHasher, RandomState};
    // Every `RandomState` has its own keys, drawn from the system's randomness.
    let random = RandomState::new().hash_one(std::process::id());
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{random:016x}{:016x}", nanos as u64)
}
