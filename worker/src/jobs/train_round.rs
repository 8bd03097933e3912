//! Trains a model from one checkpoint to the next. Only a program that links libtorch can (feature `training`).

#[cfg(feature = "training")]
mod round;

use hiresmed_protocol::{job::TrainRound, outcome::Success};

use super::{Context, Failure, Run};
use crate::environment::Environment;

// Models of exemplars are named by the one and trained by the other.
const _: () = assert!(
    hiresmed_models::singan::RECIPE == hiresmed_protocol::request::EXEMPLAR_RECIPE,
    "raise EXEMPLAR_RECIPE with singan::RECIPE"
);

impl Run for TrainRound {
    #[cfg(feature = "training")]
    fn run(&self, environment: &Environment, context: &Context) -> Result<Success, Failure> {
        context.check()?;
        round::train(self, environment, context)
    }

    #[cfg(not(feature = "training"))]
    fn run(&self, _environment: &Environment, context: &Context) -> Result<Success, Failure> {
        use hiresmed_protocol::outcome::Stage;

        context.check()?;
        Err(Failure::permanent(Stage::Training, anyhow::anyhow!("this program cannot train; `hiresmed-trainer` does")))
    }
}
