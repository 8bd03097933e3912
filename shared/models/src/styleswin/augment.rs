//! What happens to images before the discriminator sees them, real and made alike (differentiable augmentation, Zhao et al. 2020).

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use super::config::Training;
use crate::training::on_device;

/// `images` f32 `[N, channels, side, side]`, each shifted by whole pixels, changed in contrast and brightness and with a square blanked, all drawn from
/// `rng`; what comes in from outside is air. Differentiable by the images.
pub(super) fn augment(images: &Tensor, training: &Training, rng: &mut ChaCha8Rng) -> Tensor {
    let size = images.size();
    let (count, side) = (size[0], size[3]);
    let mut either = |limit: f64| (limit * (2.0 * rng.random::<f64>() - 1.0)) as f32;
    let (mut affine, mut contrast, mut brightness, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let blanked = (training.cutout * side as f64).round() as i64;
    for _ in 0..count {
        // Whole pixels: between them the images would be blurred, and neither missing detail nor squares be seen. The grid spans [-1, 1].
        let mut shift = || (either(training.shift) * side as f32).round() * 2.0 / side as f32;
        affine.extend([1.0, 0.0, shift(), 0.0, 1.0, shift()]);
        contrast.push(1.0 + either(training.intensity));
        brightness.push(either(training.intensity));
        let mut start = || ((f64::from(either(0.5)) + 0.5) * side as f64) as i64 - blanked / 2;
        let (top, left) = (start(), start());
        let inside = |at: i64, first: i64| (first..first + blanked).contains(&at);
        kept.extend((0..side * side).map(|at| f32::from(!(inside(at / side, top) && inside(at % side, left)))));
    }
    let affine = on_device(&affine).reshape([count, 2, 3]);
    let grid = Tensor::affine_grid_generator(&affine, &size[..], false);
    let each = |values: &[f32]| on_device(values).reshape([count, 1, 1, 1]);
    // Bilinear (0), zeros outside (0): shifted by one, zero is air.
    let shifted = (images + 1.0).grid_sampler(&grid, 0, 0, false) - 1.0;
    let changed = shifted * each(&contrast) + each(&brightness);
    (changed * on_device(&kept).reshape([count, 1, side, side])).to_kind(Kind::Float)
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn images_are_shifted_by_whole_pixels_and_air_comes_in() {
        let training = Training { shift: 0.25, intensity: 0.0, cutout: 0.0, ..Training::preset("tiny").unwrap() };
        let images = Tensor::arange(8 * 256, (Kind::Float, tch::Device::Cpu)).sin().reshape([8, 1, 16, 16]);
        let seen = augment(&images, &training, &mut ChaCha8Rng::from_seed([2; 32]));
        let mut shifts = Vec::new();
        for at in 0..8 {
            // All shifts of up to a quarter: windows of the image in air.
            let air = (images.narrow(0, at, 1) + 1.0).constant_pad_nd([4, 4, 4, 4]) - 1.0;
            let same = |&(down, right): &(i64, i64)| {
                let window = air.narrow(2, down, 16).narrow(3, right, 16);
                (window - seen.narrow(0, at, 1)).abs().max().double_value(&[]) < 1e-4
            };
            let found = (0..9).flat_map(|down| (0..9).map(move |right| (down, right))).find(same);
            shifts.push(found.unwrap_or_else(|| panic!("image {at} is not shifted by whole pixels")));
        }
        shifts.sort_unstable();
        shifts.dedup();
        assert!(shifts.len() > 4, "{shifts:?}");
    }

    #[test]
    fn nothing_changes_without_limits_and_a_square_is_blanked_with_one() {
        let training = Training { shift: 0.0, intensity: 0.0, cutout: 0.0, ..Training::preset("tiny").unwrap() };
        let images = Tensor::arange(2 * 256, (Kind::Float, tch::Device::Cpu)).reshape([2, 1, 16, 16]) / 512.0;
        let mut rng = ChaCha8Rng::from_seed([1; 32]);
        let same = augment(&images, &training, &mut rng);
        assert!((same - &images).abs().max().double_value(&[]) < 1e-6);
        let training = Training { cutout: 0.25, ..training };
        let blanked = augment(&(&images + 1.0), &training, &mut rng).eq(0.0).to_kind(Kind::Float).sum(Kind::Float);
        let blanked = blanked.double_value(&[]);
        assert!((8.0..=32.0).contains(&blanked), "{blanked}");
    }
}
