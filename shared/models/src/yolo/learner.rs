//! Training on images with boxes around their lesions.

use hiresmed_imaging::{Plane, resample};
use rand::RngExt;
use sha2::{Digest, Sha256};
use tch::{Tensor, no_grad};

use super::augment::{Sample, augment};
use super::config::{Cell, Config, Training};
use super::losses::losses;
use super::network::Network;
use crate::data::{Boxed, Label, Region};
use crate::training::{self, Adam, Error, Figure, Randomness, keep_named, load_named};
use crate::weights::Weights;

/// Adam's decay rates.
const BETA: (f64, f64) = (0.9, 0.999);
/// Longest gradient.
const CLIP_NORM: f64 = 10.0;

/// A detector in training.
#[derive(Debug)]
pub struct Learner {
    /// SHA-256 over images and boxes as little-endian `f32`, hex.
    data: String,
    training: Training,
    random: Randomness,
    seed: u64,
    samples: Vec<Sample>,
    /// Of the cut-outs.
    cells: Vec<Cell>,
    network: Network,
    /// The mean of the network's weights over its last steps: what is exported.
    mean: Network,
    adam: Adam,
    steps: u64,
}

impl Learner {
    /// A learner on the images and boxes (see [`Boxed`]) of the specification's folders, new or continuing from `parent`.
    ///
    /// # Errors
    /// [`Error::Specification`] or [`Error::Data`] with every fault; [`Error::Parent`] for a checkpoint of another training.
    pub fn open(specification: &training::Specification, parent: Option<&Weights>) -> Result<Self, Error> {
        let training = settings(specification)?;
        let images = Boxed::find(&specification.data, &specification.hold_out).map_err(Error::Data)?;
        let (mut samples, mut faults) = (Vec::new(), Vec::new());
        for image in &images {
            match image.read(training.window, training.config.classes) {
                Ok(sample) => samples.push(sample),
                Err(of_image) => faults.extend(of_image),
            }
        }
        if faults.is_empty() && samples.iter().all(|(_, labels)| labels.is_empty()) {
            faults.push("no image has a box; there is nothing to find".to_owned());
        }
        if !faults.is_empty() {
            return Err(Error::Data(faults));
        }
        Self::new(&samples, training, specification.seed, parent)
    }

    /// A learner on images in [-1, 1] with their lesions, new or continuing from `parent`.
    ///
    /// # Errors
    /// [`Error::Specification`] with every fault of `training`, [`Error::Data`] without an image; [`Error::Parent`] for a checkpoint
    /// of another training.
    pub fn new(
        samples: &[(Plane, Vec<Label>)],
        training: Training,
        seed: u64,
        parent: Option<&Weights>,
    ) -> Result<Self, Error> {
        let faults = training.faults();
        if !faults.is_empty() {
            return Err(Error::Specification(faults));
        }
        if samples.is_empty() {
            return Err(Error::Data(vec!["there is no image".to_owned()]));
        }
        let data = digest(samples);
        let side = training.config.side;
        let samples = samples.iter().map(|(plane, labels)| sample(plane, labels, side)).collect();
        let random = Randomness::new(seed);
        let network = Network::new(&training.config, &mut random.generator(0, "yolo weights"));
        let mean = network.detached();
        let adam = Adam::new(network.parameters(), BETA, 1e-8);
        let cells = training.config.cells(training.crop);
        let mut learner = Self { data, training, random, seed, samples, cells, network, mean, adam, steps: 0 };
        if let Some(parent) = parent {
            learner.restore(parent)?;
        }
        Ok(learner)
    }

    /// The network's configuration.
    pub fn config(&self) -> &Config {
        &self.training.config
    }

    /// The network that is exported.
    #[cfg(test)]
    pub(super) fn mean(&self) -> &Network {
        &self.mean
    }

    fn restore(&mut self, parent: &Weights) -> Result<(), Error> {
        let steps = training::resumed(parent, "yolo", &self.fingerprint())?;
        load_named(self.network.named(), parent, "")?;
        load_named(self.mean.named(), parent, MEAN)?;
        self.adam.restore(parent, "adam")?;
        self.steps = steps;
        Ok(())
    }

    /// What a checkpoint must agree with: everything that the next step depends on.
    fn fingerprint(&self) -> String {
        let settings = serde_json::to_string(&self.training).unwrap_or_default();
        format!("data {} seed {} {settings}", self.data, self.seed)
    }

    /// One augmented batch: images `f32 [batch, channels, crop, crop]` and their lesions.
    fn batch(&self) -> (Tensor, Vec<Vec<Label>>) {
        let mut rng = self.random.generator(self.steps, "yolo batch");
        let draw = |_| augment(&self.samples[rng.random_range(0..self.samples.len())], &self.training, &mut rng);
        let (images, labels): (Vec<_>, Vec<_>) = (0..self.training.batch).map(draw).unzip();
        let images = Tensor::cat(&images, 0)
            .repeat([1, self.training.config.channels as i64, 1, 1])
            .to_device(training::device());
        (images, labels)
    }

    /// Takes the share of each convolution's weights that decays (decoupled: Loshchilov and Hutter 2019).
    fn decay(&self, rate: f64) {
        let keep = 1.0 - rate * self.training.weight_decay;
        no_grad(|| {
            for (name, mut tensor) in self.network.parameters() {
                if name.ends_with(".weight") && !name.ends_with(".norm.weight") {
                    let _ = tensor.g_mul_scalar_(keep);
                }
            }
        });
    }
}

/// Prefix of the mean's tensors in a checkpoint.
pub(super) const MEAN: &str = "mean.";

impl training::Learner for Learner {
    fn step(&mut self) -> Result<Vec<Figure>, Error> {
        let (images, labels) = self.batch();
        let answers = self.network.forward(&images, true);
        let losses = losses(&answers, &self.cells, &labels, &self.training)?;
        let figures = vec![
            ("overlap", losses.overlap.double_value(&[])),
            ("class", losses.class.double_value(&[])),
            ("distance", losses.distance.double_value(&[])),
        ];
        if let Some(&(term, value)) = figures.iter().find(|(_, value)| !value.is_finite()) {
            return Err(Error::NotFinite { term, step: self.steps, value });
        }
        let total = losses.total(&self.training);
        let gradients = Tensor::run_backward(&[total], self.adam.parameters(), false, false);
        let rate = self.training.rate(self.steps);
        self.decay(rate);
        self.adam.step(&gradients, rate, Some(CLIP_NORM));
        self.mean.follow(&self.network, self.training.mean_share(self.steps));
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
        keep_named(&self.mean.named(), &mut weights, MEAN)?;
        self.adam.keep(&mut weights, "adam")?;
        let json =
            |value: serde_json::Result<String>| value.map_err(|error| Error::Specification(vec![error.to_string()]));
        let config = json(serde_json::to_string(&self.training.config))?;
        let window = json(serde_json::to_string(&self.training.window))?;
        let known = [
            ("kind", "yolo".to_owned()),
            ("configuration", config),
            ("window", window),
            ("data", self.data.clone()),
            ("yolo", self.fingerprint()),
            ("steps", self.steps.to_string()),
        ];
        weights.metadata.extend(known.map(|(key, value)| (key.to_owned(), value)));
        Ok(weights)
    }
}

/// The preset with the specification's settings over it.
fn settings(specification: &training::Specification) -> Result<Training, Error> {
    let preset = Training::preset(&specification.preset).ok_or_else(|| {
        let known = Training::PRESETS.join(", ");
        Error::Specification(vec![format!("YOLO11 has no preset {:?}; choose one of {known}", specification.preset)])
    })?;
    let mut training = specification.over(preset)?;
    training.steps = specification.steps.unwrap_or(training.steps);
    Ok(training)
}

/// An image in [0, 1], brought to the letterbox's size where it is larger, so that nothing aliases when it is sampled.
fn sample(plane: &Plane, labels: &[Label], side: usize) -> Sample {
    let ratio = (side as f64 / plane.width().max(plane.height()).max(1) as f64).min(1.0);
    let length = |length: usize| ((length as f64 * ratio).round() as usize).max(1);
    let (width, height) = (length(plane.width()), length(plane.height()));
    let small = resample::resize(plane, width, height, resample::Filter::Area);
    let x = width as f32 / plane.width().max(1) as f32;
    let y = height as f32 / plane.height().max(1) as f32;
    let scaled = |label: &Label| {
        let Region { left, top, right, bottom } = label.region;
        Label {
            class: label.class,
            region: Region { left: left * x, top: top * y, right: right * x, bottom: bottom * y },
        }
    };
    let image = (Tensor::from_slice(small.data()).reshape([1, 1, height as i64, width as i64]) + 1.0) / 2.0;
    Sample { image, labels: labels.iter().map(scaled).collect() }
}

fn digest(samples: &[(Plane, Vec<Label>)]) -> String {
    let mut hash = Sha256::new();
    for (plane, labels) in samples {
        let boxes = labels
            .iter()
            .flat_map(|Label { class, region }| [*class as f32, region.left, region.top, region.right, region.bottom]);
        let values = [plane.width() as f32, plane.height() as f32].into_iter().chain(boxes);
        let bytes = plane.data().iter().copied().chain(values).flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
        hash.update(bytes);
    }
    hex::encode(hash.finalize())
}
