//! Makes the images of a range, as many at a time as there are threads.

use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
    vec,
};

use hiresmed_inference::Provider;
use hiresmed_protocol::{
    Happening, ImageIndex,
    job::{Object, SynthesiseImages},
    manifest::Image,
    outcome::{ImageFailure, Output, Stage, Success},
    request::OnFailure,
};
use tracing::{Span, info_span, warn};

use super::{Context, Failure, Run, uploads::Uploads};
use crate::{
    environment::Environment,
    pipeline::{Clock, Pipeline, Placed, Sampled, Scene, Scenes},
};

/// Images that are made at a time at most: on the CPU each holds the networks' sessions and their memory (300 to 350 MB at 512²).
const LANES: usize = 4;

/// Draws of a background that never existed, until its lesions have room: one in eight of the shipped prior's has none.
const DRAWS: u32 = 4;

type Made = (Image, Vec<Output>);
/// What became of a task, by its number in the job.
type Results = Vec<(usize, Result<Made, Failure>)>;

impl Run for SynthesiseImages {
    fn run(&self, environment: &Environment, context: &Context) -> Result<Success, Failure> {
        context.check()?;
        let lanes = lanes(environment.provider, environment.threads, self.images.count);
        let pipeline = Pipeline::open(environment, &self.models, &self.request, lanes)?;
        let (tasks, scenes) = (self.tasks().collect(), Scenes::new(lanes));
        let uploads = Uploads::new(environment, context);
        let done = AtomicU64::new(0);
        let work = Work { job: self, pipeline: &pipeline, environment, context, uploads, tasks, scenes, done };
        let mut clock = Clock::default();
        let made = work.make(&mut clock, environment.room.of(lanes));
        let mut success = Success { stages: clock.timings(), ..Success::default() };
        for (number, result) in made {
            match result {
                Ok((image, outputs)) => {
                    success.images.push(image);
                    success.outputs.extend(outputs);
                }
                Err(Failure::Permanent { stage, reason }) if self.request.on_failure == OnFailure::Continue => {
                    let (index, stage) = (work.tasks[number].0, stage.unwrap_or(Stage::Inputs));
                    success.failures.push(ImageFailure { index, stage, reason });
                }
                // The first of several: images before it were taken before it, and are all here.
                Err(failure) => return Err(failure),
            }
        }
        work.uploads.finish()?;
        let modality = self.request.modality.as_str();
        environment.observe(|metrics| metrics.images_made(modality, success.images.len() as u64));
        context.report(Happening::Stages { stages: success.stages.clone() });
        Ok(success)
    }
}

/// Images of a job of `images` that are in the making at the same time. On the CPU, an image by itself gets all threads; of several,
/// each gets its share. Beside a GPU, threads are decoding, placing and encoding while another image is in the networks.
fn lanes(provider: Provider, threads: usize, images: u64) -> usize {
    let most = match provider {
        Provider::Cuda { .. } => LANES,
        Provider::Cpu => threads.clamp(1, LANES),
    };
    usize::try_from(images).unwrap_or(usize::MAX).clamp(1, most)
}

/// What the lanes of a job share.
struct Work<'a> {
    job: &'a SynthesiseImages,
    pipeline: &'a Pipeline,
    environment: &'a Environment,
    context: &'a Context,
    uploads: Uploads<'a>,
    tasks: Vec<(ImageIndex, Option<&'a Object>)>,
    scenes: Scenes,
    /// Images that are over.
    done: AtomicU64,
}

impl Work<'_> {
    /// Makes every image, or those up to the failure that stops the job; by their numbers among the tasks. What memory was too short
    /// for is tried again with fewer at a time.
    fn make(&self, clock: &mut Clock, mut at_a_time: usize) -> BTreeMap<usize, Result<Made, Failure>> {
        let mut made = BTreeMap::new();
        loop {
            let left = (0..self.tasks.len()).filter(|number| !made.contains_key(number)).collect();
            made.extend(self.side_by_side(clock, left, at_a_time));
            let failures = || made.values().filter_map(|result| result.as_ref().err());
            let short = |failure: &Failure| matches!(failure, Failure::Memory { .. });
            if !failures().any(short) {
                self.environment.room.grow(at_a_time);
                return made;
            }
            let over = failures().any(|failure| !short(failure) && self.stops(failure));
            let fewer = self.environment.room.shrink(at_a_time).filter(|_| !over);
            let Some(fewer) = fewer else { return made };
            warn!(tried = at_a_time, next = fewer, "memory is short, fewer images at a time go on");
            if let Err(error) = self.pipeline.give_back_memory() {
                warn!(%error, "memory that is kept for networks was not given back");
            }
            at_a_time = fewer;
            made.retain(|_, result| !matches!(result, Err(failure) if short(failure)));
        }
    }

    /// Whether a failure of an image ends the job.
    fn stops(&self, failure: &Failure) -> bool {
        !matches!(failure, Failure::Permanent { .. }) || self.job.request.on_failure != OnFailure::Continue
    }

    /// Makes the images with the numbers `left`, so many at a time.
    fn side_by_side(&self, clock: &mut Clock, left: Vec<usize>, at_a_time: usize) -> Results {
        let (stop, left) = (AtomicBool::new(false), Mutex::new(left.into_iter()));
        let span = Span::current();
        let lane = || span.in_scope(|| self.lane(&left, &stop));
        let mut made = Vec::new();
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..at_a_time).map(|_| scope.spawn(lane)).collect();
            let own = lane();
            let joined = others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            for (times, images) in std::iter::once(own).chain(joined) {
                clock.add(times);
                made.extend(images);
            }
        });
        made
    }

    /// Makes one image after the other until none is left or a lane stops the job.
    fn lane(&self, left: &Mutex<vec::IntoIter<usize>>, stop: &AtomicBool) -> (Clock, Results) {
        let (mut clock, mut made) = (Clock::default(), Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let Some(number) = left.lock().unwrap_or_else(PoisonError::into_inner).next() else { break };
            let (index, input) = self.tasks[number];
            let result = self.context.check().and_then(|()| self.image(&mut clock, index, input));
            match &result {
                Err(failure) if self.stops(failure) => stop.store(true, Ordering::Relaxed),
                Err(Failure::Permanent { stage, reason }) => {
                    let stage = stage.unwrap_or(Stage::Inputs);
                    self.context.report(Happening::ImageFailed { index, stage, reason: reason.clone() });
                }
                _ => {}
            }
            if !matches!(result, Err(Failure::Memory { .. })) {
                let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
                self.context.progress(Stage::Outputs, done, self.job.images.count);
            }
            made.push((number, result));
        }
        (clock, made)
    }

    /// One image through all stages. Its failure concerns no other image.
    fn image(&self, clock: &mut Clock, index: ImageIndex, input: Option<&Object>) -> Result<Made, Failure> {
        let mut draw = 0;
        let (scene, lesions, places) = loop {
            match self.planned(clock, index, input, draw) {
                Err(Failure::Permanent { stage: Some(Stage::Placement), .. })
                    if input.is_none() && draw + 1 < DRAWS =>
                {
                    draw += 1;
                }
                planned => break planned?,
            }
        };
        let composite =
            self.stage(clock, Stage::Composite, |pipeline| pipeline.composite(&scene.background, &lesions, &places))?;
        self.stage(clock, Stage::Outputs, |pipeline| {
            let encoded = pipeline.outputs(self.context, index, &scene, &lesions, &places, &composite)?;
            self.uploads.put(encoded.uploads, self.context.later(Happening::ImageDone { index }))?;
            Ok((encoded.image, encoded.outputs))
        })
    }

    /// What is put together in an image: its background, its lesions and their places.
    fn planned(
        &self,
        clock: &mut Clock,
        index: ImageIndex,
        input: Option<&Object>,
        draw: u32,
    ) -> Result<(Arc<Scene>, Vec<Sampled>, Placed), Failure> {
        let scene = match input {
            Some(object) => self.scenes.get_or_make(object.sha256, || self.scene(clock, object))?,
            None => Arc::new(self.sampled_scene(clock, index, draw)?),
        };
        let spacing_mm = scene.background.spacing_mm();
        let lesions = self.stage(clock, Stage::Lesions, |pipeline| pipeline.lesions(index, spacing_mm))?;
        let places = self.stage(clock, Stage::Placement, |pipeline| pipeline.placement(index, &scene, &lesions))?;
        Ok((scene, lesions, places))
    }

    /// The background of a source, and where lesions may be in it.
    fn scene(&self, clock: &mut Clock, input: &Object) -> Result<Scene, Failure> {
        let source = self.stage(clock, Stage::Inputs, |pipeline| pipeline.input(self.environment, input))?;
        let mut background = self.stage(clock, Stage::Background, |pipeline| pipeline.background(&source))?;
        if let Some(geometry) = &source.geometry {
            background.plane = geometry.in_air(background.plane);
        }
        let anatomy = self.stage(clock, Stage::Placement, |pipeline| pipeline.anatomy(&background))?;
        Ok(Scene { source_sha256: Some(source.sha256), geometry: source.geometry, background, anatomy }.of_content())
    }

    /// The background of an image that has no source, and where lesions may be in it.
    fn sampled_scene(&self, clock: &mut Clock, index: ImageIndex, draw: u32) -> Result<Scene, Failure> {
        let background = self.stage(clock, Stage::Background, |pipeline| pipeline.sampled_background(index, draw))?;
        let anatomy = self.stage(clock, Stage::Placement, |pipeline| pipeline.anatomy(&background))?;
        Ok(Scene { source_sha256: None, geometry: None, background, anatomy })
    }

    fn stage<T>(
        &self,
        clock: &mut Clock,
        stage: Stage,
        work: impl FnOnce(&Pipeline) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.context.progress(stage, 0, 1);
        let started = Instant::now();
        let _span = info_span!("stage", name = stage.as_str()).entered();
        let result = clock.time(stage, || work(self.pipeline)).map_err(|failure| failure.at(stage))?;
        self.environment.observe(|metrics| metrics.stage_ended(stage.as_str(), started.elapsed().as_secs_f64()));
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_share_threads_and_a_gpu() {
        let cuda = Provider::Cuda { device: 0 };
        assert_eq!([lanes(cuda, 1, 50), lanes(cuda, 16, 1)], [LANES, 1]);
        assert_eq!(
            [lanes(Provider::Cpu, 2, 50), lanes(Provider::Cpu, 16, 50), lanes(Provider::Cpu, 16, 1)],
            [2, LANES, 1]
        );
    }
}
