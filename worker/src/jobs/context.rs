//! What a running job is told and tells: its specification, whether to stop, and its progress.

use hiresmed_protocol::{
    Digest, Event, Happening, Job, VERSION, keys,
    outcome::{Output, Stage},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Failure, uploads::Upload};
use crate::environment::Environment;

/// The two ways in which a job is stopped from outside.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// The worker drains: the job is handed back.
    pub drain: CancellationToken,
    /// The request was cancelled: the job is over.
    pub cancel: CancellationToken,
}

/// A running job's view of the world outside it.
#[derive(Debug)]
pub struct Context {
    job: Job,
    stop: Stop,
    events: mpsc::Sender<Event>,
}

impl Context {
    /// A context for `job`. Events go to `events`, and are dropped while that is full: they inform people only.
    pub fn new(job: Job, stop: Stop, events: mpsc::Sender<Event>) -> Self {
        Self { job, stop, events }
    }

    /// The job as it was dispatched.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Whether the job should stop, for whatever reason.
    pub fn stopped(&self) -> bool {
        self.stop.drain.is_cancelled() || self.stop.cancel.is_cancelled()
    }

    /// Whether the request has been cancelled: what is made now counts for nothing.
    pub fn is_cancelled(&self) -> bool {
        self.stop.cancel.is_cancelled()
    }

    /// To be called between images and between training steps.
    ///
    /// # Errors
    /// [`Failure::Cancelled`] or [`Failure::Interrupted`] when the job should stop; pass it on.
    pub fn check(&self) -> Result<(), Failure> {
        if self.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        if self.stop.drain.is_cancelled() {
            return Err(Failure::Interrupted);
        }
        Ok(())
    }

    /// Waits until the request is cancelled.
    pub(crate) async fn cancelled(&self) -> Failure {
        self.stop.cancel.cancelled().await;
        Failure::Cancelled
    }

    /// Tells whoever listens.
    pub fn report(&self, happening: Happening) {
        self.later(happening)();
    }

    /// Tells it when the returned function is called, on whatever thread.
    pub(crate) fn later(&self, happening: Happening) -> impl FnOnce() + Send + 'static {
        let event = Event {
            version: VERSION,
            request: self.job.request.clone(),
            site: self.job.site.clone(),
            job: Some(self.job.id.clone()),
            happening,
        };
        let events = self.events.clone();
        // A listener that is too slow loses progress, not the job.
        move || drop(events.try_send(event))
    }

    /// Tells that `done` of `of` images or steps of the job are through `stage`.
    pub fn progress(&self, stage: Stage, done: u64, of: u64) {
        self.report(Happening::Progress { stage, done, of });
    }

    /// `bytes` as an object of the site that is to be delivered as `file`: what names it, and what has to be put where.
    pub(crate) fn object(&self, file: impl Into<String>, bytes: Vec<u8>) -> (Output, Upload) {
        let sha256 = Digest::of(&bytes);
        let output = Output { file: file.into(), sha256, size_bytes: bytes.len() as u64 };
        (output, Upload { key: keys::object(&self.job.site, &sha256), bytes: bytes.into() })
    }

    /// Makes `bytes` durable as an object of the site, and names it as the output to be delivered as `file`.
    ///
    /// # Errors
    /// The store's, as a [`Failure`] of the stage `outputs`.
    pub fn output(
        &self,
        environment: &Environment,
        file: impl Into<String>,
        bytes: Vec<u8>,
    ) -> Result<Output, Failure> {
        let (output, Upload { key, bytes }) = self.object(file, bytes);
        environment.store.put_if_absent(&key, bytes).map_err(|error| Failure::from(error).at(Stage::Outputs))?;
        Ok(output)
    }
}
