//! Packages a trained StyleSwin with the evidence that it does not recite and has not collapsed: distances of samples and of held-out
//! images to the nearest training image, and of samples to each other.
//!
//! `cargo run --release -p hiresmed-models --features training --example package_styleswin -- CHECKPOINT ROOT SHEET LIMITS NAME DATA
//! LICENCE TRAINED... -- HELD...`: ROOT gets `styleswin/{digest}/`, SHEET a picture of samples over the training images nearest to
//! them (to look at; it shows the training data, and is no part of the package), LIMITS is Markdown for the card, DATA and LICENCE
//! name the training data, TRAINED are the folders that it was trained on, HELD folders or files that it never saw, in these folders or
//! elsewhere.

use hiresmed_imaging::{
    Plane, Window, series,
    sheet::{Tile, contact_sheet},
};
use hiresmed_inference::{
    Package, Runtime, SessionOptions,
    package::{CARD_FILE, Draft},
};
use hiresmed_models::{
    data::square,
    styleswin::Sampler,
    training::{Naming, product},
    weights::Weights,
};
use std::{path::Path, time::Instant};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Samples that are judged, and those on the sheet; a row of it; side of a picture, px.
const COUNT: u64 = 64;
const SHOWN: usize = 16;
const COLUMNS: usize = 8;
const TILE: usize = 160;
/// Seed of the samples.
const SEED: u64 = 1;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let split = arguments.iter().position(|argument| argument == "--");
    let (Some(split), [checkpoint, root, sheet, limits, name, data, licence, ..]) = (split, arguments.as_slice())
    else {
        return Err(
            "usage: package_styleswin CHECKPOINT ROOT SHEET LIMITS NAME DATA LICENCE TRAINED... -- HELD...".into()
        );
    };
    let trained = arguments.get(7..split).ok_or("no folder of training images is named")?;
    let weights = Weights::read(Path::new(checkpoint))?;
    let naming = Naming {
        name: name.clone(),
        data: data.clone(),
        data_licence: licence.clone(),
        licence: "CC-BY-4.0".to_owned(),
        modality: None,
    };
    let product = product(&weights, &naming)?.with_half_weights()?;
    let (mut draft, mut files) = (product.draft, product.files);
    // The scores are those of the graph that is shipped, through the runtime that runs it.
    let scratch = tempfile::tempdir()?;
    let bare = Package::write(scratch.path(), draft.clone(), &borrowed(&files))?;
    let sampler = Sampler::open(&bare, &Runtime::load()?, &SessionOptions::default())?;
    let start = Instant::now();
    let samples = (0..COUNT).map(|index| sampler.sample(SEED, index)).collect::<Result<Vec<_>, _>>()?;
    println!("{:.1} ms a sample", start.elapsed().as_secs_f64() * 1000.0 / COUNT as f64);
    let held = images(&arguments[split + 1..], sampler.side())?;
    let mut trained = images(trained, sampler.side())?;
    // What was held out may lie in a folder of the training.
    trained.retain(|image| held.iter().all(|other| other.data() != image.data()));
    let spreads = [
        (
            "samples_nearest",
            spread(samples.iter().filter_map(|image| nearest(image, &trained)).map(|(_, d)| d).collect()),
        ),
        (
            "held_out_nearest",
            spread(held.iter().filter_map(|image| nearest(image, &trained)).map(|(_, d)| d).collect()),
        ),
        ("samples_apart", spread(pairs(&samples))),
        ("training_apart", spread(pairs(&trained))),
    ];
    println!("{} trained, {} held out\n{spreads:#?}", trained.len(), held.len());
    for (name, [least, middle, _]) in spreads {
        draft.scores.insert(format!("{name}_least"), least);
        draft.scores.insert(format!("{name}_middle"), middle);
    }
    let steps = weights.metadata.get("steps").map_or("?", String::as_str);
    let card = card(&draft, steps, &sampler, (trained.len(), held.len()), &spreads, &std::fs::read_to_string(limits)?);
    files.push((CARD_FILE.to_owned(), card.into_bytes()));
    let package = Package::write(Path::new(root), draft, &borrowed(&files))?;
    std::fs::write(sheet, pictures(&samples, &trained))?;
    println!("{}", package.directory().display());
    Ok(())
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
}

/// Images below folders, or files, as the model sees them.
fn images(paths: &[String], side: usize) -> Fallible<Vec<Plane>> {
    let mut images = Vec::new();
    for path in paths.iter().map(Path::new) {
        let slices = if path.is_dir() { series::read_folder(path)?.slices } else { series::read_file(path)? };
        images.extend(slices.iter().map(|slice| square(&slice.normalised(Window::LUNG_CT), side)));
    }
    Ok(images)
}

/// Root mean square difference of two images, which span [-1, 1].
fn apart(a: &Plane, b: &Plane) -> f64 {
    let squares = a.data().iter().zip(b.data()).map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / a.data().len() as f64).sqrt()
}

/// The training image that is nearest, as it is or mirrored as in training, and its distance.
fn nearest<'a>(image: &Plane, trained: &'a [Plane]) -> Option<(&'a Plane, f64)> {
    let mirrored = mirror(image);
    let distances = trained.iter().map(|other| (other, apart(image, other).min(apart(&mirrored, other))));
    distances.min_by(|a, b| a.1.total_cmp(&b.1))
}

fn mirror(image: &Plane) -> Plane {
    let rows = image.data().chunks(image.width()).flat_map(|row| row.iter().rev().copied());
    Plane::new(image.width(), image.height(), rows.collect())
}

fn pairs(images: &[Plane]) -> Vec<f64> {
    let others =
        |(at, image): (usize, &Plane)| images[..at].iter().map(|other| apart(image, other)).collect::<Vec<_>>();
    images.iter().enumerate().flat_map(others).collect()
}

/// Least, middle and greatest.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).map_or(0.0, |value| (value * 1e4).round() / 1e4);
    [at(0), at(values.len() / 2), at(values.len().saturating_sub(1))]
}

/// Rows of samples, each over the training images nearest to them.
fn pictures(samples: &[Plane], trained: &[Plane]) -> Vec<u8> {
    let mut tiles = Vec::new();
    for row in samples[..SHOWN.min(samples.len())].chunks(COLUMNS) {
        tiles.extend(row.iter().map(|image| Tile::normalised(image, None)));
        let nearest = row.iter().filter_map(|image| nearest(image, trained));
        tiles.extend(nearest.map(|(image, _)| Tile::normalised(image, None)));
    }
    contact_sheet(&tiles, COLUMNS, TILE)
}

/// The card's text (Markdown).
fn card(
    draft: &Draft,
    steps: &str,
    sampler: &Sampler,
    (trained, held): (usize, usize),
    spreads: &[(&str, [f64; 3]); 4],
    limits: &str,
) -> String {
    let side = sampler.side();
    let mut card = format!(
        "# {}\n\nStyleSwin, a baseline of table 2: a transformer GAN that draws whole CT slices of {side} x {side} pixels from noise; {} \
         parameters, {steps} steps. To compare with, not to use: it is no diagnostic device, and has no detail finer than its pixels.\n\n\
         ## Data\n\n",
        draft.name, draft.parameters
    );
    for data in &draft.training_data {
        card += &format!("- {}. {}. SHA-256 over the files: `{}`\n", data.name, data.licence, data.digest);
    }
    card += &format!(
        "- Licence of the weights: {}\n\nWhole slices at the model's size, mirrored at random; what the discriminator saw, real and made alike, \
         was shifted, changed in contrast and brightness and partly blanked.\n\n## Does it recite, has it collapsed?\n\n\
         Root mean square difference of pixels over [-1, 1] at {side} x {side}. A generator that recites gives samples nearer to a training \
         image (or its mirror image) than held-out images are; one that has collapsed gives samples that are nearer to each other than \
         the training images are. {COUNT} samples, {trained} training images, {held} held-out images.\n\n\
         | | least | middle | greatest |\n|---|---|---|---|\n",
        draft.licence
    );
    let names = [
        "samples to the nearest training image",
        "held-out images to the nearest training image",
        "samples to each other",
        "training images to each other",
    ];
    for (name, (_, [least, middle, greatest])) in names.iter().zip(spreads) {
        card += &format!("| {name} | {least:.3} | {middle:.3} | {greatest:.3} |\n");
    }
    card + "\n## By eye, and limits\n\n" + limits.trim() + "\n"
}
