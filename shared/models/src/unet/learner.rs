//! Training on slices and their permissible regions.

use super::augment::{Change, augment};
use super::config::{Config, Training};
use super::network::{Network, losses};
use crate::data::Pair;
use crate::training::{self, Adam, Error, Figure, Randomness, keep_named, load_named};
use crate::weights::Weights;
use hiresmed_imaging::Plane;
use rand::RngExt;
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

/// Adam's decay rates.
const BETA: (f64, f64) = (0.9, 0.999);

/// A U-Net in training.
#[derive(Debug)]
pub struct Learner {
    /// SHA-256 over images and masks as little-endian `f32`, hex.
    data: String,
    training: Training,
    random: Randomness,
    seed: u64,
    /// Pairs `f32 [1, 2, side, side]` as [`augment`] takes them.
    samples: Vec<Tensor>,
    network: Network,
    adam: Adam,
    steps: u64,
}

impl Learner {
    /// A learner on the pairs (`NAME.png` or `.dcm`, `NAME.mask.png`: white is permissible) of the specification's folders, new or
    /// continuing from `parent`.
    ///
    /// # Errors
    /// [`Error::Specification`] or [`Error::Data`] with every fault; [`Error::Parent`] for a checkpoint of another training.
    pub fn open(specification: &training::Specification, parent: Option<&Weights>) -> Result<Self, Error> {
        let training = settings(specification)?;
        let pairs = Pair::find(&specification.data, &specification.hold_out).map_err(Error::Data)?;
        let (mut samples, mut faults) = (Vec::new(), Vec::new());
        for pair in &pairs {
            match pair.read() {
                Ok((image, mask)) => samples.push((image, training.permissible(&mask))),
                Err(cause) => faults.push(cause),
            }
        }
        if pairs.is_empty() {
            faults.push("there is no slice: give a folder with NAME.png or NAME.dcm and NAME.mask.png".to_owned());
        }
        if !faults.is_empty() {
            return Err(Error::Data(faults));
        }
        Self::new(&samples, training, specification.seed, parent)
    }

    /// A learner on images in [-1, 1] and masks (above 0 is permissible) of equal sizes, new or continuing from `parent`.
    ///
    /// # Errors
    /// [`Error::Specification`] with every fault of `training`; [`Error::Parent`] for a checkpoint of another training.
    pub fn new(
        samples: &[(Plane, Plane)],
        training: Training,
        seed: u64,
        parent: Option<&Weights>,
    ) -> Result<Self, Error> {
        let faults = training.faults();
        if !faults.is_empty() {
            return Err(Error::Specification(faults));
        }
        let side = training.config.side;
        let mut hash = Sha256::new();
        for plane in samples.iter().flat_map(|(image, mask)| [image, mask]) {
            hash.update(plane.data().iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
        }
        let data = hex::encode(hash.finalize());
        let beside = |(image, mask): &(Plane, Plane)| {
            Tensor::cat(&[square(image, side) + 1.0, square(mask, side).gt(0.0).to_kind(Kind::Float)], 1)
        };
        let samples: Vec<_> = samples.iter().map(beside).collect();
        let random = Randomness::new(seed);
        let network = Network::new(&training.config, &mut random.generator(0, "unet weights"));
        let adam = Adam::new(network.named(), BETA, 1e-8);
        let mut learner = Self { data, training, random, seed, samples, network, adam, steps: 0 };
        if let Some(parent) = parent {
            learner.restore(parent)?;
        }
        Ok(learner)
    }

    /// The network's configuration.
    pub fn config(&self) -> &Config {
        &self.training.config
    }

    /// The network itself.
    #[cfg(test)]
    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    fn restore(&mut self, parent: &Weights) -> Result<(), Error> {
        let steps = training::resumed(parent, "unet", &self.fingerprint())?;
        load_named(self.network.named(), parent, "")?;
        self.adam.restore(parent, "adam")?;
        self.steps = steps;
        Ok(())
    }

    /// What a checkpoint must agree with: everything that the next step depends on.
    fn fingerprint(&self) -> String {
        let settings = serde_json::to_string(&self.training).unwrap_or_default();
        format!("data {} seed {} {settings}", self.data, self.seed)
    }

    /// One augmented batch: images and masks, `f32 [batch, 1, side, side]`.
    fn batch(&self) -> (Tensor, Tensor) {
        let mut rng = self.random.generator(self.steps, "unet batch");
        let draw = |_| {
            let sample = &self.samples[rng.random_range(0..self.samples.len())];
            (sample, Change::draw(&self.training, self.training.config.side, &mut rng))
        };
        let (pairs, changes): (Vec<_>, Vec<_>) = (0..self.training.batch).map(draw).unzip();
        augment(&Tensor::cat(&pairs, 0).to_device(training::device()), &changes)
    }
}

impl training::Learner for Learner {
    fn step(&mut self) -> Result<Vec<Figure>, Error> {
        let (images, masks) = self.batch();
        let (dice, entropy) = losses(&self.network.forward(&images), &masks);
        let figures = vec![("dice", dice.double_value(&[])), ("cross_entropy", entropy.double_value(&[]))];
        if let Some(&(term, value)) = figures.iter().find(|(_, value)| !value.is_finite()) {
            return Err(Error::NotFinite { term, step: self.steps, value });
        }
        let gradients = Tensor::run_backward(&[dice + entropy], self.adam.parameters(), false, false);
        self.adam.step(&gradients, self.training.rate(self.steps), Some(5.0));
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
        keep_named(&self.network.named(), &mut weights, "")?;
        self.adam.keep(&mut weights, "adam")?;
        let config = serde_json::to_string(&self.training.config);
        let config = config.map_err(|error| Error::Specification(vec![error.to_string()]))?;
        for (key, value) in [("kind", "unet".to_owned()), ("configuration", config), ("data", self.data.clone())] {
            weights.metadata.insert(key.to_owned(), value);
        }
        weights.metadata.insert("unet".to_owned(), self.fingerprint());
        weights.metadata.insert("steps".to_owned(), self.steps.to_string());
        Ok(weights)
    }
}

/// The preset with the specification's settings over it.
fn settings(specification: &training::Specification) -> Result<Training, Error> {
    let preset = Training::preset(&specification.preset).ok_or_else(|| {
        let known = Training::PRESETS.join(", ");
        Error::Specification(vec![format!("U-Net has no preset {:?}; choose one of {known}", specification.preset)])
    })?;
    let mut training = specification.over(preset)?;
    training.steps = specification.steps.unwrap_or(training.steps);
    Ok(training)
}

/// `plane` resampled to `f32 [1, 1, side, side]` with antialiasing.
fn square(plane: &Plane, side: usize) -> Tensor {
    let shape = [1, 1, plane.height() as i64, plane.width() as i64];
    let side = side as i64;
    Tensor::from_slice(plane.data()).reshape(shape).internal_upsample_bilinear2d_aa([side, side], false, None, None)
}
