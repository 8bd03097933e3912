//! The parts of the shipped models for radiographs of kidneys, ureters and bladder that are not a training.
//!
//! `cargo run --release -p hiresmed-models --example kub -- COMMAND ...`:
//! - `pairs DATA OUT`: DATA holds `xray-kub-drr`; OUT gets `NAME.png` and `NAME.mask.png` for the U-Net's training;
//! - `zones CHECKPOINT PAIRS ROOT`: packages the trained U-Net, scored on the images of [`HELD_OUT`];
//! - `density PAIRS ROOT`: fits and packages the spatial prior of stones;
//! - `stones DATA OUT`: DATA holds `ct-kidney-stone-coronal`; OUT gets the exemplars of the stones' SinGANs.
//!
//! The radiographs are simulated: projections of one CT of abdomen and pelvis, with voxels of 3 mm.

use std::path::{Path, PathBuf};

use hiresmed_imaging::{
    Mask, Plane, Window, body, labels, raster,
    resample::{Filter, resize, resize_mask},
};
use hiresmed_inference::package::{CARD_FILE, Draft, Kind, Package, TrainingData, Window as Range, digest};
use hiresmed_inference::{Runtime, Session, SessionOptions};
use hiresmed_models::{
    density::{Annotation, Fit, fit},
    unet::{Config, DangerZones, export},
    weights::Weights,
};
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Radiographs that nothing is trained on.
const HELD_OUT: [&str; 2] = ["kub_drr_03", "kub_drr_06"];
/// Distance of pixel centres in the patient, mm: the volume's 336 mm of height are about 960 rows.
const SPACING_MM: f64 = 0.35;
/// Bits of a mask: what a pixel's ray has passed.
const KIDNEYS: u8 = 1;
const BLADDER: u8 = 2;
const BONE: u8 = 4;
/// Stones that have an outline of their own, apart from artefacts: image, and line of its label file.
const STONES: [(&str, usize, &str); 4] = [
    ("exam054_1", 0, "stone-round"),
    ("exam074_3", 2, "stone-angular"),
    ("exam116_0", 0, "stone-triangular"),
    ("exam079_3", 1, "stone-lobulated"),
];
/// Side of an exemplar and longest diameter of its stone, px.
const SIDE: usize = 40;
const DIAMETER: f32 = 22.0;
/// Grey value of the tissue around a stone, and how far the thickest part of the stone exceeds it, in [-1, 1].
const TISSUE: f32 = -0.3;
const EXCESS: f32 = 0.7;
const LICENCE: &str = "CC BY 4.0";
const SOURCE: &str =
    "CC BY 4.0 (TotalSegmentator data set, Wasserthal et al. 2023; test file of its repository, Apache-2.0)";

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let paths: Vec<&Path> = arguments.iter().skip(1).map(Path::new).collect();
    match (arguments.first().map(String::as_str), paths.as_slice()) {
        (Some("pairs"), [data, out]) => pairs(data, out),
        (Some("zones"), [checkpoint, pairs, root]) => zones(checkpoint, pairs, root),
        (Some("density"), [pairs, root]) => density(pairs, root),
        (Some("stones"), [data, out]) => stones(data, out),
        _ => {
            Err("usage: kub pairs DATA OUT | zones CHECKPOINT PAIRS ROOT | density PAIRS ROOT | stones DATA OUT".into())
        }
    }
}

fn pairs(data: &Path, out: &Path) -> Fallible<()> {
    std::fs::create_dir_all(out)?;
    for image in names(&data.join("xray-kub-drr/images"))? {
        let name = image.file_stem().ok_or("a file without a name")?.to_string_lossy().into_owned();
        let mask = data.join("xray-kub-drr/masks").join(format!("{name}.png"));
        std::fs::copy(&image, out.join(format!("{name}.png")))?;
        std::fs::copy(mask, out.join(format!("{name}.mask.png")))?;
    }
    Ok(())
}

/// The files of a folder, sorted.
fn names(folder: &Path) -> Fallible<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    Ok(paths)
}

/// Pixels whose label has one of `bits`.
fn labelled(labels: &Plane, bits: u8) -> Mask {
    Mask::from_fn(labels.width(), labels.height(), |x, y| labels.at(x, y) as u8 & bits != 0)
}

fn zones(checkpoint: &Path, pairs: &Path, root: &Path) -> Fallible<()> {
    let weights = Weights::read(checkpoint)?;
    let config: Config = serde_json::from_str(weights.metadata.get("configuration").ok_or("no configuration")?)?;
    let graph = export(&config, &weights)?;
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let zones = DangerZones::new(config.clone(), Session::open(&Runtime::load()?, &graph, &options)?)?;
    let mut dice = Vec::new();
    for name in HELD_OUT {
        let image = raster::read_grey(pairs.join(format!("{name}.png")), Default::default())?;
        let labels = raster::read_grey(pairs.join(format!("{name}.mask.png")), Default::default())?.plane;
        let plane = scaled(&image.plane, |value| value / image.max * 2.0 - 1.0);
        // As in the training: bone, where neither kidney nor bladder lies over it.
        let forbidden = Mask::from_fn(labels.width(), labels.height(), |x, y| labels.at(x, y) as u8 == BONE);
        let body = body::body_above(&plane, body::THRESHOLD_RADIOGRAPH);
        let forbidden = forbidden.and(&body);
        let found = body.without(&zones.permissible_within(&plane, &body)?);
        dice.push(2.0 * found.and(&forbidden).area() as f64 / (found.area() + forbidden.area()) as f64);
    }
    let mean = dice.iter().sum::<f64>() / dice.len() as f64;
    let mut draft = Draft::new(Kind::Unet, "kub-zones", LICENCE);
    draft.modality = Some("kub".to_owned());
    draft.parameters = config.parameters() as u64;
    draft.configuration = serde_json::to_value(config)?;
    draft.window = Some(Range { low: Window::RADIOGRAPH.low, high: Window::RADIOGRAPH.high });
    draft.scores.insert("dice_forbidden_held_out".to_owned(), mean);
    draft.graphs.insert("segment".to_owned(), "segment.onnx".to_owned());
    draft.training_data = vec![TrainingData {
        name: "six radiographs that were projected from one CT of abdomen and pelvis, organ labels of TotalSegmentator"
            .to_owned(),
        digest: weights.metadata.get("data").cloned().unwrap_or_default(),
        licence: SOURCE.to_owned(),
    }];
    let card = format!(
        "# Danger zones `kub-zones`\n\nA U-Net of {} parameters that marks where a stone may be in a radiograph of kidneys, ureters and \
         bladder (equation 15; 1 is permissible): not in bone, unless a kidney or the bladder lies over it in the projection. It works \
         on a grid of 256 x 256.\n\n\
         - **Data**: six simulated radiographs of one patient, projected from a CT with voxels of 3 mm under different poses, with \
         the organ labels projected alike; zoomed, shifted, turned, brightened and made noisy at random, never mirrored.\n\
         - **Held-out score**: Dice {mean:.3} of the forbidden region in the body on two other projections ({}). They are of the same patient: \
         the score says nothing of others, and nothing of real radiographs.\n\
         - **Licence**: {LICENCE}; trained on {SOURCE}. Not for diagnosis.\n",
        draft.parameters,
        HELD_OUT.join(", ")
    );
    let package = Package::write(root, draft, &[("segment.onnx", &graph), (CARD_FILE, card.as_bytes())])?;
    println!("Dice {dice:.3?}: {}", package.directory().display());
    Ok(())
}

fn scaled(plane: &Plane, value: impl Fn(f32) -> f32) -> Plane {
    Plane::new(plane.width(), plane.height(), plane.data().iter().map(|&old| value(old)).collect())
}

/// Where stones are, by anatomy: no radiograph with annotated stones was to be had. Of ten, six are laid into the kidneys, three
/// along the ureters and one into the bladder.
fn density(pairs: &Path, root: &Path) -> Fallible<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut annotations = Vec::new();
    let mut bodies: Vec<[f64; 2]> = Vec::new();
    let mut bytes = Vec::new();
    for path in names(pairs)?.iter().filter(|path| path.to_string_lossy().ends_with(".mask.png")) {
        bytes.extend(std::fs::read(path)?);
        let labels = raster::read_grey(path, Default::default())?.plane;
        let image = raster::read_grey(path.to_string_lossy().replace(".mask.png", ".png"), Default::default())?;
        let body =
            body::body_above(&scaled(&image.plane, |value| value / image.max * 2.0 - 1.0), body::THRESHOLD_RADIOGRAPH);
        let bounds = body.bounds().ok_or("a radiograph without a body")?;
        bodies.push([bounds.width as f64 * SPACING_MM, bounds.height as f64 * SPACING_MM]);
        let middle = (
            bounds.left as f64 + (bounds.width as f64 - 1.0) / 2.0,
            bounds.top as f64 + (bounds.height as f64 - 1.0) / 2.0,
        );
        for (x, y) in positions(&labelled(&labels, KIDNEYS), &labelled(&labels, BLADDER), &mut rng)? {
            annotations.push(Annotation {
                // Each is a stone of its own.
                scan: annotations.len() as u64,
                slices: (0, 0),
                x_mm: (x - middle.0) * SPACING_MM,
                y_mm: (y - middle.1) * SPACING_MM,
            });
        }
    }
    let mean = |axis: usize| bodies.iter().map(|body| body[axis]).sum::<f64>() / bodies.len() as f64;
    let how = Fit { sigma_mm: 6.0, floor: 0.0, body_mm: [mean(0), mean(1)] };
    let density = fit(&annotations, &how)?;
    let (file, content) = density.to_file()?;
    let mut draft = Draft::new(Kind::Density, "kub-stones", LICENCE);
    draft.modality = Some("kub".to_owned());
    draft.configuration = serde_json::json!({ "sigma_mm": how.sigma_mm, "floor": how.floor, "body_mm": how.body_mm });
    draft.training_data = vec![TrainingData {
        name: "organ labels of TotalSegmentator, projected from one CT of abdomen and pelvis in eight poses".to_owned(),
        digest: digest(&bytes),
        licence: SOURCE.to_owned(),
    }];
    let card = format!(
        "# Spatial prior `kub-stones`\n\nWhere stones may be in a radiograph of kidneys, ureters and bladder (equation 14), relative to \
         the body. It is an assumption and no measurement: no radiograph with annotated stones was to be had. In each of eight \
         simulated radiographs of one patient {} positions were drawn: 60 % in the kidneys, 30 % along straight ureters from the kidneys' \
         inner edges to the bladder, 10 % in the bladder; smoothed by {} mm.\n\n- **Licence**: {LICENCE}; {SOURCE}.\n",
        annotations.len() / bodies.len(),
        how.sigma_mm
    );
    let package = Package::write(root, draft, &[(file, &content), (CARD_FILE, card.as_bytes())])?;
    println!("{} positions, body {:.0?} mm: {}", annotations.len(), how.body_mm, package.directory().display());
    Ok(())
}

/// Positions of stones in one radiograph, `(x, y)` in pixels.
fn positions(kidneys: &Mask, bladder: &Mask, rng: &mut ChaCha8Rng) -> Fallible<Vec<(f64, f64)>> {
    const EACH_KIDNEY: usize = 30;
    const EACH_URETER: usize = 15;
    const IN_BLADDER: usize = 10;
    let mut found = Vec::new();
    let mut within = |mask: &Mask, count: usize, rng: &mut ChaCha8Rng| {
        let inside: Vec<usize> = (0..mask.data().len()).filter(|&at| mask.data()[at] != 0).collect();
        for _ in 0..if inside.is_empty() { 0 } else { count } {
            let at = inside[rng.random_range(0..inside.len())];
            found.push(((at % mask.width()) as f64, (at / mask.width()) as f64));
        }
    };
    // Not at the rim, where the projection holds little of a kidney.
    within(&bladder.eroded(12), IN_BLADDER, rng);
    let parts = kidneys.components();
    let mut sides: Vec<Mask> = (0..parts.len()).map(|index| parts.mask(index)).collect();
    sides.sort_by_key(|side| std::cmp::Reverse(side.area()));
    sides.truncate(2);
    for side in &sides {
        within(&side.eroded(12), EACH_KIDNEY, rng);
    }
    let target = bladder.bounds().ok_or("a radiograph without a bladder")?;
    let middle = kidneys.width() as f64 / 2.0;
    for side in &sides {
        let bounds = side.bounds().ok_or("an empty kidney")?;
        let left = (bounds.left as f64) < middle;
        let inner = if left { bounds.left + bounds.width } else { bounds.left } as f64;
        let start = (inner, (bounds.top + bounds.height / 2) as f64);
        let entry = if left { 0.25 } else { 0.75 };
        let end = (target.left as f64 + entry * target.width as f64, target.top as f64 + 0.3 * target.height as f64);
        for _ in 0..EACH_URETER {
            let share: f64 = rng.random();
            found.push((start.0 + share * (end.0 - start.0), start.1 + share * (end.1 - start.1)));
        }
    }
    Ok(found)
}

/// Exemplars of stones as they would be in a radiograph. On CT in a soft-tissue window stones are white throughout: the outline is
/// kept, and the thickness along the ray is taken for what it would be were the stone as deep as it is wide.
fn stones(data: &Path, out: &Path) -> Fallible<()> {
    std::fs::create_dir_all(out)?;
    let folder = data.join("ct-kidney-stone-coronal");
    for (image, line, name) in STONES {
        let slice = raster::read_grey(folder.join(format!("images/{image}.jpg")), Default::default())?.plane;
        let text = std::fs::read_to_string(folder.join(format!("labels/{image}.txt")))?;
        let found = labels::parse_yolo(&text)?;
        let stone = found.get(line).ok_or_else(|| format!("{image} has no box {line}"))?;
        let (exemplar, mask) = exemplar(&slice, stone, name)?;
        std::fs::write(out.join(format!("{name}.png")), raster::deep_png(&exemplar))?;
        std::fs::write(out.join(format!("{name}.mask.png")), raster::mask_png(&mask))?;
        println!("{name}: {:.1} px, {} pixels", mask.longest_diameter(), mask.area());
    }
    Ok(())
}

fn exemplar(slice: &Plane, stone: &labels::YoloBox, name: &str) -> Fallible<(Plane, Mask)> {
    /// Grey value of 8 bits above which a pixel is stone: half way from soft tissue to white.
    const STONE: f32 = 180.0;
    let (width, height) = (slice.width() as f64, slice.height() as f64);
    let centre = (stone.centre_x * width, stone.centre_y * height);
    let longest = (stone.width * width).max(stone.height * height);
    // Twice as wide as the stone's share of the exemplar asks for, since boxes are loose; scaled to its size below.
    let crop = |side: usize, scale: f64| {
        Plane::new(
            side,
            side,
            (0..side * side)
                .map(|at| {
                    let place = |pixel: usize, middle: f64, size: usize| {
                        let offset = (pixel as f64 + 0.5 - side as f64 / 2.0) * scale;
                        ((middle + offset).max(0.0) as usize).min(size - 1)
                    };
                    slice.at(place(at % side, centre.0, slice.width()), place(at / side, centre.1, slice.height()))
                })
                .collect(),
        )
    };
    let outline = |plane: &Plane| {
        Mask::from_fn(plane.width(), plane.height(), |x, y| plane.at(x, y) > STONE).largest_component().holes_filled()
    };
    let rough = crop((longest * 2.0).ceil() as usize, 1.0);
    let diameter = outline(&rough).longest_diameter();
    if diameter < 4.0 {
        return Err(format!("{name}: no stone in its box").into());
    }
    // Sampled finely and averaged down, so that the outline is smooth.
    let fine = crop(SIDE * 4, diameter / f64::from(DIAMETER) / 4.0);
    let mask = resize_mask(&outline(&resize(&fine, SIDE * 2, SIDE * 2, Filter::Area)), SIDE, SIDE);
    let depth = mask.distance_to_edge();
    let deepest = depth.data().iter().copied().fold(1.0, f32::max);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    // The chord of a circle of that radius at this distance from its edge.
    let value = |&depth: &f32| {
        let chord = (depth * (2.0 * deepest - depth)).max(0.0).sqrt() / deepest;
        let grain: f32 = rng.random::<f32>() - 0.5;
        TISSUE + EXCESS * chord + 0.04 * grain
    };
    let plane = Plane::new(SIDE, SIDE, depth.data().iter().map(value).collect());
    Ok((plane, mask))
}
