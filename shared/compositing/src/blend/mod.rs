//! Adding lesions to a background (equation 17 and the seam; METHOD 5).
//!
//! Planes and tensors are normalised to [-1, 1]. Whatever the method, pixels outside the blended region are the background's
//! own, bit for bit, and the blended region lies within the mask grown by two pixels (8-neighbours).
//!
//! [`reference()`] computes all methods on the host; [`Compositor`] runs `paper` and `feather` as ONNX graphs where the
//! background was made, equal to the reference within one step of 16 bit over [-1, 1].

mod attenuation;
mod compositor;
mod graph;
mod kernel;
mod poisson;
mod reference;

pub use compositor::Compositor;
pub use graph::graph;
pub(crate) use kernel::LEVEL_SIDE as WIDEST_WINDOW;
pub use reference::reference;

use serde::{Deserialize, Serialize};

/// How a lesion becomes part of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blend {
    /// The paper's: the lesion replaces the background in its mask; the contour, found by the Sobel operator on the mask, is
    /// blurred by a 3x3 Gaussian of σ = 1.0.
    Paper,
    /// A ramp over the mask's edge, from two pixels outside to about three inside, with the lesion's level drawn to the
    /// background's along the edge.
    #[default]
    Feather,
    /// Gradient-domain: the lesion's own gradients inside, the background's values at the mask's edge.
    Poisson,
    /// For radiographs: what the lesion attenuates beyond its surroundings is added to the line integral. The anatomy in front of
    /// it and behind it stays visible.
    Attenuation,
}

/// Why an image cannot be composed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Background and lesions differ in size.
    #[error(
        "the background is {background:?} pixels and the lesion layer {layer:?} (width, height); they must be equal"
    )]
    Size {
        /// Width and height of the background.
        background: (usize, usize),
        /// Width and height of the layer.
        layer: (usize, usize),
    },
    /// The gradient-domain solver did not converge: a pixel is not finite.
    #[error(
        "gradient-domain blending did not converge (residual {residual:e} after {iterations} steps); \
             a pixel of the background or the lesion is not finite: use blend = \"feather\" and report the input"
    )]
    Diverged {
        /// Relative residual reached.
        residual: f64,
        /// Steps taken.
        iterations: usize,
    },
    /// The blend's graph cannot be written.
    #[error(transparent)]
    Graph(#[from] hiresmed_inference::onnx::Error),
    /// The blend's graph does not open or run.
    #[error(transparent)]
    Session(#[from] hiresmed_inference::session::Error),
}

impl From<hiresmed_inference::tensor::Error> for Error {
    fn from(error: hiresmed_inference::tensor::Error) -> Self {
        Self::Session(error.into())
    }
}

#[cfg(test)]
mod tests;
