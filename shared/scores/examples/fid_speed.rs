//! Seconds for FID between two sets of 4,096 random feature vectors of 2,048 dimensions, and how long its parts take.
//! `cargo run --release -p hiresmed-scores --example fid_speed`

use std::time::Instant;

use hiresmed_scores::{Moments, features::Error, fid};

const DIMENSION: usize = 2048;
const VECTORS: usize = 4096;
const BLOCK: usize = 1024;

fn main() -> Result<(), Error> {
    let mut state = 1u64;
    let mut random = move || {
        // SplitMix64 (Steele et al. 2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let started = Instant::now();
    let mut moments = [Moments::new(DIMENSION), Moments::new(DIMENSION)];
    for set in &mut moments {
        for _ in 0..VECTORS / BLOCK {
            let mut block: Vec<f64> = (0..BLOCK * DIMENSION).map(|_| random()).collect();
            set.add(&mut block);
        }
    }
    let accumulated = started.elapsed().as_secs_f64();
    let distance = fid(&moments[0], &moments[1])?;
    let seconds = started.elapsed().as_secs_f64() - accumulated;
    println!("{{\"fid\":{},\"moments_s\":{accumulated},\"distance_s\":{seconds}}}", distance.unwrap_or(f64::NAN));
    Ok(())
}
