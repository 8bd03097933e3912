//! What the API needs of plans, in memory: a plan never changes, and a large one takes long to read.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use hiresmed_protocol::{JobId, RequestId, SiteId, Work, job::ImageRange, request::MOST_UNBOUNDED};

use crate::{Error, Ledger, recipe};

/// Plans kept at a time. One takes about a hundred bytes a job.
const KEPT: usize = 256;

/// The jobs of a request's plan.
pub struct Outline {
    /// The site that asked.
    pub site: SiteId,
    request: RequestId,
    jobs: Jobs,
}

enum Jobs {
    /// The synthesis jobs with their images, in order of these; empty for training.
    Planned(Vec<(JobId, ImageRange)>),
    /// Those of an unbounded request: each makes so many images.
    Unbounded { chunk: u64 },
}

impl Outline {
    /// How many images the request has; none for an unbounded one.
    pub fn images(&self) -> Option<u64> {
        match &self.jobs {
            Jobs::Planned(jobs) => Some(jobs.last().map_or(0, |(_, images)| images.first.0 + images.count)),
            Jobs::Unbounded { .. } => None,
        }
    }

    /// The job that makes image `index`, and its images.
    pub fn job_of(&self, index: u64) -> Option<(JobId, ImageRange)> {
        match &self.jobs {
            Jobs::Planned(jobs) => {
                let after = jobs.partition_point(|(_, images)| images.first.0 <= index);
                let found = jobs.get(after.checked_sub(1)?);
                found.filter(|(_, images)| index < images.first.0 + images.count).cloned()
            }
            Jobs::Unbounded { chunk } => {
                let number = index / chunk;
                let images = recipe::images(number, *chunk, MOST_UNBOUNDED)?;
                Some((JobId::synthesise(&self.request, number), images))
            }
        }
    }
}

/// The outlines of plans.
pub struct Plans {
    ledger: Ledger,
    kept: Mutex<BTreeMap<RequestId, Arc<Outline>>>,
}

impl Plans {
    /// Outlines of the plans in `ledger`.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, kept: Mutex::default() }
    }

    /// The outline of a request's plan.
    ///
    /// # Errors
    /// [`Error::UnknownRequest`], [`Error::Waiting`], [`Error::Document`], the store's.
    pub async fn get(&self, request: &RequestId) -> Result<Arc<Outline>, Error> {
        if let Some(outline) = self.kept().get(request) {
            return Ok(outline.clone());
        }
        let Some(plan) = self.ledger.plan(request).await? else {
            // Without a plan, and known: it waits.
            self.ledger.request(request).await?;
            return Err(Error::Waiting { id: request.clone(), trainings: Vec::new() });
        };
        let planned = plan.jobs.iter().filter_map(|job| match &job.work {
            Work::Synthesise(work) => Some((job.id.clone(), work.images)),
            Work::TrainRound(_) | Work::Candidates(_) => None,
        });
        let jobs = match &plan.recipe {
            Some(recipe) => Jobs::Unbounded { chunk: recipe.chunk.max(1) },
            None => Jobs::Planned(planned.collect()),
        };
        let outline = Arc::new(Outline { site: plan.site, request: plan.request, jobs });
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.pop_first();
        }
        kept.insert(request.clone(), outline.clone());
        Ok(outline)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<RequestId, Arc<Outline>>> {
        // A map is whole after every call, also where a thread panicked in between.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
