//! A plan: what a request became, written once when it was accepted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{RequestId, SiteId},
    job::{Job, Models, Work},
};

/// The jobs of a request.
///
/// A plan depends only on the request and on what its aliases stood for when it was planned. Jobs of training rounds
/// after the first are not in it: each follows from the checkpoint that its predecessor left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The protocol's version: 1.
    pub version: u32,
    /// The request.
    pub request: RequestId,
    /// The site that asked.
    pub site: SiteId,
    /// The models of a synthesis request by digest; none for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Models>,
    /// The jobs in the order in which they are dispatched.
    pub jobs: Vec<Job>,
}

impl Plan {
    /// How many images the plan makes: 0 for other requests than for images.
    pub fn images(&self) -> u64 {
        let count = |job: &Job| match &job.work {
            Work::Synthesise(synthesise) => synthesise.images.count,
            Work::TrainRound(_) | Work::Candidates(_) => 0,
        };
        self.jobs.iter().map(count).sum()
    }
}
