//! The training step of a StyleSwin, and the checkpoint that resumes it.

use hiresmed_imaging::{Plane, Window};
use rand::RngExt;
use tch::{Kind, Tensor};

use super::{
    PRESETS,
    augment::augment,
    config::{Config, Training},
    discriminator::{Discriminator, penalty},
    network::Network,
};
use crate::{
    data::square,
    noise,
    training::{self, Adam, Dataset, Error, Figure, Randomness, Sample, Specification, keep_named, load_named},
    weights::Weights,
};

/// Adam's ε.
const EPSILON: f64 = 1e-8;
/// Prefix of the running average's tensors in a checkpoint.
pub(super) const AVERAGE: &str = "average.";

/// A StyleSwin in training.
#[derive(Debug)]
pub struct Learner {
    config: Config,
    training: Training,
    seed: u64,
    random: Randomness,
    data: Dataset,
    generator: Network,
    /// Running average of the generator: what is exported.
    average: Network,
    discriminator: Discriminator,
    generator_adam: Adam,
    discriminator_adam: Adam,
    steps: u64,
}

impl Learner {
    /// A learner on the images of the specification's folders, new or continuing from `parent`.
    ///
    /// # Errors
    /// [`Error::Specification`] or [`Error::Data`] with every fault, before the first step; [`Error::Parent`] for a checkpoint of
    /// another training.
    pub fn open(specification: &Specification, parent: Option<&Weights>) -> Result<Self, Error> {
        let (config, training) = settings(specification)?;
        let data = Dataset::open(&specification.data, &specification.hold_out, Window::LUNG_CT, config.side())?;
        Self::new(config, training, &data, specification.seed, parent)
    }

    /// A learner over `data`, images in [-1, 1] of any size, new or continuing from `parent`.
    ///
    /// # Errors
    /// [`Error::Specification`] with every fault of `config` and `training`, [`Error::Data`] without an image; [`Error::Parent`] for a
    /// checkpoint of another training.
    pub fn new(
        config: Config,
        training: Training,
        data: &Dataset,
        seed: u64,
        parent: Option<&Weights>,
    ) -> Result<Self, Error> {
        let mut faults = config.faults();
        faults.extend(training.faults(&config));
        if !faults.is_empty() {
            return Err(Error::Specification(faults));
        }
        let whole = |plane: &Plane| plane.width() > 0 && plane.height() > 0;
        if data.samples().is_empty() || !data.samples().iter().all(|sample| whole(&sample.plane)) {
            return Err(Error::Data(vec!["there is no image, or one without pixels".to_owned()]));
        }
        let shrink = |sample: &Sample| Sample { plane: square(&sample.plane, config.side()), ..sample.clone() };
        let data = Dataset::new(data.samples().iter().map(shrink).collect(), data.digest().to_owned());
        let random = Randomness::new(seed);
        let generator = Network::new(&config, &mut random.generator(0, "styleswin generator weights"));
        let average = generator.detached();
        let mut rng = random.generator(0, "styleswin discriminator weights");
        let discriminator = Discriminator::new(config.channels, config.start, &training.discriminator_widths, &mut rng);
        let generator_adam = Adam::new(generator.trainable(), training.beta, EPSILON);
        let discriminator_adam = Adam::new(discriminator.named(), training.beta, EPSILON);
        let mut learner = Self {
            config,
            training,
            seed,
            random,
            data,
            generator,
            average,
            discriminator,
            generator_adam,
            discriminator_adam,
            steps: 0,
        };
        if let Some(parent) = parent {
            learner.restore(parent)?;
        }
        Ok(learner)
    }

    /// The generator's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The generator that is exported.
    #[cfg(test)]
    pub(super) fn average(&self) -> &Network {
        &self.average
    }

    /// The discriminator.
    #[cfg(test)]
    pub(super) fn discriminator(&self) -> &Discriminator {
        &self.discriminator
    }

    fn restore(&mut self, parent: &Weights) -> Result<(), Error> {
        let steps = training::resumed(parent, "styleswin", &self.fingerprint()?)?;
        load_named(self.generator.named(), parent, "generator.")?;
        load_named(self.average.named(), parent, AVERAGE)?;
        load_named(self.discriminator.named(), parent, "discriminator.")?;
        load_named(self.discriminator.estimates(), parent, "spectral.")?;
        self.generator_adam.restore(parent, "generator_adam")?;
        self.discriminator_adam.restore(parent, "discriminator_adam")?;
        self.steps = steps;
        Ok(())
    }

    /// What a checkpoint must agree with: everything that the next step depends on. How many steps there are is not among it.
    fn fingerprint(&self) -> Result<String, Error> {
        let training = Training { steps: 0, ..self.training.clone() };
        let [config, training] = [text(&self.config)?, text(&training)?];
        Ok(format!("data {} seed {} {config} {training}", self.data.digest(), self.seed))
    }

    /// Images of this step, f32 `[batch, channels, side, side]`.
    fn batch(&self) -> Result<Tensor, Error> {
        let mut rng = self.random.generator(self.steps, "styleswin images");
        let (channels, side) = (self.config.channels as i64, self.config.side() as i64);
        let mut images = Vec::with_capacity(self.training.batch);
        for _ in 0..self.training.batch {
            let sample = self.data.draw(&mut rng).ok_or_else(|| Error::Data(vec!["there is no image".to_owned()]))?;
            let image = Tensor::from_slice(sample.plane.data()).reshape([1, side, side]);
            let mirrored = self.training.mirror && rng.random_bool(0.5);
            let image = if mirrored { image.flip([2]) } else { image };
            images.push(image.expand([channels, side, side], false));
        }
        Ok(Tensor::stack(&images, 0).to_device(training::device()))
    }

    fn finite(&self, term: &'static str, value: f64) -> Result<Figure, Error> {
        if value.is_finite() { Ok((term, value)) } else { Err(Error::NotFinite { term, step: self.steps, value }) }
    }

    /// The discriminator's step on real and made images: its figures.
    fn discriminate(&mut self, made: &Tensor) -> Result<Vec<Figure>, Error> {
        let mut rng = self.random.generator(self.steps, "styleswin discriminator");
        let real = augment(&self.batch()?, &self.training, &mut rng);
        let made = augment(&made.detach(), &self.training, &mut rng);
        self.discriminator.iterate();
        let discriminator = self.discriminator.normalised();
        let (of_real, of_made) = (discriminator.forward(&real), discriminator.forward(&made));
        let mut loss = (-&of_real).softplus().mean(Kind::Float) + of_made.softplus().mean(Kind::Float);
        let share = (of_real.gt(0.0).to_kind(Kind::Float).mean(Kind::Float)
            + of_made.lt(0.0).to_kind(Kind::Float).mean(Kind::Float))
            / 2.0;
        let mut figures = vec![
            self.finite("discriminator", loss.double_value(&[]))?,
            // Near one half it cannot tell them apart, near one the generator learns nothing.
            self.finite("told_apart", share.double_value(&[]))?,
        ];
        if self.training.penalty > 0.0 && self.steps.is_multiple_of(self.training.penalty_every) {
            let penalty = penalty(&discriminator, &real);
            figures.push(self.finite("r1", penalty.double_value(&[]))?);
            loss += penalty * (self.training.penalty * self.training.penalty_every as f64);
        }
        let gradients = Tensor::run_backward(&[loss], self.discriminator_adam.parameters(), false, false);
        let norm = self.discriminator_adam.step(&gradients, self.training.discriminator_rate, None);
        self.finite("discriminator_gradient", norm)?;
        Ok(figures)
    }

    fn follow(&self, latents: &Tensor) {
        // Early on a long average would remember the initialisation.
        let decay = self.training.average_decay.min((1.0 + self.steps as f64) / (10.0 + self.steps as f64));
        self.average.follow(&self.generator, 1.0 - decay);
        self.average.follow_styles(latents, 1.0 - decay);
    }
}

impl training::Learner for Learner {
    fn step(&mut self) -> Result<Vec<Figure>, Error> {
        let mut rng = self.random.generator(self.steps, "styleswin latents");
        let (count, length) = (self.training.batch, self.config.latent);
        let latents = noise::normal(&mut rng, count * length);
        let latents = training::on_device(&latents).reshape([count as i64, length as i64]);
        // Both steps judge the same images: to make them again would cost as much as the discriminator.
        let made = self.generator.generate(&latents);
        let mut figures = self.discriminate(&made)?;
        let mut rng = self.random.generator(self.steps, "styleswin generator");
        let logits = self.discriminator.forward(&augment(&made, &self.training, &mut rng));
        let loss = (-logits).softplus().mean(Kind::Float);
        figures.insert(0, self.finite("generator", loss.double_value(&[]))?);
        let gradients = Tensor::run_backward(&[loss], self.generator_adam.parameters(), false, false);
        let norm = self.generator_adam.step(&gradients, self.training.generator_rate, None);
        self.finite("generator_gradient", norm)?;
        self.follow(&latents);
        self.steps += 1;
        Ok(figures)
    }

    fn steps_done(&self) -> u64 {
        self.steps
    }

    fn steps_planned(&self) -> u64 {
        self.training.steps
    }

    fn checkpoint(&self) -> Result<Weights, Error> {
        let mut weights = Weights::default();
        keep_named(&self.generator.named(), &mut weights, "generator.")?;
        keep_named(&self.average.named(), &mut weights, AVERAGE)?;
        keep_named(&self.discriminator.named(), &mut weights, "discriminator.")?;
        keep_named(&self.discriminator.estimates(), &mut weights, "spectral.")?;
        self.generator_adam.keep(&mut weights, "generator_adam")?;
        self.discriminator_adam.keep(&mut weights, "discriminator_adam")?;
        let known = [
            ("kind", "styleswin".to_owned()),
            ("configuration", text(&self.config)?),
            ("data", self.data.digest().to_owned()),
            ("styleswin", self.fingerprint()?),
            ("steps", self.steps.to_string()),
        ];
        weights.metadata.extend(known.map(|(key, value)| (key.to_owned(), value)));
        Ok(weights)
    }
}

fn text(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Specification(vec![error.to_string()]))
}

/// Architecture and training of a specification: the preset's, with its `settings` laid over: `{"config": {..},
/// "training": {..}}`.
fn settings(specification: &Specification) -> Result<(Config, Training), Error> {
    let unknown = || {
        let (preset, known) = (&specification.preset, PRESETS.join(", "));
        Error::Specification(vec![format!("StyleSwin has no preset {preset:?}; choose one of {known}")])
    };
    let config = Config::preset(&specification.preset).ok_or_else(unknown)?;
    let training = Training::preset(&specification.preset).ok_or_else(unknown)?;
    let (config, mut training) = training::laid_over(specification, &config, &training)?;
    training.steps = specification.steps.unwrap_or(training.steps);
    let mut faults = config.faults();
    faults.extend(training.faults(&config));
    if faults.is_empty() { Ok((config, training)) } else { Err(Error::Specification(faults)) }
}
