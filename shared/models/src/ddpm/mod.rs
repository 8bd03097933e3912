//! DDPM: whole images by denoising diffusion (Ho et al. 2020), the baseline "DDM" of the paper's table 2.
//!
//! An image is drowned in noise in many small steps, and a U-Net learns which noise was added; from noise alone it then finds its
//! way back to an image. `architecture` says once what the network is; `network` runs it in libtorch, `export` writes it as an
//! ONNX graph, `config` counts it. `schedule` knows how much noise each step has, `augment` what a training image may look
//! like, `learner` trains, and [`Sampler`] draws images through ONNX Runtime.

mod architecture;
#[cfg(any(test, feature = "training"))]
mod augment;
mod config;
mod export;
mod sampler;
mod schedule;

#[cfg(feature = "training")]
mod learner;
#[cfg(feature = "training")]
mod network;
#[cfg(feature = "training")]
mod product;
#[cfg(test)]
#[cfg(feature = "training")]
mod tests;

pub use config::{Config, PRESETS, Training};
pub use export::export;
#[cfg(feature = "training")]
pub use learner::Learner;
#[cfg(feature = "training")]
pub(crate) use product::product;
pub use sampler::Sampler;

use hiresmed_inference::{onnx, package, session, tensor};

use crate::weights;

/// A diffusion model cannot be made or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is impossible; all faults at once.
    #[error("diffusion model: {}; export the model again", .faults.join("; "))]
    Configuration {
        /// Every fault.
        faults: Vec<String>,
    },
    /// The package is of another kind.
    #[error("the package {name:?} is a {kind}, not a ddpm")]
    Kind {
        /// Its name.
        name: String,
        /// Its kind.
        kind: package::Kind,
    },
    /// So many steps cannot be made.
    #[error("{asked} steps were asked for; this diffusion model makes 1 to {most}")]
    Steps {
        /// What was asked for.
        asked: usize,
        /// The noise levels that it learned.
        most: usize,
    },
    /// The graph gave something that is no number.
    #[error(
        "diffusion model: the graph gave a value that is not finite; its weights are damaged, train or fetch it again"
    )]
    NotFinite,
    /// The graph gave something of another shape.
    #[error(
        "diffusion model: the graph gave {found:?}, expected {expected:?}; import the package again to have it checked"
    )]
    Shape {
        /// Shape found.
        found: Vec<usize>,
        /// Shape expected.
        expected: Vec<usize>,
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
