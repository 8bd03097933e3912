//! Long training as a chain of short rounds.
//!
//! A [`Learner`] is a model in training: its step, and its whole state as one [`Weights`] checkpoint. [`round`] makes a
//! bounded number of steps and writes the next checkpoint, so that a crash costs a round at most. All randomness of a step
//! is drawn from (seed, step), hence a run that was interrupted and resumed equals one that was not, bit by bit on the
//! same device and number of threads.

mod card;
pub mod curves;
mod dataset;
mod history;
mod local;
mod optimiser;
mod product;
mod round;
mod state;

pub use card::{CURVES_FILE, card};
pub use dataset::{Dataset, Sample};
pub use history::History;
pub(crate) use local::keep_checkpoint;
pub use local::train;
pub use optimiser::Adam;
pub use product::{Naming, Product, product};
pub(crate) use product::{configuration, of_one_graph};
pub use round::{Budget, Ending, Flow, Progress, Summary, newest_checkpoint, round};
pub(crate) use state::channels_last;
pub use state::{Randomness, array, device, keep_named, load_named, on_device, tensor};

use std::path::PathBuf;

use crate::weights::{self, Weights};

/// A named figure of a step: a loss term, or a measure such as perplexity.
pub type Figure = (&'static str, f64);

/// A model in training.
pub trait Learner {
    /// Makes one optimisation step and returns its figures.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when a loss is not a finite number; the learner must not be used afterwards.
    fn step(&mut self) -> Result<Vec<Figure>, Error>;

    /// Steps made so far, in all rounds.
    fn steps_done(&self) -> u64;

    /// Steps in all when training is complete.
    fn steps_planned(&self) -> u64;

    /// The whole state: weights, optimiser, counters, configuration.
    ///
    /// # Errors
    /// When a tensor cannot be read back.
    fn checkpoint(&self) -> Result<Weights, Error>;
}

/// The kinds of model that are trained here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// HiResMed-VQGAN, or its residual baseline where the configuration says so.
    Vqgan,
    /// SinGAN, one exemplar.
    Singan,
    /// U-Net danger zones.
    Unet,
    /// Prior over the tokens of an autoencoder.
    Prior,
    /// YOLO11 lesion detector.
    Yolo,
    /// Denoising diffusion, a baseline.
    Ddpm,
    /// StyleSwin, a baseline.
    Styleswin,
}

/// What to train, on what.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Specification {
    /// The kind of model.
    pub kind: Kind,
    /// Name of one of the kind's presets.
    pub preset: String,
    /// Folders with the data, each walked recursively.
    pub data: Vec<PathBuf>,
    /// Series and files that must not be trained on, by name: see [`HoldOut`](crate::data::HoldOut).
    #[serde(default)]
    pub hold_out: Vec<String>,
    /// Steps in all; the preset's number without.
    #[serde(default)]
    pub steps: Option<u64>,
    /// Seed of initialisation, data order and augmentation.
    pub seed: u64,
    /// Folder of an autoencoder's package: whose tokens a prior learns, or with whose encoder a VQGAN's perceptual term is measured.
    #[serde(default)]
    pub autoencoder: Option<PathBuf>,
    /// File with AlexNet's or VGG16's weights and LPIPS' linear ones, with which a VQGAN's perceptual term is measured.
    #[serde(default)]
    pub perceptual: Option<PathBuf>,
    /// Fields of the kind's training settings that replace the preset's, as a JSON object.
    #[serde(default)]
    pub settings: serde_json::Value,
}

impl Specification {
    /// The kind's training settings: `preset` with this specification's fields over it.
    ///
    /// # Errors
    /// [`Error::Specification`] for a field that the kind does not have, or of another type.
    pub fn over<T>(&self, preset: T) -> Result<T, Error>
    where
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        let fault = |cause: serde_json::Error| Error::Specification(vec![format!("settings: {cause}")]);
        overlay(&preset, &self.settings).map_err(fault)
    }
}

/// Training failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specification is impossible; all faults at once.
    #[error("this training is impossible: {}", .0.join("; "))]
    Specification(Vec<String>),
    /// The data cannot be trained on; all faults at once.
    #[error("this data set cannot be trained on: {}", .0.join("; "))]
    Data(Vec<String>),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// The parent checkpoint belongs to another training.
    #[error("the checkpoint does not belong to this training: {0}; start without it, or restore its settings")]
    Parent(String),
    /// A loss stopped being a number.
    #[error(
        "the {term} of step {step} is {value}: training stopped and the last good checkpoint was kept; resume from it with a lower learning rate"
    )]
    NotFinite {
        /// The loss term.
        term: &'static str,
        /// The step, counted from 0.
        step: u64,
        /// Its value.
        value: f64,
    },
    /// The trained network could not be written as a package.
    #[error("the trained model cannot be exported: {0}")]
    Export(String),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

/// A learner for `specification`, new or continuing from `parent`; its checkpoints keep the [`History`] of its figures.
///
/// # Errors
/// [`Error::Specification`] and [`Error::Data`] list every fault before the first step.
pub fn open(specification: &Specification, parent: Option<&Weights>) -> Result<Box<dyn Learner>, Error> {
    let learner: Box<dyn Learner> = match specification.kind {
        Kind::Vqgan => Box::new(crate::vqgan::Learner::open(specification, parent)?),
        Kind::Singan => Box::new(crate::singan::Learner::open(specification, parent)?),
        Kind::Unet => Box::new(crate::unet::Learner::open(specification, parent)?),
        Kind::Prior => Box::new(crate::prior::Learner::open(specification, parent)?),
        Kind::Yolo => Box::new(crate::yolo::Learner::open(specification, parent)?),
        Kind::Ddpm => Box::new(crate::ddpm::Learner::open(specification, parent)?),
        Kind::Styleswin => Box::new(crate::styleswin::Learner::open(specification, parent)?),
    };
    Ok(Box::new(history::Recorded::new(learner, parent)?))
}

/// The steps of the checkpoint `parent` of a training of `kind`, where it is the same training: its fingerprint, of everything that the
/// next step depends on, is `expected`.
///
/// # Errors
/// [`Error::Parent`] for a checkpoint of another training.
pub(crate) fn resumed(parent: &Weights, kind: &str, expected: &str) -> Result<u64, Error> {
    let found = parent.metadata.get(kind).map(String::as_str).unwrap_or_default();
    if found != expected {
        return Err(Error::Parent(format!("it was made with {found:?}, this training is {expected:?}")));
    }
    let steps = parent.metadata.get("steps").and_then(|text| text.parse().ok());
    steps.ok_or_else(|| Error::Parent("it does not say how many steps it has".to_owned()))
}

/// A preset's architecture and training with the specification's settings laid over: `{"config": {..}, "training": {..}}`.
///
/// # Errors
/// [`Error::Specification`] for every member that one of them does not have, or of another type.
pub(crate) fn laid_over<C, T>(specification: &Specification, config: &C, training: &T) -> Result<(C, T), Error>
where
    C: serde::Serialize + serde::de::DeserializeOwned,
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let settings = &specification.settings;
    match (overlay(config, &settings["config"]), overlay(training, &settings["training"])) {
        (Ok(config), Ok(training)) => Ok((config, training)),
        (config, training) => {
            let faults = [("config", config.err()), ("training", training.err())];
            let told = faults.into_iter().filter_map(|(name, fault)| Some(format!("{name}: {}", fault?)));
            Err(Error::Specification(told.collect()))
        }
    }
}

/// `base` with the members of the JSON object `fields` in place of its own; of anything else than an object nothing is taken.
///
/// # Errors
/// A member that `base` does not have, or of another type.
fn overlay<T: serde::Serialize + serde::de::DeserializeOwned>(
    base: &T,
    fields: &serde_json::Value,
) -> Result<T, serde_json::Error> {
    let mut value = serde_json::to_value(base)?;
    if let (Some(target), Some(fields)) = (value.as_object_mut(), fields.as_object()) {
        target.extend(fields.clone());
    }
    serde_json::from_value(value)
}

/// Sets the number of threads of one libtorch operation, in this process.
pub fn set_threads(threads: i32) {
    tch::set_num_threads(threads.max(1));
}
