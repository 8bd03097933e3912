//! Trains a model from one checkpoint to the next.

use hiresmed_protocol::{
    job::TrainRound,
    outcome::{Stage, Success},
};

use super::{Context, Failure, Run};
use crate::environment::Environment;

impl Run for TrainRound {
    fn run(&self, _environment: &Environment, context: &Context) -> Result<Success, Failure> {
        context.check()?;
        Err(Failure::permanent(Stage::Training, anyhow::anyhow!("this program cannot train; `hiresmed-trainer` does")))
    }
}
