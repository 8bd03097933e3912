//! The coordinator: turns a request into a plan, the plan into jobs in flight, and their outcomes into a delivery.
//!
//! [`planner`] resolves names and cuts the work, [`dispatcher`] keeps a bounded number of jobs in flight and decides
//! what happens after failures, [`ledger`] reads and writes the store's documents, [`delivery`] names what a complete
//! request consists of. The store is the truth: a coordinator that starts rebuilds everything from it.
//!
//! `http` (feature `server`) is the API that sites call, [`sites`] knows who they are and what they may use, [`supervisor`] keeps a
//! dispatcher running for every open request.
//!
//! It must not know how a job is done: no image, no model, no inference runtime.

mod candidates;
mod clock;
mod course;
pub mod delivery;
pub mod dispatcher;
mod error;
mod exemplars;
#[cfg(feature = "server")]
pub mod http;
mod judge;
pub mod ledger;
pub mod models;
pub mod planner;
mod recipe;
pub mod rounds;
#[cfg(feature = "server")]
pub mod serve;
#[cfg(feature = "server")]
pub mod settings;
pub mod sites;
mod sources;
pub mod status;
pub mod supervisor;

pub use dispatcher::{Dispatcher, Ending};
pub use error::Error;
pub use ledger::Ledger;
pub use planner::Planner;
pub use sites::Sites;
pub use supervisor::Supervisor;
