//! What became of a job.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{Digest, ImageIndex, JobId, RequestId, SiteId},
    job::Object,
    manifest::Image,
};

/// The end of one attempt at a job; `done.json` is the outcome of the attempt that counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The protocol's version: 1.
    pub version: u32,
    /// The job.
    pub job: JobId,
    /// Its request.
    pub request: RequestId,
    /// Its site.
    pub site: SiteId,
    /// The attempt, as in the job.
    pub attempt: u32,
    /// Who worked: host and process.
    pub worker: String,
    /// When work began, UTC, RFC 3339.
    pub started_at: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// How it ended.
    pub verdict: Verdict,
}

/// How an attempt ended. A failure is sorted once, by the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "result", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "few exist at a time, and a box would be in every reader's way")]
pub enum Verdict {
    /// The outputs are durable.
    Succeeded(Success),
    /// Trying again would fail again.
    Failed(Failure),
    /// Trying again later may succeed.
    Transient(Failure),
    /// Stopped from outside (drain, Ctrl-C); says nothing about the job. What was made counts for nothing.
    Interrupted,
    /// The request was cancelled.
    Cancelled,
}

impl Verdict {
    /// The label `outcome` of the metric `hiresmed_jobs_total`.
    pub const fn label(&self) -> &'static str {
        match self {
            Verdict::Succeeded(_) => "succeeded",
            Verdict::Failed(_) => "failed",
            Verdict::Transient(_) => "transient",
            Verdict::Interrupted => "interrupted",
            Verdict::Cancelled => "cancelled",
        }
    }

    /// Whether the job is over: no attempt follows.
    pub const fn is_final(&self) -> bool {
        matches!(self, Verdict::Succeeded(_) | Verdict::Failed(_) | Verdict::Cancelled)
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The stage that failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The cause, with the file or model it names and the next step, for people.
    pub reason: String,
}

/// What a job that succeeded left behind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Success {
    /// Every object that counts.
    pub outputs: Vec<Output>,
    /// The images that were made, by index; empty for other jobs than synthesis.
    #[serde(default)]
    pub images: Vec<Image>,
    /// The images that were not made, and why; only where the request says `on_failure = "continue"`.
    #[serde(default)]
    pub failures: Vec<ImageFailure>,
    /// What a training round reached; none for other jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<RoundResult>,
    /// Where a lesion may go; none for other jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidates: Option<FoundCandidates>,
    /// Time by stage, summed over the job.
    #[serde(default)]
    pub stages: Vec<StageTiming>,
}

/// An object that a job made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The path under which it is delivered, for example `images/image-00007.dcm`.
    pub file: String,
    /// SHA-256 of the bytes, and so the object's key.
    pub sha256: Digest,
    /// Length in bytes.
    pub size_bytes: u64,
}

/// An image that could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageFailure {
    /// The image.
    pub index: ImageIndex,
    /// Where it failed.
    pub stage: Stage,
    /// The cause and the next step, for people.
    pub reason: String,
}

/// A stage of the pipeline, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Source images are read and brought to size.
    Inputs,
    /// Backgrounds are encoded and decoded, or sampled.
    Background,
    /// Lesions are sampled.
    Lesions,
    /// Places are chosen.
    Placement,
    /// Lesions are blended in.
    Composite,
    /// Files are written.
    Outputs,
    /// A training round runs.
    Training,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 7] = [
        Stage::Inputs,
        Stage::Background,
        Stage::Lesions,
        Stage::Placement,
        Stage::Composite,
        Stage::Outputs,
        Stage::Training,
    ];

    /// The name in metrics, progress and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Inputs => "inputs",
            Stage::Background => "background",
            Stage::Lesions => "lesions",
            Stage::Placement => "placement",
            Stage::Composite => "composite",
            Stage::Outputs => "outputs",
            Stage::Training => "training",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Time spent in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageTiming {
    /// The stage.
    pub stage: Stage,
    /// Wall time in milliseconds.
    pub duration_ms: f64,
    /// Milliseconds of that inside ONNX Runtime.
    #[serde(default)]
    pub runtime_ms: f64,
    /// How many images (or steps) went through it.
    pub count: u64,
}

/// What a training round reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoundResult {
    /// The checkpoint that the next round starts from.
    pub checkpoint: Object,
    /// Steps made since the training began.
    pub step: u64,
    /// Measured time of a step in milliseconds, by which the next round's length is chosen.
    pub step_ms: f64,
    /// Mean of each loss term over the round, by the term's name.
    #[serde(default)]
    pub losses: BTreeMap<String, f64>,
    /// The finished package's `model.json`, after the last round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Object>,
}

/// Where a round lesion may go in an image (paper, equation 16).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FoundCandidates {
    /// Columns of the image in pixels.
    pub width: u32,
    /// Rows of the image in pixels.
    pub height: u32,
    /// Distance of pixel centres in millimetres: row spacing, column spacing.
    pub spacing_mm: [f64; 2],
    /// Longest diameter of the lesion in millimetres.
    pub diameter_mm: f64,
    /// Pixels at which the rules allow the lesion's centre.
    pub allowed_px: u64,
    /// The likeliest positions, the likeliest first, at least a diameter apart along an axis; empty where none of the allowed
    /// pixels is likely at all.
    pub candidates: Vec<Candidate>,
}

/// A position of a lesion's centre, as `placement.positions` of a request takes it: `[x, y]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Column, from the image's left edge.
    pub x: u32,
    /// Row, from the image's upper edge.
    pub y: u32,
    /// Share of the weight of all allowed pixels, 0 to 1.
    pub weight: f64,
}
