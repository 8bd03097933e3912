//! Model packages: a folder `{kind}/{digest}/` with `model.json`, ONNX graphs and other files, addressed by digest.
//!
//! A package's digest is the SHA-256 of its `model.json`, which holds the SHA-256 of every other file: one digest fixes
//! every byte. Packages travel through the object store under the same names; this module knows folders only.

mod catalogue;
mod description;
mod folder;
mod import;

pub use catalogue::{Catalogue, Entry};
pub use description::{Description, Draft, Kind, TrainingData, Window};
pub use folder::Package;
pub use import::import;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Name of a package's description.
pub const DESCRIPTION_FILE: &str = "model.json";
/// Name of a package's model card, where it has one.
pub const CARD_FILE: &str = "card.md";

/// Why a package cannot be read, written or found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of the package cannot be read or written.
    #[error("cannot {action} {}: {source}; check that the folder is there, its permissions, and the disk's space", .path.display())]
    File {
        /// "read" or "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `model.json` is not a description of a model.
    #[error("{} is not a model description: {cause}", .path.display())]
    Description {
        /// The description.
        path: PathBuf,
        /// What is wrong, with line and column where the text itself is.
        cause: String,
    },
    /// A file's bytes are not those that the package was made with.
    #[error("{} is damaged or was changed: SHA-256 expected {expected}, found {found}; fetch the package again", .path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// Digest that the package names, hex.
        expected: String,
        /// Digest of the bytes, hex.
        found: String,
    },
    /// The package has no graph for a role, or no file of a name.
    #[error("the {kind} package {name:?} ({}) has no {what}; it has {present}", .digest.get(..12).unwrap_or(.digest))]
    Missing {
        /// Kind of the package.
        kind: Kind,
        /// Name of the package.
        name: String,
        /// Digest of the package, hex.
        digest: String,
        /// What was asked for.
        what: String,
        /// What there is.
        present: String,
    },
    /// No package fits a name or digest.
    #[error("no {kind} model is called {reference:?}; there are {present}")]
    Unknown {
        /// Kind asked for.
        kind: Kind,
        /// Name or digest asked for.
        reference: String,
        /// Names and digests of this kind.
        present: String,
    },
    /// Several packages fit a name or digest.
    #[error("{reference:?} names several {kind} models: {candidates}; give more of the digest")]
    Ambiguous {
        /// Kind asked for.
        kind: Kind,
        /// Name or digest asked for.
        reference: String,
        /// Names and digests that fit.
        candidates: String,
    },
    /// The model's description or graphs are not what its kind demands.
    #[error("the {kind} model {name:?} cannot be taken:\n  {}", .faults.join("\n  "))]
    Faults {
        /// Kind of the package.
        kind: Kind,
        /// Name of the package.
        name: String,
        /// Every fault.
        faults: Vec<String>,
    },
    /// A graph of the package does not open.
    #[error("{}: {source}", .path.display())]
    Session {
        /// The graph's file.
        path: PathBuf,
        /// Why it does not open.
        source: crate::session::Error,
    },
}

/// The SHA-256 of `bytes`, hex, lower case.
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { action: "read", path: path.to_owned(), source })
}
