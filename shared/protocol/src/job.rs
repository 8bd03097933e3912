//! A job: the unit of work that a worker takes from a queue.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{Digest, ImageIndex, JobId, RequestId, SiteId},
    request::{Candidates, Synthesise, Train},
};

/// A unit of work: a pure function of what is written here and of the objects that are named here by digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The protocol's version: 1.
    pub version: u32,
    /// The job's name. A retry keeps it.
    pub id: JobId,
    /// The request that it belongs to.
    pub request: RequestId,
    /// The site that asked.
    pub site: SiteId,
    /// How often the job was dispatched after a transient failure: 0 at first. An interruption does not count.
    pub attempt: u32,
    /// Which queue it travels through.
    pub class: Class,
    /// What is to be done.
    pub work: Work,
}

impl Job {
    /// The queue for this job: `synthesis.interactive`, `training.batch` and so on.
    pub fn queue(&self) -> String {
        queue(self.work.kind(), self.class)
    }
}

/// The queue for jobs of `kind` and `class`.
pub fn queue(kind: Kind, class: Class) -> String {
    let work = match kind {
        Kind::Synthesise => "synthesis",
        Kind::TrainRound => "training",
        Kind::Candidates => "candidates",
    };
    format!("{work}.{class}")
}

/// Whether somebody waits for the result. Each class has its own queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Somebody waits.
    #[default]
    Interactive,
    /// Nobody waits.
    Batch,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Interactive => "interactive",
            Class::Batch => "batch",
        })
    }
}

/// A kind of job, as queues, metrics and logs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Makes images.
    Synthesise,
    /// Trains a model for a bounded number of steps.
    TrainRound,
    /// Finds where a lesion may go in an image.
    Candidates,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 3] = [Kind::Synthesise, Kind::TrainRound, Kind::Candidates];

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Synthesise => "synthesise",
            Kind::TrainRound => "train_round",
            Kind::Candidates => "candidates",
        }
    }

    /// The classes that jobs of this kind have, that for which somebody waits first.
    pub const fn classes(self) -> &'static [Class] {
        match self {
            Kind::Synthesise | Kind::TrainRound => &[Class::Interactive, Class::Batch],
            Kind::Candidates => &[Class::Interactive],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a job does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// Makes the images of a range.
    Synthesise(SynthesiseImages),
    /// Trains a model from one checkpoint to the next.
    TrainRound(TrainRound),
    /// Finds where a lesion may go in an image.
    Candidates(FindCandidates),
}

impl Work {
    /// The kind of work.
    pub const fn kind(&self) -> Kind {
        match self {
            Work::Synthesise(_) => Kind::Synthesise,
            Work::TrainRound(_) => Kind::TrainRound,
            Work::Candidates(_) => Kind::Candidates,
        }
    }
}

/// Makes images `images.first` to `images.first + images.count - 1` of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SynthesiseImages {
    /// Which images.
    pub images: ImageRange,
    /// The whole request.
    pub request: Synthesise,
    /// The models that the request's aliases stood for when it was planned.
    pub models: Models,
    /// The source image of each background: `inputs[k]` is for image `images.first + k`. Empty where backgrounds are
    /// sampled.
    pub inputs: Vec<Object>,
}

impl SynthesiseImages {
    /// The images of this job with their inputs (`None` where backgrounds are sampled).
    pub fn tasks(&self) -> impl Iterator<Item = (ImageIndex, Option<&Object>)> {
        self.images.iter().enumerate().map(|(k, index)| (index, self.inputs.get(k)))
    }
}

/// Consecutive images of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageRange {
    /// The first image.
    pub first: ImageIndex,
    /// How many.
    pub count: u64,
}

impl ImageRange {
    /// The images of the range in order.
    pub fn iter(self) -> impl Iterator<Item = ImageIndex> {
        (self.first.0..self.first.0.saturating_add(self.count)).map(ImageIndex)
    }
}

/// Model packages by digest (SHA-256 of the package's `model.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// The autoencoder.
    pub vqgan: Digest,
    /// The lesion exemplars to draw from, sorted, at least one.
    pub singan: Vec<Digest>,
    /// The model of permissible regions.
    pub unet: Digest,
    /// The spatial prior.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub density: Option<Digest>,
    /// The detector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yolo: Option<Digest>,
    /// The prior over the autoencoder's tokens, where backgrounds are sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<Digest>,
}

/// An object of the store, with the digest that its bytes must have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// The key in the store.
    pub key: String,
    /// SHA-256 of the bytes.
    pub sha256: Digest,
}

/// Trains a model for `steps` steps from the checkpoint `parent`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainRound {
    /// The round's number, counted from 0.
    pub round: u64,
    /// The whole request.
    pub request: Train,
    /// The checkpoint that the previous round left; none in the first round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Object>,
    /// Steps that the earlier rounds made.
    pub first_step: u64,
    /// Steps that this round makes.
    pub steps: u64,
    /// The autoencoder whose tokens a prior learns, or with whose encoder a perceptual term is measured, as its alias stood when the
    /// request was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoencoder: Option<Digest>,
    /// The files of the network with which a perceptual term is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perceptual: Option<DataSet>,
    /// The images on which the finished model is scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_on: Option<DataSet>,
    /// The training data: every file of the data set by its path below the data folder.
    pub data: DataSet,
}

/// The files of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// An object that lists the files: JSON of [`DataFiles`].
    pub listing: Object,
    /// Number of files, for people.
    pub files: u64,
}

/// A data set's listing: where each file lies in the store, by its path within the data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataFiles {
    /// The protocol's version: 1.
    pub version: u32,
    /// Path within the data set, with `/` between its parts, to object.
    pub files: BTreeMap<String, Object>,
}

/// Finds the likeliest positions of a lesion in an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindCandidates {
    /// The whole request.
    pub request: Candidates,
    /// The image.
    pub input: Object,
    /// The model of permissible regions, as its alias stood when the request was planned.
    pub unet: Digest,
    /// The spatial prior, as its alias stood when the request was planned, where one is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub density: Option<Digest>,
    /// The detector, as its alias stood when the request was planned, where one is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yolo: Option<Digest>,
}
