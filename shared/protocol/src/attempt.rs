//! The record of one start of a job, by which it is judged when its workers die.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// Written when a worker starts a job, and completed when the attempt ended without settling the job.
///
/// A record without an end belongs to a job that is running, or that was running when its worker died. A job whose
/// message merely waited in a worker that died has none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The protocol's version: 1.
    pub version: u32,
    /// The attempt's number, as in the job.
    pub attempt: u32,
    /// Who worked: host and process.
    pub worker: String,
    /// When work began, UTC, RFC 3339.
    pub started_at: String,
    /// How it ended, where the worker lived to tell and the job is not settled by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Outcome>,
}
