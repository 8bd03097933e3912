//! Random geometry and intensity, so that one patient's slices teach the shape of lungs in general.

use super::config::Training;
use crate::{noise, training::on_device};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// What one pair is put through: flips, zoom, shift and rotation for both, contrast, brightness and noise for the image.
pub(super) struct Change {
    /// Rows of the matrix from the new to the old grid, which spans [-1, 1].
    affine: [f32; 6],
    contrast: f32,
    brightness: f32,
    /// Added to the image, `side²`.
    grain: Vec<f32>,
}

impl Change {
    /// One for an image of `side` pixels, drawn from `rng`.
    pub(super) fn draw(training: &Training, side: usize, rng: &mut ChaCha8Rng) -> Self {
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
        let deviation = either(training.noise).abs() as f32;
        let (sine, cosine) = (angle.sin() / zoom, angle.cos() / zoom);
        let affine = [flip_x * cosine, -flip_x * sine, shift_x, flip_y * sine, flip_y * cosine, shift_y];
        let mut grain = noise::normal(rng, side * side);
        grain.iter_mut().for_each(|value| *value *= deviation);
        Self {
            affine: affine.map(|value| value as f32),
            contrast: contrast as f32,
            brightness: brightness as f32,
            grain,
        }
    }
}

/// Images `f32 [N, 1, s, s]` in [-1, 1] and masks `f32 [N, 1, s, s]` in {0, 1} of `pairs` `f32 [N, 2, s, s]`, images plus one (so that
/// what comes in from outside, zero, is air) beside masks; `changes` has one for each. Outside is forbidden.
pub(super) fn augment(pairs: &Tensor, changes: &[Change]) -> (Tensor, Tensor) {
    let size = pairs.size();
    let (count, side) = (size[0], size[2]);
    let of_all = |part: fn(&Change) -> &[f32], shape: &[i64]| {
        let values: Vec<f32> = changes.iter().flat_map(part).copied().collect();
        on_device(&values).reshape(shape)
    };
    let affine = of_all(|change| &change.affine, &[count, 2, 3]);
    let contrast = of_all(|change| std::slice::from_ref(&change.contrast), &[count, 1, 1, 1]);
    let brightness = of_all(|change| std::slice::from_ref(&change.brightness), &[count, 1, 1, 1]);
    let grain = of_all(|change| &change.grain, &[count, 1, side, side]);
    let grid = Tensor::affine_grid_generator(&affine, [count, 1, side, side], false);
    // Bilinear (0), zeros outside (0); image and mask in one pass.
    let moved = pairs.grid_sampler(&grid, 0, 0, false);
    let mut image = (moved.narrow(1, 0, 1) - 1.0) * contrast + brightness + grain;
    (image.clamp_(-1.0, 1.0), moved.narrow(1, 1, 1).gt(0.5).to_kind(Kind::Float))
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn unchanged() -> Training {
        Training {
            zoom: 1.0,
            shift: 0.0,
            rotation_degrees: 0.0,
            intensity: 0.0,
            noise: 0.0,
            mirror: false,
            ..Training::default()
        }
    }

    /// Three pairs of 8 x 8, the mask where the image is above 0.
    fn pairs() -> Tensor {
        let images = noise::normal(&mut ChaCha8Rng::from_seed([3; 32]), 3 * 64);
        let images = on_device(&images).reshape([3, 1, 8, 8]).clamp(-1.0, 1.0);
        Tensor::cat(&[&images + 1.0, images.gt(0.0).to_kind(Kind::Float)], 1)
    }

    fn drawn(training: &Training, count: usize) -> Vec<Change> {
        let mut rng = ChaCha8Rng::from_seed([5; 32]);
        (0..count).map(|_| Change::draw(training, 8, &mut rng)).collect()
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn nothing_changes_without_limits_and_a_mirrored_pair_stays_a_pair() {
        let pairs = pairs();
        let (images, masks) = augment(&pairs, &drawn(&unchanged(), 3));
        assert!(difference(&images, &(pairs.narrow(1, 0, 1) - 1.0)) < 1e-6);
        assert_eq!(difference(&masks, &pairs.narrow(1, 1, 1)), 0.0);
        let (images, masks) = augment(&pairs, &drawn(&Training { mirror: true, ..unchanged() }, 3));
        assert_eq!(difference(&masks, &images.gt(1e-5).to_kind(Kind::Float)), 0.0);
        assert!(difference(&images, &(pairs.narrow(1, 0, 1) - 1.0)) > 0.1);
    }

    #[test]
    fn each_pair_has_the_change_that_it_would_have_alone() {
        let (pairs, training) = (pairs(), Training::default());
        let changes = drawn(&training, 3);
        let (images, masks) = augment(&pairs, &changes);
        for (at, change) in changes.iter().enumerate() {
            let (image, mask) = augment(&pairs.narrow(0, at as i64, 1), std::slice::from_ref(change));
            assert!(difference(&image, &images.narrow(0, at as i64, 1)) < 1e-6);
            assert_eq!(difference(&mask, &masks.narrow(0, at as i64, 1)), 0.0);
        }
        assert!(images.abs().max().double_value(&[]) <= 1.0);
    }

    #[test]
    fn air_comes_in_from_outside_and_is_forbidden() {
        let shifted =
            Change { affine: [1.0, 0.0, 2.0, 0.0, 1.0, 0.0], contrast: 1.0, brightness: 0.0, grain: vec![0.0; 64] };
        let (image, mask) = augment(&pairs().narrow(0, 0, 1), &[shifted]);
        assert_eq!((image.max().double_value(&[]), mask.max().double_value(&[])), (-1.0, 0.0));
    }
}
