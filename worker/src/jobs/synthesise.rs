//! Makes the images of a range.

use std::sync::Arc;

use hiresmed_protocol::{
    Happening, ImageIndex,
    job::{Object, SynthesiseImages},
    outcome::{ImageFailure, Stage, Success},
    request::OnFailure,
};

use super::{Context, Failure, Run};
use crate::{
    environment::Environment,
    pipeline::{Clock, Pipeline},
};

impl Run for SynthesiseImages {
    fn run(&self, environment: &Environment, context: &Context) -> Result<Success, Failure> {
        context.check()?;
        let pipeline = Arc::new(Pipeline::open(environment, &self.models, &self.request)?);
        let mut success = Success::default();
        let mut clock = Clock::default();
        for (done, (index, input)) in self.tasks().enumerate() {
            context.check()?;
            let made = image(&pipeline, environment, context, &mut clock, index, input);
            match made {
                Ok((image, outputs)) => {
                    success.images.push(image);
                    success.outputs.extend(outputs);
                    context.report(Happening::ImageDone { index });
                }
                Err(Failure::Permanent { stage, reason }) if self.request.on_failure == OnFailure::Continue => {
                    let stage = stage.unwrap_or(Stage::Inputs);
                    context.report(Happening::ImageFailed { index, stage, reason: reason.clone() });
                    success.failures.push(ImageFailure { index, stage, reason });
                }
                Err(failure) => return Err(failure),
            }
            context.progress(Stage::Outputs, done as u64 + 1, self.images.count);
        }
        success.stages = clock.timings();
        context.report(Happening::Stages { stages: success.stages.clone() });
        Ok(success)
    }
}

/// One image through all stages. Its failure concerns no other image.
fn image(
    pipeline: &Pipeline,
    environment: &Environment,
    context: &Context,
    clock: &mut Clock,
    index: ImageIndex,
    input: Option<&Object>,
) -> Result<(hiresmed_protocol::manifest::Image, Vec<hiresmed_protocol::outcome::Output>), Failure> {
    let enter = |stage| context.progress(stage, 0, 1);

    enter(Stage::Inputs);
    let source = clock.time(Stage::Inputs, || pipeline.input(environment, input)).map_err(|f| f.at(Stage::Inputs))?;
    enter(Stage::Background);
    let background =
        clock.time(Stage::Background, || pipeline.background(&source)).map_err(|f| f.at(Stage::Background))?;
    enter(Stage::Lesions);
    let lesions = clock
        .time(Stage::Lesions, || pipeline.lesions(index, background.spacing_mm()))
        .map_err(|f| f.at(Stage::Lesions))?;
    enter(Stage::Placement);
    let placement = clock
        .time(Stage::Placement, || pipeline.placement(index, &background, &lesions))
        .map_err(|f| f.at(Stage::Placement))?;
    enter(Stage::Composite);
    let composite = clock
        .time(Stage::Composite, || pipeline.composite(&background, &lesions, &placement))
        .map_err(|f| f.at(Stage::Composite))?;
    enter(Stage::Outputs);
    clock
        .time(Stage::Outputs, || {
            pipeline.outputs(environment, context, index, &source, &background, &lesions, &placement, &composite)
        })
        .map_err(|f| f.at(Stage::Outputs))
}
