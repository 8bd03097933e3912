//! Packages a trained token prior with the evidence whether it recites: the distances of samples and of held-out images to the training
//! images. The package has a sheet of samples; NAME.png in the current folder shows the training images nearest to them below, to be
//! looked at, and not to be shipped.
//!
//! `cargo run --release -p hiresmed-models --features training --example package_prior -- [--sampling JSON] CHECKPOINT VQGAN ROOT NAME COUNT LIMITS DATA LICENCE
//! TRAINED... -- HELD...`: VQGAN is the autoencoder's package, ROOT gets `prior/{digest}/`, COUNT says how many samples are judged, LIMITS is a file with the card's words on limits, DATA and
//! LICENCE name the training data, JSON says how the package samples where that is not as in the training's settings, TRAINED are the folders that the prior was trained on, HELD folders or files that it never saw.

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
    prior::{Condition, Packaged, Sampling, TokenPrior},
    training::{Naming, product},
    vqgan::{Autoencoder, Tokens},
    weights::Weights,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use std::path::Path;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Side at which pixels are compared, so that noise and a shift of a pixel do not hide a copy.
const SIDE: usize = 64;
/// Side of a picture on the sheet, px, and samples on it.
const TILE: usize = 256;
const SHOWN: usize = 4;

/// An image with its tokens and its pixels at [`SIDE`].
struct Entry {
    plane: Plane,
    tokens: Vec<i64>,
    small: Vec<f32>,
}

impl Entry {
    fn new(plane: Plane, tokens: Tokens) -> Self {
        let small = resize(&plane, SIDE, SIDE, Filter::Area).into_data();
        Self { plane, tokens: tokens.data, small }
    }

    /// Share of the tokens that differ.
    fn tokens_apart(&self, other: &Self) -> f64 {
        let differing = self.tokens.iter().zip(&other.tokens).filter(|(a, b)| a != b).count();
        differing as f64 / self.tokens.len() as f64
    }

    /// Root mean square difference of the small images, which span [-1, 1].
    fn pixels_apart(&self, other: &Self) -> f64 {
        let squares = self.small.iter().zip(&other.small).map(|(a, b)| f64::from(a - b).powi(2));
        (squares.sum::<f64>() / self.small.len() as f64).sqrt()
    }

    /// The training image that is nearest in pixels, and the least distances in tokens and in pixels.
    fn nearest<'a>(&self, trained: &'a [Entry]) -> Option<(&'a Entry, f64, f64)> {
        let pixels = trained.iter().map(|entry| (entry, self.pixels_apart(entry)));
        let (entry, pixels) = pixels.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let tokens = trained.iter().map(|entry| self.tokens_apart(entry)).fold(f64::INFINITY, f64::min);
        Some((entry, tokens, pixels))
    }
}

fn main() -> Fallible<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let sampling = match arguments.first().map(String::as_str) {
        Some("--sampling") if arguments.len() > 1 => {
            let sampling: Sampling = serde_json::from_str(&arguments[1])?;
            arguments.drain(..2);
            Some(sampling)
        }
        _ => None,
    };
    let split = arguments.iter().position(|argument| argument == "--");
    let (Some(split), [checkpoint, vqgan, root, name, count, limits, data, licence, ..]) =
        (split, arguments.as_slice())
    else {
        return Err(
            "usage: package_prior [--sampling JSON] CHECKPOINT VQGAN ROOT NAME COUNT LIMITS DATA LICENCE TRAINED... -- HELD...".into()
        );
    };
    let trained = arguments.get(8..split).ok_or("no folder of training images is named")?;
    let (runtime, options) = (Runtime::load()?, SessionOptions::default());
    let mut weights = Weights::read(Path::new(checkpoint))?;
    if let (Some(sampling), Some(text)) = (sampling, weights.metadata.get_mut("configuration")) {
        let packaged: Packaged = serde_json::from_str(text)?;
        *text = serde_json::to_string(&Packaged { sampling, ..packaged })?;
    }
    let vqgan = Package::open(Path::new(vqgan))?;
    let modality = vqgan.description().modality().to_owned();
    let naming = Naming {
        name: name.clone(),
        data: data.clone(),
        data_licence: licence.clone(),
        licence: "CC-BY-4.0".to_owned(),
        modality: (modality != "ct").then(|| modality.clone()),
    };
    let product = product(&weights, &naming)?.with_half_weights()?;
    let mut files = product.files;
    let staging = std::env::temp_dir().join(format!("package-prior-{}", std::process::id()));
    let plain = Package::write(&staging, product.draft.clone(), &borrowed(&files))?;
    let prior = TokenPrior::open(&plain, &runtime, &options);
    std::fs::remove_dir_all(&staging)?;
    let prior = prior?;
    let autoencoder = Autoencoder::open(&vqgan, &runtime, &options)?;
    let condition = match modality.as_str() {
        "kub" => Condition { modality: Some("dx"), view: Some("ap") },
        _ => Condition { modality: Some("ct"), view: Some("axial") },
    };
    let samples = samples(&prior, &autoencoder, condition, count.parse()?)?;
    let side = samples.first().map_or((0, 0), |sample| (sample.plane.width(), sample.plane.height()));
    let trained = entries(&autoencoder, trained, side)?;
    let held = entries(&autoencoder, &arguments[split + 1..], side)?;
    // A watched image lies in a folder of the training.
    let trained: Vec<Entry> =
        trained.into_iter().filter(|entry| held.iter().all(|other| other.tokens != entry.tokens)).collect();
    let (of_samples, of_held) = (Distances::new(&samples, &trained), Distances::new(&held, &trained));
    println!("samples: {of_samples}\nheld out: {of_held}");
    let mut draft = product.draft;
    draft.scores.extend([
        ("samples_nearest_pixels_least".to_owned(), of_samples.pixels[0]),
        ("samples_nearest_tokens_least".to_owned(), of_samples.tokens[0]),
        ("held_out_nearest_pixels_least".to_owned(), of_held.pixels[0]),
        ("held_out_nearest_tokens_least".to_owned(), of_held.tokens[0]),
    ]);
    let shown: Vec<&Entry> = samples.iter().take(SHOWN).collect();
    let nearest = shown.iter().filter_map(|sample| sample.nearest(&trained)).map(|(entry, _, _)| entry);
    let sheet = |entries: &mut dyn Iterator<Item = &Entry>| {
        let tiles: Vec<Tile> = entries.map(|entry| Tile::normalised(&entry.plane, None)).collect();
        contact_sheet(&tiles, SHOWN, TILE)
    };
    std::fs::write(format!("{name}.png"), sheet(&mut shown.iter().copied().chain(nearest)))?;
    files.push(("samples.png".to_owned(), sheet(&mut samples.iter().take(2 * SHOWN))));
    let step = weights.metadata.get("step").map_or("?", String::as_str);
    let card = card(&draft, step, &of_samples, &of_held, trained.len(), &std::fs::read_to_string(limits)?);
    files.push((CARD_FILE.to_owned(), card.into_bytes()));
    let package = Package::write(Path::new(root), draft, &borrowed(&files))?;
    println!("{}", package.directory().display());
    Ok(())
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
}

fn samples(
    prior: &TokenPrior,
    autoencoder: &Autoencoder,
    condition: Condition<'_>,
    count: usize,
) -> Fallible<Vec<Entry>> {
    let sample = |number: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(number as u64);
        let tokens = prior.sample(condition, &prior.sampling(), &mut rng)?;
        let plane = autoencoder.decode(std::slice::from_ref(&tokens))?.pop().ok_or("no image")?;
        Ok(Entry::new(plane, tokens))
    };
    (0..count).map(sample).collect()
}

/// The card's text (Markdown).
fn card(draft: &Draft, step: &str, samples: &Distances, held: &Distances, trained: usize, limits: &str) -> String {
    let mut card = format!(
        "# {}\n\nToken prior; {} parameters, {step} steps. It draws backgrounds for synthetic images; it is no \
         diagnostic device.\n\n## Data\n\n",
        draft.name, draft.parameters
    );
    for data in &draft.training_data {
        card += &format!("- {}. {}. SHA-256 over the files: `{}`\n", data.name, data.licence, data.digest);
    }
    card += &format!("- Licence of the weights: {}\n\n## Does it recite?\n\n", draft.licence);
    card += &format!(
        "Distance to the nearest of {trained} training images: the share of tokens that differ, and the root mean square \
         difference of pixels at {SIDE} x {SIDE} over [-1, 1]. A prior that recites gives samples nearer than held-out patients \
         are.\n\n| | tokens: least, middle, greatest | pixels: least, middle, greatest |\n|---|---|---|\n"
    );
    for (name, distances) in [("samples", samples), ("held out", held)] {
        let row = |[least, middle, greatest]: [f64; 3]| format!("{least:.3}, {middle:.3}, {greatest:.3}");
        card += &format!("| {} {name} | {} | {} |\n", distances.count, row(distances.tokens), row(distances.pixels));
    }
    card + &format!("\n![samples](samples.png)\n\n## Limits\n\n{}\n", limits.trim())
}

/// Images of the map's size below folders, or files, with their tokens.
fn entries(autoencoder: &Autoencoder, paths: &[String], side: (usize, usize)) -> Fallible<Vec<Entry>> {
    let mut entries = Vec::new();
    for path in paths {
        let path = Path::new(path);
        let slices = match path.is_dir() {
            true => series::read_folder(path)?.slices,
            false => series::read_file(path)?,
        };
        for slice in slices {
            let plane = slice.normalised(Window::LUNG_CT);
            if (plane.width(), plane.height()) != side {
                continue;
            }
            let tokens = autoencoder.encode(std::slice::from_ref(&plane))?.pop().ok_or("no tokens")?;
            entries.push(Entry::new(plane, tokens));
        }
    }
    Ok(entries)
}

/// Distances of images to the nearest training image: least, middle, greatest.
struct Distances {
    count: usize,
    tokens: [f64; 3],
    pixels: [f64; 3],
}

impl Distances {
    fn new(entries: &[Entry], trained: &[Entry]) -> Self {
        let nearest = entries.iter().filter_map(|entry| entry.nearest(trained));
        let (tokens, pixels): (Vec<f64>, Vec<f64>) = nearest.map(|(_, tokens, pixels)| (tokens, pixels)).unzip();
        let spread = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            let at = |place: usize| values.get(place).copied().unwrap_or(0.0);
            [at(0), at(values.len() / 2), at(values.len().saturating_sub(1))]
        };
        Self { count: tokens.len(), tokens: spread(tokens), pixels: spread(pixels) }
    }
}

impl std::fmt::Display for Distances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} images, tokens {:.4?}, pixels {:.4?}", self.count, self.tokens, self.pixels)
    }
}
