//! Times the training step of a kind of model and prints a line of JSON: `{"kind", "preset", "device", "parameters", "seconds",
//! "peak_mb", "loss_first", "loss_last"}`; seconds are the median of the timed steps, the peak is of this process's resident memory.
//!
//! `cargo run --release -p hiresmed-models --features training --example steps -- KIND PRESET STEPS [--threads N] [--batch N]
//! [--autoencoder FOLDER] [--precision f32|bf16]`; KIND is unet, yolo, prior, ddpm, styleswin, singan or vqgan, which alone has a precision. The
//! images are made up, as large as the preset takes them; a prior learns the tokens that the autoencoder's package gives for them,
//! encoded before the first timed step; a singan's step is one of the finest scale of an exemplar of 44 x 44. `make bench` and
//! `tests/peers/bench_steps.py` run the same beside PyTorch.

use std::{collections::BTreeMap, path::Path, time::Instant};

use hiresmed_imaging::Plane;
use hiresmed_models::{
    data::{Label, Region},
    ddpm, prior, singan, styleswin,
    training::{self, Dataset, Learner, Sample},
    unet, vqgan, yolo,
};

type Fault = Box<dyn std::error::Error>;

/// Images in the data set.
const IMAGES: usize = 16;
/// Side of a SinGAN's exemplar, px.
const EXEMPLAR: usize = 44;
/// Steps before those that are timed.
const WARM: u64 = 3;

fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (positional, options) = arguments.split_at(arguments.len().min(3));
    let ([kind, preset, steps], true) = (positional, options.len().is_multiple_of(2)) else {
        let options = "[--threads N] [--batch N] [--autoencoder FOLDER] [--precision f32|bf16]";
        return Err(format!("usage: steps KIND PRESET STEPS {options}").into());
    };
    let options: BTreeMap<&str, &str> = options.chunks(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let number = |name: &str| options.get(name).map(|text| text.parse::<usize>()).transpose();
    training::set_threads(number("--threads")?.unwrap_or(1) as i32);
    let autoencoder = options.get("--autoencoder").map(Path::new);
    let precision = options.get("--precision").map(|name| serde_json::from_value((*name).into())).transpose()?;
    let steps = steps.parse::<u64>()?.max(1);
    let (mut learner, parameters, skipped) =
        learner((kind, preset, steps), number("--batch")?, autoencoder, precision)?;
    let mut losses = Vec::new();
    let mut step = || -> Result<f64, Fault> {
        let started = Instant::now();
        // Reading the figures waits for the device.
        losses.push(learner.step()?.first().map_or(0.0, |(_, value)| *value));
        Ok(started.elapsed().as_secs_f64())
    };
    for _ in 0..skipped {
        step()?;
    }
    let mut seconds = (0..steps).map(|_| step()).collect::<Result<Vec<f64>, Fault>>()?;
    seconds.sort_by(f64::total_cmp);
    let line = serde_json::json!({
        "kind": kind, "preset": preset, "device": format!("{:?}", training::device()), "parameters": parameters,
        "seconds": seconds[seconds.len() / 2], "peak_mb": peak_mb()?,
        "loss_first": losses.first(), "loss_last": losses.last(),
    });
    println!("{line}");
    Ok(())
}

/// A learner on made-up images, how many parameters the network that is exported has, and after how many steps the next ones are like
/// each other: every view of the images is encoded once, every kernel chosen, the finest scale reached.
fn learner(
    (kind, preset, steps): (&str, &str, u64),
    batch: Option<usize>,
    autoencoder: Option<&Path>,
    precision: Option<vqgan::Precision>,
) -> Result<(Box<dyn Learner>, usize, u64), Fault> {
    let unknown = || format!("{kind} has no preset {preset:?}");
    let (learner, parameters): (Box<dyn Learner>, usize) = match kind {
        "singan" => {
            let training = singan::Training::preset(preset).ok_or_else(unknown)?;
            let training = singan::Training { iterations: steps + WARM, stop: None, ..training };
            let (image, mask) = (waves(EXEMPLAR, 0), disc(EXEMPLAR, 0));
            let exemplar = singan::Exemplar { name: "disc".to_owned(), image, mask };
            let learner = singan::Learner::new(&exemplar, training, 1, None)?;
            let parameters = learner.config().parameters();
            (Box::new(learner), parameters)
        }
        "unet" => {
            let training = unet::Training::preset(preset).ok_or_else(unknown)?;
            let training = unet::Training { batch: batch.unwrap_or(training.batch), ..training };
            let (parameters, side) = (training.config.parameters(), training.config.side);
            let pairs: Vec<_> = (0..IMAGES).map(|at| (waves(side, at), disc(side, at))).collect();
            (Box::new(unet::Learner::new(&pairs, training, 1, None)?), parameters)
        }
        "yolo" => {
            let training = yolo::Training::preset(preset).ok_or_else(unknown)?;
            let training = yolo::Training { batch: batch.unwrap_or(training.batch), ..training };
            let (parameters, side) = (training.config.parameters(), training.config.side);
            let label = |at: usize| {
                let centre = (side as f32 * (0.3 + 0.4 * (at % 3) as f32 / 2.0), side as f32 / 2.0);
                Label { class: 0, region: Region::about(centre, 24.0, 18.0) }
            };
            let images: Vec<_> = (0..IMAGES).map(|at| (waves(side, at), vec![label(at), label(at + 1)])).collect();
            (Box::new(yolo::Learner::new(&images, training, 1, None)?), parameters)
        }
        "ddpm" => {
            let config = ddpm::Config::preset(preset).ok_or_else(unknown)?;
            let training = ddpm::Training::preset(preset).ok_or_else(unknown)?;
            let training = ddpm::Training { batch: batch.unwrap_or(training.batch), ..training };
            let (parameters, data) = (config.parameters(), dataset(config.side));
            (Box::new(ddpm::Learner::new(config, training, &data, 1, None)?), parameters)
        }
        "styleswin" => {
            let config = styleswin::Config::preset(preset).ok_or_else(unknown)?;
            let training = styleswin::Training::preset(preset).ok_or_else(unknown)?;
            let training = styleswin::Training { batch: batch.unwrap_or(training.batch), ..training };
            let (parameters, data) = (config.parameters(), dataset(config.side()));
            (Box::new(styleswin::Learner::new(config, training, &data, 1, None)?), parameters)
        }
        "prior" => {
            let config = prior::Config::preset(preset).ok_or_else(unknown)?;
            let training = prior::Training::preset(preset).ok_or_else(unknown)?;
            let training = prior::Training { batch: batch.unwrap_or(training.batch), views: 1, ..training };
            let folder = autoencoder.ok_or("a prior needs --autoencoder FOLDER")?;
            let tokeniser = prior::Tokeniser::open(folder)?;
            let side = config.columns * tokeniser.autoencoder().stride();
            let example = |at| prior::Example { plane: waves(side, at), condition: [1, 1], folder: 0 };
            let learned = vec![(0..IMAGES).map(example).collect()];
            let examples = prior::Examples { learned, watched: Vec::new(), digest: String::new(), spacing_mm: None };
            let parameters = config.parameters();
            (Box::new(prior::Learner::new(config, training, tokeniser, examples, 1, None)?), parameters)
        }
        "vqgan" => {
            let config = vqgan::Config::preset(preset).ok_or_else(unknown)?;
            let mut training = vqgan::Training::preset(preset).ok_or_else(unknown)?;
            training.crops.truncate(1);
            training.precision = precision.unwrap_or(training.precision);
            for crops in &mut training.crops {
                crops.batch = batch.unwrap_or(crops.batch);
            }
            let largest = training.crops.iter().map(|crops| crops.size).max().unwrap_or(512);
            let learner = vqgan::Learner::new(config, training, dataset(largest.max(512)), 1, None)?;
            let parameters = learner.network().trainable().iter().map(|(_, tensor)| tensor.numel()).sum();
            (Box::new(learner), parameters)
        }
        other => {
            return Err(format!(
                "{other:?} is not timed here; choose unet, yolo, prior, ddpm, styleswin, singan or vqgan"
            )
            .into());
        }
    };
    let skipped = match kind {
        "prior" => 4 * IMAGES as u64,
        "singan" => learner.steps_planned() - steps,
        _ => WARM,
    };
    Ok((learner, parameters, skipped))
}

fn dataset(side: usize) -> Dataset {
    let sample = |at| Sample { name: format!("waves {at}"), folder: 0, plane: waves(side, at) };
    Dataset::new((0..IMAGES).map(sample).collect(), String::new())
}

/// Picture `at` of `side` x `side` pixels in [-1, 1] with something in it everywhere.
fn waves(side: usize, at: usize) -> Plane {
    let phase = at as f32;
    let value = |place: usize| {
        let (x, y) = ((place % side) as f32, (place / side) as f32);
        0.6 * (x / 7.0 + phase).sin() * (y / 11.0).cos() + 0.3 * (x * y / 97.0).sin()
    };
    Plane::new(side, side, (0..side * side).map(value).collect())
}

/// A disc: 1 inside, -1 outside.
fn disc(side: usize, at: usize) -> Plane {
    let middle = side as f32 * (0.4 + 0.2 * at as f32 / IMAGES as f32);
    let value = |place: usize| {
        let (x, y) = ((place % side) as f32 - middle, (place / side) as f32 - middle);
        if x.hypot(y) < 0.3 * side as f32 { 1.0 } else { -1.0 }
    };
    Plane::new(side, side, (0..side * side).map(value).collect())
}

/// VmHWM of this process in MB.
fn peak_mb() -> Result<u64, Fault> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("/proc/self/status has no VmHWM")?;
    let kilobytes: u64 = line.split_whitespace().nth(1).ok_or("VmHWM has no value")?.parse()?;
    Ok(kilobytes / 1024)
}
