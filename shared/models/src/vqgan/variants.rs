//! A crop of a training image, varied as the training says.

use hiresmed_imaging::Plane;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::augmentation::Augmentation;
use crate::{
    geometry::{Geometry, Limits},
    noise,
};

/// A random square of `plane`, whose sides are `side` or more, under the random geometry of `augment`.
pub(super) fn crop(plane: &Plane, side: usize, augment: &Augmentation, random: &mut ChaCha8Rng) -> Plane {
    let Augmentation::Anatomy(anatomy) = augment else {
        let left = random.random_range(0..=plane.width() - side);
        let top = random.random_range(0..=plane.height() - side);
        let rows = (top..top + side).map(|row| row * plane.width() + left);
        return Plane::new(side, side, rows.flat_map(|start| &plane.data()[start..start + side]).copied().collect());
    };
    let limits = Limits {
        zoom: anatomy.zoom,
        shift: anatomy.shift,
        rotation_degrees: anatomy.rotation_degrees,
        warp: anatomy.warp,
    };
    let geometry = Geometry::draw(limits, random);
    // The crop lies in the image where it can: its middle anywhere up to there from the image's, in halves of the image's side.
    let mut middle = |length: usize| {
        let most = 1.0 - side as f64 / geometry.zoom / length as f64;
        most.max(0.0) * (2.0 * random.random::<f64>() - 1.0)
    };
    let middle = (middle(plane.width()), middle(plane.height()));
    geometry.view(plane, (side, side), 1.0, middle)
}

/// What needs no neighbouring pixel: `image` `[1, s, s]` turned and mirrored, or of another contrast, brightness and noise.
pub(super) fn vary(image: Tensor, augment: &Augmentation, random: &mut ChaCha8Rng) -> Tensor {
    match augment {
        Augmentation::None => image,
        Augmentation::Square => {
            let image = image.rot90(random.random_range(0..4), [1, 2]);
            if random.random_bool(0.5) { image.flip([2]) } else { image }
        }
        Augmentation::Anatomy(anatomy) => {
            let image = if anatomy.mirror && random.random_bool(0.5) { image.flip([2]) } else { image };
            let mut either = |limit: f64| limit * (2.0 * random.random::<f64>() - 1.0);
            let (contrast, brightness) = (1.0 + either(anatomy.intensity), either(anatomy.intensity));
            let deviation = either(anatomy.noise).abs();
            let grain = Tensor::from_slice(&noise::normal(random, image.numel())).reshape(image.size());
            (image * contrast + brightness + grain * deviation).clamp(-1.0, 1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::vqgan::Anatomy;

    fn seen(plane: &Plane, side: usize, augment: &Augmentation, seed: u8) -> Vec<f32> {
        let mut random = ChaCha8Rng::from_seed([seed; 32]);
        let crop = crop(plane, side, augment, &mut random);
        let crop = Tensor::from_slice(crop.data()).reshape([1, side as i64, side as i64]);
        Vec::try_from(vary(crop, augment, &mut random).contiguous().reshape([-1])).unwrap()
    }

    /// A bright left half and a dark right one, as a heart makes it.
    fn sides(side: usize) -> Plane {
        let value = |i: usize| if i % side < side / 2 { 0.6 } else { -0.6 };
        Plane::new(side, side, (0..side * side).map(value).collect())
    }

    #[test]
    fn crops_are_cut_out_as_they_are() {
        let plane = Plane::new(6, 5, (0..30).map(|i| i as f32).collect());
        for seed in 0..8 {
            let found = seen(&plane, 3, &Augmentation::None, seed);
            let at = found[0];
            assert_eq!(found, [0., 1., 2., 6., 7., 8., 12., 13., 14.].map(|by| at + by));
        }
    }

    #[test]
    fn situs_is_kept_unless_sides_mean_nothing() {
        let lighter_left = |augment: &Augmentation| {
            let left = |seed: u8| {
                let found = seen(&sides(64), 64, augment, seed);
                let half = |left: bool| (0..64 * 64).filter(|i| (i % 64 < 32) == left).map(|i| found[i]).sum::<f32>();
                half(true) > half(false)
            };
            (0..16).filter(|&seed| left(seed)).count()
        };
        let anatomy = Anatomy::default();
        assert_eq!(lighter_left(&Augmentation::Anatomy(anatomy.clone())), 16);
        let mirrored = lighter_left(&Augmentation::Anatomy(Anatomy { mirror: true, ..anatomy }));
        assert!((3..14).contains(&mirrored), "{mirrored}");
        assert!((1..15).contains(&lighter_left(&Augmentation::Square)));
    }

    #[test]
    fn two_draws_of_one_image_differ_and_one_repeats() {
        let augment = Augmentation::Anatomy(Anatomy::default());
        assert_eq!(seen(&sides(64), 48, &augment, 1), seen(&sides(64), 48, &augment, 1));
        assert_ne!(seen(&sides(64), 48, &augment, 1), seen(&sides(64), 48, &augment, 2));
        assert!(seen(&sides(64), 48, &augment, 3).iter().all(|value| (-1.0..=1.0).contains(value)));
    }
}
