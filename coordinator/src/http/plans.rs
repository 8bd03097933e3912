//! What the API needs of plans, in memory: a plan never changes, and a large one takes long to read.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use hiresmed_protocol::{JobId, RequestId, SiteId, Work, job::ImageRange};

use crate::{Error, Ledger};

/// Plans kept at a time. One takes about a hundred bytes a job.
const KEPT: usize = 256;

/// The jobs of a request's plan.
pub struct Outline {
    /// The site that asked.
    pub site: SiteId,
    /// The synthesis jobs with their images, in order of these; empty for other requests.
    pub jobs: Vec<(JobId, ImageRange)>,
}

impl Outline {
    /// How many images the plan makes.
    pub fn images(&self) -> u64 {
        self.jobs.last().map_or(0, |(_, images)| images.first.0 + images.count)
    }

    /// The job that makes image `index`, and its images.
    pub fn job_of(&self, index: u64) -> Option<&(JobId, ImageRange)> {
        let after = self.jobs.partition_point(|(_, images)| images.first.0 <= index);
        self.jobs.get(after.checked_sub(1)?).filter(|(_, images)| index < images.first.0 + images.count)
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
    /// [`Error::UnknownRequest`], [`Error::Document`], the store's.
    pub async fn get(&self, request: &RequestId) -> Result<Arc<Outline>, Error> {
        if let Some(outline) = self.kept().get(request) {
            return Ok(outline.clone());
        }
        let plan = self.ledger.plan(request).await?.ok_or_else(|| Error::UnknownRequest(request.clone()))?;
        let jobs = plan.jobs.iter().filter_map(|job| match &job.work {
            Work::Synthesise(work) => Some((job.id.clone(), work.images)),
            Work::TrainRound(_) | Work::Candidates(_) => None,
        });
        let outline = Arc::new(Outline { jobs: jobs.collect(), site: plan.site });
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
