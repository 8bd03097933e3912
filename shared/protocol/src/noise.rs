//! Where each image's randomness comes from.
//!
//! Image i of a request draws all its noise from generators that are seeded here, one for each purpose, so that it does
//! not depend on how the request is cut into jobs, on the number of workers, or on the order in which they work. The
//! seed is meant for a counter-based generator (ChaCha8).

use sha2::{Digest as _, Sha256};

use crate::ids::ImageIndex;

/// What a stream of random numbers is for. Streams for different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Choice of the source image.
    Input,
    /// Tokens of a sampled background's draw `n`.
    Tokens(u32),
    /// Number of lesions.
    LesionCount,
    /// Choice of lesion `n`'s exemplar.
    LesionExemplar(u32),
    /// Diameter of lesion `n`.
    LesionSize(u32),
    /// Noise maps of lesion `n`.
    LesionNoise(u32),
    /// Position of lesion `n`.
    Placement(u32),
    /// Data order, crops and noise of training step `image`.
    Training,
    /// Initial weights.
    Initialisation,
}

impl Purpose {
    const fn parts(self) -> (&'static str, u32) {
        match self {
            Purpose::Input => ("input", 0),
            Purpose::Tokens(n) => ("tokens", n),
            Purpose::LesionCount => ("lesion count", 0),
            Purpose::LesionExemplar(n) => ("lesion exemplar", n),
            Purpose::LesionSize(n) => ("lesion size", n),
            Purpose::LesionNoise(n) => ("lesion noise", n),
            Purpose::Placement(n) => ("placement", n),
            Purpose::Training => ("training", 0),
            Purpose::Initialisation => ("initialisation", 0),
        }
    }
}

/// The 32-byte seed of the generator for `purpose` of image `image` of a request with seed `request_seed`.
///
/// SHA-256 over: the text `hiresmed noise 1`, a zero byte, the request's seed and the image's index as little-endian
/// 64-bit integers, the purpose's name, a zero byte, and its ordinal as a little-endian 32-bit integer.
pub fn seed(request_seed: u64, image: ImageIndex, purpose: Purpose) -> [u8; 32] {
    let (name, ordinal) = purpose.parts();
    let mut hash = Sha256::new();
    hash.update(b"hiresmed noise 1\0");
    hash.update(request_seed.to_le_bytes());
    hash.update(image.0.to_le_bytes());
    hash.update(name);
    hash.update([0]);
    hash.update(ordinal.to_le_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_request_image_and_purpose_has_its_own_seed() {
        let purposes = [
            Purpose::Input,
            Purpose::Tokens(0),
            Purpose::Tokens(1),
            Purpose::LesionCount,
            Purpose::LesionExemplar(0),
            Purpose::LesionExemplar(1),
            Purpose::LesionSize(0),
            Purpose::LesionNoise(0),
            Purpose::Placement(0),
            Purpose::Training,
            Purpose::Initialisation,
        ];
        let mut seeds = BTreeSet::new();
        for request in [0, 1, u64::MAX] {
            for image in [0, 1, 1 << 40] {
                seeds.extend(purposes.map(|purpose| seed(request, ImageIndex(image), purpose)));
            }
        }
        assert_eq!(seeds.len(), 3 * 3 * purposes.len());
    }

    #[test]
    fn seeds_never_change() {
        // Computed apart from this code; another value would make old manifests unrepeatable.
        assert_eq!(hex::encode(seed(7, ImageIndex(3), Purpose::LesionNoise(2))), EXPECTED);
    }

    const EXPECTED: &str = "11009dbc96a1a8b248e29ed38734a75f8bf9333776ab70e03838ebc4d346dcf4";
}
