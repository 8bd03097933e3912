//! YOLO11: where lesions lie, as boxes (equation 14's location model).
//!
//! `architecture` says once what the network is; `network` runs it in libtorch, `export` writes it as an ONNX graph in the layout
//! that YOLO11 exports usually have, `config` counts it. `detector` runs such a graph, of whatever origin, on an image of any
//! size and turns boxes into candidates. `assign` says which cell answers for which lesion, `losses` and `learner` train the
//! network on boxes, `scores` measures it on images that were held out.

mod architecture;
mod config;
mod detector;
mod export;
mod scores;

#[cfg(feature = "training")]
mod assign;
#[cfg(feature = "training")]
mod augment;
#[cfg(feature = "training")]
mod learner;
#[cfg(feature = "training")]
mod losses;
#[cfg(feature = "training")]
mod network;
#[cfg(feature = "training")]
mod product;
#[cfg(test)]
#[cfg(feature = "training")]
mod tests;

pub use config::{Config, Training};
pub use detector::{Detection, Detector, Search};
pub use export::export;
#[cfg(feature = "training")]
pub use learner::Learner;
#[cfg(feature = "training")]
pub(crate) use product::product;
pub use scores::{Scores, score};

use crate::weights;
use hiresmed_inference::{onnx, package, session, tensor};

/// A detector cannot be made or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is impossible; all faults at once.
    #[error("lesion detector: {}; export the model again", .faults.join("; "))]
    Configuration {
        /// Every fault.
        faults: Vec<String>,
    },
    /// The graph gave something that is no number.
    #[error(
        "lesion detector: the graph gave a value that is not finite; its weights are damaged, train or fetch it again"
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
