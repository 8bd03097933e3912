//! Scores of two folders: pairs by file stem, and the sets as wholes.
//!
//! [`survey`] reads the heads of all files and finds every fault before anything is computed; [`score_pairs`] then holds one
//! pair a thread.

mod files;
mod pairs;
mod range;
mod sets;

use std::collections::BTreeMap;
use std::path::PathBuf;

use hiresmed_imaging::ReadError;

use crate::Intensity;
use files::Found;

pub use pairs::{PairScores, Scores, mean, score_pairs, standard_deviation};
pub use sets::{Sets, extract, score_sets};
