//! Measures the memory of a VQGAN's training step and holds it against the arithmetic: prints a line of JSON, bytes and seconds.
//!
//! `cargo run --release -p hiresmed-models --features training --example training_memory -- PRESET SIDE BATCH kept|again [plain]
//! [bf16] [THREADS [STEPS]]`: one step with crops of SIDE pixels, activations kept or made again, with the adversarial term unless
//! `plain`; then STEPS more, whose median is said. Run each setting as a process of its own: what is measured is the process's
//! peak, in the host's memory.

use hiresmed_imaging::Plane;
use hiresmed_models::{
    training::{Dataset, Learner as _, Sample},
    vqgan::{Config, Crops, Learner, LossWeights, Memory, Precision, Training},
};
use std::time::Instant;

type Fault = Box<dyn std::error::Error>;

fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [preset, side, batch, how, rest @ ..] = arguments.as_slice() else {
        return Err("usage: training_memory PRESET SIDE BATCH kept|again [plain] [bf16] [THREADS [STEPS]]".into());
    };
    let plain = rest.iter().any(|word| word == "plain");
    let mut numbers = rest.iter().filter_map(|word| word.parse::<i32>().ok());
    tch::set_num_threads(numbers.next().unwrap_or(1));
    let more = numbers.next().unwrap_or(0);
    let unknown = || format!("{preset:?} is no preset");
    let (config, training) =
        (Config::preset(preset).ok_or_else(unknown)?, Training::preset(preset).ok_or_else(unknown)?);
    let crops = Crops { from_step: 0, size: side.parse()?, batch: batch.parse()? };
    let training = Training {
        loss: LossWeights { perceptual: 0.0, adversarial: if plain { 0.0 } else { 0.8 }, ..training.loss },
        discriminator_start: Some(0),
        crops: vec![crops],
        checkpointing: how == "again",
        precision: if rest.iter().any(|word| word == "bf16") { Precision::Bf16 } else { training.precision },
        ..training
    };
    let counted = Memory::of_step(&config, &training, crops, 0);
    // What libtorch itself occupies comes with its first step.
    let tiny = Config::preset("tiny").ok_or_else(unknown)?;
    let small = Crops { from_step: 0, size: 32, batch: 1 };
    learner(tiny, Training { crops: vec![small], ..training.clone() })?.step()?;
    let before = status("VmRSS")?;
    let mut learner = learner(config, training)?;
    let opened = status("VmRSS")?;
    let mut step = || -> Result<f64, Fault> {
        let started = Instant::now();
        learner.step()?;
        Ok(started.elapsed().as_secs_f64())
    };
    let seconds = step()?;
    let peak = status("VmHWM")?;
    let mut further = (0..more).map(|_| step()).collect::<Result<Vec<f64>, Fault>>()?;
    further.sort_by(f64::total_cmp);
    let median = further.get(further.len() / 2).map_or("null".to_owned(), |seconds| format!("{seconds:.3}"));
    for (phase, bytes) in &counted.phases {
        eprintln!("{:>9.1} MB  {phase}", *bytes as f64 / 1e6);
    }
    println!(
        "{{\"seconds\": {seconds:.2}, \"median\": {median}, \"counted\": {}, \"measured\": {}, \"peak\": {peak}, \"opened\": {}}}",
        counted.at_work(),
        peak - opened,
        opened - before
    );
    Ok(())
}

fn learner(config: Config, training: Training) -> Result<Learner, Fault> {
    let side = training.crops.first().map_or(0, |crops| crops.size);
    let samples = vec![Sample { name: "waves".to_owned(), folder: 0, plane: waves(side) }];
    Ok(Learner::new(config, training, Dataset::new(samples, String::new()), 1, None)?)
}

fn waves(side: usize) -> Plane {
    let value = |at: usize| {
        let (x, y) = ((at % side) as f32, (at / side) as f32);
        0.6 * (x / 7.0).sin() * (y / 11.0).cos() + 0.3 * (x * y / 97.0).sin()
    };
    Plane::new(side, side, (0..side * side).map(value).collect())
}

/// A line of `/proc/self/status`, bytes.
fn status(name: &str) -> Result<usize, Fault> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with(name)).ok_or("no such line")?;
    let number = line.split_whitespace().nth(1).ok_or("no number")?;
    Ok(number.parse::<usize>()? * 1024)
}
