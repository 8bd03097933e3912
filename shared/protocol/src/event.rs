//! What is told while work goes on. Events inform people; nothing depends on their arrival.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{ImageIndex, JobId, RequestId, SiteId},
    outcome::{Outcome, Stage, StageTiming},
};

/// Something that happened. Published under the topic [`Event::topic`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The protocol's version: 1.
    pub version: u32,
    /// The request that it concerns.
    pub request: RequestId,
    /// The site that asked.
    pub site: SiteId,
    /// The job that it concerns, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// What happened.
    pub happening: Happening,
}

impl Event {
    /// The topic: `{site}.{request}.{happening}`; subscribe with `*` for one part and `#` for the rest.
    pub fn topic(&self) -> String {
        format!("{}.{}.{}", self.site, self.request, self.happening.label())
    }

    /// The pattern that matches every event of `request`, whatever its site.
    pub fn topics_of(request: &RequestId) -> String {
        format!("*.{request}.#")
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Happening {
    /// The request was planned.
    Planned {
        /// Number of jobs known so far; 0 for an unbounded request.
        jobs: u64,
        /// Number of images; 0 for an unbounded request and for requests of other things.
        images: u64,
    },
    /// A worker took a job.
    Started {
        /// The worker.
        worker: String,
    },
    /// A job entered a stage.
    Progress {
        /// The stage.
        stage: Stage,
        /// Images or steps of the job that are through it.
        done: u64,
        /// Images or steps of the job.
        of: u64,
    },
    /// An image is complete (it counts when its job's `done.json` does).
    ImageDone {
        /// The image.
        index: ImageIndex,
    },
    /// An image could not be made.
    ImageFailed {
        /// The image.
        index: ImageIndex,
        /// The stage.
        stage: Stage,
        /// The cause, for people.
        reason: String,
    },
    /// Time by stage since the job began.
    Stages {
        /// Summed times.
        stages: Vec<StageTiming>,
    },
    /// A training step's losses.
    TrainingLoss {
        /// Steps made since the training began.
        step: u64,
        /// Steps asked for.
        of: u64,
        /// Loss terms by name; a term that is not finite is left out.
        terms: BTreeMap<String, f64>,
    },
    /// A reader of an unbounded request came so far, or began or ended.
    Read {
        /// The next image that it takes.
        next: ImageIndex,
    },
    /// An attempt at a job ended.
    Ended {
        /// The outcome.
        outcome: Box<Outcome>,
    },
    /// The request is complete: nothing more happens.
    Completed {
        /// Images delivered.
        images: u64,
        /// Images that failed.
        failures: u64,
    },
    /// The request ended without completion.
    Aborted {
        /// Why: cancelled, or a job's failure.
        reason: String,
    },
}

impl Happening {
    /// The last part of the event's topic.
    pub const fn label(&self) -> &'static str {
        match self {
            Happening::Planned { .. } => "planned",
            Happening::Started { .. } => "started",
            Happening::Progress { .. } => "progress",
            Happening::ImageDone { .. } => "image_done",
            Happening::ImageFailed { .. } => "image_failed",
            Happening::Stages { .. } => "stages",
            Happening::TrainingLoss { .. } => "training_loss",
            Happening::Read { .. } => "read",
            Happening::Ended { .. } => "ended",
            Happening::Completed { .. } => "completed",
            Happening::Aborted { .. } => "aborted",
        }
    }
}

/// What is said to every worker at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "control", rename_all = "snake_case")]
pub enum Control {
    /// Stop working for a request. The store's cancel object is the truth; this makes it prompt.
    Cancel {
        /// The request.
        request: RequestId,
    },
    /// Finish the image or step, hand the rest back, stop.
    Drain {
        /// The worker; none means all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<String>,
    },
}
