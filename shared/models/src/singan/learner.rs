//! Training, one scale after the other: WGAN-GP and reconstruction (equation 13).

use super::batch;
use super::config::{CHANNELS, Config, Training, WHOLE_CHANNELS};
use super::exemplar::Exemplar;
use super::folder;
use super::network::{Stack, generate, resize};
use super::stop::Watch;
use crate::noise;
use crate::training::{self, Adam, Error, Figure, Randomness, keep_named, load_named};
use crate::weights::Weights;
use hiresmed_imaging::Plane;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

/// Adam's decay rates.
const BETA: (f64, f64) = (0.5, 0.999);
/// Value of the mask channel at the delivered mask's edge.
const MASK_THRESHOLD: f32 = 0.0;

/// One SinGAN in training.
#[derive(Debug)]
pub struct Learner {
    name: String,
    /// SHA-256 over image and mask as little-endian `f32`, hex.
    data: String,
    pub(super) training: Training,
    pub(super) config: Config,
    pub(super) random: Randomness,
    seed: u64,
    /// The exemplar at every scale, `f32 [1, c, h, w]`; c is 2, image and mask, or 1 for a whole image.
    pub(super) real: Vec<Tensor>,
    /// Generators of finished scales, frozen.
    pub(super) finished: Vec<Stack>,
    /// None when training is complete.
    pub(super) scale: Option<Scale>,
    /// Steps made, and those that a scale which stopped early has skipped: every scale begins at a multiple of the iterations.
    pub(super) steps: u64,
    /// Iterations that each finished scale has made.
    iterations: Vec<u64>,
}

/// The scale that is being trained.
#[derive(Debug)]
pub(super) struct Scale {
    pub(super) generator: Stack,
    pub(super) critic: Stack,
    pub(super) generator_adam: Adam,
    pub(super) critic_adam: Adam,
    /// Up-sampled reconstruction of the scale below (zero at scale 0), `f32 [1, c, h, w]`.
    pub(super) previous: Tensor,
    /// Noise of the reconstruction, multiplied by its amplitude (zero above scale 0).
    pub(super) noise: Tensor,
    /// What decides its early stop.
    watch: Watch,
}

impl Learner {
    /// A learner for one exemplar of `specification`'s data, new or continuing from `parent`.
    ///
    /// # Errors
    /// [`Error::Specification`] or [`Error::Data`] with every fault; [`Error::Parent`] for a checkpoint of another training.
    pub fn open(specification: &training::Specification, parent: Option<&Weights>) -> Result<Self, Error> {
        let mut training = settings(specification)?;
        let read = if training.whole { folder::whole } else { folder::exemplar };
        let exemplar = read(&specification.data, &specification.hold_out, training.exemplar.as_deref());
        let exemplar = exemplar.map_err(Error::Data)?;
        if let Some(steps) = specification.steps {
            let scales = training.pyramid([exemplar.image.height(), exemplar.image.width()]).len() as u64;
            training.iterations = steps.div_ceil(scales).max(1);
            if let Some(stop) = &mut training.stop {
                stop.least = stop.least.min(training.iterations);
            }
        }
        Self::new(&exemplar, training, specification.seed, parent)
    }

    /// A learner for `exemplar`, new or continuing from `parent`.
    ///
    /// # Errors
    /// [`Error::Specification`] with every fault of `training`; [`Error::Parent`] for a checkpoint of another training.
    pub fn new(exemplar: &Exemplar, training: Training, seed: u64, parent: Option<&Weights>) -> Result<Self, Error> {
        let faults = training.faults();
        if !faults.is_empty() {
            return Err(Error::Specification(faults));
        }
        let sizes = training.pyramid([exemplar.image.height(), exemplar.image.width()]);
        let mut planes = vec![plane(&exemplar.image)];
        let mut mask = hiresmed_imaging::Mask::empty(exemplar.image.width(), exemplar.image.height());
        if !training.whole {
            planes.push(plane(&exemplar.mask));
            mask = exemplar.hard_mask(MASK_THRESHOLD);
        }
        let full = Tensor::stack(&planes, 0).unsqueeze(0);
        let real: Vec<Tensor> = sizes.iter().map(|&size| shrink(&full, size).to_device(training::device())).collect();
        // The exemplar may have been up-sampled to the coarsest side.
        let zoom = sizes[sizes.len() - 1][0] as f32 / exemplar.image.height() as f32;
        let config = Config {
            widths: (0..sizes.len()).map(|scale| training.width_of(scale)).collect(),
            sizes,
            noise_amplitudes: Vec::new(),
            channels: if training.whole { WHOLE_CHANNELS } else { CHANNELS },
            lesion_diameter_px: mask.longest_diameter() as f32 * zoom,
            lesion_area_px: mask.area() as f32 * zoom * zoom,
            mask_threshold: MASK_THRESHOLD,
        };
        let random = Randomness::new(seed);
        let name = exemplar.name.clone();
        let mut learner = Self {
            name,
            data: digest(exemplar),
            training,
            config,
            random,
            seed,
            real,
            finished: Vec::new(),
            scale: None,
            steps: 0,
            iterations: Vec::new(),
        };
        match parent {
            None => learner.scale = Some(learner.start_scale(None)),
            Some(parent) => learner.restore(parent)?,
        }
        Ok(learner)
    }

    /// The configuration so far; its noise amplitudes grow as scales begin.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Generators of the finished scales, coarse to fine.
    #[cfg(test)]
    pub(super) fn generators(&self) -> &[Stack] {
        &self.finished
    }

    /// Index of the scale under way, the number of scales when training is complete.
    pub(super) fn index(&self) -> usize {
        self.finished.len()
    }

    /// Iterations that each finished scale has made, coarse to fine.
    pub fn iterations(&self) -> &[u64] {
        &self.iterations
    }

    /// The exemplar's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the scale under way can be trained in one batch with `other`'s: the same shapes by the same settings.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let settings = |learner: &Self| Training { exemplar: None, ..learner.training.clone() };
        let shape = |learner: &Self| {
            let scales = ..learner.config.scales().min(learner.index() + 1);
            (learner.config.sizes[scales].to_vec(), learner.config.widths[scales].to_vec())
        };
        self.index() == other.index() && shape(self) == shape(other) && settings(self) == settings(other)
    }

    /// The next scale, its networks warm where the scale `below` is as wide.
    fn start_scale(&mut self, below: Option<&Scale>) -> Scale {
        let at = self.index();
        let width = self.config.widths[at];
        let mut rng = self.random.generator(at as u64, "singan weights");
        let channels = self.config.channels;
        let mut generator = Stack::new(width, (channels, channels), &mut rng);
        let mut critic = Stack::new(width, (channels, 1), &mut rng);
        if let Some(below) = below.filter(|_| self.config.widths[at - 1] == width) {
            generator.copy_from(&below.generator);
            critic.copy_from(&below.critic);
        }
        self.scale_over(generator, critic)
    }

    /// The scale under way around its networks, with fresh optimisers.
    fn scale_over(&mut self, generator: Stack, critic: Stack) -> Scale {
        let at = self.index();
        let (previous, amplitude) = self.reconstruction_input(at);
        self.config.noise_amplitudes.truncate(at);
        self.config.noise_amplitudes.push(amplitude);
        let noise = if at == 0 { self.reconstruction_noise() } else { previous.zeros_like() };
        Scale {
            generator_adam: Adam::new(generator.parameters(), BETA, 1e-8),
            critic_adam: Adam::new(critic.parameters(), BETA, 1e-8),
            generator,
            critic,
            previous,
            noise,
            watch: Watch::default(),
        }
    }

    /// The one noise map that reconstructs the exemplar: fixed at scale 0, zero above.
    fn reconstruction_noise(&self) -> Tensor {
        let mut rng = self.random.generator(0, "singan reconstruction");
        self.noise_map(&mut rng, 0)
    }

    /// Up-sampled reconstruction of the scales under `at`, and the noise amplitude of `at`.
    fn reconstruction_input(&self, at: usize) -> (Tensor, f32) {
        let mut output = self.real[0].zeros_like();
        for (scale, generator) in self.finished.iter().enumerate().take(at) {
            let previous = if scale == 0 { output } else { resize(&output, self.config.sizes[scale]) };
            let noise = if scale == 0 { self.reconstruction_noise() } else { previous.zeros_like() };
            output = tch::no_grad(|| generate(&[generator], &noise, &previous));
        }
        if at == 0 {
            return (output, 1.0);
        }
        let previous = resize(&output, self.config.sizes[at]);
        let error = (&previous - &self.real[at]).square().mean(Kind::Double).sqrt().double_value(&[]);
        (previous, (self.training.noise * error) as f32)
    }

    /// Noise of `scale`, multiplied by its amplitude.
    pub(super) fn fresh_noise(&self, rng: &mut ChaCha8Rng, scale: usize) -> Tensor {
        self.noise_map(rng, scale) * f64::from(self.config.noise_amplitudes[scale])
    }

    /// N(0, 1) noise of `scale`.
    pub(super) fn noise_map(&self, rng: &mut ChaCha8Rng, scale: usize) -> Tensor {
        noise_map(rng, scale, self.config.channels, self.config.sizes[scale])
    }

    /// Iterations that the scale under way has made, and the one from which its rate is a tenth.
    fn progress(&self, scale: &Scale) -> (u64, u64) {
        let late_from = self.training.late_from();
        (self.steps % self.training.iterations, scale.watch.late_from.unwrap_or(late_from).min(late_from))
    }

    /// Adam's rate in the next step.
    pub(super) fn rate(&self, scale: &Scale) -> f64 {
        let (made, late_from) = self.progress(scale);
        self.training.learning_rate * if made >= late_from { 0.1 } else { 1.0 }
    }

    /// Counts a step, whose figures these are, and goes to the next scale where this one has ended.
    ///
    /// # Errors
    /// [`Error::NotFinite`]: the learner must not be used afterwards.
    pub(super) fn stepped(&mut self, mut scale: Scale, losses: [Figure; 4]) -> Result<Vec<Figure>, Error> {
        if let Some(&(term, value)) = losses.iter().find(|(_, value)| !value.is_finite()) {
            return Err(Error::NotFinite { term, step: self.steps, value });
        }
        let mut figures: Vec<Figure> = vec![("scale", self.index() as f64)];
        figures.extend(losses);
        let value = |wanted: &str| losses.iter().find(|(name, _)| *name == wanted).map_or(0.0, |(_, value)| *value);
        let (made, _) = self.progress(&scale);
        if let Some(stop) = &self.training.stop {
            scale.watch.add(stop, made + 1, value("reconstruction"), value("wasserstein"));
        }
        let (_, late_from) = self.progress(&scale);
        let end = late_from + self.training.iterations - self.training.late_from();
        self.steps += 1;
        if made + 1 < end {
            self.scale = Some(scale);
            return Ok(figures);
        }
        self.steps = self.steps.next_multiple_of(self.training.iterations);
        self.iterations.push(made + 1);
        self.finish_scale(&scale);
        Ok(figures)
    }

    /// Freezes `scale` and starts the next one, if there is one.
    fn finish_scale(&mut self, scale: &Scale) {
        let mut done = self.blank_generator(self.index());
        done.copy_from(&scale.generator);
        done.freeze();
        self.finished.push(done);
        self.scale = (self.index() < self.config.scales()).then(|| self.start_scale(Some(scale)));
    }

    /// A generator of `scale`'s width, to be filled.
    fn blank_generator(&self, scale: usize) -> Stack {
        let channels = self.config.channels;
        Stack::new(self.config.widths[scale], (channels, channels), &mut self.random.generator(0, "singan blank"))
    }

    fn restore(&mut self, parent: &Weights) -> Result<(), Error> {
        self.steps = training::resumed(parent, "singan", &self.fingerprint())?;
        let done = ((self.steps / self.training.iterations) as usize).min(self.config.scales());
        self.iterations = match parent.metadata.get("iterations") {
            None => vec![self.training.iterations; done],
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Error::Parent(format!("its iterations of each scale: {error}")))?,
        };
        for scale in 0..done {
            let (_, amplitude) = self.reconstruction_input(scale);
            self.config.noise_amplitudes.push(amplitude);
            let mut generator = self.blank_generator(scale);
            load_named(generator.named(), parent, &format!("scale{scale}."))?;
            generator.freeze();
            self.finished.push(generator);
        }
        if done < self.config.scales() {
            let generator = self.blank_generator(done);
            let shape = (self.config.channels, 1);
            let critic = Stack::new(self.config.widths[done], shape, &mut self.random.generator(0, "singan blank"));
            load_named(generator.named(), parent, &format!("scale{done}."))?;
            load_named(critic.named(), parent, "critic.")?;
            let mut scale = self.scale_over(generator, critic);
            scale.generator_adam.restore(parent, "generator_adam")?;
            scale.critic_adam.restore(parent, "critic_adam")?;
            scale.watch = match parent.metadata.get("watch") {
                None => Watch::default(),
                Some(text) => serde_json::from_str(text)
                    .map_err(|error| Error::Parent(format!("what it knows of the scale's early stop: {error}")))?,
            };
            self.scale = Some(scale);
        }
        Ok(())
    }

    /// What a checkpoint must agree with: everything that the next step depends on.
    fn fingerprint(&self) -> String {
        let settings = serde_json::to_string(&self.training).unwrap_or_default();
        format!("{} seed {} data {} {settings}", self.name, self.seed, self.data)
    }
}

impl training::Learner for Learner {
    fn step(&mut self) -> Result<Vec<Figure>, Error> {
        batch::step(&mut [self]).pop().unwrap_or_else(|| Ok(Vec::new()))
    }

    fn steps_done(&self) -> u64 {
        self.steps
    }

    fn steps_planned(&self) -> u64 {
        self.training.iterations * self.config.scales() as u64
    }

    fn checkpoint(&self) -> Result<Weights, Error> {
        let mut weights = Weights::default();
        for (scale, generator) in self.finished.iter().enumerate() {
            keep_named(&generator.named(), &mut weights, &format!("scale{scale}."))?;
        }
        if let Some(scale) = &self.scale {
            keep_named(&scale.generator.named(), &mut weights, &format!("scale{}.", self.index()))?;
            keep_named(&scale.critic.named(), &mut weights, "critic.")?;
            scale.generator_adam.keep(&mut weights, "generator_adam")?;
            scale.critic_adam.keep(&mut weights, "critic_adam")?;
            let watch = serde_json::to_string(&scale.watch);
            let watch = watch.map_err(|error| Error::Specification(vec![error.to_string()]))?;
            weights.metadata.insert("watch".to_owned(), watch);
        }
        let config =
            serde_json::to_string(&self.config).map_err(|error| Error::Specification(vec![error.to_string()]))?;
        for (key, value) in [("kind", "singan".to_owned()), ("configuration", config), ("data", self.data.clone())] {
            weights.metadata.insert(key.to_owned(), value);
        }
        weights.metadata.insert("iterations".to_owned(), serde_json::json!(self.iterations).to_string());
        weights.metadata.insert("name".to_owned(), self.name.clone());
        weights.metadata.insert("singan".to_owned(), self.fingerprint());
        weights.metadata.insert("steps".to_owned(), self.steps.to_string());
        Ok(weights)
    }
}

/// The preset with the specification's settings over it, checked.
fn settings(specification: &training::Specification) -> Result<Training, Error> {
    let fault = |cause: String| Error::Specification(vec![cause]);
    let preset = Training::preset(&specification.preset).ok_or_else(|| {
        fault(format!(
            "SinGAN has no preset {:?}; choose one of {}",
            specification.preset,
            Training::PRESETS.join(", ")
        ))
    })?;
    let mut value = serde_json::to_value(preset).map_err(|error| fault(error.to_string()))?;
    if let (Some(fields), Some(changes)) = (value.as_object_mut(), specification.settings.as_object()) {
        fields.extend(changes.clone());
    }
    serde_json::from_value(value).map_err(|error| fault(format!("settings: {error}")))
}

/// N(0, 1) noise of `scale`, `f32 [1, c, h, w]`: one map for all channels at scale 0, one each above.
pub(super) fn noise_map(rng: &mut ChaCha8Rng, scale: usize, channels: usize, [height, width]: [usize; 2]) -> Tensor {
    let maps = if scale == 0 { 1 } else { channels };
    let values = noise::normal(rng, maps * height * width);
    let shape = [1, maps as i64, height as i64, width as i64];
    training::on_device(&values).reshape(shape).expand([1, channels as i64, shape[2], shape[3]], false)
}

/// SHA-256 over image and mask as little-endian `f32`, hex.
fn digest(exemplar: &Exemplar) -> String {
    let values = exemplar.image.data().iter().chain(exemplar.mask.data());
    hex::encode(Sha256::digest(values.flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()))
}

/// `f32 [h, w]`.
fn plane(plane: &Plane) -> Tensor {
    Tensor::from_slice(plane.data()).reshape([plane.height() as i64, plane.width() as i64])
}

/// `image` brought to `size`, with antialiasing where that is smaller.
fn shrink(image: &Tensor, size: [usize; 2]) -> Tensor {
    let [height, width] = size.map(|side| side as i64);
    if height < image.size()[2] || width < image.size()[3] {
        return image.internal_upsample_bicubic2d_aa([height, width], false, None, None);
    }
    resize(image, size)
}
