//! Scores of what was trained on images that it was not trained on.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, bail};
use hiresmed_imaging::{Mask, Plane, body, series};
use hiresmed_inference::{Runtime, SessionOptions, package::Package};
use hiresmed_models::{
    data::{Boxed, Label, Pair},
    training::Kind,
    unet::{self, DangerZones},
    vqgan::Autoencoder,
    yolo::{self, Detector, Search},
};
use hiresmed_scores::{psnr, ssim};

/// Images have a range of two: they are normalised to [-1, 1].
const DATA_RANGE: f64 = 2.0;
/// The score from which a box counts, for precision and recall.
const THRESHOLD: f32 = 0.25;
/// Low enough for the average precision over all thresholds.
const LEAST_SCORE: f32 = 0.001;

/// Held-out images with what a network of their kind should make of them.
pub(crate) enum HeldOut {
    /// For an autoencoder: themselves. For a model that draws whole images: no copy of what it was trained on.
    Slices(Vec<series::Slice>),
    /// For a U-Net: images in [-1, 1] and the permissible region, above 0.
    Regions(Vec<(Plane, Plane)>),
    /// For a detector: images in [-1, 1] with the lesions on them.
    Boxes(Vec<(Plane, Vec<Label>)>),
}

impl HeldOut {
    /// Reads every image of `folders` as trainings of this kind and preset read theirs.
    ///
    /// # Errors
    /// Every fault of an image, a mask or a label; a folder without an image; a kind that is not scored on images.
    pub(crate) fn read(kind: Kind, preset: &str, folders: &[PathBuf]) -> anyhow::Result<Self> {
        let listed = |faults: Vec<String>| anyhow::anyhow!("held-out images: {}", faults.join("; "));
        let (held, count) = match kind {
            Kind::Vqgan | Kind::Prior | Kind::Ddpm | Kind::Styleswin => {
                let slices = slices(folders)?;
                let count = slices.len();
                (Self::Slices(slices), count)
            }
            Kind::Unet => {
                let training = unet::Training::preset(preset).unwrap_or_default();
                let pairs = Pair::find(folders, &[]).map_err(listed)?;
                let read =
                    pairs.iter().map(|pair| pair.read().map(|(image, mask)| (image, training.permissible(&mask))));
                let read = whole(read.map(|pair| pair.map_err(|fault| vec![fault]))).map_err(listed)?;
                let count = read.len();
                (Self::Regions(read), count)
            }
            Kind::Yolo => {
                let training = yolo::Training::preset(preset).unwrap_or_default();
                let images = Boxed::find(folders, &[]).map_err(listed)?;
                let read = images.iter().map(|image| image.read(training.window, training.config.classes));
                let read = whole(read).map_err(listed)?;
                let count = read.len();
                (Self::Boxes(read), count)
            }
            Kind::Singan => bail!("a {kind:?} is judged by what it makes, not scored on images"),
        };
        if count == 0 {
            bail!("there is no held-out image");
        }
        Ok(held)
    }

    /// The images themselves, of a kind that has no more.
    pub(crate) fn into_slices(self) -> Vec<series::Slice> {
        match self {
            Self::Slices(slices) => slices,
            Self::Regions(_) | Self::Boxes(_) => Vec::new(),
        }
    }

    /// The scores of `package`, by the names that a description gives them, with four decimals.
    ///
    /// # Errors
    /// For a package that does not open or fails on an image.
    pub(crate) fn score(self, package: &Package) -> anyhow::Result<BTreeMap<String, f64>> {
        let (runtime, options) = (Runtime::load()?, SessionOptions::default());
        let (count, scores) = match self {
            Self::Slices(slices) => {
                let held = evaluate(&Autoencoder::open(package, &runtime, &options)?, slices)?;
                (held.len(), fidelity(&held))
            }
            Self::Regions(regions) => {
                let zones = DangerZones::open(package, &runtime, &options)?;
                let dice: anyhow::Result<Vec<f64>> = regions.iter().map(|pair| overlap(&zones, pair)).collect();
                let (mean, deviation) = mean_and_deviation(dice?.into_iter());
                (regions.len(), vec![("dice_held_out", mean), ("dice_held_out_sd", deviation)])
            }
            Self::Boxes(images) => {
                let detector = Detector::open(package, &runtime, &options)?;
                let search = Search { least_score: LEAST_SCORE, ..Search::default() };
                let judge = |(image, labels): (Plane, Vec<Label>)| Ok((detector.detect(&image, &search)?, labels));
                let judged: Vec<_> = images.into_iter().map(judge).collect::<anyhow::Result<_>>()?;
                let scores = yolo::score(&judged, THRESHOLD);
                let named = [
                    ("precision_held_out", scores.precision),
                    ("recall_held_out", scores.recall),
                    ("ap50_held_out", scores.ap50),
                    ("held_out_boxes", Some(scores.lesions as f64)),
                ];
                (judged.len(), named.into_iter().filter_map(|(name, score)| Some((name, score?))).collect())
            }
        };
        Ok(described(scores, count))
    }
}

/// Scores on so many images as a description has them, with four decimals.
pub(super) fn described(scores: Vec<(&'static str, f64)>, images: usize) -> BTreeMap<String, f64> {
    let all = scores.into_iter().chain([("held_out_images", images as f64)]);
    all.map(|(name, score)| (name.to_owned(), (score * 1e4).round() / 1e4)).collect()
}

/// All of them, or all faults.
fn whole<T>(read: impl Iterator<Item = Result<T, Vec<String>>>) -> Result<Vec<T>, Vec<String>> {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    for image in read {
        match image {
            Ok(image) => found.push(image),
            Err(of_image) => faults.extend(of_image),
        }
    }
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

/// Dice of the permissible region within the body; 1 where there is none and none was found.
fn overlap(zones: &DangerZones, (image, truth): &(Plane, Plane)) -> anyhow::Result<f64> {
    let body = body::body_above(image, body::THRESHOLD_NORMALISED);
    let truth = Mask::from_fn(image.width(), image.height(), |x, y| truth.at(x, y) > 0.0).and(&body);
    let found = zones.permissible_within(image, &body)?;
    let both = found.and(&truth).area();
    let sum = found.area() + truth.area();
    Ok(if sum == 0 { 1.0 } else { 2.0 * both as f64 / sum as f64 })
}

/// One held-out image with what the model made of it.
#[derive(Debug)]
pub(super) struct Held {
    /// Series and name.
    pub(super) name: String,
    pub(super) real: Plane,
    pub(super) reconstruction: Plane,
    /// Distinct codes in the image.
    pub(super) codes: usize,
    pub(super) psnr_db: f64,
    pub(super) ssim: f64,
}

/// The slices of every image in the folders.
///
/// # Errors
/// For folders without an image, and with all that cannot be read.
pub(super) fn slices(folders: &[PathBuf]) -> anyhow::Result<Vec<series::Slice>> {
    let (mut slices, mut faults) = (Vec::new(), Vec::new());
    for folder in folders {
        let found = series::read_folder(folder)?;
        faults.extend(found.faults.iter().map(ToString::to_string));
        slices.extend(found.slices);
    }
    if !faults.is_empty() {
        bail!("held-out images cannot be read: {}", faults.join("; "));
    }
    if slices.is_empty() {
        bail!("the held-out folders have no image");
    }
    Ok(slices)
}

/// Reconstructs every slice.
pub(super) fn evaluate(model: &Autoencoder, slices: Vec<series::Slice>) -> anyhow::Result<Vec<Held>> {
    let reconstruct = |slice: series::Slice| {
        let real = slice.normalised(model.window());
        let images = std::slice::from_ref(&real);
        let tokens = model.encode(images)?;
        let reconstruction = model.decode(&tokens)?.pop().context("the model returned no image")?;
        let codes = tokens.iter().flat_map(|tokens| &tokens.data).collect::<std::collections::BTreeSet<_>>().len();
        Ok(Held {
            name: format!("{}/{}", slice.series, slice.name),
            psnr_db: psnr(&real, &reconstruction, DATA_RANGE)?,
            ssim: ssim(&real, &reconstruction, DATA_RANGE)?,
            codes,
            real,
            reconstruction,
        })
    };
    slices.into_iter().map(reconstruct).collect()
}

/// Fidelity of reconstructions: means and standard deviations.
pub(super) fn fidelity(held: &[Held]) -> Vec<(&'static str, f64)> {
    let psnr = mean_and_deviation(held.iter().map(|held| held.psnr_db));
    let ssim = mean_and_deviation(held.iter().map(|held| held.ssim));
    vec![("psnr_db", psnr.0), ("psnr_db_sd", psnr.1), ("ssim", ssim.0), ("ssim_sd", ssim.1)]
}

/// Mean and standard deviation (n - 1; 0 for one value).
fn mean_and_deviation(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let squares = values.map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, if count > 1.0 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_is_of_a_sample() {
        assert_eq!(mean_and_deviation([1.0, 3.0].into_iter()), (2.0, 2f64.sqrt()));
        assert_eq!(mean_and_deviation([5.0].into_iter()), (5.0, 0.0));
    }

    #[test]
    fn held_out_images_that_cannot_be_scored_are_told_with_every_fault() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_path_buf()];
        let read = |kind| HeldOut::read(kind, "tiny", &folders).err().unwrap().to_string();
        assert!(read(Kind::Unet).contains("no held-out image"));
        assert!(read(Kind::Singan).contains("judged by what it makes"));
        assert!(read(Kind::Styleswin).contains("no image"));
        for (kind, beside) in [(Kind::Yolo, "txt"), (Kind::Unet, "mask.png")] {
            for name in ["a", "b"] {
                std::fs::write(folder.path().join(format!("{name}.png")), "no image").unwrap();
                std::fs::write(folder.path().join(format!("{name}.{beside}")), "").unwrap();
            }
            let faults = read(kind);
            assert!(faults.contains("a.png") && faults.contains("b.png"), "{faults}");
        }
        let faults = read(Kind::Vqgan);
        assert!(faults.contains("a.png") && faults.contains("b.png"), "{faults}");
    }
}
