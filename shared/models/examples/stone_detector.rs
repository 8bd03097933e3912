//! Trains and packages the shipped kidney-stone detector.
//!
//! `cargo run --release -p hiresmed-models --features training --example stone_detector -- train DATA OUT` trains on DATA (images with
//! YOLO labels, named `EXAM_NUMBER`) without every fifth exam, resuming where an earlier call stopped; checkpoints go to OUT.
//! `... -- package CHECKPOINT DATA ROOT` scores the checkpoint on the held-out exams, draws some of them, and writes `ROOT/yolo/{digest}/`.

use hiresmed_imaging::{Plane, Window, raster, resample};
use hiresmed_inference::package::{self, CARD_FILE};
use hiresmed_inference::{Package, Runtime, SessionOptions};
use hiresmed_models::data::{Boxed, Label, Region};
use hiresmed_models::training::{Budget, Flow, Kind, Naming, Progress, Specification, product, train};
use hiresmed_models::weights::Weights;
use hiresmed_models::yolo::{Detection, Detector, Scores, Search, score};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// One exam of so many is held out.
const EVERY: usize = 5;
/// The score from which a box counts, for precision and recall.
const THRESHOLD: f32 = 0.25;
/// The window that the images seem to have, which their files do not say: soft tissue (about 50 HU) is at 0.44 of white, fat (about
/// -100 HU) is black.
const WINDOW: package::Window = package::Window { low: -105.0, high: 245.0 };
/// Width of a picture on the sheet, px; pictures in a row, and in all.
const TILE: usize = 260;
const COLUMNS: usize = 4;
const TILES: usize = 12;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["train", data, out] => run(Path::new(data), Path::new(out)),
        ["package", checkpoint, data, root] => package(Path::new(checkpoint), Path::new(data), Path::new(root)),
        _ => Err("usage: stone_detector train DATA OUT | package CHECKPOINT DATA ROOT".into()),
    }
}

/// The exam of an image: its name up to the last `_`.
fn exam(image: &Path) -> String {
    let stem = image.file_stem().unwrap_or_default().to_string_lossy();
    stem.rsplit_once('_').map_or(stem.to_string(), |(exam, _)| exam.to_owned())
}

/// Every fifth exam, by name.
fn held_out(data: &Path) -> Fallible<BTreeSet<String>> {
    let images = Boxed::find(&[data.to_path_buf()], &[]).map_err(|faults| faults.join("\n"))?;
    let exams: BTreeSet<String> = images.iter().map(|image| exam(&image.image.path)).collect();
    Ok(exams.into_iter().step_by(EVERY).collect())
}

fn run(data: &Path, out: &Path) -> Fallible<()> {
    let specification = Specification {
        kind: Kind::Yolo,
        preset: "stone".to_owned(),
        data: vec![PathBuf::from(data)],
        hold_out: held_out(data)?.into_iter().map(|exam| format!("{exam}_*")).collect(),
        steps: None,
        seed: 1,
        autoencoder: None,
        perceptual: None,
        settings: serde_json::Value::Null,
    };
    let budget = Budget { steps: None, duration: Some(Duration::from_secs(120)) };
    let mut progress = |step: &Progress| {
        if step.step.is_multiple_of(25) {
            let figures: Vec<String> = step.figures.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            println!("{}/{} {:.2} s {}", step.step, step.planned, step.seconds, figures.join(" "));
        }
        Flow::Continue
    };
    train(&specification, out, None, budget, &mut progress, &mut |_, _| {})?;
    Ok(())
}

/// A held-out image with what is in it and what was found.
struct Held {
    plane: Plane,
    labels: Vec<Label>,
    found: Vec<Detection>,
}

fn package(checkpoint: &Path, data: &Path, root: &Path) -> Fallible<()> {
    let weights = Weights::read(checkpoint)?;
    let exams = held_out(data)?;
    let naming = Naming {
        name: "kidney-stones".to_owned(),
        data: format!("tez_roi_aug v3, coronal CT slices with stone boxes, without {} held-out exams", exams.len()),
        data_licence: "CC BY 4.0 (Roboflow Universe tez-nwkf5/tez_roi_aug v3)".to_owned(),
        licence: "CC BY 4.0".to_owned(),
        modality: None,
    };
    let mut made = product(&weights, &naming)?;
    made.draft.window = Some(WINDOW);
    let (scratch, runtime) = (tempfile::tempdir()?, Runtime::load()?);
    let bare = Package::write(scratch.path(), made.draft.clone(), &borrowed(&made.files))?;
    let detector = Detector::open(&bare, &runtime, &SessionOptions::default())?;
    let images = Boxed::find(&[data.to_path_buf()], &[]).map_err(|faults| faults.join("\n"))?;
    let mut held = Vec::new();
    for image in images.iter().filter(|image| exams.contains(&exam(&image.image.path))) {
        let (plane, labels) = image.read(Window::LUNG_CT, 1).map_err(|faults| faults.join("\n"))?;
        // Low enough for the average over all thresholds.
        let found = detector.detect(&plane, &Search { least_score: 0.001, ..Search::default() })?;
        held.push(Held { plane, labels, found });
    }
    let judged: Vec<_> = held.iter().map(|held| (held.found.clone(), held.labels.clone())).collect();
    let scores = score(&judged, THRESHOLD);
    let proposed = score(&judged, Search::CANDIDATES.least_score);
    println!("{scores:?}\nas candidates {proposed:?}");
    for (name, value) in [
        ("ap50_held_out", scores.ap50),
        ("precision_held_out", scores.precision),
        ("recall_held_out", scores.recall),
        ("held_out_images", Some(held.len() as f64)),
    ] {
        made.draft.scores.extend(value.map(|value| (name.to_owned(), (value * 1e4).round() / 1e4)));
    }
    let steps = weights.metadata.get("steps").cloned().unwrap_or_default();
    let card = card(made.draft.parameters, &steps, &scores, &proposed, held.len(), exams.len());
    made.files.push((CARD_FILE.to_owned(), card.into_bytes()));
    let package = Package::write(root, made.draft, &borrowed(&made.files))?;
    // Beside the package: the images are others'.
    std::fs::write(root.join("held-out.png"), sheet(&held))?;
    println!("{}", package.directory().display());
    Ok(())
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
}

/// Held-out images at equal steps: the boxes of the set in green, those that were found in red.
fn sheet(held: &[Held]) -> Vec<u8> {
    let step = held.len().div_ceil(TILES).max(1);
    let shown: Vec<&Held> = held.iter().step_by(step).collect();
    let height = shown.iter().map(|held| TILE * held.plane.height() / held.plane.width().max(1)).max().unwrap_or(1);
    let (width, rows) = (COLUMNS * TILE, shown.len().div_ceil(COLUMNS));
    let mut pixels = vec![0u8; width * height * rows * 3];
    for (at, held) in shown.iter().enumerate() {
        let (left, top) = (at % COLUMNS * TILE, at / COLUMNS * height);
        let scale = TILE as f32 / held.plane.width() as f32;
        let small = resample::resize(
            &held.plane,
            TILE,
            TILE * held.plane.height() / held.plane.width(),
            resample::Filter::Area,
        );
        for y in 0..small.height() {
            for x in 0..TILE {
                // Sixteen grey levels keep the PNG small.
                let grey = ((small.at(x, y) + 1.0) * 7.99) as u8 * 17;
                let to = ((top + y) * width + left + x) * 3;
                pixels[to..to + 3].fill(grey);
            }
        }
        let mut draw = |region: &Region, grow: f32, colour: [u8; 3]| {
            let place = |value: f32, grow: f32, most: usize| ((value * scale + grow).max(0.0) as usize).min(most - 1);
            let (x0, x1) = (place(region.left, -grow, TILE), place(region.right, grow, TILE));
            let (y0, y1) = (place(region.top, -grow, small.height()), place(region.bottom, grow, small.height()));
            let edge = (x0..=x1).flat_map(|x| [(x, y0), (x, y1)]).chain((y0..=y1).flat_map(|y| [(x0, y), (x1, y)]));
            for (x, y) in edge {
                let to = ((top + y) * width + left + x) * 3;
                pixels[to..to + 3].copy_from_slice(&colour);
            }
        };
        held.labels.iter().for_each(|label| draw(&label.region, 1.0, [0, 220, 0]));
        let sure = held.found.iter().filter(|found| found.score >= THRESHOLD);
        sure.for_each(|found| draw(&found.region, 3.0, [255, 60, 60]));
    }
    raster::rgb_png(width, height * rows, &pixels)
}

fn card(parameters: u64, steps: &str, scores: &Scores, proposed: &Scores, images: usize, exams: usize) -> String {
    let percent = |share: Option<f64>| share.map_or("undefined".to_owned(), |share| format!("{:.1} %", share * 100.0));
    format!(
        "# Detector `kidney-stones`\n\n\
        A YOLO11-shaped detector of {parameters} parameters on one grey channel, one class: kidney stones in coronal non-contrast CT of the abdomen \
        (equation 14's location model). Its finest level has a stride of 4 px, since the median stone of the set is 11 x 9 px; an image is \
        letterboxed into 416 x 416.\n\n\
        - **Data**: 240 coronal slices of 391 x 320 px with 497 boxes, of 80 exams; {images} images of {exams} exams (every fifth by name) were \
        held out, {steps} steps of 8 cut-outs on the others. The source was augmented before it was exported (flips, rotations of 10 degrees), so that \
        sides mean nothing in it; its files do not say their intensity window: that of `model.json` is estimated from the greys of fat and soft tissue.\n\
        - **Held-out scores** ({} boxes, IoU of 0.5): at a score of {THRESHOLD} precision {} and recall {} ({} boxes found); AP50 {}. At the threshold of \
        candidates ({}) recall is {}. Boxes of few pixels fail an IoU of 0.5 by one pixel. No threshold or setting was chosen on these images; they are \
        of one source, and say nothing of other scanners.\n\
        - **By eye** (a sheet of held-out images, which are not the project's to ship): stones that can be seen are nearly all \
        found; what is wrongly found is mostly the iliac crest where the image cuts it off, and clusters that are boxed twice.\n\
        - **Limits**: it knows coronal slices through the kidneys and nothing else. On other planes and other organs its candidates mean nothing; it is no \
        default, name it in `models.yolo`.\n\
        - **Attribution and licence**: images and boxes by Roboflow Universe user tez-nwkf5, set tez_roi_aug, version 3, CC BY 4.0; cropped, resampled and \
        augmented for training. These weights: CC BY 4.0. Not for diagnosis.\n",
        scores.lesions,
        percent(scores.precision),
        percent(scores.recall),
        scores.detections,
        percent(scores.ap50),
        Search::CANDIDATES.least_score,
        percent(proposed.recall),
    )
}
