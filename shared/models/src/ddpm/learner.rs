//! The training step of a diffusion model, and the checkpoint that resumes it.

use hiresmed_imaging::{Plane, Window};
use rand::RngExt;
use tch::Tensor;

use super::{
    augment::varied,
    config::{Config, PRESETS, Training},
    network::Network,
    schedule::Schedule,
};
use crate::{
    data::square,
    noise,
    training::{self, Adam, Dataset, Error, Figure, Randomness, Specification, keep_named, load_named},
    weights::Weights,
};

/// Adam's decay rates.
const BETA: (f64, f64) = (0.9, 0.999);
/// Prefixes of the tensors of the network and of its running average in a checkpoint.
const WEIGHTS: &str = "weights.";
pub(super) const AVERAGE: &str = "average.";

/// A diffusion model in training.
#[derive(Debug)]
pub struct Learner {
    config: Config,
    training: Training,
    seed: u64,
    random: Randomness,
    schedule: Schedule,
    /// Digest of the files that are learned.
    data: String,
    /// Images of the network's size in [-1, 1].
    images: Vec<Plane>,
    network: Network,
    /// Running average of the weights: what is exported.
    average: Network,
    adam: Adam,
    steps: u64,
}

impl Learner {
    /// A learner for `specification` on whole slices (see [`Dataset::open`]), new or continuing from `parent`.
    ///
    /// # Errors
    /// Every fault of specification, data or parent, before the first step.
    pub fn open(specification: &Specification, parent: Option<&Weights>) -> Result<Self, Error> {
        let (config, training) = settings(specification)?;
        let data = Dataset::open(&specification.data, &specification.hold_out, Window::LUNG_CT, config.side)?;
        Self::new(config, training, &data, specification.seed, parent)
    }

    /// A learner over `data`, all of whose images are as likely: it is their distribution that is learned.
    ///
    /// # Errors
    /// [`Error::Data`] for a set without an image, [`Error::Parent`] and [`Error::Weights`] where `parent` does not fit.
    pub fn new(
        config: Config,
        training: Training,
        data: &Dataset,
        seed: u64,
        parent: Option<&Weights>,
    ) -> Result<Self, Error> {
        if data.samples().is_empty() {
            return Err(Error::Data(vec!["there is no image".to_owned()]));
        }
        let images = data.samples().iter().map(|sample| square(&sample.plane, config.side)).collect();
        let random = Randomness::new(seed);
        let network = Network::new(&config, &mut random.generator(0, "ddpm weights"));
        let average = network.detached();
        let adam = Adam::new(network.named(), BETA, 1e-8);
        let (schedule, data) = (config.schedule(), data.digest().to_owned());
        let mut learner =
            Self { config, training, seed, random, schedule, data, images, network, average, adam, steps: 0 };
        if let Some(parent) = parent {
            learner.restore(parent)?;
        }
        Ok(learner)
    }

    /// The network's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The network that is exported.
    #[cfg(test)]
    pub(super) fn average(&self) -> &Network {
        &self.average
    }

    fn restore(&mut self, parent: &Weights) -> Result<(), Error> {
        let steps = training::resumed(parent, "ddpm", &self.fingerprint())?;
        load_named(self.network.named(), parent, WEIGHTS)?;
        load_named(self.average.named(), parent, AVERAGE)?;
        self.adam.restore(parent, "adam")?;
        self.steps = steps;
        Ok(())
    }

    /// What a checkpoint must agree with: everything that the next step depends on.
    fn fingerprint(&self) -> String {
        let settings = serde_json::to_string(&(&self.config, &self.training)).unwrap_or_default();
        format!("data {} seed {} {settings}", self.data, self.seed)
    }

    /// Mean squared error of the noise that the network finds in this step's images at random times (Ho et al. 2020, algorithm 1).
    fn loss(&self) -> Tensor {
        let mut rng = self.random.generator(self.steps, "ddpm batch");
        let (mut noisy, mut noises, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.training.batch {
            let image = &self.images[rng.random_range(0..self.images.len())];
            let image = varied(image, &self.training, &mut rng);
            let time = rng.random_range(0..self.schedule.times());
            let (of_image, of_noise) = self.schedule.shares(time);
            let (of_image, of_noise) = (of_image as f32, of_noise as f32);
            let noise = noise::normal(&mut rng, self.config.channels * image.len());
            let pixels = image.iter().cycle();
            noisy.extend(pixels.zip(&noise).map(|(pixel, noise)| of_image * pixel + of_noise * noise));
            noises.extend(noise);
            times.push(time as i64);
        }
        let Config { channels, side, .. } = self.config;
        let shape = [self.training.batch, channels, side, side].map(|size| size as i64);
        let shaped = |values: &[f32]| training::on_device(values).reshape(shape);
        let found = self.network.forward(&shaped(&noisy), &training::on_device(&times));
        found.mse_loss(&shaped(&noises), tch::Reduction::Mean)
    }

    fn finite(&self, term: &'static str, value: f64) -> Result<f64, Error> {
        if value.is_finite() { Ok(value) } else { Err(Error::NotFinite { term, step: self.steps, value }) }
    }
}

impl training::Learner for Learner {
    fn step(&mut self) -> Result<Vec<Figure>, Error> {
        let loss = self.loss();
        let mut figures = vec![("loss", self.finite("loss", loss.double_value(&[]))?)];
        let gradients = Tensor::run_backward(&[&loss], self.adam.parameters(), false, false);
        let rate = self.training.rate_at(self.steps);
        let norm = self.adam.step(&gradients, rate, Some(self.training.clip_norm));
        figures.push(("gradient", self.finite("gradient", norm)?));
        self.average.follow(&self.network, self.training.average_at(self.steps));
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
        keep_named(&self.network.named(), &mut weights, WEIGHTS)?;
        keep_named(&self.average.named(), &mut weights, AVERAGE)?;
        self.adam.keep(&mut weights, "adam")?;
        let config = serde_json::to_string(&self.config);
        let config = config.map_err(|error| Error::Specification(vec![error.to_string()]))?;
        let metadata = [
            ("kind", "ddpm".to_owned()),
            ("configuration", config),
            ("data", self.data.clone()),
            ("ddpm", self.fingerprint()),
            ("steps", self.steps.to_string()),
        ];
        weights.metadata.extend(metadata.map(|(key, value)| (key.to_owned(), value)));
        Ok(weights)
    }
}

/// Architecture and training of a specification: the preset's, with its `settings` laid over: `{"config": {..},
/// "training": {..}}`.
fn settings(specification: &Specification) -> Result<(Config, Training), Error> {
    let unknown = || {
        let (preset, known) = (&specification.preset, PRESETS.join(", "));
        Error::Specification(vec![format!("a diffusion model has no preset {preset:?}; choose one of {known}")])
    };
    let config = Config::preset(&specification.preset).ok_or_else(unknown)?;
    let training = Training::preset(&specification.preset).ok_or_else(unknown)?;
    let (config, mut training) = training::laid_over(specification, &config, &training)?;
    training.steps = specification.steps.unwrap_or(training.steps);
    let mut faults = config.faults();
    faults.extend(training.faults(&config));
    if faults.is_empty() { Ok((config, training)) } else { Err(Error::Specification(faults)) }
}
