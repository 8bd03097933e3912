//! Times the training step of one model and prints a line of JSON: `{"seconds", "rss_mb"}`, the median of the timed steps and
//! the process's peak of resident memory.
//!
//! `cargo run --release -p hiresmed-models --features training --example training_step -- hdfb|singan STEPS THREADS`. `hdfb`: the
//! architecture `ct512-light`, two crops of 192 x 192. `singan`: one iteration (three critic steps with gradient penalty, three
//! generator steps) of the finest scale of a 44 x 44 exemplar. `make bench` runs the same beside PyTorch.

use hiresmed_imaging::Plane;
use hiresmed_models::{
    singan::{self, Exemplar},
    training::{Dataset, Learner, Sample},
    vqgan,
};
use std::time::Instant;

type Fault = Box<dyn std::error::Error>;

fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, steps, threads] = arguments.as_slice() else {
        return Err("usage: training_step hdfb|singan STEPS THREADS".into());
    };
    let steps: usize = steps.parse()?;
    tch::set_num_threads(threads.parse()?);
    let (mut learner, skipped) = match model.as_str() {
        "hdfb" => (hdfb()?, 2),
        "singan" => singan()?,
        other => return Err(format!("{other:?} is no model; choose hdfb or singan").into()),
    };
    for _ in 0..skipped {
        learner.step()?;
    }
    let mut seconds = Vec::with_capacity(steps);
    for _ in 0..steps.max(1) {
        let started = Instant::now();
        learner.step()?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    println!("{{\"seconds\": {}, \"rss_mb\": {}}}", seconds[seconds.len() / 2], peak_mb()?);
    Ok(())
}

fn hdfb() -> Result<Box<dyn Learner>, Fault> {
    let preset = "ct512-light";
    let config = vqgan::Config::preset(preset).ok_or("the preset ct512-light is gone")?;
    let training = vqgan::Training::preset(preset).ok_or("the preset ct512-light is gone")?;
    let samples = vec![Sample { name: "waves".to_owned(), folder: 0, plane: waves(512) }];
    let data = Dataset::new(samples, String::new());
    Ok(Box::new(vqgan::Learner::new(config, training, data, 1, None)?))
}

/// The learner, and the steps until its finest scale is warm.
fn singan() -> Result<(Box<dyn Learner>, u64), Fault> {
    let training = singan::Training { iterations: 40, ..singan::Training::default() };
    let scales = training.pyramid([44, 44]).len() as u64;
    let skipped = (scales - 1) * training.iterations + 2;
    let mask = Plane::new(44, 44, disc(44).collect());
    let exemplar = Exemplar { name: "disc".to_owned(), image: waves(44), mask };
    Ok((Box::new(singan::Learner::new(&exemplar, training, 1, None)?), skipped))
}

/// A picture of `side` x `side` pixels in [-1, 1] with something in it everywhere.
fn waves(side: usize) -> Plane {
    let value = |at: usize| {
        let (x, y) = ((at % side) as f32, (at / side) as f32);
        0.6 * (x / 7.0).sin() * (y / 11.0).cos() + 0.3 * (x * y / 97.0).sin()
    };
    Plane::new(side, side, (0..side * side).map(value).collect())
}

/// A soft disc in the middle: 1 inside, -1 outside.
fn disc(side: usize) -> impl Iterator<Item = f32> {
    let middle = (side as f32 - 1.0) / 2.0;
    (0..side * side).map(move |at| {
        let (x, y) = ((at % side) as f32 - middle, (at / side) as f32 - middle);
        (0.3 * side as f32 - (x * x + y * y).sqrt()).clamp(-1.0, 1.0)
    })
}

/// VmHWM of this process in MB.
fn peak_mb() -> Result<u64, Fault> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("/proc/self/status has no VmHWM")?;
    let kilobytes: u64 = line.split_whitespace().nth(1).ok_or("VmHWM has no value")?.parse()?;
    Ok(kilobytes / 1024)
}
