//! StyleSwin (Zhang et al. 2022): a transformer GAN over whole slices, a baseline of table 2.
//!
//! `config` says what a generator is, `export` writes it as an ONNX graph, [`Sampler`] draws images with it; `network` with
//! `attention`, `discriminator` over `wavelets`, `augment` and `learner` train it in libtorch. The generator is theirs: a mapping from z to w, a learned
//! constant, at every scale a sinusoidal position and blocks of double window attention that w modulates by AdaIN, and an image that
//! every scale adds to. It differs in that the norm and the matrix between two scales come before the bilinear up-sampling, where they
//! cost a quarter, and in what [`Training`] says.

mod config;
mod export;
mod sampler;

#[cfg(feature = "training")]
mod attention;
#[cfg(feature = "training")]
mod augment;
#[cfg(feature = "training")]
mod discriminator;
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
mod wavelets;

pub use config::{Config, PRESETS, Training};
pub use export::export;
#[cfg(feature = "training")]
pub use learner::Learner;
#[cfg(feature = "training")]
pub(crate) use product::product;
pub use sampler::Sampler;

use hiresmed_inference::{onnx, package, session, tensor};

use crate::weights;

/// Added to every norm's variance.
const EPSILON: f32 = 1e-5;
/// Added to the mean square of a latent vector.
const LATENT_EPSILON: f32 = 1e-8;
/// Slope of the leaky rectifier.
const SLOPE: f32 = 0.2;
/// Added to the attention between pixels that must not see each other.
const APART: f32 = -100.0;

/// A StyleSwin cannot be made or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is impossible; all faults at once.
    #[error("StyleSwin: {}; export the model again", .faults.join("; "))]
    Configuration {
        /// Every fault.
        faults: Vec<String>,
    },
    /// The package is of another kind.
    #[error("the package {name:?} is a {kind}, not a styleswin")]
    Kind {
        /// Its name.
        name: String,
        /// Its kind.
        kind: package::Kind,
    },
    /// The truncation is impossible.
    #[error("truncation is {0}, allowed is 0 to 1")]
    Truncation(f32),
    /// The graph gave something that is no number.
    #[error("StyleSwin: the graph gave a value that is not finite; its weights are damaged, train or fetch it again")]
    NotFinite,
    /// The graph gave something of another shape.
    #[error("StyleSwin: the graph gave {found:?}, expected {expected:?}; import the package again to have it checked")]
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
