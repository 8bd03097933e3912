//! `hiresmed-trainer package`: what a training reached, as a model package with a card.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, bail};
use hiresmed_inference::{
    Runtime, SessionOptions,
    package::{CARD_FILE, Kind, Package},
};
use hiresmed_models::{
    training::{self, Naming, product},
    vqgan::Autoencoder,
    weights::Weights,
};

use super::{
    card::{self, Crop},
    evaluate::{Held, described, evaluate, fidelity, slices},
    originality::{Originality, Trial, draws_whole_images},
};

/// What the package says, and where it goes.
#[derive(Debug, clap::Args)]
pub struct PackageOptions {
    /// The checkpoint; its training need not be complete.
    checkpoint: PathBuf,
    /// Name by which requests call the model.
    #[arg(long)]
    name: String,
    /// Name of the training data, and the part of it that was used.
    #[arg(long)]
    data_name: String,
    /// Licence and attribution of the training data.
    #[arg(long)]
    data_licence: String,
    /// Licence of the weights.
    #[arg(long, default_value = "CC-BY-4.0")]
    licence: String,
    /// Kind of image: `kub`; `ct` without.
    #[arg(long)]
    modality: Option<String>,
    /// Folder of held-out images, for the scores; may be given several times.
    #[arg(long, required = true, num_args = 1..)]
    held_out: Vec<PathBuf>,
    /// A crop to show in the card, as NAME:LABEL:X,Y,SIDE with the held-out image's name; may be given several times.
    #[arg(long, num_args = 1..)]
    crop: Vec<Crop>,
    /// Folder that a model which draws whole images was trained on; may be given several times.
    #[arg(long, num_args = 1..)]
    data: Vec<PathBuf>,
    /// What of these it was not trained on, as in `run`; may be given several times.
    #[arg(long, num_args = 1..)]
    hold_out: Vec<String>,
    /// Folder of the package that decodes a prior's tokens.
    #[arg(long)]
    autoencoder: Option<PathBuf>,
    /// Samples that are held against the images of the training.
    #[arg(long, default_value_t = Trial::SAMPLES)]
    samples: u64,
    /// Steps of a diffusion model's sample.
    #[arg(long, default_value_t = Trial::STEPS)]
    sample_steps: usize,
    /// File for a sheet of samples, each above the training image nearest to it: to look at, and no part of the package.
    #[arg(long, value_name = "PNG")]
    nearest: Option<PathBuf>,
    /// Store large weights in half precision.
    #[arg(long)]
    half: bool,
    /// Markdown file with the card's words on limits.
    #[arg(long)]
    limits: Option<PathBuf>,
    /// Folder of packages; the package is written below it.
    #[arg(long)]
    out: PathBuf,
}

/// Exports the checkpoint of an autoencoder and scores it on the held-out images, or that of a model which draws whole images and holds
/// its samples against those that it was trained on, and writes the package.
///
/// # Errors
/// For a checkpoint of another kind or that cannot be read or exported, images that cannot be read, and a folder that cannot be
/// written.
pub fn package(options: &PackageOptions) -> anyhow::Result<Package> {
    let checkpoint = Weights::read(&options.checkpoint)?;
    let naming = Naming {
        name: options.name.clone(),
        data: options.data_name.clone(),
        data_licence: options.data_licence.clone(),
        licence: options.licence.clone(),
        modality: options.modality.clone(),
    };
    let mut product = product(&checkpoint, &naming)?;
    if options.half {
        product = product.with_half_weights()?;
    }
    let (mut draft, mut files) = (product.draft, product.files);
    let limits = match &options.limits {
        None => String::new(),
        Some(path) => fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
    };

    // What is judged are the graphs that are shipped, through the runtime that runs them.
    let scratch = tempfile::tempdir().context("no temporary folder can be made")?;
    let bare = Package::write(scratch.path(), draft.clone(), &borrowed(&files))?;
    let card = match draft.kind {
        Kind::Vqgan | Kind::VqganResidual => {
            let model = Autoencoder::open(&bare, &Runtime::load()?, &SessionOptions::default())?;
            let held = evaluate(&model, slices(&options.held_out)?)?;
            log(&held);
            draft.scores = described(fidelity(&held), held.len());
            if let Some(sheet) = card::crops(&held, &options.crop)? {
                files.push(("crops.png".to_owned(), sheet));
            }
            card::text(&draft, &checkpoint, &held, &options.crop, &limits)?
        }
        kind if draws_whole_images(kind) => {
            let trial = Trial {
                folders: &options.data,
                hold_out: &options.hold_out,
                autoencoder: options.autoencoder.as_deref(),
                samples: options.samples,
                steps: options.sample_steps,
            };
            let originality = Originality::of(&bare, &trial, &slices(&options.held_out)?, || false)?;
            let section = originality.enter(&mut draft, &mut files);
            if let Some(path) = &options.nearest {
                let written = fs::write(path, originality.sheet_beside_nearest());
                written.with_context(|| format!("cannot write {}", path.display()))?;
            }
            let limits = Some(limits.as_str()).filter(|limits| !limits.trim().is_empty());
            training::card(&draft, &checkpoint, &files, Some(&section), limits)
        }
        kind => bail!("a {} is packaged by the fleet alone: `hiresmed train`", kind.name()),
    };
    files.push((CARD_FILE.to_owned(), card.into_bytes()));
    let package = Package::write(&options.out, draft, &borrowed(&files))?;
    let scores = &package.description().scores;
    tracing::info!(folder = %package.directory().display(), ?scores, "package written");
    Ok(package)
}

fn log(held: &[Held]) {
    for held in held {
        tracing::info!(
            image = held.name,
            psnr_db = held.psnr_db,
            ssim = held.ssim,
            codes = held.codes,
            "reconstructed"
        );
    }
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
}
