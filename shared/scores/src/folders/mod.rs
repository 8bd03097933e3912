//! Scores of two folders: pairs by file stem, and the sets as wholes.
//!
//! [`survey`] reads the heads of all files and finds every fault before anything is computed; [`score_pairs`] then holds one
//! pair a thread.

mod files;
mod intensity;
mod pairs;
mod sets;
mod survey;

pub use files::{Image, Values};
pub use intensity::Scale;
pub use pairs::{PairScores, Scores, mean, score_pairs, standard_deviation};
pub use sets::{Sets, extract, score_sets};
pub use survey::{Folders, Pair, Survey, survey};

/// Why folders cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder cannot be listed.
    #[error(transparent)]
    Folder(#[from] hiresmed_imaging::Error),
    /// What was given does not fit together; all faults are listed.
    #[error("the folders cannot be scored: {} faults; put them right, or score what fits with --unpaired:\n  {}", .faults.len(), .faults.join("\n  "))]
    Faults {
        /// Every fault.
        faults: Vec<String>,
    },
    /// Pairs could not be scored; all are listed.
    #[error("{} pairs cannot be scored:\n  {}", .faults.len(), .faults.join("\n  "))]
    Pairs {
        /// Every fault, with the pair's name or its file.
        faults: Vec<String>,
    },
    /// The range of values is not clear from the files.
    #[error("the data range is not clear: {cause}; give it with --data-range, in the images' units")]
    Range {
        /// Why not.
        cause: String,
    },
    /// The data range that was given is no positive number.
    #[error("a data range of {0}; give the positive difference of the largest and the smallest possible value")]
    NoRange(f64),
    /// Features cannot be read or made.
    #[error(transparent)]
    Features(#[from] crate::features::Error),
}
