//! A whole training on this machine: round after round in one folder, from where the last one left off.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Budget, Ending, Error, Flow, Progress, Specification, Summary, newest_checkpoint, open, round};
use crate::weights::{self, Weights};

/// Checkpoints that are kept: the newest, and the one before in case the newest is damaged.
const KEPT: usize = 2;

/// Trains `specification` in `folder` until it is complete or `progress` says stop, a checkpoint every `budget`.
///
/// Starts from the newest `step-NNNNNNNN.safetensors` in `folder`, else from `parent`, else anew; so calling it again after any
/// interruption goes on. `ended` is told of every round and its checkpoint.
///
/// # Errors
/// Those of [`open`] and [`round`]; checkpoints of earlier rounds remain.
pub fn train(
    specification: &Specification,
    folder: &Path,
    parent: Option<&Path>,
    budget: Budget,
    progress: &mut dyn FnMut(&Progress) -> Flow,
    ended: &mut dyn FnMut(&Summary, &Path),
) -> Result<(Summary, PathBuf), Error> {
    fs::create_dir_all(folder).map_err(|source| weights::Error::File { path: folder.into(), source })?;
    let start = newest_checkpoint(folder).or_else(|| parent.map(Path::to_path_buf));
    let weights = start.map(|path| Weights::read(&path)).transpose()?;
    let mut learner = open(specification, weights.as_ref())?;
    drop(weights);
    let next = folder.join("next.safetensors");
    loop {
        let summary = round(learner.as_mut(), budget, &next, progress)?;
        let path = folder.join(format!("step-{:08}.safetensors", summary.steps_done));
        fs::rename(&next, &path).map_err(|source| weights::Error::File { path: path.clone(), source })?;
        prune(folder);
        ended(&summary, &path);
        if summary.ending != Ending::Paused {
            return Ok((summary, path));
        }
    }
}

/// Writes a checkpoint of `step` into `folder` as [`train`] does, and removes all but the newest two; gives its path.
///
/// # Errors
/// Those of [`Weights::write`].
pub(crate) fn keep_checkpoint(checkpoint: &Weights, folder: &Path, step: u64) -> Result<PathBuf, Error> {
    fs::create_dir_all(folder).map_err(|source| weights::Error::File { path: folder.into(), source })?;
    let path = folder.join(format!("step-{step:08}.safetensors"));
    checkpoint.write(&path)?;
    prune(folder);
    Ok(path)
}

/// Removes all but the newest checkpoints; one that cannot be removed only takes space.
fn prune(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("step-") && name.ends_with(".safetensors")
    });
    paths.sort();
    for path in paths.iter().rev().skip(KEPT) {
        let _ = fs::remove_file(path);
    }
}
