//! Packages a trained diffusion model with the evidence whether it recites: the distances of samples and of held-out images to the
//! training images.
//!
//! `cargo run --release -p hiresmed-models --features training --example package_ddpm -- CHECKPOINT ROOT NAME COUNT STEPS LIMITS DATA
//! LICENCE TRAINED... -- HELD...`: ROOT gets `ddpm/{digest}/`, and `ddpm-samples.png` beside it, samples above the training images nearest to
//! them; COUNT says how many samples are judged, STEPS in how many steps each is drawn, LIMITS is a file with the card's words on limits,
//! DATA and LICENCE name the training data, TRAINED are the folders that the model was trained on, HELD folders or files that it never
//! saw (also such as lie in a folder of the training).

use std::{path::Path, time::Instant};

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
    ddpm::Sampler,
    training::{Naming, product},
    weights::Weights,
};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Seed of the samples that are judged.
const SEED: u64 = 1;
/// A copy may be shifted by so many pixels each way, as training images are, and mirrored.
const SHIFT: i64 = 4;
/// Side of a picture on the sheet, px, pictures in a row, and samples on it.
const TILE: usize = 160;
const COLUMNS: usize = 8;
const SHOWN: usize = 16;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let split = arguments.iter().position(|argument| argument == "--");
    let (Some(split), [checkpoint, root, name, count, steps, limits, data, licence, ..]) =
        (split, arguments.as_slice())
    else {
        return Err(
            "usage: package_ddpm CHECKPOINT ROOT NAME COUNT STEPS LIMITS DATA LICENCE TRAINED... -- HELD...".into()
        );
    };
    let trained = arguments.get(8..split).ok_or("no folder of training images is named")?;
    let (count, steps): (u64, usize) = (count.parse()?, steps.parse()?);
    let weights = Weights::read(Path::new(checkpoint))?;
    let naming = Naming {
        name: name.clone(),
        data: data.clone(),
        data_licence: licence.clone(),
        licence: "CC-BY-4.0".to_owned(),
        modality: None,
    };
    let made = product(&weights, &naming)?.with_half_weights()?;
    let (mut draft, mut files) = (made.draft, made.files);
    let scratch = tempfile::tempdir()?;
    let bare = Package::write(scratch.path(), draft.clone(), &borrowed(&files))?;
    let sampler = Sampler::open(&bare, &Runtime::load()?, &SessionOptions::default())?;
    let side = sampler.config().side;

    let started = Instant::now();
    let samples = (0..count).map(|index| sampler.sample(SEED, index, steps)).collect::<Result<Vec<_>, _>>()?;
    println!("{:.2} s a sample of {steps} steps", started.elapsed().as_secs_f64() / count.max(1) as f64);
    let held = images(&arguments[split + 1..], side)?;
    let mut trained = images(trained, side)?;
    trained.retain(|image| !held.contains(image));
    let of_samples = Distances::new(&samples, &trained);
    let of_held = Distances::new(&held, &trained);
    let of_trained = Distances::new(&trained, &trained);
    println!("samples {of_samples:?}\nheld out {of_held:?}\ntrained {of_trained:?}");
    for (set, distances) in [("samples", &of_samples), ("held_out", &of_held), ("trained", &of_trained)] {
        let [least, middle, _] = distances.spread.map(|value| (value * 1e4).round() / 1e4);
        draft.scores.insert(format!("{set}_nearest_rms_least"), least);
        draft.scores.insert(format!("{set}_nearest_rms_median"), middle);
    }
    let shown = &samples[..samples.len().min(SHOWN)];
    let mut tiles = Vec::new();
    for row in shown.chunks(COLUMNS) {
        tiles.extend(row.iter());
        tiles.extend(row.iter().filter_map(|sample| nearest(sample, &trained)).map(|(image, _)| image));
    }
    let tiles: Vec<Tile> = tiles.into_iter().map(|plane| Tile::normalised(plane, None)).collect();
    let rows =
        [("samples", &of_samples), ("held-out images", &of_held), ("training images, to the others", &of_trained)];
    let made = weights.metadata.get("steps").map_or("?", String::as_str);
    let card = card(&draft, (made, steps, trained.len()), &rows, &std::fs::read_to_string(limits)?);
    files.push((CARD_FILE.to_owned(), card.into_bytes()));
    let package = Package::write(Path::new(root), draft, &borrowed(&files))?;
    // Beside the package: the training images are others'.
    std::fs::write(Path::new(root).join("ddpm-samples.png"), contact_sheet(&tiles, COLUMNS, TILE))?;
    println!("{}", package.directory().display());
    Ok(())
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
}

/// The images of folders or files at the network's size.
fn images(paths: &[String], side: usize) -> Fallible<Vec<Plane>> {
    let mut images = Vec::new();
    for path in paths.iter().map(Path::new) {
        let slices = match path.is_dir() {
            true => series::read_folder(path)?.slices,
            false => series::read_file(path)?,
        };
        images.extend(slices.iter().map(|slice| square(&slice.normalised(Window::LUNG_CT), side)));
    }
    Ok(images)
}

/// Root mean square difference of two images where both are, over all shifts and mirrored or not the least.
fn apart(a: &Plane, b: &Plane) -> f64 {
    let side = a.width() as i64;
    let difference = |mirror: bool, dx: i64, dy: i64| {
        let (mut sum, mut count) = (0f64, 0u32);
        for y in dy.max(0)..side + dy.min(0) {
            for x in dx.max(0)..side + dx.min(0) {
                let from = if mirror { side - 1 - (x - dx) } else { x - dx };
                let other = b.at(from as usize, (y - dy) as usize);
                sum += f64::from(a.at(x as usize, y as usize) - other).powi(2);
                count += 1;
            }
        }
        (sum / f64::from(count.max(1))).sqrt()
    };
    let shifts = (-SHIFT..=SHIFT).flat_map(|dy| (-SHIFT..=SHIFT).map(move |dx| (dx, dy)));
    shifts.flat_map(|(dx, dy)| [difference(false, dx, dy), difference(true, dx, dy)]).fold(f64::INFINITY, f64::min)
}

/// The image of `others` that is nearest to `image`, which is not one of them itself, and its distance.
fn nearest<'a>(image: &Plane, others: &'a [Plane]) -> Option<(&'a Plane, f64)> {
    let others = others.iter().filter(|other| !std::ptr::eq(*other, image));
    others.map(|other| (other, apart(image, other))).min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Distances of images to the nearest training image.
#[derive(Debug)]
struct Distances {
    count: usize,
    /// Least, middle, greatest.
    spread: [f64; 3],
}

impl Distances {
    fn new(images: &[Plane], trained: &[Plane]) -> Self {
        let mut values: Vec<f64> =
            images.iter().filter_map(|image| nearest(image, trained)).map(|(_, apart)| apart).collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(0.0);
        Self { count: values.len(), spread: [at(0), at(values.len() / 2), at(values.len().saturating_sub(1))] }
    }
}

/// The card's text (Markdown).
fn card(
    draft: &Draft,
    (trained_steps, steps, images): (&str, usize, usize),
    rows: &[(&str, &Distances)],
    limits: &str,
) -> String {
    let side = &draft.configuration["side"];
    let mut card = format!(
        "# {}\n\nDenoising diffusion of whole CT slices at {side} x {side} px, the baseline \"DDM\" of the paper's table 2: a U-Net of {} parameters, \
         {trained_steps} training steps; the weights are their running average. It is no diagnostic device.\n\n## Data\n\n",
        draft.name, draft.parameters
    );
    for data in &draft.training_data {
        card += &format!("- {}. {}. SHA-256 over the files: `{}`\n", data.name, data.licence, data.digest);
    }
    card += &format!("- Licence of the weights: {}\n\n## Does it recite?\n\n", draft.licence);
    card += &format!(
        "Distance to the nearest of {images} training images: root mean square difference of pixels over [-1, 1] at {side} x {side}, the \
         least over shifts of up to {SHIFT} px and mirroring, which training has. A model that recites gives samples nearer than \
         held-out images are. Samples of seed {SEED}, {steps} steps.\n\n| | number | least | middle | greatest |\n|---|---|---|---|---|\n"
    );
    for (name, Distances { count, spread: [least, middle, greatest] }) in rows {
        card += &format!("| {name} | {count} | {least:.3} | {middle:.3} | {greatest:.3} |\n");
    }
    card + "\n## Limits\n\n" + limits
}
