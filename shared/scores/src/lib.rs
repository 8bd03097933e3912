//! Scores: how close synthetic images are to real ones, alone and as sets, and how readers tell them apart.
//!
//! Scores are computed in f64, over planes of any unit with an explicit data range. Networks (for LPIPS and for features)
//! are files that the caller names. This crate knows nothing of the project's own models, of jobs or of the fleet.

pub mod copying;
pub mod features;
mod fid;
pub mod folders;
mod input;
mod kid;
pub mod lpips;
mod moments;
mod psnr;
mod ssim;
pub mod study;
pub mod summary;

use hiresmed_imaging::Plane;

pub use fid::fid;
pub use input::Intensity;
pub use kid::kid;
pub use lpips::Lpips;
pub use moments::Moments;
pub use psnr::{psnr, psnr_paper};
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
    /// The mask is not of the images' size.
    #[error("the images are {}x{} pixels and the mask {}x{}; a mask covers its image", .images.0, .images.1, .mask.0, .mask.1)]
    Mask {
        /// Width and height of the images.
        images: (usize, usize),
        /// Width and height of the mask.
        mask: (usize, usize),
    },
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
