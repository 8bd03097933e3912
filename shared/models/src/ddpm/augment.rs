//! Variants of training images that anatomy allows.

use hiresmed_imaging::Plane;
#[cfg(feature = "training")]
use rand::RngExt;
#[cfg(feature = "training")]
use rand_chacha::ChaCha8Rng;

#[cfg(feature = "training")]
use super::config::Training;

/// Air, of which there is more around every image.
const AIR: f32 = -1.0;

/// A variant of a square image: mirrored at random where the training says so, and shifted by whole pixels; never upside down,
/// turned or warped.
#[cfg(feature = "training")]
pub(super) fn varied(image: &Plane, training: &Training, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let (mirror, most) = (training.mirror && rng.random_bool(0.5), training.shift_px as i64);
    let (dx, dy) = (rng.random_range(-most..=most), rng.random_range(-most..=most));
    moved(image, mirror, dx, dy)
}

/// Pixels of `image`, mirrored or not, then moved `dx` to the right and `dy` down.
fn moved(image: &Plane, mirror: bool, dx: i64, dy: i64) -> Vec<f32> {
    let (width, height) = (image.width(), image.height());
    let inside = |at: usize, by: i64, length: usize| usize::try_from(at as i64 - by).ok().filter(|&from| from < length);
    let mut pixels = Vec::with_capacity(width * height);
    for y in 0..height {
        let row = inside(y, dy, height);
        pixels.extend((0..width).map(|x| match (inside(x, dx, width), row) {
            (Some(x), Some(y)) => image.at(if mirror { width - 1 - x } else { x }, y),
            _ => AIR,
        }));
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_mirrored_and_shifted_with_air_behind() {
        let image = Plane::new(2, 2, vec![1.0, 2.0, 3.0, 4.0]);
        assert_eq!(moved(&image, false, 0, 0), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(moved(&image, true, 0, 0), [2.0, 1.0, 4.0, 3.0]);
        assert_eq!(moved(&image, true, 1, 0), [-1.0, 2.0, -1.0, 4.0]);
        assert_eq!(moved(&image, false, 0, -1), [3.0, 4.0, -1.0, -1.0]);
    }
}
