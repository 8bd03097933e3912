//! A plan: what a request became, written once when it was accepted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{RequestId, SiteId},
    job::{Job, Models, Object, Work},
    request::Synthesise,
};

/// The jobs of a request.
///
/// A plan depends only on the request and on what its aliases stood for when it was planned. Jobs of training rounds
/// after the first are not in it: each follows from the checkpoint that its predecessor left. Nor are those of an unbounded
/// request: each follows from its number, by the plan's recipe.
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
    /// What the jobs of an unbounded request follow from; none for other requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
}

/// What the jobs of an unbounded request follow from: job k makes the images from k * `chunk` on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The whole request.
    pub request: Synthesise,
    /// The source images that there were when it was planned, sorted by key. Empty where backgrounds are sampled.
    pub sources: Vec<Object>,
    /// How many images a job makes; at least 1.
    pub chunk: u64,
    /// How many images in a row are made from one background; at least 1.
    pub draws: u64,
}

impl Plan {
    /// How many images the jobs of the plan make: 0 for an unbounded request and for requests of other things.
    pub fn images(&self) -> u64 {
        let count = |job: &Job| match &job.work {
            Work::Synthesise(synthesise) => synthesise.images.count,
            Work::TrainRound(_) | Work::Candidates(_) => 0,
        };
        self.jobs.iter().map(count).sum()
    }
}
