//! SinGAN: lesions from one exemplar image each (equation 13 of the paper; Shaham et al. 2019).
//!
//! One model learns one lesion crop and its mask as two channels of one image, scale by scale from coarse to fine. Every
//! sample therefore brings its own mask. The same network learns a whole image without one, as a baseline. `config` says what a model is, `exemplar` what it learns from, `export` writes all
//! scales as one ONNX graph, `sample` draws lesions of a wanted diameter; `stop` says when
//! a scale has learned enough; `network`, `learner`, `batch` (a step of models side by side) and `together` train in libtorch.

mod config;
mod exemplar;
mod export;
mod folder;
mod sample;
mod stop;

#[cfg(feature = "training")]
mod batch;
#[cfg(feature = "training")]
mod learner;
#[cfg(feature = "training")]
mod network;
#[cfg(feature = "training")]
mod product;
#[cfg(test)]
#[cfg(feature = "training")]
mod tests;
#[cfg(feature = "training")]
mod together;

pub use config::{CHANNELS, Config, RECIPE, Training, WHOLE_CHANNELS, generator_parameters};
pub use exemplar::{Cut, Exemplar};
pub use export::export;
pub use folder::{exemplar, whole};
pub use sample::{Generator, Lesion, WholeImage};
pub use stop::Stop;

#[cfg(feature = "training")]
pub use learner::Learner;
#[cfg(feature = "training")]
pub(crate) use product::product;
#[cfg(feature = "training")]
pub use together::train_together;

use crate::weights;
use hiresmed_inference::{onnx, package, session, tensor};

/// A SinGAN cannot be made or sampled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An exemplar is unusable.
    #[error("exemplar {name}: {cause}; give an image with a mask of the same size")]
    Exemplar {
        /// The exemplar's name.
        name: String,
        /// What is wrong.
        cause: String,
    },
    /// The configuration in a package is impossible; all faults at once.
    #[error("SinGAN {name}: {}; export the model again", .faults.join("; "))]
    Configuration {
        /// The package's name.
        name: String,
        /// Every fault.
        faults: Vec<String>,
    },
    /// No sample had the wanted size.
    #[error(
        "SinGAN {name}: none of {tries} samples gave a lesion of {wanted_px:.1} px (the last was {last}); ask for another diameter or exemplar"
    )]
    Diameter {
        /// The package's name.
        name: String,
        /// Samples drawn.
        tries: u32,
        /// Diameter asked for, px.
        wanted_px: f32,
        /// What the last try gave.
        last: String,
    },
    /// The graph gave something that is no number.
    #[error(
        "SinGAN {name}: the graph gave a value that is not finite; its weights are damaged, train or fetch it again"
    )]
    NotFinite {
        /// The package's name.
        name: String,
    },
    /// A diameter outside what can be made.
    #[error("a lesion of {wanted_px} px cannot be made; ask for {low_px} to {high_px} px")]
    Range {
        /// Diameter asked for, px.
        wanted_px: f32,
        /// Smallest diameter, px.
        low_px: f32,
        /// Largest diameter, px.
        high_px: f32,
    },
    /// The weights do not fit the configuration.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// The graph cannot be written.
    #[error(transparent)]
    Graph(#[from] onnx::Error),
    /// The package or one of its files.
    #[error(transparent)]
    Package(#[from] package::Error),
    /// The session.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// A tensor of the session.
    #[error(transparent)]
    Tensor(#[from] tensor::Error),
}
