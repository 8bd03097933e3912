//! Where requests stand, for people.

use std::pin::pin;

use futures::TryStreamExt;
use hiresmed_protocol::{JobId, Plan, Request, RequestId, Verdict, Work, plan::Recipe, request::ImageCount};
use serde::Serialize;

use crate::{Error, Ledger, exemplars, rounds};

/// Where a request stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The request.
    pub request: RequestId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// `synthesise`, `train` or `candidates`.
    pub kind: &'static str,
    /// What it counts: `images` or `steps`.
    pub unit: &'static str,
    /// Images or steps asked for; none for an unbounded request.
    pub total: Option<u64>,
    /// Images or steps made.
    pub done: u64,
    /// Images that could not be made or looked at; for training, whether a round failed (0 or 1).
    pub failed: u64,
    /// Why it ended early, if it did.
    pub cancelled: Option<String>,
    /// Whether it waits for lesion models that are trained first.
    pub waiting: bool,
}

impl Status {
    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        let all = self.total.is_some_and(|total| self.done + self.failed >= total);
        self.cancelled.is_some() || all || (self.kind == "train" && self.failed > 0)
    }

    /// How many images or steps were asked for, for people.
    pub fn asked(&self) -> String {
        self.total.map_or_else(|| ImageCount::Unbounded.to_string(), |total| total.to_string())
    }

    /// The state in a word: `running` means not over, whether or not a process works for it now.
    pub fn word(&self) -> &'static str {
        if self.cancelled.is_some() {
            "cancelled"
        } else if self.waiting {
            "waiting"
        } else if !self.is_over() {
            "open"
        } else if self.failed > 0 {
            "failures"
        } else {
            "complete"
        }
    }
}

/// Where request `id` stands.
///
/// # Errors
/// [`Error::UnknownRequest`], [`Error::Document`], the store's.
pub async fn of(ledger: &Ledger, id: &RequestId) -> Result<Status, Error> {
    let request = ledger.request(id).await?;
    let cancelled = ledger.cancellation(id).await?.map(|cancellation| cancellation.reason);
    let plan = ledger.plan(id).await?;
    let waiting = plan.is_none() && exemplars::has_any(&request);
    let (done, failed) = match plan {
        Some(Plan { recipe: Some(recipe), .. }) => tally(ledger, id, &recipe).await?,
        Some(plan) => progress(ledger, &plan).await?,
        None => (0, 0),
    };
    let (kind, unit, total) = match &request {
        Request::Synthesise(synthesise) => ("synthesise", "images", synthesise.count.bound()),
        Request::Train(train) => ("train", "steps", Some(train.steps)),
        // The image that is looked at.
        Request::Candidates(_) => ("candidates", "images", Some(1)),
    };
    Ok(Status {
        request: id.clone(),
        name: request.name().map(str::to_owned),
        kind,
        unit,
        total,
        done,
        failed,
        cancelled,
        waiting,
    })
}

/// A job that failed for good: a dead letter, until somebody decides to try it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// The request.
    pub request: RequestId,
    /// The job.
    pub job: JobId,
    /// Why it failed.
    pub reason: String,
    /// How often it was started.
    pub starts: usize,
}

/// The jobs of a request that failed for good.
///
/// # Errors
/// [`Error::Document`], the store's.
pub async fn dead_letters(ledger: &Ledger, id: &RequestId) -> Result<Vec<DeadLetter>, Error> {
    let mut letters = Vec::new();
    for (job, outcome) in ledger.outcomes(id).await? {
        if let Verdict::Failed(failure) = outcome.verdict
            && !ledger.is_discarded(id, &job).await?
        {
            let starts = ledger.attempts(id, &job).await?.len();
            letters.push(DeadLetter { request: id.clone(), job, reason: failure.reason, starts });
        }
    }
    Ok(letters)
}

/// Images of an unbounded request that are made, and that could not be.
async fn tally(ledger: &Ledger, id: &RequestId, recipe: &Recipe) -> Result<(u64, u64), Error> {
    let mut outcomes = pin!(ledger.outcomes_as_read(id).await?);
    let (mut done, mut failed) = (0, 0);
    while let Some(outcome) = outcomes.try_next().await? {
        match outcome.verdict {
            Verdict::Succeeded(success) => {
                done += success.images.len() as u64;
                failed += success.failures.len() as u64;
            }
            // All of its jobs are of one length.
            _ => failed += recipe.chunk,
        }
    }
    Ok((done, failed))
}

async fn progress(ledger: &Ledger, plan: &Plan) -> Result<(u64, u64), Error> {
    let outcomes = ledger.outcomes(&plan.request).await?;
    let (mut done, mut failed) = (0, 0);
    for job in &plan.jobs {
        let mut next = Some(job.clone());
        while let Some(job) = next.take() {
            let Some(outcome) = outcomes.get(&job.id) else { break };
            match (&job.work, &outcome.verdict) {
                (Work::Synthesise(_), Verdict::Succeeded(success)) => {
                    done += success.images.len() as u64;
                    failed += success.failures.len() as u64;
                }
                (Work::Synthesise(work), _) => failed += work.images.count,
                (Work::TrainRound(round), Verdict::Succeeded(success)) => {
                    let Some(result) = &success.round else { break };
                    done = result.step;
                    next = rounds::next(&job, round, result);
                }
                (Work::TrainRound(_), _) => failed = 1,
                (Work::Candidates(_), Verdict::Succeeded(_)) => done += 1,
                (Work::Candidates(_), _) => failed += 1,
            }
        }
    }
    Ok((done, failed))
}
