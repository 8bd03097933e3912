//! Feature vectors of a set of images: where they come from, and reading them in blocks so that a set is never in memory.

mod extractor;
mod file;
mod head;

use std::path::{Path, PathBuf};

use hiresmed_inference::session;

pub use extractor::{Extractor, Spool};
pub use file::FeatureFile;

/// Why features cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused to read or write.
    #[error("{}: {source}; check that the path exists, that its permissions allow this, and that the disk has room", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no .npy file.
    #[error("{}: not a .npy file ({cause}); write it with numpy.save", .path.display())]
    NotNpy {
        /// The file.
        path: PathBuf,
        /// What is wrong with its head.
        cause: String,
    },
    /// The elements are no single or double precision numbers.
    #[error("{}: elements of type {found}; write single or double precision, as in numpy.save(path, features.astype(\"float32\"))", .path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// Its elements, in numpy's notation.
        found: String,
    },
    /// The array is no matrix.
    #[error("{}: an array of shape {shape:?}; features are a matrix, one row an image", .path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// Fewer bytes than the head declares.
    #[error("{}: truncated: its head declares {declared} bytes, {available} are there; write or copy it again", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that the head asks for.
        declared: u64,
        /// Bytes of the file.
        available: u64,
    },
    /// A feature is not a finite number.
    #[error("{}: row {row} (from 0) has a value that is not a finite number; look at that image and at the extractor", .path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The first such row.
        row: usize,
    },
    /// Features of different extractors.
    #[error("the features have {first} and {second} dimensions; both sets need the same extractor")]
    Dimension {
        /// Of the first set.
        first: usize,
        /// Of the second set.
        second: usize,
    },
    /// Squares of the features do not fit into double precision, or a decomposition did not converge.
    #[error("the covariance of the features cannot be decomposed ({cause}); look for outliers among the features")]
    Decomposition {
        /// What went wrong.
        cause: &'static str,
    },
    /// The extractor is not what is needed.
    #[error("{}: {cause}; an extractor takes an image f32[1, 1 or 3, H, W] and gives f32[1, d]", .path.display())]
    Extractor {
        /// The graph's file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The extractor failed.
    #[error("{}: {source}", .path.display())]
    Session {
        /// The graph's file.
        path: PathBuf,
        /// What the runtime said.
        #[source]
        source: session::Error,
    },
}

impl Error {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Feature vectors per block that is read: about 16 MiB of double precision.
pub(crate) fn block_rows(dimension: usize) -> usize {
    ((2 << 20) / dimension.max(1)).clamp(1, 1024)
}
