//! U-Net: where a lesion must not be (equation 15), as the mask of where it may.
//!
//! `config` says what a network is, `export` writes it as an ONNX graph, `zones` runs it on an image of any size; `network` and
//! `learner` train it in libtorch on slices with masks of the permissible region.

mod config;
mod export;

#[cfg(feature = "training")]
mod augment;
#[cfg(feature = "training")]
mod learner;
#[cfg(feature = "training")]
mod network;

pub use config::{Config, Training};
pub use export::export;
#[cfg(feature = "training")]
pub use learner::Learner;

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
    #[error("danger-zone U-Net: the graph gave a value that is not finite; its weights are damaged, train or fetch it again")]
    NotFinite,
    /// The graph or its package cannot be read, written or run.
    #[error("danger-zone U-Net: {0}")]
    Inference(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    fn inference(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Inference(Box::new(source))
    }
}
