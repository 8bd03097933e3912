//! Trains the shipped SinGANs and the shipped U-Net, on one thread, resuming where an earlier call stopped.
//!
//! `cargo run --release -p hiresmed-models --features training --example train_lesions -- singan EXEMPLARS OUT [NAME...]` trains one
//! SinGAN for every exemplar (or those named) that `lesion_exemplars` or `kub stones` wrote, side by side in batches; `... -- paper
//! EXEMPLARS OUT NAME...` does so by the published recipe, with which `compare_lesions` compares; `... -- unet REGIONS OUT` trains the
//! U-Net on what `lung_regions` wrote, without the slices of [`HELD_OUT`], `... -- kub PAIRS OUT` that on what `kub pairs` wrote,
//! without [`HELD_OUT_KUB`]. Checkpoints go to OUT/NAME. At the end the seconds are told, of the clock and of the processor.

use hiresmed_models::singan::train_together;
use hiresmed_models::training::{Budget, Flow, Kind, Progress, Specification, train};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Slices that the U-Net is scored on: three blocks of four, apart from what it learns from by a slice each side.
const HELD_OUT: [std::ops::RangeInclusive<u32>; 3] = [4..=9, 18..=23, 31..=36];

/// Radiographs that the U-Net is scored on.
const HELD_OUT_KUB: [&str; 2] = ["kub_drr_03", "kub_drr_06"];

/// Time between two checkpoints.
const ROUND: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tch::set_num_threads(1);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, data, out, names @ ..] = arguments.as_slice() else {
        return Err("usage: train_lesions singan|paper|unet|kub DATA OUT [NAME...]".into());
    };
    let (data, out) = (PathBuf::from(data), Path::new(out));
    let specification = |kind, preset: &str, settings| Specification {
        kind,
        preset: preset.to_owned(),
        data: vec![data.clone()],
        hold_out: Vec::new(),
        steps: None,
        seed: 1,
        autoencoder: None,
        perceptual: None,
        settings,
    };
    if kind == "unet" {
        let hold_out = HELD_OUT.into_iter().flatten().map(|index| format!("z{index:02}")).collect();
        let lung = Specification { hold_out, ..specification(Kind::Unet, "lung", serde_json::Value::Null) };
        return run(&lung, &out.join("unet"));
    }
    if kind == "kub" {
        let hold_out = HELD_OUT_KUB.map(str::to_owned).to_vec();
        let kub = Specification { hold_out, ..specification(Kind::Unet, "kub", serde_json::Value::Null) };
        return run(&kub, &out.join("unet-kub"));
    }
    let mut names = names.to_vec();
    if names.is_empty() {
        let files = std::fs::read_dir(&data)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names = files.filter_map(|file| Some(file.strip_suffix(".mask.png")?.to_owned())).collect();
        names.sort();
    }
    let preset = match kind.as_str() {
        "singan" => "lesion",
        "paper" => "paper",
        other => return Err(format!("{other:?} is no kind; choose singan, paper or unet").into()),
    };
    let started = std::time::Instant::now();
    let mut progress = |name: &str, step: &Progress| tell(name, step);
    let lesions = specification(Kind::Singan, preset, serde_json::Value::Null);
    train_together(&lesions, &names, out, ROUND, &mut progress)?;
    println!(
        "{} exemplars in {:.0} s, {:.0} s of the processor",
        names.len(),
        started.elapsed().as_secs_f64(),
        processor_seconds()?
    );
    Ok(())
}

fn run(specification: &Specification, folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let budget = Budget { steps: None, duration: Some(ROUND) };
    let name = folder.display().to_string();
    train(specification, folder, None, budget, &mut |step| tell(&name, step), &mut |_, _| {})?;
    Ok(())
}

fn tell(name: &str, step: &Progress) -> Flow {
    if step.step.is_multiple_of(25) {
        let figures: Vec<String> = step.figures.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        println!("{name} {}/{} {:.3} s {}", step.step, step.planned, step.seconds, figures.join(" "));
    }
    Flow::Continue
}

/// Processor time of this process so far, all threads, s (proc(5): `utime` and `stime` in ticks of a hundredth).
fn processor_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}
