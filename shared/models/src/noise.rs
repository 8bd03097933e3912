//! Noise maps from the caller's generator: the same generator gives the same numbers on every machine.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

/// The generator for `purpose` of image `index` of `seed`: each has its own. As the protocol's noise seeds are made: SHA-256 over
/// `hiresmed noise 1`, a zero byte, seed and index as little-endian 64-bit integers, the purpose, and five zero bytes.
pub fn generator(seed: u64, index: u64, purpose: &str) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(b"hiresmed noise 1\0");
    hash.update(seed.to_le_bytes());
    hash.update(index.to_le_bytes());
    hash.update(purpose);
    hash.update([0; 5]);
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// `count` values of N(0, 1).
pub fn normal(rng: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| StandardNormal.sample(rng)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_index_and_purpose_has_its_own_noise() {
        let first = |seed, index, purpose| normal(&mut generator(seed, index, purpose), 2);
        let own = first(1, 2, "a");
        assert_eq!(own, first(1, 2, "a"));
        assert!([first(2, 1, "a"), first(1, 3, "a"), first(1, 2, "b")].iter().all(|other| *other != own));
    }

    #[test]
    fn noise_repeats_and_is_standard_normal() {
        let values = normal(&mut ChaCha8Rng::from_seed([7; 32]), 100_000);
        assert_eq!(values[..64], normal(&mut ChaCha8Rng::from_seed([7; 32]), 64));
        let mean = values.iter().sum::<f32>() / 1e5;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / 1e5;
        assert!(mean.abs() < 0.015 && (variance - 1.0).abs() < 0.03, "mean {mean}, variance {variance}");
    }
}
