//! Random geometry and intensity, so that one patient's slices teach the shape of lungs in general.

use super::config::Training;
use crate::noise;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// Augments `image` `f32 [1, 1, s, s]` in [-1, 1] and `mask` `f32 [1, 1, s, s]` in {0, 1} alike: flips, zoom, shift and rotation for
/// both, contrast, brightness and noise for the image. What comes in from outside is air and forbidden.
pub(super) fn augment(image: &Tensor, mask: &Tensor, training: &Training, rng: &mut ChaCha8Rng) -> (Tensor, Tensor) {
    let mut either = |limit: f64| limit * (2.0 * rng.random::<f64>() - 1.0);
    let zoom = training.zoom.powf(either(1.0));
    let angle = either(training.rotation_degrees).to_radians();
    let (flip_x, flip_y) = match (training.mirror, either(1.0).signum(), either(1.0).signum()) {
        (true, x, y) => (x, y),
        (false, ..) => (1.0, 1.0),
    };
    // The grid spans [-1, 1]: a shift of a share s of the side is 2 s.
    let (shift_x, shift_y) = (either(2.0 * training.shift), either(2.0 * training.shift));
    let (contrast, brightness) = (1.0 + either(training.intensity), either(training.intensity));
    let deviation = either(training.noise).abs();
    let (sine, cosine) = (angle.sin() / zoom, angle.cos() / zoom);
    let affine =
        [flip_x * cosine, -flip_x * sine, shift_x, flip_y * sine, flip_y * cosine, shift_y].map(|value| value as f32);
    let side = image.size()[2];
    let affine = Tensor::from_slice(&affine).reshape([1, 2, 3]);
    let grid = Tensor::affine_grid_generator(&affine, [1, 1, side, side], false);
    // Bilinear (0), zeros outside (0): shifted by one, zero is air.
    let image = (image + 1.0).grid_sampler(&grid, 0, 0, false) - 1.0;
    let mask = mask.grid_sampler(&grid, 0, 0, false).gt(0.5).to_kind(Kind::Float);
    let grain = Tensor::from_slice(&noise::normal(rng, (side * side) as usize)).reshape([1, 1, side, side]);
    let image = (image * contrast + brightness + grain * deviation).clamp(-1.0, 1.0);
    (image, mask)
}
