//! The kernels that graph and reference share.

/// Sobel operator, horizontal; the vertical one is its transpose.
pub(super) const SOBEL: [f32; 9] = [-1.0, 0.0, 1.0, -2.0, 0.0, 2.0, -1.0, 0.0, 1.0];
/// Standard deviation of the paper's contour blur, pixels.
pub(super) const PAPER_SIGMA: f32 = 1.0;
/// Side of the paper's contour blur.
pub(super) const PAPER_SIDE: usize = 3;
/// Standard deviation of the feather's ramp, pixels.
pub(super) const RAMP_SIGMA: f32 = 1.2;
/// Side of the feather's ramp: it reaches two pixels beyond the mask.
pub(super) const RAMP_SIDE: usize = 5;
/// Standard deviation of the window in which the feather compares levels along the edge, pixels.
pub(super) const LEVEL_SIGMA: f32 = 2.0;
/// Side of that window, the widest of all kernels.
pub(crate) const LEVEL_SIDE: usize = 9;
/// Weight below which the window has seen no edge: deep inside a large lesion there is nothing to compare.
pub(super) const LEVEL_FLOOR: f32 = 1e-4;

/// A normalised Gaussian of `side` by `side` taps.
pub(super) fn gaussian(side: usize, sigma: f32) -> Vec<f32> {
    let centre = (side / 2) as f64;
    let weight = |at: usize| {
        let (x, y) = ((at % side) as f64 - centre, (at / side) as f64 - centre);
        (-(x * x + y * y) / (2.0 * f64::from(sigma).powi(2))).exp()
    };
    let weights: Vec<f64> = (0..side * side).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| (weight / sum) as f32).collect()
}
