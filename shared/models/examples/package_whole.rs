//! Packages a SinGAN of a whole image, with a sheet of samples beside what it learned.
//!
//! `cargo run --release -p hiresmed-models --features training --example package_whole -- CHECKPOINT ROOT NAME LIMITS DATA LICENCE EXEMPLAR`:
//! ROOT gets `singan-whole/{digest}/`, LIMITS is a file with the card's words on limits, DATA and LICENCE name the exemplar's source, EXEMPLAR
//! is its file. The exemplar is in the sheet: it must be free to ship.

use hiresmed_imaging::{
    Plane, Window,
    resample::{Filter, resize},
    series,
    sheet::{Tile, contact_sheet},
};
use hiresmed_inference::{
    Package, Runtime, SessionOptions,
    package::{CARD_FILE, Draft},
};
use hiresmed_models::{
    singan::WholeImage,
    training::{Naming, product},
    weights::Weights,
};
use std::path::Path;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Samples that are judged, and of them on the sheet; the sheet's columns, and a picture's side, px.
const COUNT: u64 = 32;
const SHOWN: usize = 7;
const COLUMNS: usize = 4;
const TILE: usize = 256;
const SEED: u64 = 1;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [checkpoint, root, name, limits, data, licence, exemplar] = arguments.as_slice() else {
        return Err("usage: package_whole CHECKPOINT ROOT NAME LIMITS DATA LICENCE EXEMPLAR".into());
    };
    let weights = Weights::read(Path::new(checkpoint))?;
    let naming = Naming {
        name: name.clone(),
        data: data.clone(),
        data_licence: licence.clone(),
        licence: licence.split([':', ' ']).take(3).collect::<Vec<_>>().join("-"),
        modality: None,
    };
    let product = product(&weights, &naming)?.with_half_weights()?;
    let (mut draft, mut files) = (product.draft, product.files);
    let scratch = tempfile::tempdir()?;
    let bare = Package::write(scratch.path(), draft.clone(), &borrowed(&files))?;
    let sampler = WholeImage::open(&bare, &Runtime::load()?, &SessionOptions::default())?;
    let samples = (0..COUNT).map(|index| sampler.sample(SEED, index)).collect::<Result<Vec<_>, _>>()?;
    let slice = series::read_file(Path::new(exemplar))?.into_iter().next().ok_or("no image")?;
    let learned = resize(&slice.normalised(Window::LUNG_CT), samples[0].width(), samples[0].height(), Filter::Area);
    let (near, apart) = (
        middle(samples.iter().map(|sample| difference(sample, &learned)).collect()),
        middle((1..samples.len()).map(|at| difference(&samples[at - 1], &samples[at])).collect()),
    );
    println!("to the exemplar {near:.4}, to each other {apart:.4}");
    draft.scores.extend([("to_exemplar_middle".to_owned(), near), ("samples_apart_middle".to_owned(), apart)]);
    let shown = std::iter::once(&learned).chain(samples.iter().take(SHOWN));
    let tiles: Vec<Tile> = shown.map(|image| Tile::normalised(image, None)).collect();
    files.push(("samples.png".to_owned(), contact_sheet(&tiles, COLUMNS, TILE)));
    let steps = weights.metadata.get("iterations").map_or("?", String::as_str);
    let card = card(&draft, steps, (near, apart), &std::fs::read_to_string(limits)?);
    files.push((CARD_FILE.to_owned(), card.into_bytes()));
    let package = Package::write(Path::new(root), draft, &borrowed(&files))?;
    println!("{}", package.directory().display());
    Ok(())
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
}

/// Root mean square difference of two images, which span [-1, 1].
fn difference(a: &Plane, b: &Plane) -> f64 {
    let squares = a.data().iter().zip(b.data()).map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / a.data().len() as f64).sqrt()
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).map_or(0.0, |value| (value * 1e4).round() / 1e4)
}

/// The card's text (Markdown).
fn card(draft: &Draft, steps: &str, (near, apart): (f64, f64), limits: &str) -> String {
    let mut card = format!(
        "# {}\n\nSinGAN of one whole image, a baseline of table 2; {} parameters, iterations of each scale {steps}. To compare with, not to \
         use: it is no diagnostic device.\n\n## Data\n\n",
        draft.name, draft.parameters
    );
    for data in &draft.training_data {
        card += &format!("- {}. {}. SHA-256 over the pixels: `{}`\n", data.name, data.licence, data.digest);
    }
    card + &format!(
        "- Licence of the weights: {}\n\n## Does it recite?\n\nIt has learned one image, and whatever it draws is that image rearranged: the samples of \
         this baseline are not anonymous, and are not meant to be. Root mean square difference over [-1, 1] of {COUNT} samples, middle: to \
         the image that was learned {near:.3}, to each other {apart:.3}.\n\n![the image that was learned, first, and samples](samples.png)\n\n\
         ## Limits\n\n{}\n",
        draft.licence,
        limits.trim()
    )
}
