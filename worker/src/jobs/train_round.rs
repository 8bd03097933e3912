//! Trains a model from one checkpoint to the next. Only a program that links libtorch can (feature `training`).

#[cfg(feature = "training")]
mod round;

use hiresmed_protocol::{job::TrainRound, outcome::Success};

use super::{Context, Failure, Run};
use crate::environment::Environment;

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
