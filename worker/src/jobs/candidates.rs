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
        let (plane, geometry, spacing) = clock.time(Stage::Inputs, || {
            let (name, bytes) = fetch(environment, &self.input)?;
            let (plane, geometry) = candidates::read_for(request, &bytes, name)?;
            let spacing = candidates::usable_spacing(&plane, name, "give size.spacing_mm in the request")?;
            Ok::<_, Failure>((plane, geometry, spacing))
        })?;
        context.check()?;
        context.progress(Stage::Placement, 0, 1);
        let (found, _) = clock.time(Stage::Placement, || {
            locator.candidates(&plane, spacing, geometry.as_ref(), request.diameter_mm, request.count as usize)
        })?;
        Ok(Success { candidates: Some(found), stages: clock.timings(), ..Success::default() })
    }
}
