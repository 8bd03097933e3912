//! Structural similarity (equation 22; Wang et al. 2004).

mod filter;

use hiresmed_imaging::{Mask, Plane};
use rayon::prelude::*;

use crate::{Error, check};
use filter::{RADIUS, Rows};

/// Smallest side of an image that has a score: the window itself.
const LEAST: usize = 2 * RADIUS + 1;
/// Rows that one task filters. Fixed, so that sums come out the same on any number of threads.
const BAND_ROWS: usize = 128;

/// Structural similarity of every pixel, before averaging.
#[derive(Debug, Clone, PartialEq)]
pub struct SsimMap {
    /// Columns, as many as the images have.
    pub width: usize,
    /// Rows, as many as the images have.
    pub height: usize,
    /// Values, row-major.
    pub data: Vec<f64>,
}

impl SsimMap {
    /// Mean over the map without a border of 5 pixels, where the window left the image.
    pub fn mean(&self) -> f64 {
        self.inner_rows().map(|(_, row)| row.iter().sum::<f64>()).sum::<f64>() / inner_pixels(self.width, self.height)
    }

    /// Mean over the pixels at which `mask` is 0, without the border of 5 pixels: the map itself is that of the whole
    /// images, so that a window at the lesion's edge sees both sides (paper, table 6). `None` where no pixel is left.
    ///
    /// # Errors
    /// [`Error::Mask`] when the mask has another size.
    pub fn mean_outside(&self, mask: &Mask) -> Result<Option<f64>, Error> {
        if (mask.width(), mask.height()) != (self.width, self.height) {
            let (images, mask) = ((self.width, self.height), (mask.width(), mask.height()));
            return Err(Error::Mask { images, mask });
        }
        let (mut sum, mut count) = (0.0, 0usize);
        for (y, row) in self.inner_rows() {
            let lesion = &mask.data()[y * self.width + RADIUS..][..row.len()];
            let outside = || row.iter().zip(lesion).filter(|&(_, &lesion)| lesion == 0);
            sum += outside().map(|(value, _)| value).sum::<f64>();
            count += outside().count();
        }
        Ok((count > 0).then(|| sum / count as f64))
    }

    /// The rows without the border, each with its index and without its own border.
    fn inner_rows(&self) -> impl Iterator<Item = (usize, &[f64])> {
        let inner = |y| (y, &self.data[y * self.width + RADIUS..(y + 1) * self.width - RADIUS]);
        (RADIUS..self.height - RADIUS).map(inner)
    }
}

fn inner_pixels(width: usize, height: usize) -> f64 {
    ((width - 2 * RADIUS) * (height - 2 * RADIUS)) as f64
}

/// Mean structural similarity with a Gaussian window of 11 taps and σ 1.5, population covariance, K1 0.01, K2 0.03, the
/// border of 5 pixels left out: the values of scikit-image's `structural_similarity` with `gaussian_weights=True,
/// sigma=1.5, use_sample_covariance=False` in f64. `data_range` is in the planes' units.
///
/// # Errors
/// For unequal sizes, images under 11 x 11, an impossible data range and pixels that are not finite.
pub fn ssim(a: &Plane, b: &Plane, data_range: f64) -> Result<f64, Error> {
    let (width, height) = checked(a, b, data_range)?;
    let band = |index: usize| {
        let mut rows = Rows::new(a, b, data_range);
        let mut row = vec![0.0; width];
        let inner = (index * BAND_ROWS).max(RADIUS)..((index + 1) * BAND_ROWS).min(height - RADIUS);
        let sums = inner.map(|y| {
            rows.write(y, &mut row);
            row[RADIUS..width - RADIUS].iter().sum::<f64>()
        });
        sums.sum::<f64>()
    };
    let sums: Vec<f64> = (0..height.div_ceil(BAND_ROWS)).into_par_iter().map(band).collect();
    Ok(sums.iter().sum::<f64>() / inner_pixels(width, height))
}

/// The map whose mean is [`ssim`].
///
/// # Errors
/// As [`ssim`].
pub fn ssim_map(a: &Plane, b: &Plane, data_range: f64) -> Result<SsimMap, Error> {
    let (width, height) = checked(a, b, data_range)?;
    let mut data = vec![0.0; width * height];
    data.par_chunks_mut(BAND_ROWS * width).enumerate().for_each(|(index, band)| {
        let mut rows = Rows::new(a, b, data_range);
        for (y, row) in band.chunks_exact_mut(width).enumerate() {
            rows.write(index * BAND_ROWS + y, row);
        }
    });
    Ok(SsimMap { width, height, data })
}

/// Width and height of two images that have a score.
fn checked(a: &Plane, b: &Plane, data_range: f64) -> Result<(usize, usize), Error> {
    check(a, b, data_range)?;
    let (width, height) = (a.width(), a.height());
    if width < LEAST || height < LEAST {
        return Err(Error::Small { width, height, least: LEAST });
    }
    Ok((width, height))
}

#[cfg(test)]
mod tests;
