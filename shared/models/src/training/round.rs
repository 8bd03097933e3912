//! One round: a bounded number of steps from one checkpoint to the next.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Error, Figure, Learner};

/// Where a round ends, whichever comes first; always at the training's last step.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    /// Steps in this round.
    pub steps: Option<u64>,
    /// Time for this round; the step under way is finished.
    pub duration: Option<Duration>,
}

/// What the caller is told after every step.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Steps done, this one included.
    pub step: u64,
    /// Steps in all.
    pub planned: u64,
    /// Seconds that this step took.
    pub seconds: f64,
    /// Losses and measures.
    pub figures: &'a [Figure],
}

/// What the caller answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// End the round now: cancelled, or asked to terminate.
    Stop,
}

/// Why a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The training is complete.
    Finished,
    /// The budget is spent; another round follows.
    Paused,
    /// The caller said stop.
    Stopped,
}

/// A round that ended well.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Why it ended.
    pub ending: Ending,
    /// Steps done in all rounds.
    pub steps_done: u64,
    /// Steps in all.
    pub steps_planned: u64,
    /// Steps of this round.
    pub steps: u64,
    /// Seconds of this round's steps.
    pub seconds: f64,
    /// The last step's figures.
    pub figures: Vec<Figure>,
}

/// Makes steps until the budget is spent, the training is complete or `progress` says stop; then writes the checkpoint
/// to `checkpoint`, atomically. After an error nothing is written, and the checkpoint before remains.
///
/// # Errors
/// Those of [`Learner::step`], and [`Error::Weights`] when the checkpoint cannot be written.
pub fn round(
    learner: &mut dyn Learner,
    budget: Budget,
    checkpoint: &Path,
    progress: &mut dyn FnMut(&Progress) -> Flow,
) -> Result<Summary, Error> {
    let start = Instant::now();
    let planned = learner.steps_planned();
    let (mut steps, mut last, mut stopped) = (0, Vec::new(), false);
    while learner.steps_done() < planned && !stopped {
        let spent = budget.steps.is_some_and(|limit| steps >= limit);
        if spent || budget.duration.is_some_and(|limit| start.elapsed() >= limit) {
            break;
        }
        let before = Instant::now();
        last = learner.step()?;
        steps += 1;
        let seconds = before.elapsed().as_secs_f64();
        let report = Progress { step: learner.steps_done(), planned, seconds, figures: &last };
        stopped = progress(&report) == Flow::Stop;
    }
    let seconds = start.elapsed().as_secs_f64();
    learner.checkpoint()?.write(checkpoint)?;
    let steps_done = learner.steps_done();
    let ending = match (steps_done >= planned, stopped) {
        (true, _) => Ending::Finished,
        (false, true) => Ending::Stopped,
        (false, false) => Ending::Paused,
    };
    Ok(Summary { ending, steps_done, steps_planned: planned, steps, seconds, figures: last })
}

/// The checkpoint with the highest step in `folder` (`step-NNNNNNNN.safetensors`), if there is one.
pub fn newest_checkpoint(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| checkpoint_step(path).is_some()).max_by_key(|path| checkpoint_step(path))
}

fn checkpoint_step(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok()
}
