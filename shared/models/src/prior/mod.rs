//! Token prior: what token maps of an autoencoder look like, so that a background can be drawn that no patient had.
//!
//! A transformer over the token map, with one of two [`Objective`]s: a token from those before it, or hidden tokens from the
//! visible ones. `config` says what a prior is, `export` writes it as an ONNX graph, [`TokenPrior`] samples with it; `network`,
//! `batch`, `data` and `learner` train it in libtorch. The tokens are those of one autoencoder's package: a training is told which
//! (`training::Specification::autoencoder`), encodes its images with that package's graph as it
//! goes, and the finished package names it by digest.

mod config;
mod export;
mod sampler;
mod sampling;

#[cfg(feature = "training")]
mod batch;
#[cfg(feature = "training")]
mod data;
#[cfg(feature = "training")]
mod learner;
#[cfg(feature = "training")]
mod network;
#[cfg(feature = "training")]
mod product;
#[cfg(test)]
#[cfg(feature = "training")]
mod tests;

pub use config::{Config, Objective, PRESETS, Packaged, Training};
#[cfg(feature = "training")]
pub use data::{Example, Examples};
pub use export::export;
#[cfg(feature = "training")]
pub use learner::{Learner, Tokeniser};
#[cfg(feature = "training")]
pub use network::{Dropout, Network};
#[cfg(feature = "training")]
pub(crate) use product::product;
pub use sampler::{Condition, TokenPrior};
pub use sampling::{Order, Sampling};

use hiresmed_inference::{onnx, package, session, tensor};

use crate::weights;

/// A token prior cannot be made or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is impossible; all faults at once.
    #[error("token prior: {}; export the model again", .faults.join("; "))]
    Configuration {
        /// Every fault.
        faults: Vec<String>,
    },
    /// The package is of another kind.
    #[error("the package {name:?} is a {kind}; a sampled background needs a prior package")]
    Kind {
        /// Its name.
        name: String,
        /// Its kind.
        kind: package::Kind,
    },
    /// A modality or view was asked for that the model has not learned.
    #[error("this prior has no {what} {asked:?}; it has {known}")]
    Condition {
        /// "modality" or "view".
        what: &'static str,
        /// What was asked for.
        asked: String,
        /// What there is.
        known: String,
    },
    /// How to sample is impossible; all faults at once.
    #[error("tokens cannot be sampled: {}", .0.join("; "))]
    Sampling(Vec<String>),
    /// The graph gave something that is no number.
    #[error("token prior: the graph gave a value that is not finite; its weights are damaged, train or fetch it again")]
    NotFinite,
    /// The graph gave something of another shape.
    #[error(
        "token prior: the graph gave {found:?}, expected {expected:?}; import the package again to have it checked"
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
