//! Trains the shipped SinGANs and the shipped U-Net, on one thread, resuming where an earlier call stopped.
//!
//! `cargo run --release -p hiresmed-models --features training --example train_lesions -- singan EXEMPLARS OUT [NAME...]` trains one
//! SinGAN for every exemplar (or those named) that `lesion_exemplars` or `kub stones` wrote, `... -- unet REGIONS OUT` the U-Net on
//! what `lung_regions` wrote, without the slices of [`HELD_OUT`], `... -- kub PAIRS OUT` that on what `kub pairs` wrote, without
//! [`HELD_OUT_KUB`]. Checkpoints go to OUT/NAME.

use hiresmed_models::training::{Budget, Flow, Kind, Specification, train};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Slices that the U-Net is scored on: three blocks of four, apart from what it learns from by a slice each side.
const HELD_OUT: [std::ops::RangeInclusive<u32>; 3] = [4..=9, 18..=23, 31..=36];

/// Radiographs that the U-Net is scored on.
const HELD_OUT_KUB: [&str; 2] = ["kub_drr_03", "kub_drr_06"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tch::set_num_threads(1);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, data, out, names @ ..] = arguments.as_slice() else {
        return Err("usage: train_lesions singan|unet|kub DATA OUT [NAME...]".into());
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
    for name in names {
        run(&specification(Kind::Singan, "lesion", serde_json::json!({ "exemplar": name })), &out.join(&name))?;
    }
    Ok(())
}

fn run(specification: &Specification, folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let budget = Budget { steps: None, duration: Some(Duration::from_secs(60)) };
    let mut progress = |step: &hiresmed_models::training::Progress| {
        if step.step.is_multiple_of(25) {
            let figures: Vec<String> = step.figures.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            println!("{} {}/{} {:.2} s {}", folder.display(), step.step, step.planned, step.seconds, figures.join(" "));
        }
        Flow::Continue
    };
    train(specification, folder, None, budget, &mut progress, &mut |_, _| {})?;
    Ok(())
}
