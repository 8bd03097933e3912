//! Where a lesion goes, and how it becomes part of the image (METHOD 4 and 5; equations 14 to 17 of the paper).
//!
//! This crate owns placement (pure, drawn from the caller's generator) and blending (a graph on the background's device, and
//! its reference on the CPU). It knows nothing of the networks that made the background, the lesions or the danger zones.

pub mod blend;
pub mod layer;
pub mod placement;

pub use blend::{Blend, Compositor};
pub use layer::{Layer, Patch};
pub use placement::{Placer, Rule, Rules, Scene};
