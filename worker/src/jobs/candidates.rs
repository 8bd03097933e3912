//! Finds where a lesion may go in an image of the site.

use hiresmed_protocol::{
    job::FindCandidates,
    outcome::{Stage, Success},
};

use super::{Context, Failure, Run};
use crate::{
    environment::Environment,
    pipeline::{Clock, LocationModels, Locator, candidates, fetch},
};

impl Run for FindCandidates {
    fn run(&self, environment: &Environment, context: &Context) -> Result<Success, Failure> {
        context.check()?;
        let models = LocationModels { density: self.density, yolo: self.yolo };
        let (request, mut clock) = (&self.request, Clock::default());
        let locator = Locator::open(environment, &self.unet, request.location, models, request.modality)?;
        context.progress(Stage::Inputs, 0, 1);
        let (plane, spacing) = clock.time(Stage::Inputs, || {
            let (name, bytes) = fetch(environment, &self.input)?;
            let plane = candidates::read(&bytes, name, request.modality, Some(&request.size))?;
            let spacing = candidates::usable_spacing(&plane, name, "give size.spacing_mm in the request")?;
            Ok::<_, Failure>((plane, spacing))
        })?;
        context.check()?;
        context.progress(Stage::Placement, 0, 1);
        let (found, _) = clock.time(Stage::Placement, || {
            locator.candidates(&plane, spacing, request.diameter_mm, request.count as usize)
        })?;
        Ok(Success { candidates: Some(found), stages: clock.timings(), ..Success::default() })
    }
}
