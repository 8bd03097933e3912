//! An unbounded request under way: its jobs move with those who read it.

use std::{collections::BTreeSet, time::Instant};

use hiresmed_protocol::{JobId, Outcome, Plan, Verdict};

use super::{
    super::readers::{Readers, window},
    Run, reason,
};
use crate::{Error, recipe::Jobs};

/// So many jobs in a row that made no image end an unbounded request: readers go past what could not be made, and so it would fail
/// for as long as somebody reads.
const FRUITLESS: u32 = 8;

/// What is known of an unbounded request's readers, and of the jobs within their reach.
pub(super) struct Ahead<'a> {
    jobs: Jobs<'a>,
    readers: Readers,
    /// Numbers of the jobs that made their images.
    made: BTreeSet<u64>,
    /// Numbers of the jobs that failed for good. They are looked at again: somebody may have opened them again.
    failed: BTreeSet<u64>,
    /// Jobs that were settled without an image since one last made some.
    fruitless: u32,
}

impl<'a> Ahead<'a> {
    /// Nothing is known yet; none where the request is not unbounded.
    pub(super) fn of(plan: &'a Plan) -> Option<Self> {
        let jobs = Jobs::unbounded(plan)?;
        let (made, failed) = (BTreeSet::new(), BTreeSet::new());
        Some(Self { jobs, readers: Readers::default(), made, failed, fruitless: 0 })
    }
}

impl Run<'_> {
    /// Looks who reads an unbounded request: the jobs within reach of the slowest reader are to be published, those that are not
    /// and that no worker can have are withdrawn. Nothing for other requests.
    pub(in crate::dispatcher) async fn follow(&mut self) -> Result<(), Error> {
        let Some(mut ahead) = self.ahead.take() else { return Ok(()) };
        let followed = self.move_with(&mut ahead).await;
        self.ahead = Some(ahead);
        followed
    }

    /// Ends an unbounded request of which nothing comes any more; `verdict` settled the last job.
    pub(super) async fn despair(&mut self, verdict: &Verdict) -> Result<(), Error> {
        let Some(ahead) = &mut self.ahead else { return Ok(()) };
        let last = match verdict {
            Verdict::Succeeded(success) if !success.images.is_empty() => {
                ahead.fruitless = 0;
                return Ok(());
            }
            Verdict::Succeeded(success) => success.failures.last().map(|failure| failure.reason.clone()),
            other => Some(reason(other)),
        };
        ahead.fruitless += 1;
        if ahead.fruitless < FRUITLESS {
            return Ok(());
        }
        let last = last.unwrap_or_else(|| "it has none".to_owned());
        let why = format!("{FRUITLESS} jobs in a row made no image, the last one for this reason: {last}");
        self.dispatcher.ledger.abort(&self.id, &why).await
    }

    async fn move_with(&mut self, ahead: &mut Ahead<'_>) -> Result<(), Error> {
        let ledger = &self.dispatcher.ledger;
        let observed = ahead.readers.observe(ledger.readings(&self.id).await?, Instant::now());
        for reader in &observed.silent {
            ledger.forget_reading(&self.id, reader).await?;
        }
        let (most, chunk) = (self.dispatcher.options.ahead, ahead.jobs.recipe.chunk);
        let wanted = observed.slowest.map_or(0..0, |slowest| window(slowest, most, chunk));
        ahead.made.retain(|number| wanted.contains(number));
        ahead.failed.retain(|number| wanted.contains(number));
        self.course.withdraw(|job| job.id.synthesis_number().is_some_and(|number| wanted.contains(&number)));
        for number in wanted {
            self.want(ahead, number).await?;
        }
        Ok(())
    }

    /// Adds job `number` unless it is under way or settled.
    async fn want(&mut self, ahead: &mut Ahead<'_>, number: u64) -> Result<(), Error> {
        let id = JobId::synthesise(&self.id, number);
        let beyond = ahead.jobs.images(number).is_none();
        if beyond || ahead.made.contains(&number) || self.course.get(&id).is_some() {
            return Ok(());
        }
        match self.dispatcher.ledger.outcome(&self.id, &id).await? {
            Some(Outcome { verdict: Verdict::Succeeded(_), .. }) => {
                ahead.made.insert(number);
            }
            Some(outcome) => {
                // Who settled it may have died before the request was ended for it.
                if ahead.failed.insert(number)
                    && let Some(job) = ahead.jobs.job(number)
                {
                    self.count(&job, &outcome).await?;
                }
            }
            None => {
                ahead.failed.remove(&number);
                if let Some(job) = ahead.jobs.job(number) {
                    self.add(job).await?;
                }
            }
        }
        Ok(())
    }
}
