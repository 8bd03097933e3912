//! The worker: takes jobs from queues, runs them on threads of their own, makes their outcomes durable, acknowledges.
//!
//! [`consumer`] is the loop, [`jobs`] has a file for each kind of job, [`environment`] is what they share. The worker
//! knows nothing of plans and requests beyond its job: it meets the coordinator in the protocol and the services only.

pub mod environment;
pub mod jobs;
mod packages;
pub mod resident;

pub use environment::Environment;
