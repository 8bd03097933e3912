//! Milliseconds for the structural similarity of two images of 1024 x 1024, median of 50; tests/peers/ssim_speed.py is the
//! same for scikit-image. `cargo run --release -p hiresmed-scores --example ssim_speed`

use std::time::Instant;

use hiresmed_imaging::Plane;
use hiresmed_scores::ssim;

const SIDE: usize = 1024;
const RUNS: usize = 50;

fn main() -> Result<(), hiresmed_scores::Error> {
    // Equal to the image of the Python counterpart.
    let image = |seed: usize| {
        let value = |at: usize| (((at + 7919 * seed) * 2_654_435_761) >> 16) % 256;
        Plane::new(SIDE, SIDE, (0..SIDE * SIDE).map(|at| value(at) as f32).collect())
    };
    let (a, b) = (image(1), image(2));
    let mut score = ssim(&a, &b, 255.0)?;
    let mut milliseconds = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let started = Instant::now();
        score = ssim(&a, &b, 255.0)?;
        milliseconds.push(started.elapsed().as_secs_f64() * 1e3);
    }
    milliseconds.sort_by(f64::total_cmp);
    println!("{{\"ssim\":{score},\"median_ms\":{},\"best_ms\":{}}}", milliseconds[RUNS / 2], milliseconds[0]);
    Ok(())
}
