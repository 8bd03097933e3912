//! What the parts of hiresmed say to each other: requests, plans, jobs, outcomes, events and manifests.
//!
//! This crate owns the shapes of every message and stored document, their validation, the identifiers that tie them
//! together, the keys under which they are stored, and the derivation of each image's noise. Everything is plain data
//! with `serde`, carries a `version`, and refuses unknown keys where a person writes it.
//!
//! It must not know how anything is transported, stored or computed: no input or output, no async runtime, no image.

pub mod attempt;
pub mod event;
pub mod ids;
pub mod job;
pub mod keys;
pub mod manifest;
pub mod noise;
pub mod outcome;
pub mod parse;
pub mod plan;
pub mod request;
pub mod schema;
mod shape;
pub mod validate;

pub use attempt::Attempt;
pub use event::{Event, Happening};
pub use ids::{Digest, ImageIndex, JobId, RequestId, SiteId};
pub use job::{Class, Job, Work};
pub use manifest::Manifest;
pub use outcome::{Outcome, Verdict};
pub use plan::Plan;
pub use request::Request;

/// The version that this build writes into, and requires of, every document.
pub const VERSION: u32 = 1;
