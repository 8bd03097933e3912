//! Blending on the host, in plain code: what the graphs are tested against, and where those without a graph run.

use hiresmed_imaging::{Mask, Plane};

use super::kernel::{
    LEVEL_FLOOR, LEVEL_SIDE, LEVEL_SIGMA, PAPER_SIDE, PAPER_SIGMA, RAMP_SIDE, RAMP_SIGMA, SOBEL, gaussian,
};
use super::{Blend, Error, attenuation, poisson};
use crate::layer::Layer;

/// The composite of `background` (normalised to [-1, 1]) and `layer`, of the same size.
///
/// Outside the blended region the background's pixels are returned bit for bit; inside, values are limited to [-1, 1].
pub fn reference(blend: Blend, background: &Plane, layer: &Layer) -> Result<Plane, Error> {
    let size = (background.width(), background.height());
    let of_layer = (layer.mask.width(), layer.mask.height());
    if size != of_layer || size != (layer.lesion.width(), layer.lesion.height()) {
        return Err(Error::Size { background: size, layer: of_layer });
    }
    match blend {
        Blend::Paper => Ok(paper(background, layer)),
        Blend::Feather => Ok(feather(background, layer)),
        Blend::Poisson => poisson::composite(background, layer),
        Blend::Attenuation => Ok(attenuation::composite(background, layer)),
    }
}

fn paper(background: &Plane, layer: &Layer) -> Plane {
    // Equation 17: clear the lesion's region, then add the lesion.
    let mut pasted = background.clone();
    for (at, _) in set_pixels(&layer.mask) {
        pasted.data_mut()[at] = layer.lesion.data()[at].clamp(-1.0, 1.0);
    }
    let edges = (Window::of(&layer.mask, PAPER_SIDE), mask_values(&layer.mask));
    let blur = gaussian(PAPER_SIDE, PAPER_SIGMA);
    let transposed: Vec<f32> = (0..9).map(|at| SOBEL[at % 3 * 3 + at / 3]).collect();
    let mut composite = pasted.clone();
    for at in edges.0.pixels() {
        let horizontal = edges.0.convolve(&edges.1, at, &SOBEL);
        let vertical = edges.0.convolve(&edges.1, at, &transposed);
        if horizontal.abs() + vertical.abs() > 0.0 {
            composite.data_mut()[at] = edges.0.convolve(pasted.data(), at, &blur).clamp(-1.0, 1.0);
        }
    }
    composite
}

/// How much of the lesion there is at each pixel: 1 inside its mask, a ramp over the edge, 0 from three pixels outside on.
pub(super) fn coverage(mask: &Mask) -> Vec<f32> {
    let (values, window, ramp) = (mask_values(mask), Window::of(mask, RAMP_SIDE), gaussian(RAMP_SIDE, RAMP_SIGMA));
    let mut coverage = vec![0.0; values.len()];
    for at in window.pixels() {
        coverage[at] = window.convolve(&values, at, &ramp);
    }
    coverage
}

fn feather(background: &Plane, layer: &Layer) -> Plane {
    let (mask, coverage) = (mask_values(&layer.mask), coverage(&layer.mask));
    let level_window = Window::of(&layer.mask, LEVEL_SIDE);
    let level = gaussian(LEVEL_SIDE, LEVEL_SIGMA);
    // The ring around the mask, where the lesion's surroundings are known: how far the background is above them there.
    let ring: Vec<f32> = coverage.iter().zip(&mask).map(|(&c, &m)| if c > 0.0 { 1.0 - m } else { 0.0 }).collect();
    let difference: Vec<f32> = (0..mask.len())
        .map(|at| if ring[at] > 0.0 { background.data()[at] - layer.lesion.data()[at] } else { 0.0 })
        .collect();
    let mut composite = background.clone();
    for at in (0..mask.len()).filter(|&at| coverage[at] > 0.0) {
        let weight = level_window.convolve(&ring, at, &level);
        let offset = level_window.convolve(&difference, at, &level) / weight.max(LEVEL_FLOOR);
        let alpha = coverage[at] * coverage[at] * (3.0 - 2.0 * coverage[at]);
        let lesion = layer.lesion.data()[at] + (1.0 - alpha) * offset;
        let below = background.data()[at];
        composite.data_mut()[at] = (below + alpha * (lesion - below)).clamp(-1.0, 1.0);
    }
    composite
}

fn mask_values(mask: &Mask) -> Vec<f32> {
    mask.data().iter().map(|&value| f32::from(value)).collect()
}

fn set_pixels(mask: &Mask) -> impl Iterator<Item = (usize, &u8)> {
    mask.data().iter().enumerate().filter(|(_, value)| **value != 0)
}

/// The pixels whose window of `side` may touch a mask, and convolution there with edges repeated beyond the image.
struct Window {
    width: usize,
    height: usize,
    side: usize,
    near: Mask,
}

impl Window {
    fn of(mask: &Mask, side: usize) -> Self {
        Self { width: mask.width(), height: mask.height(), side, near: mask.dilated(side / 2) }
    }

    fn pixels(&self) -> impl Iterator<Item = usize> {
        set_pixels(&self.near).map(|(at, _)| at)
    }

    fn convolve(&self, values: &[f32], at: usize, kernel: &[f32]) -> f32 {
        let half = (self.side / 2) as i64;
        let (x, y) = ((at % self.width) as i64, (at / self.width) as i64);
        let mut sum = 0.0;
        for (tap, weight) in kernel.iter().enumerate() {
            let column = (x + (tap % self.side) as i64 - half).clamp(0, self.width as i64 - 1) as usize;
            let row = (y + (tap / self.side) as i64 - half).clamp(0, self.height as i64 - 1) as usize;
            sum += weight * values[row * self.width + column];
        }
        sum
    }
}
