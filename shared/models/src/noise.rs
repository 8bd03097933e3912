//! Noise maps from the caller's generator: the same generator gives the same numbers on every machine.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// `count` values of N(0, 1).
pub fn normal(rng: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| StandardNormal.sample(rng)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn noise_repeats_and_is_standard_normal() {
        let values = normal(&mut ChaCha8Rng::from_seed([7; 32]), 100_000);
        assert_eq!(values[..64], normal(&mut ChaCha8Rng::from_seed([7; 32]), 64));
        let mean = values.iter().sum::<f32>() / 1e5;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / 1e5;
        assert!(mean.abs() < 0.015 && (variance - 1.0).abs() < 0.03, "mean {mean}, variance {variance}");
    }
}
