//! Several exemplars trained in one process, in one batch where they are alike.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Learner;
use super::batch;
use crate::training::{
    Error, Flow, History, Learner as _, Progress, Specification, keep_checkpoint, newest_checkpoint,
};
use crate::weights::Weights;

/// Most models of a batch. On one CPU core a model's iteration costs little less in a batch of four than alone (0.92 of it, measured), so
/// more would only take memory.
const MOST: usize = 4;

/// One exemplar's training.
struct Member {
    learner: Learner,
    history: History,
    folder: PathBuf,
    kept: Instant,
    /// Its losses are no numbers any more: its last checkpoint stands.
    is_broken: bool,
}

impl Member {
    fn open(specification: &Specification, folder: PathBuf) -> Result<Self, Error> {
        let parent = newest_checkpoint(&folder).map(|path| Weights::read(&path)).transpose()?;
        let history = parent.as_ref().map(History::of).transpose()?.flatten().unwrap_or_default();
        let learner = Learner::open(specification, parent.as_ref())?;
        Ok(Self { learner, history, folder, kept: Instant::now(), is_broken: false })
    }

    fn is_complete(&self) -> bool {
        self.learner.steps_done() >= self.learner.steps_planned()
    }

    fn keep(&mut self) -> Result<(), Error> {
        let mut checkpoint = self.learner.checkpoint()?;
        self.history.keep(&mut checkpoint)?;
        self.kept = Instant::now();
        keep_checkpoint(&checkpoint, &self.folder, self.learner.steps_done()).map(drop)
    }
}

/// Trains a SinGAN for each of `exemplars`, names in the data of `specification`, until all are complete or `progress`, which is told
/// every step and whose it is, says stop. Checkpoints go to `folder`/NAME every `round` and are those of a training alone: the
/// same call goes on from them, and so does a training of one.
///
/// Those that are at the lowest scale take the next step, at most four in a batch, so that all come to a scale in company. What is
/// bit-equal to a training alone and what is not: see [`batch`].
///
/// # Errors
/// Those of [`Learner::open`], before the first step; [`Error::NotFinite`] of any, when all others have been kept.
pub fn train_together(
    specification: &Specification,
    exemplars: &[String],
    folder: &Path,
    round: Duration,
    progress: &mut dyn FnMut(&str, &Progress) -> Flow,
) -> Result<(), Error> {
    let mut members = Vec::new();
    for name in exemplars {
        let mut own = specification.clone();
        match own.settings.as_object_mut() {
            Some(fields) => drop(fields.insert("exemplar".to_owned(), name.as_str().into())),
            None => own.settings = serde_json::json!({ "exemplar": name }),
        }
        members.push(Member::open(&own, folder.join(name))?);
    }
    let (mut flow, mut broken) = (Flow::Continue, None);
    while flow == Flow::Continue && broken.is_none() {
        let Some(mut batch) = next_batch(&mut members) else { break };
        let before = Instant::now();
        let starts: Vec<u64> = batch.iter().map(|member| member.learner.steps_done()).collect();
        let stepped = batch::step(&mut batch.iter_mut().map(|member| &mut member.learner).collect::<Vec<_>>());
        let seconds = before.elapsed().as_secs_f64() / batch.len() as f64;
        for ((member, start), figures) in batch.into_iter().zip(starts).zip(stepped) {
            let figures = match figures {
                Ok(figures) => figures,
                Err(error) => {
                    member.is_broken = true;
                    broken = broken.or(Some(error));
                    continue;
                }
            };
            member.history.add(start, &figures);
            let (step, planned) = (member.learner.steps_done(), member.learner.steps_planned());
            if progress(member.learner.name(), &Progress { step, planned, seconds, figures: &figures }) == Flow::Stop {
                flow = Flow::Stop;
            }
            if member.is_complete() || member.kept.elapsed() >= round {
                member.keep()?;
            }
        }
    }
    members.iter_mut().filter(|member| !member.is_complete() && !member.is_broken).try_for_each(Member::keep)?;
    broken.map_or(Ok(()), Err)
}

/// Members at the lowest scale that are alike, in their order; `None` when all are complete.
fn next_batch(members: &mut [Member]) -> Option<Vec<&mut Member>> {
    let open = |member: &&mut Member| !member.is_complete();
    let lowest = members.iter_mut().filter(open).map(|member| member.learner.index()).min()?;
    let mut batch: Vec<&mut Member> = Vec::new();
    for member in members.iter_mut().filter(open) {
        let alike = batch.first().is_none_or(|first| first.learner.is_alike(&member.learner));
        if member.learner.index() == lowest && alike && batch.len() < MOST {
            batch.push(member);
        }
    }
    Some(batch)
}
