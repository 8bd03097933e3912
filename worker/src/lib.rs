//! The worker: takes jobs from queues, runs them on threads of their own, makes their outcomes durable, acknowledges.
//!
//! [`consumer`] is the loop, [`jobs`] has a file for each kind of job, [`environment`] is what they share. The worker
//! knows nothing of plans and requests beyond its job: it meets the coordinator in the protocol and the services only.

#[cfg(feature = "fleet")]
pub mod busy;
mod cancellations;
pub mod consumer;
mod disk;
pub mod environment;
mod execute;
pub mod jobs;
mod packages;
pub mod pipeline;
#[cfg(feature = "fleet")]
pub mod program;
mod record;
pub mod resident;
pub mod room;
#[cfg(feature = "fleet")]
pub mod settings;
pub mod shipped;
#[cfg(feature = "fleet")]
pub mod status;
#[cfg(feature = "training")]
pub mod trainer;

pub use consumer::Worker;
pub use environment::Environment;
