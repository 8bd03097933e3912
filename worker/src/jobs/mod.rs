//! The kinds of job, a file each, and what every one of them is given.
//!
//! A job runs synchronously on a thread of its own. It reads its specification and the objects that this names by
//! digest, writes its outputs as content-addressed objects, and returns what it made. It neither acknowledges, nor
//! retries, nor writes `done.json`: the consumer does.

mod candidates;
mod context;
mod failure;
mod synthesise;
mod train_round;
mod uploads;

use hiresmed_protocol::{job::Work, outcome::Success};

pub use self::{
    context::{Context, Stop},
    failure::Failure,
    uploads::Upload,
};
use crate::environment::Environment;

/// A kind of job.
///
/// Implemented by the protocol's description of the work, so that a job is its specification and nothing else.
pub trait Run {
    /// Does the work that `self` describes.
    ///
    /// Long work calls [`Context::check`] between images and between training steps and returns its failure.
    ///
    /// # Errors
    /// A [`Failure`], sorted once: permanent, transient, interrupted or cancelled.
    fn run(&self, environment: &Environment, context: &Context) -> Result<Success, Failure>;
}

/// Does whatever work a job describes.
///
/// # Errors
/// Those of its kind.
pub fn run(environment: &Environment, context: &Context) -> Result<Success, Failure> {
    match &context.job().work {
        Work::Synthesise(work) => work.run(environment, context),
        Work::TrainRound(work) => work.run(environment, context),
        Work::Candidates(work) => work.run(environment, context),
    }
}
