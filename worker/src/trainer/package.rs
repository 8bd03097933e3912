//! `hiresmed-trainer package`: what a training reached, as a model package with a card.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use hiresmed_inference::{Runtime, SessionOptions, package::Package};
use hiresmed_models::{
    training::{Naming, product},
    vqgan::Autoencoder,
    weights::Weights,
};

use super::{
    card::{self, Crop},
    evaluate::{described, evaluate, fidelity, slices},
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
    /// Markdown file with the card's words on limits.
    #[arg(long)]
    limits: Option<PathBuf>,
    /// Folder of packages; the package is written below it.
    #[arg(long)]
    out: PathBuf,
}

/// Exports the checkpoint, scores the exported graphs on the held-out images and writes the package.
///
/// # Errors
/// For a checkpoint that cannot be read or exported, held-out images that cannot be read, and a folder that cannot be
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
    let product = product(&checkpoint, &naming)?;
    let (mut draft, mut files) = (product.draft, product.files);

    // The scores are those of the graphs that are shipped, through the runtime that runs them.
    let scratch = tempfile::tempdir().context("no temporary folder can be made")?;
    let bare = Package::write(scratch.path(), draft.clone(), &borrowed(&files))?;
    let model = Autoencoder::open(&bare, &Runtime::load()?, &SessionOptions::default())?;
    let held = evaluate(&model, slices(&options.held_out)?)?;
    for held in &held {
        tracing::info!(
            image = held.name,
            psnr_db = held.psnr_db,
            ssim = held.ssim,
            codes = held.codes,
            "reconstructed"
        );
    }
    draft.scores = described(fidelity(&held), held.len());

    let limits = match &options.limits {
        None => String::new(),
        Some(path) => fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
    };
    if let Some(sheet) = card::crops(&held, &options.crop)? {
        files.push(("crops.png".to_owned(), sheet));
    }
    files.push(("card.md".to_owned(), card::text(&draft, &checkpoint, &held, &options.crop, &limits)?.into_bytes()));
    let package = Package::write(&options.out, draft, &borrowed(&files))?;
    let scores = &package.description().scores;
    tracing::info!(folder = %package.directory().display(), ?scores, "package written");
    Ok(package)
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
}
