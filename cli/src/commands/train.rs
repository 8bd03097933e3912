//! `hiresmed train`: trains a model on the user's own images, in rounds that survive any interruption.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use hiresmed_coordinator::{Ending, models};
use hiresmed_models::{ddpm, prior, singan, styleswin, unet, vqgan, yolo};
use hiresmed_protocol::{
    Class, Digest, Request, RequestId, VERSION, keys,
    request::{Modality, Train, TrainedModel},
};
use hiresmed_scores::copying::SUSPECT_SCORE;

use super::{ModalityArgument, StateArgument, conclude};
use crate::{failure, fleet::Fleet, intake::training::Data, trainer};

/// Scales that a lesion's pyramid usually has: a preset says how many iterations each gets.
const USUAL_SCALES: u64 = 6;

/// Train a model on images of your own; the same call again goes on from the last checkpoint
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The autoencoder of backgrounds, on slices
    Vqgan(Training),
    /// The lesion of one exemplar: NAME.png or NAME.dcm beside NAME.mask.png
    Singan(Training),
    /// The region where a lesion may lie, on pairs of NAME.png or NAME.dcm and NAME.mask.png
    Unet(Training),
    /// The tokens of an autoencoder, to sample backgrounds; on slices
    Prior(Training),
    /// The detector of lesions, on slices with boxes: NAME.txt beside them, or in `labels` beside `images`, or in a COCO list or a table (CSV)
    Yolo(Training),
    /// Whole slices by denoising diffusion, a baseline
    Ddpm(Training),
    /// Whole slices by a StyleSwin, a baseline
    Styleswin(Training),
    /// Train an autoencoder with HDFB and with residual blocks, and tell what each takes to reach the same loss and fidelity
    #[command(disable_help_flag = true)]
    Compare {
        /// As `hiresmed train compare --help` tells
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
struct Training {
    /// Folders with the images, each walked recursively
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    modality: ModalityArgument,
    /// The network's and the training's configuration by name
    #[arg(long)]
    preset: String,
    /// Optimiser steps [default: the preset's]
    #[arg(long)]
    steps: Option<u64>,
    /// From which data order, initial weights and noise are derived
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The name by which requests can call the model [default: MODEL-PRESET-SEED]
    #[arg(long)]
    name: Option<String>,
    /// An autoencoder by name or digest: for a prior, that whose tokens it learns [default: the one that comes with the project];
    /// for a vqgan, that with whose encoder its perceptual term is measured
    #[arg(long, value_name = "NAME")]
    autoencoder: Option<String>,
    /// For a vqgan's perceptual term, AlexNet's or VGG16's weights by their published names, and LPIPS' linear ones in it or in
    /// STEM.lin.safetensors beside it (safetensors or ONNX)
    #[arg(long, value_name = "FILE")]
    perceptual: Option<PathBuf>,
    /// Series (a folder's name) and files (the name without extension) that are kept out of training; `A*` stands for every
    /// name that begins with A. A finished vqgan, unet or yolo is scored on them
    #[arg(long, value_name = "NAME", num_args = 1..)]
    hold_out: Vec<String>,
    #[command(flatten)]
    state: StateArgument,
}

/// Runs the command.
///
/// # Errors
/// The preset is unknown, the data cannot be taken, the trainer is not there, or the training failed.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (model, training) = match &arguments.command {
        Command::Vqgan(training) => (TrainedModel::Vqgan, training),
        Command::Singan(training) => (TrainedModel::Singan, training),
        Command::Unet(training) => (TrainedModel::Unet, training),
        Command::Prior(training) => (TrainedModel::Prior, training),
        Command::Yolo(training) => (TrainedModel::Yolo, training),
        Command::Ddpm(training) => (TrainedModel::Ddpm, training),
        Command::Styleswin(training) => (TrainedModel::Styleswin, training),
        Command::Compare { arguments } => return compare(arguments),
    };
    train(model, training)
}

/// Leaves the comparison to the trainer, which is told the rest of the command line.
fn compare(arguments: &[OsString]) -> Result<ExitCode> {
    let status = trainer::command(&trainer::program()?).arg("compare").args(arguments).status();
    let status = status.context("the trainer cannot be started")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn train(model: TrainedModel, arguments: &Training) -> Result<ExitCode> {
    let steps = steps(model, arguments)?;
    let default_name = || format!("{model}-{}-{}", arguments.preset, arguments.seed);
    let name = arguments.name.clone().unwrap_or_else(default_name);
    if Modality::ALL.iter().any(|modality| modality.default_alias() == name) {
        return Err(failure::refused(anyhow!("--name {name}: that name is for the models that come with the project")));
    }
    let weighs = vqgan::Training::preset(&arguments.preset).is_some_and(|training| training.loss.perceptual > 0.0);
    if model == TrainedModel::Vqgan && weighs && arguments.perceptual.is_none() && arguments.autoencoder.is_none() {
        return Err(failure::refused(anyhow!(
            "--preset {}: its perceptual term needs --perceptual FILE with AlexNet's or VGG16's weights, or --autoencoder NAME, whose \
             encoder's features will do",
            arguments.preset
        )));
    }
    let data = Data::check(model, &arguments.preset, &arguments.data, &arguments.hold_out)?;
    // Before the data are copied: without it nothing can come of them.
    trainer::program()?;
    let fleet = arguments.state.open()?;
    let (data, score_on) = fleet.wait(data.take(fleet.store(), fleet.site(), &fleet.names()))?;
    let perceptual = arguments.perceptual.as_deref().map(|path| backbone(&fleet, path)).transpose()?;
    let request = Request::Train(Train {
        version: VERSION,
        name: name.clone(),
        model,
        preset: arguments.preset.clone(),
        data,
        steps,
        seed: arguments.seed,
        autoencoder: arguments.autoencoder.clone(),
        modality: arguments.modality.modality(),
        perceptual,
        // What is held out is not in the data.
        hold_out: Vec::new(),
        score_on,
        class: Class::Batch,
    });
    let id = fleet.submit(&request)?.request;
    eprintln!("training {model} `{name}` as request {id}; stop and repeat this command at any time");
    let ending = fleet.finish(&id)?;
    let code = conclude(&id, &ending)?;
    if let Ending::Completed { .. } = ending {
        registered(&fleet, &id, model, &name)?;
    }
    Ok(code)
}

/// Puts the file, and the linear weights beside it, among the inputs, and gives the source's name.
fn backbone(fleet: &Fleet, path: &Path) -> Result<String> {
    let bytes =
        fs::read(path).map_err(|error| failure::refused(anyhow!("--perceptual {}: {error}", path.display())))?;
    let source = format!("perceptual-{:.16}", Digest::of(&bytes).to_string());
    let prefix = format!("{}{source}/", keys::inputs(fleet.site()));
    let ending = if path.extension().is_some_and(|ending| ending == "onnx") { "onnx" } else { "safetensors" };
    fleet.wait(fleet.store().put(&format!("{prefix}network.{ending}"), bytes.into()))?;
    if let Ok(linear) = fs::read(path.with_extension("lin.safetensors")) {
        fleet.wait(fleet.store().put(&format!("{prefix}network.lin.safetensors"), linear.into()))?;
    }
    Ok(source)
}

fn registered(fleet: &Fleet, id: &RequestId, model: TrainedModel, name: &str) -> Result<()> {
    let digest = fleet
        .wait(models::resolve(fleet.ledger(), "name", model.as_str(), name))
        .with_context(|| format!("training {id} ended, but its model is not registered"))?;
    println!("{digest}");
    eprintln!("complete; requests can name it as {model} = \"{name}\"");
    let key = format!("{}model.json", keys::model(model.as_str(), &digest));
    if fleet.wait(fleet.store().get(&key)).is_ok_and(|description| recites(&description)) {
        eprintln!(
            "warning: its samples are nearer to the training images than other images are: it may recite them; `hiresmed model list --json` \
             names its card, which says more. Hold samples beside the training images before one leaves the site"
        );
    }
    Ok(())
}

/// Whether a model's description says that the model may recite what it was trained on.
fn recites(description: &[u8]) -> bool {
    let description: serde_json::Value = serde_json::from_slice(description).unwrap_or_default();
    description["scores"][SUSPECT_SCORE].as_f64() == Some(1.0)
}

fn steps(model: TrainedModel, arguments: &Training) -> Result<u64> {
    let preset = &*arguments.preset;
    let (of_preset, known): (Option<u64>, &[&str]) = match model {
        TrainedModel::Vqgan => (vqgan::Training::preset(preset).map(|training| training.steps), &vqgan::PRESETS),
        TrainedModel::Singan => {
            let steps = singan::Training::preset(preset).map(|training| training.iterations * USUAL_SCALES);
            (steps, &singan::Training::PRESETS)
        }
        TrainedModel::Unet => (unet::Training::preset(preset).map(|training| training.steps), &unet::Training::PRESETS),
        TrainedModel::Prior => (prior::Training::preset(preset).map(|training| training.steps), &prior::PRESETS),
        TrainedModel::Yolo => (yolo::Training::preset(preset).map(|training| training.steps), &yolo::Training::PRESETS),
        TrainedModel::Ddpm => (ddpm::Training::preset(preset).map(|training| training.steps), &ddpm::PRESETS),
        TrainedModel::Styleswin => {
            (styleswin::Training::preset(preset).map(|training| training.steps), &styleswin::PRESETS)
        }
    };
    let unknown = || failure::refused(anyhow!("--preset {preset}: unknown; known are {}", known.join(", ")));
    Ok(arguments.steps.unwrap_or(of_preset.ok_or_else(unknown)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_said_to_recite_where_its_description_says_so() {
        let with = |score: &str| format!(r#"{{"scores": {{"{SUSPECT_SCORE}": {score}}}}}"#);
        assert!(recites(with("1.0").as_bytes()));
        for other in [with("0.0"), "{}".to_owned(), "no description".to_owned()] {
            assert!(!recites(other.as_bytes()), "{other}");
        }
    }
}
