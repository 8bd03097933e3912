//! Compares SinGANs of one exemplar side by side: what one recipe gives and what another, and in how many seconds.
//!
//! `cargo run --release -p hiresmed-models --features training --example compare_lesions -- EXEMPLARS NAME SHEET.png [--extractor
//! GRAPH.onnx] LABEL=CHECKPOINT=SECONDS...`: EXEMPLARS is what `lesion_exemplars` wrote, NAME the exemplar, SECONDS the training's as
//! measured, and SHEET.png gets the exemplar's row and one of samples and of masks for each model. Printed are, over [`SAMPLES`] samples of
//! the exemplar's size:
//!
//! - `fid`: the single-image Frechet distance (Shaham et al. 2019, section 4.1) of features of the image channel over places, mean over
//!   the samples. The features are those of GRAPH.onnx, f32[1, 1, H, W] to f32[1, d, h, w] at an early layer, or without it the
//!   pixels of every 7 x 7 patch: no published metric, and comparable with nothing but itself;
//! - `accepted`: share of samples whose largest piece of mask has 0.3 to 1.8 times the exemplar's area and is clear of the border;
//! - `agreement`: Dice of that mask with the image above the threshold that best segments the exemplar, relative to the exemplar's own;
//! - `iou`: of that mask with the exemplar's, where 1 means the same shape in the same place;
//! - `diversity`: standard deviation of a pixel over the samples, mean over pixels, by that of the exemplar's pixels;
//! - `shift`: mean of the samples' pixels less the exemplar's, in [-1, 1];
//! - `reconstruction`: root of the mean squared error of both channels at the training's end.

use hiresmed_imaging::{Mask, Plane, raster};
use hiresmed_inference::{Runtime, Session, SessionOptions, Tensor as HostTensor};
use hiresmed_models::singan::{CHANNELS, Config, Exemplar, exemplar, export};
use hiresmed_models::{training::History, weights::Weights};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Samples of each model.
const SAMPLES: usize = 64;
/// Of them on the sheet.
const SHOWN: usize = 12;
/// Side of a patch of the built-in features, px.
const PATCH: i64 = 7;
/// Pixels of the sheet for a pixel of a sample.
const ENLARGE: usize = 2;

fn main() -> Fallible<()> {
    tch::set_num_threads(1);
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = Runtime::load()?;
    let mut extractor = None;
    if let Some(at) = arguments.iter().position(|argument| argument == "--extractor") {
        let graph = std::fs::read(arguments.get(at + 1).ok_or("--extractor needs a file")?)?;
        extractor = Some(Session::open(&runtime, &graph, &SessionOptions::default())?);
        arguments.drain(at..at + 2);
    }
    let [exemplars, name, sheet, models @ ..] = arguments.as_slice() else {
        return Err(
            "usage: compare_lesions EXEMPLARS NAME SHEET.png [--extractor GRAPH.onnx] LABEL=CHECKPOINT=SECONDS..."
                .into(),
        );
    };
    let truth = exemplar(&[PathBuf::from(exemplars)], &[], Some(name)).map_err(|faults| faults.join("; "))?;
    let mut rows = vec![(0..SHOWN).map(|_| (truth.image.clone(), truth.mask.clone())).collect::<Vec<_>>()];
    for model in models {
        let [label, checkpoint, seconds] = model.split('=').collect::<Vec<_>>()[..] else {
            return Err(format!("{model:?} is not LABEL=CHECKPOINT=SECONDS").into());
        };
        let weights = Weights::read(Path::new(checkpoint))?;
        let samples = samples(&runtime, &weights)?;
        let error =
            History::of(&weights)?.and_then(|history| history.curve("reconstruction").last().map(|last| last.1.sqrt()));
        let scored = scores(&truth, &samples, extractor.as_ref())?;
        let made = weights.metadata.get("iterations").map_or("all", String::as_str);
        println!(
            "{label}: seconds {seconds} iterations {made} {scored} reconstruction {:.4}",
            error.unwrap_or(f64::NAN)
        );
        rows.push(samples.into_iter().take(SHOWN).collect());
    }
    std::fs::write(sheet, picture(&rows))?;
    Ok(())
}

/// Image and mask channel of each sample, at the exemplar's size.
fn samples(runtime: &Runtime, weights: &Weights) -> Fallible<Vec<(Plane, Plane)>> {
    let config: Config = serde_json::from_str(weights.metadata.get("configuration").ok_or("no configuration")?)?;
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let session = Session::open(runtime, &export("compared", &config, weights)?, &options)?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let mut inputs = Vec::new();
        for (scale, &[height, width]) in config.sizes.iter().enumerate() {
            let channels = if scale == 0 { 1 } else { CHANNELS };
            let values = hiresmed_models::noise::normal(&mut rng, channels * height * width);
            inputs.push((format!("z{scale}"), HostTensor::f32([1, channels, height, width], values)?));
        }
        let named: Vec<(&str, HostTensor)> =
            inputs.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let (_, data) = session.run_single(&named)?.into_f32()?;
        let [height, width] = config.finest();
        let (image, mask) = data.split_at(height * width);
        let clamped = image.iter().map(|value| value.clamp(-1.0, 1.0)).collect();
        samples.push((Plane::new(width, height, clamped), Plane::new(width, height, mask.to_vec())));
    }
    Ok(samples)
}

fn scores(truth: &Exemplar, samples: &[(Plane, Plane)], extractor: Option<&Session>) -> Fallible<String> {
    let count = samples.len() as f64;
    let mask = truth.hard_mask(0.0);
    let above =
        |image: &Plane, threshold: f32| Mask::from_fn(image.width(), image.height(), |x, y| image.at(x, y) > threshold);
    let thresholds = (0..60).map(|step| -0.9 + 0.025 * step as f32);
    let best = thresholds.map(|threshold| (overlap(&above(&truth.image, threshold), &mask).0, threshold));
    let (own, threshold) = best.max_by(|a, b| a.0.total_cmp(&b.0)).ok_or("no threshold")?;
    let real = moments(&features(&truth.image, extractor)?);
    let (mut fid, mut accepted, mut agreement, mut iou) = (0.0, 0.0, 0.0, 0.0);
    for (image, channel) in samples {
        fid += frechet(&real, &moments(&features(image, extractor)?)) / count;
        let found = above(channel, 0.0).largest_component().holes_filled();
        let (bounds, area) = (found.bounds(), found.area() as f64 / mask.area() as f64);
        let clear = bounds.is_some_and(|bounds| {
            let (right, bottom) = (bounds.left + bounds.width, bounds.top + bounds.height);
            bounds.left > 0 && bounds.top > 0 && right < found.width() && bottom < found.height()
        });
        accepted += f64::from(clear && (0.3..=1.8).contains(&area)) / count;
        agreement += overlap(&above(image, threshold), &found).0 / own / count;
        iou += overlap(&found, &mask).1 / count;
    }
    let images = Tensor::stack(&samples.iter().map(|(image, _)| tensor(image)).collect::<Vec<_>>(), 0);
    let spread = tensor(&truth.image).std(true).double_value(&[]);
    let diversity = images.std_dim([0i64].as_slice(), true, false).mean(Kind::Double).double_value(&[]) / spread;
    let shift = images.mean(Kind::Double).double_value(&[]) - tensor(&truth.image).mean(Kind::Double).double_value(&[]);
    Ok(format!(
        "fid {fid:.4} accepted {accepted:.3} agreement {agreement:.3} iou {iou:.3} diversity {diversity:.3} shift {shift:.4}"
    ))
}

/// Dice and IoU of two masks; 0 where both are empty.
fn overlap(first: &Mask, second: &Mask) -> (f64, f64) {
    let both = first.data().iter().zip(second.data()).filter(|(a, b)| **a != 0 && **b != 0).count() as f64;
    let sum = (first.area() + second.area()) as f64;
    (2.0 * both / sum.max(1.0), both / (sum - both).max(1.0))
}

fn tensor(plane: &Plane) -> Tensor {
    Tensor::from_slice(plane.data()).reshape([plane.height() as i64, plane.width() as i64])
}

/// Features over places, `f64 [places, d]`.
fn features(image: &Plane, extractor: Option<&Session>) -> Fallible<Tensor> {
    let input = tensor(image).unsqueeze(0).unsqueeze(0);
    let Some(extractor) = extractor else {
        let patches = input.im2col([PATCH, PATCH], [1, 1], [0, 0], [1, 1]);
        return Ok(patches.squeeze_dim(0).transpose(0, 1).to_kind(Kind::Double));
    };
    let input = HostTensor::f32([1, 1, image.height(), image.width()], image.data().to_vec())?;
    let name = extractor.inputs().first().ok_or("the extractor has no input")?.name.clone();
    let (shape, data) = extractor.run_single(&[(name.as_str(), input)])?.into_f32()?;
    let [1, channels, height, width] = shape[..] else {
        return Err(format!("the extractor gave shape {shape:?}; it must be [1, d, h, w]").into());
    };
    let values = Tensor::from_slice(&data).reshape([channels as i64, (height * width) as i64]);
    Ok(values.transpose(0, 1).to_kind(Kind::Double))
}

/// Mean `[d]` and covariance `[d, d]`, with n - 1.
fn moments(features: &Tensor) -> (Tensor, Tensor) {
    let mean = features.mean_dim([0i64].as_slice(), false, Kind::Double);
    let centred = features - &mean;
    let covariance = centred.transpose(0, 1).matmul(&centred) / (features.size()[0] - 1).max(1) as f64;
    (mean, covariance)
}

/// |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).
fn frechet(first: &(Tensor, Tensor), second: &(Tensor, Tensor)) -> f64 {
    let (values, vectors) = first.1.linalg_eigh("L");
    let root = vectors.matmul(&values.clamp_min(0.0).sqrt().diag(0)).matmul(&vectors.transpose(0, 1));
    let inner = root.matmul(&second.1).matmul(&root);
    let cross = inner.linalg_eigvalsh("L").clamp_min(0.0).sqrt().sum(Kind::Double);
    let means = (&first.0 - &second.0).square().sum(Kind::Double);
    (means + first.1.trace() + second.1.trace() - cross * 2.0).double_value(&[])
}

/// A row of images over a row of masks for each model, 8 bit over [-1, 1].
fn picture(rows: &[Vec<(Plane, Plane)>]) -> Vec<u8> {
    let (tile_width, tile_height) = (rows[0][0].0.width(), rows[0][0].0.height());
    let (width, height) = (SHOWN * tile_width * ENLARGE, rows.len() * 2 * tile_height * ENLARGE);
    let pixel = |at: usize| {
        let (x, y) = (at % width / ENLARGE, at / width / ENLARGE);
        let (image, mask) = &rows[y / tile_height / 2][x / tile_width];
        let plane = if y / tile_height % 2 == 0 { image } else { mask };
        ((plane.at(x % tile_width, y % tile_height).clamp(-1.0, 1.0) + 1.0) * 127.5) as u8
    };
    raster::grey_png(width, height, &(0..width * height).map(pixel).collect::<Vec<_>>())
}
