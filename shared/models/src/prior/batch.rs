//! What one step learns from: images under a random geometry, and which of their tokens are hidden.

use hiresmed_imaging::Plane;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use super::{config::Training, data::scale};
use crate::{
    geometry::{Geometry, Limits},
    training::on_device,
};

/// `plane` (any size, in [-1, 1]) brought to `side` (columns, rows): whole, centred, its proportions kept, surrounded by air.
/// With a generator under a random zoom, shift, rotation and smooth warp. Never mirrored: the heart lies on the left.
pub(super) fn view(plane: &Plane, side: (usize, usize), training: &Training, rng: Option<&mut ChaCha8Rng>) -> Plane {
    if rng.is_none() && (plane.width(), plane.height()) == side {
        return plane.clone();
    }
    let limits = Limits {
        zoom: training.zoom,
        shift: training.shift,
        rotation_degrees: training.rotation_degrees,
        warp: training.warp,
    };
    let geometry = rng.map_or_else(Geometry::none, |rng| Geometry::draw(limits, rng));
    geometry.view(plane, side, scale(plane, side), (0.0, 0.0))
}

/// Hidden places (true) of a map of `count` tokens: at random, of a random share whose arc cosine is uniform, at least one
/// (MaskGIT's schedule, which sampling follows).
pub(super) fn hidden(count: usize, rng: &mut ChaCha8Rng) -> Vec<bool> {
    let share = (std::f64::consts::FRAC_PI_2 * rng.random::<f64>()).cos();
    hidden_share(count, share, rng)
}

/// Hidden places of a map of `count` tokens: at random, so many of them, at least one.
pub(super) fn hidden_share(count: usize, share: f64, rng: &mut ChaCha8Rng) -> Vec<bool> {
    let wanted = ((count as f64 * share).ceil() as usize).clamp(1, count);
    let mut order: Vec<u32> = (0..count as u32).collect();
    let mut hidden = vec![false; count];
    for at in 0..wanted {
        let other = rng.random_range(at..count);
        order.swap(at, other);
        hidden[order[at] as usize] = true;
    }
    hidden
}

/// `tokens` with the code `hidden_code` where `hidden`, as i64 `[1, h, w]`; and the places and codes of those, i64 `[m]` each.
pub(super) fn hide(tokens: &[i64], hidden: &[bool], hidden_code: i64, (rows, columns): (i64, i64)) -> [Tensor; 3] {
    let input: Vec<i64> =
        tokens.iter().zip(hidden).map(|(&code, &hide)| if hide { hidden_code } else { code }).collect();
    let places: Vec<i64> = (0..).zip(hidden).filter(|(_, hide)| **hide).map(|(place, _)| place).collect();
    let targets: Vec<i64> = tokens.iter().zip(hidden).filter(|(_, hide)| **hide).map(|(&code, _)| code).collect();
    [on_device(&input).reshape([1, rows, columns]), on_device(&places), on_device(&targets)]
}

/// Each token's predecessor in raster order, `first` before the first one, as i64 `[1, h, w]`; a share of them replaced by random
/// ones of `codes`.
pub(super) fn predecessors(
    tokens: &[i64],
    (first, codes): (i64, usize),
    corrupted: f64,
    rng: &mut ChaCha8Rng,
    (rows, columns): (i64, i64),
) -> Tensor {
    let before = std::iter::once(first).chain(tokens.iter().map(|&code| {
        if corrupted > 0.0 && rng.random_bool(corrupted) { rng.random_range(0..codes as i64) } else { code }
    }));
    let before: Vec<i64> = before.take(tokens.len()).collect();
    on_device(&before).reshape([1, rows, columns])
}

/// Cross-entropy of `logits` f32 `[m, K]` against `targets` i64 `[m]`, a share of the target spread over all codes.
pub(super) fn cross_entropy(logits: &Tensor, targets: &Tensor, smoothing: f64) -> Tensor {
    logits.to_kind(Kind::Float).cross_entropy_loss(targets, None::<&Tensor>, tch::Reduction::Mean, -100, smoothing)
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn training() -> Training {
        Training::preset("tiny").unwrap_or_else(|| panic!("a preset"))
    }

    #[test]
    fn an_image_is_shown_whole_and_surrounded_by_air() {
        let plane = Plane::filled(64, 32, 0.5);
        let seen = view(&plane, (32, 32), &training(), None);
        assert_eq!((seen.width(), seen.height()), (32, 32));
        assert!((seen.at(16, 16) - 0.5).abs() < 1e-5 && (seen.at(3, 16) - 0.5).abs() < 1e-5);
        assert!(seen.at(16, 2) < -0.99 && seen.at(16, 30) < -0.99);
    }

    #[test]
    fn a_view_repeats_with_its_generator() {
        let plane = Plane::new(32, 32, (0..32 * 32).map(|i| ((i % 7) as f32 / 7.0) - 0.5).collect());
        let seen = |seed: u8| view(&plane, (32, 32), &training(), Some(&mut ChaCha8Rng::from_seed([seed; 32])));
        assert_eq!(seen(1), seen(1));
        assert_ne!(seen(1), seen(2));
    }

    #[test]
    fn a_mask_hides_the_share_that_is_asked_for() {
        let mut rng = ChaCha8Rng::from_seed([1; 32]);
        let count = |mask: Vec<bool>| mask.into_iter().filter(|hide| *hide).count();
        assert_eq!(count(hidden_share(100, 0.25, &mut rng)), 25);
        assert_eq!(count(hidden_share(100, 0.0, &mut rng)), 1);
        assert_eq!(count(hidden_share(100, 1.0, &mut rng)), 100);
        // The mean of cos over a quarter turn is 2 / pi.
        let mean = (0..2000).map(|_| count(hidden(64, &mut rng))).sum::<usize>() as f64 / 2000.0 / 64.0;
        assert!((mean - std::f64::consts::FRAC_2_PI).abs() < 0.03, "{mean}");
    }

    #[test]
    fn hidden_tokens_are_the_targets() {
        let [input, places, targets] = hide(&[5, 6, 7, 8], &[true, false, false, true], 9, (2, 2));
        assert_eq!(Vec::<i64>::try_from(input.reshape([-1])).unwrap(), [9, 6, 7, 9]);
        assert_eq!(Vec::<i64>::try_from(&places).unwrap(), [0, 3]);
        assert_eq!(Vec::<i64>::try_from(&targets).unwrap(), [5, 8]);
        let mut rng = ChaCha8Rng::from_seed([1; 32]);
        let before = predecessors(&[5, 6, 7, 8], (9, 9), 0.0, &mut rng, (2, 2));
        assert_eq!(Vec::<i64>::try_from(before.reshape([-1])).unwrap(), [9, 5, 6, 7]);
    }
}
