//! Image quality scores: how close a synthetic image is to a real one.
//!
//! Scores are computed in f64, over planes of any unit with an explicit data range. This crate knows nothing of models or
//! jobs.

mod psnr;
mod ssim;

use hiresmed_imaging::Plane;

pub use psnr::psnr;
pub use ssim::{SsimMap, ssim, ssim_map};

/// A score is undefined for these images.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The two images have different sizes.
    #[error("the images are {}x{} and {}x{} pixels; a score compares images of one size", .first.0, .first.1, .second.0, .second.1)]
    Size {
        /// Width and height of the first.
        first: (usize, usize),
        /// Width and height of the second.
        second: (usize, usize),
    },
    /// The image is smaller than the score's window.
    #[error("the images are {width}x{height} pixels; this score needs at least {least}x{least}")]
    Small {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// Smallest side that is possible.
        least: usize,
    },
    /// The data range is no positive number.
    #[error("the data range is {0}; give the positive difference of the largest and the smallest possible value")]
    Range(f64),
    /// A pixel is not a finite number.
    #[error("an image has a pixel that is not a finite number; check how it was read")]
    NotFinite,
}

/// What every score needs: equal sizes, a positive data range, finite pixels.
fn check(a: &Plane, b: &Plane, data_range: f64) -> Result<(), Error> {
    let (first, second) = ((a.width(), a.height()), (b.width(), b.height()));
    if first != second {
        return Err(Error::Size { first, second });
    }
    if first.0 == 0 || first.1 == 0 {
        return Err(Error::Small { width: first.0, height: first.1, least: 1 });
    }
    if !(data_range.is_finite() && data_range > 0.0) {
        return Err(Error::Range(data_range));
    }
    if a.data().iter().chain(b.data()).any(|value| !value.is_finite()) {
        return Err(Error::NotFinite);
    }
    Ok(())
}
