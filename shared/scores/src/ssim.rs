//! Structural similarity (equation 22; Wang et al. 2004).

use hiresmed_imaging::Plane;

use crate::{Error, check};

/// Half width of the Gaussian window: 11 taps.
const RADIUS: usize = 5;
/// Standard deviation of the Gaussian window, pixels.
const SIGMA: f64 = 1.5;
const K1: f64 = 0.01;
const K2: f64 = 0.03;

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
        let rows = RADIUS..self.height - RADIUS;
        let row = |y: usize| &self.data[y * self.width + RADIUS..(y + 1) * self.width - RADIUS];
        let count = rows.len() * (self.width - 2 * RADIUS);
        rows.map(|y| row(y).iter().sum::<f64>()).sum::<f64>() / count as f64
    }
}

/// Mean structural similarity with a Gaussian window of 11 taps and σ 1.5, population covariance, K1 0.01, K2 0.03, the
/// border of 5 pixels left out: the values of scikit-image's `structural_similarity` with `gaussian_weights=True,
/// sigma=1.5, use_sample_covariance=False` in f64.
///
/// # Errors
/// For unequal sizes, images under 11 x 11, an impossible data range and pixels that are not finite.
pub fn ssim(a: &Plane, b: &Plane, data_range: f64) -> Result<f64, Error> {
    Ok(ssim_map(a, b, data_range)?.mean())
}

/// The map whose mean is [`ssim`].
///
/// # Errors
/// As [`ssim`].
pub fn ssim_map(a: &Plane, b: &Plane, data_range: f64) -> Result<SsimMap, Error> {
    check(a, b, data_range)?;
    let (width, height) = (a.width(), a.height());
    let least = 2 * RADIUS + 1;
    if width < least || height < least {
        return Err(Error::Small { width, height, least });
    }
    let (x, y): (Vec<f64>, Vec<f64>) =
        a.data().iter().zip(b.data()).map(|(&a, &b)| (f64::from(a), f64::from(b))).unzip();
    let product = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(p, q)| p * q).collect::<Vec<_>>();
    let filter = |values: &[f64]| blur(values, width, height);
    let (ux, uy) = (filter(&x), filter(&y));
    let (uxx, uyy, uxy) = (filter(&product(&x, &x)), filter(&product(&y, &y)), filter(&product(&x, &y)));
    let (c1, c2) = ((K1 * data_range).powi(2), (K2 * data_range).powi(2));
    let pixel = |i: usize| {
        let (ux, uy) = (ux[i], uy[i]);
        let (vx, vy, vxy) = (uxx[i] - ux * ux, uyy[i] - uy * uy, uxy[i] - ux * uy);
        (2.0 * ux * uy + c1) * (2.0 * vxy + c2) / ((ux * ux + uy * uy + c1) * (vx + vy + c2))
    };
    Ok(SsimMap { width, height, data: (0..x.len()).map(pixel).collect() })
}

/// Separable Gaussian filter, the image mirrored at its border including the edge pixel.
fn blur(values: &[f64], width: usize, height: usize) -> Vec<f64> {
    let mut kernel = [0.0; 2 * RADIUS + 1];
    for (tap, weight) in kernel.iter_mut().enumerate() {
        *weight = (-0.5 * ((tap as f64 - RADIUS as f64) / SIGMA).powi(2)).exp();
    }
    let sum: f64 = kernel.iter().sum();
    kernel.iter_mut().for_each(|weight| *weight /= sum);
    // `position` is an index plus RADIUS; sides are at least 11, so one reflection suffices.
    let mirror = |position: usize, size: usize| match position {
        p if p < RADIUS => RADIUS - 1 - p,
        p if p >= size + RADIUS => 2 * size + RADIUS - 1 - p,
        p => p - RADIUS,
    };
    let mut rows = vec![0.0; values.len()];
    for y in 0..height {
        for x in 0..width {
            let taps = kernel.iter().enumerate();
            rows[y * width + x] = taps.map(|(tap, weight)| weight * values[y * width + mirror(x + tap, width)]).sum();
        }
    }
    let mut out = vec![0.0; values.len()];
    for y in 0..height {
        for (tap, weight) in kernel.iter().enumerate() {
            let source = mirror(y + tap, height) * width;
            for x in 0..width {
                out[y * width + x] += weight * rows[source + x];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image by formula, so that the expectation could be computed elsewhere.
    fn image(seed: u32) -> Plane {
        let value = |i: usize| ((i as u32 + 7919 * seed).wrapping_mul(2_654_435_761) >> 16) % 256;
        Plane::new(24, 20, (0..480).map(|i| value(i) as f32).collect())
    }

    #[test]
    fn equal_images_score_one() {
        assert!((ssim(&image(1), &image(1), 255.0).unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn equals_stored_expectations() {
        let (a, b) = (image(1), image(2));
        let mut c = a.clone();
        c.data_mut().iter_mut().enumerate().for_each(|(i, value)| *value += (i % 7) as f32 - 3.0);
        // scikit-image 0.26 with gaussian_weights, sigma 1.5, use_sample_covariance=False, data_range 255.
        assert!((ssim(&a, &b, 255.0).unwrap() - 0.689591866695952).abs() < 1e-9);
        assert!((ssim(&a, &c, 255.0).unwrap() - 0.9996293413306481).abs() < 1e-9);
    }

    #[test]
    fn refuses_images_smaller_than_the_window() {
        let a = Plane::filled(10, 30, 0.0);
        assert_eq!(ssim(&a, &a, 1.0), Err(Error::Small { width: 10, height: 30, least: 11 }));
    }
}
