//! Makes the images of a range.

use hiresmed_protocol::{
    job::SynthesiseImages,
    outcome::{Stage, Success},
};

use super::{Context, Failure, Run};
use crate::environment::Environment;

impl Run for SynthesiseImages {
    fn run(&self, _environment: &Environment, context: &Context) -> Result<Success, Failure> {
        context.check()?;
        Err(Failure::permanent(Stage::Inputs, anyhow::anyhow!("this build has no pipeline")))
    }
}
