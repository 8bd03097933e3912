//! The trainer's own commands: a training in one folder, and the package of what it reached.
//!
//! The fleet trains through the job `train_round`, with the same rounds, which `consume` works on; the other commands are
//! for one machine without a fleet, and for the models that the project ships.

mod card;
mod compare;
mod consume;
mod evaluate;
mod originality;
mod package;
mod run;

pub use compare::{CompareOptions, compare};
pub use consume::{ConsumeOptions, consume};
pub(crate) use evaluate::HeldOut;
pub(crate) use originality::{Originality, Trial, draws_whole_images};
pub use package::{PackageOptions, package};
pub use run::{RunOptions, run};
