//! `hiresmed train`: trains a model on the user's own images, in rounds that survive any interruption.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use hiresmed_coordinator::{Ending, models};
use hiresmed_models::{prior, singan, styleswin, unet, vqgan, yolo};
use hiresmed_protocol::{
    Class, Request, RequestId, VERSION,
    request::{Train, TrainedModel},
};

use super::{StateArgument, conclude};
use crate::{failure, fleet::Fleet, intake::training::Data, trainer};

/// Scales that a lesion's pyramid usually has: a preset says how many iterations each gets.
const USUAL_SCALES: u64 = 6;

/// Train a model on images of your own; the same call again goes on from the last checkpoint
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which network
    #[arg(value_enum)]
    model: Model,
    /// Folders with the images, each walked recursively: slices for vqgan, prior and styleswin; NAME.png or NAME.dcm beside
    /// NAME.mask.png for unet, and one such pair for singan; slices with boxes for yolo, as NAME.txt beside them (or in `labels`
    /// beside `images`) or in a COCO list
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
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
    /// For a prior, the autoencoder whose tokens it learns, by name or digest [default: the one that comes with the project]
    #[arg(long, value_name = "NAME")]
    autoencoder: Option<String>,
    /// Series (a folder's name) and files (the name without extension) that are kept out of training; `A*` stands for every
    /// name that begins with A
    #[arg(long, value_name = "NAME", num_args = 1..)]
    hold_out: Vec<String>,
    #[command(flatten)]
    state: StateArgument,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Model {
    /// The autoencoder of backgrounds
    Vqgan,
    /// The lesion of one exemplar
    Singan,
    /// The region where a lesion may lie
    Unet,
    /// The tokens of an autoencoder, to sample backgrounds
    Prior,
    /// The detector of lesions
    Yolo,
    /// A baseline that draws whole slices
    Styleswin,
}

/// Runs the command.
///
/// # Errors
/// The preset is unknown, the data cannot be taken, the trainer is not there, or the training failed.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let steps = steps(arguments)?;
    let model = TrainedModel::from(arguments.model);
    let default_name = || format!("{model}-{}-{}", arguments.preset, arguments.seed);
    let name = arguments.name.clone().unwrap_or_else(default_name);
    if name == "default" {
        return Err(failure::refused(anyhow!(
            "--name default: that name is for the models that come with the project"
        )));
    }
    let data = Data::check(model, &arguments.preset, &arguments.data, &arguments.hold_out)?;
    // Before the data are copied: without it nothing can come of them.
    trainer::program()?;
    let fleet = arguments.state.open()?;
    let data = fleet.wait(data.take(fleet.store(), fleet.site(), &fleet.names()))?;
    let request = Request::Train(Train {
        version: VERSION,
        name: name.clone(),
        model,
        preset: arguments.preset.clone(),
        data,
        steps,
        seed: arguments.seed,
        autoencoder: arguments.autoencoder.clone(),
        // What is held out is not in the data.
        hold_out: Vec::new(),
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

fn registered(fleet: &Fleet, id: &RequestId, model: TrainedModel, name: &str) -> Result<()> {
    let digest = fleet
        .wait(models::resolve(fleet.ledger(), "name", model.as_str(), name))
        .with_context(|| format!("training {id} ended, but its model is not registered"))?;
    println!("{digest}");
    eprintln!("complete; requests can name it as {model} = \"{name}\"");
    Ok(())
}

fn steps(arguments: &Arguments) -> Result<u64> {
    let preset = &*arguments.preset;
    let (of_preset, known): (Option<u64>, &[&str]) = match arguments.model {
        Model::Vqgan => (vqgan::Training::preset(preset).map(|training| training.steps), &vqgan::PRESETS),
        Model::Singan => {
            let steps = singan::Training::preset(preset).map(|training| training.iterations * USUAL_SCALES);
            (steps, &singan::Training::PRESETS)
        }
        Model::Unet => (unet::Training::preset(preset).map(|training| training.steps), &unet::Training::PRESETS),
        Model::Prior => (prior::Training::preset(preset).map(|training| training.steps), &prior::PRESETS),
        Model::Yolo => (yolo::Training::preset(preset).map(|training| training.steps), &yolo::Training::PRESETS),
        Model::Styleswin => (styleswin::Training::preset(preset).map(|training| training.steps), &styleswin::PRESETS),
    };
    let unknown = || failure::refused(anyhow!("--preset {preset}: unknown; known are {}", known.join(", ")));
    Ok(arguments.steps.unwrap_or(of_preset.ok_or_else(unknown)?))
}

impl From<Model> for TrainedModel {
    fn from(model: Model) -> Self {
        match model {
            Model::Vqgan => Self::Vqgan,
            Model::Singan => Self::Singan,
            Model::Unet => Self::Unet,
            Model::Prior => Self::Prior,
            Model::Yolo => Self::Yolo,
            Model::Styleswin => Self::Styleswin,
        }
    }
}
