//! The models, a folder each: architecture, loss, training step and export to ONNX.
//!
//! Without features this crate configures models, writes their ONNX graphs from weights and runs them through
//! `hiresmed-inference`. The feature `training` adds the networks in libtorch, their losses and `training`'s rounds.
//! It knows nothing of jobs, queues or the fleet, and a model knows nothing of the others, except that a token prior learns
//! the tokens of a VQGAN.

pub mod data;
pub mod ddpm;
pub mod density;
pub mod noise;
pub mod prior;
mod rates;
pub mod singan;
pub mod styleswin;
pub mod unet;
pub mod vqgan;
pub mod weights;
pub mod yolo;

#[cfg(feature = "training")]
mod geometry;
#[cfg(feature = "training")]
pub mod training;
