//! Whether a file is still the one that it was when it was recorded.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

use serde::{Deserialize, Serialize};

/// A file as it was: size and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub size_bytes: u64,
    /// Time of the last change, nanoseconds since 1970.
    pub changed_ns: i64,
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Self {
        let changed_ns = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        Self { size_bytes: metadata.len(), changed_ns }
    }
}
