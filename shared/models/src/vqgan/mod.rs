//! HiResMed-VQGAN: backgrounds through a learned codebook (sections 2.2 and 2.3 of the paper).
//!
//! An encoder, a codebook and a decoder; what is not in the tokens is not in the image. [`Config`] determines every
//! parameter's name and shape, [`Training`] how they are found.

mod augmentation;
mod autoencoder;
mod config;
mod export;
mod tiles;
mod training;

#[cfg(feature = "training")]
mod blocks;
#[cfg(feature = "training")]
mod chain;
#[cfg(feature = "training")]
mod decoder;
#[cfg(feature = "training")]
mod discriminator;
#[cfg(feature = "training")]
mod encoder;
#[cfg(feature = "training")]
mod loss;
#[cfg(feature = "training")]
mod memory;
#[cfg(feature = "training")]
mod network;
#[cfg(feature = "training")]
mod perceptual;
#[cfg(feature = "training")]
mod product;
#[cfg(feature = "training")]
mod quantiser;
#[cfg(feature = "training")]
mod step;
#[cfg(feature = "training")]
mod variants;

pub use augmentation::{Anatomy, Augmentation};
pub use autoencoder::{Autoencoder, Error, Tokens};
pub use config::{Block, Config, PRESETS};
pub use export::{Error as ExportError, Graphs, export};
#[cfg(feature = "training")]
pub use memory::Memory;
#[cfg(feature = "training")]
pub use network::Network;
#[cfg(feature = "training")]
pub use perceptual::Backbone;
#[cfg(feature = "training")]
pub(crate) use product::product;
#[cfg(feature = "training")]
pub use step::Learner;
pub use tiles::Tiles;
pub use training::{Crops, LossWeights, Precision, Training};

#[cfg(test)]
#[cfg(feature = "training")]
mod tests;
