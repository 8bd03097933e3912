//! U-Net: where a lesion must not be (equation 15), as the mask of where it may.
//!
//! `config` says what a network is, `export` writes it as an ONNX graph, `zones` runs it on an image of any size; `network` and
//! `learner` train it in libtorch on slices with masks of the permissible region.

mod config;
mod export;
mod zones;

#[cfg(feature = "training")]
mod augment;
#[cfg(feature = "training")]
mod learner;
#[cfg(feature = "training")]
mod network;
#[cfg(feature = "training")]
mod product;
#[cfg(test)]
#[cfg(feature = "training")]
mod tests;

pub use config::{Config, Training};
pub use export::export;
#[cfg(feature = "training")]
pub use learner::Learner;
#[cfg(feature = "training")]
pub(crate) use product::product;
pub use zones::DangerZones;

use crate::weights;
use hiresmed_inference::{onnx, package, session, tensor};

/// A U-Net cannot be made or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is impossible; all faults at once.
    #[error("danger-zone U-Net: {}; export the model again", .faults.join("; "))]
    Configuration {
        /// Every fault.
        faults: Vec<String>,
    },
    /// The graph gave something that is no number.
    #[error(
        "danger-zone U-Net: the graph gave a value that is not finite; its weights are damaged, train or fetch it again"
    )]
    NotFinite,
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
