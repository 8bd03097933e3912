//! `report.html`: one self-contained page that shows a delivery to a person.
//!
//! It is made from the delivered files alone, so that it shows what was delivered and not what was meant to be.

mod pictures;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hiresmed_imaging::{Mask, Plane, dicom, files::write_atomically, raster};
use hiresmed_protocol::{Manifest, manifest::Image};
use rayon::prelude::*;
use serde::Serialize;

/// The page's name in a delivery.
pub const FILE: &str = "report.html";

/// The page shows at most so many images; a delivery of thousands stays readable and small.
const SHOWN: usize = 48;

/// What the page draws itself from.
#[derive(Serialize)]
struct Page {
    title: String,
    summary: String,
    refused: Vec<String>,
    width: u32,
    height: u32,
    /// Mean of the backgrounds, under the lesions' positions.
    bodies: String,
    images: Vec<Picture>,
    stages: Vec<StageTime>,
    provenance: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Picture {
    name: String,
    input: String,
    seed: String,
    sha256: String,
    composite: String,
    background: String,
    mask: String,
    zones: String,
    candidates: String,
    lesions: Vec<Lesion>,
    scores: Option<Scores>,
}

/// The largest picture of an image: a page of images at their sources' resolution would be hundreds of megabytes large.
type Most = (usize, usize);

/// What the lesions changed: the image against its own background, in the precision of the delivered files. None where no
/// background was delivered.
#[derive(Serialize)]
struct Scores {
    /// PSNR in dB over the window's width; null where nothing differs.
    psnr: Option<f64>,
    ssim: f64,
    /// SSIM averaged outside the lesions' masks: 1 where nothing but the lesions was touched.
    ssim_outside_mask: Option<f64>,
}

#[derive(Serialize)]
struct Lesion {
    centre: [f64; 2],
    /// Column, row and size of the lesion in the first image's pixels.
    in_first: [f64; 3],
    size_px: f64,
    diameter_mm: f64,
    exemplar: String,
}

#[derive(Serialize)]
struct StageTime {
    name: String,
    seconds: f64,
}

/// Writes `report.html` into the delivery at `folder` and returns its path.
///
/// # Errors
/// A delivered file that cannot be read back, or a folder that cannot be written.
pub fn write(folder: &Path, manifest: &Manifest) -> Result<PathBuf> {
    let page = page(folder, manifest)?;
    // `<` cannot stand in a script element without the risk of ending it; JSON allows it escaped.
    let data = serde_json::to_string(&page)?.replace('<', "\\u003c");
    let path = folder.join(FILE);
    write_atomically(&path, include_str!("page.html").replace("@DATA@", &data).as_bytes())
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(path)
}

fn page(folder: &Path, manifest: &Manifest) -> Result<Page> {
    let shown = &manifest.images[..manifest.images.len().min(SHOWN)];
    let most = (manifest.size.width as usize, manifest.size.height as usize);
    let [width, height] =
        shown.first().map_or([manifest.size.width, manifest.size.height], |first| manifest.dimensions(first));
    let mut mean = pictures::Mean::default();
    let mut images = Vec::with_capacity(shown.len());
    // A few at a time: the mean takes each background as soon as it is there, in order.
    for batch in shown.chunks(rayon::current_num_threads()) {
        let pictures: Vec<_> = batch
            .par_iter()
            .map(|image| {
                let own = manifest.dimensions(image);
                picture(
                    folder,
                    image,
                    most,
                    [f64::from(width) / f64::from(own[0]), f64::from(height) / f64::from(own[1])],
                )
            })
            .collect::<Result<_>>()?;
        for (picture, background) in pictures {
            mean.add(&background);
            images.push(picture);
        }
    }
    let lesions: usize = manifest.images.iter().map(|image| image.lesions.len()).sum();
    let one_size = manifest.images.iter().all(|image| manifest.dimensions(image) == [width, height]);
    let size = if one_size { format!("{width} × {height} pixels") } else { "their sources' sizes".to_owned() };
    let mut summary =
        format!("{} images of {size} with {lesions} lesions, request {}", manifest.images.len(), manifest.request,);
    if manifest.images.len() > SHOWN {
        summary.push_str(&format!("; the first {SHOWN} are shown, manifest.json has all"));
    }
    Ok(Page {
        title: manifest.name.clone().unwrap_or_else(|| "Synthetic images with lesions".to_owned()),
        summary,
        refused: manifest
            .failures
            .iter()
            .map(|failure| format!("Image {} was not made ({}): {}", failure.index.0, failure.stage, failure.reason))
            .collect(),
        width,
        height,
        bodies: mean.picture()?,
        images,
        stages: manifest
            .stages
            .iter()
            .map(|timing| StageTime { name: timing.stage.to_string(), seconds: timing.duration_ms / 1000.0 })
            .collect(),
        provenance: provenance(manifest),
    })
}

/// A picture for the page, no larger than `most`, and its background as it is shown. `to_first` are the first image's pixels for one of
/// this image, across and down.
fn picture(folder: &Path, image: &Image, most: Most, to_first: [f64; 2]) -> Result<(Picture, Plane)> {
    let composite = plane(&folder.join(&image.file))?;
    // Without a delivered background the slider shows the composite on both sides.
    let background = match &image.background {
        Some(file) => plane(&folder.join(&file.file))?,
        None => composite.clone(),
    };
    let overlay =
        |file: &Option<hiresmed_protocol::manifest::File>, paint: fn(&[u8], Most) -> Result<String>| match file {
            Some(file) => {
                let path = folder.join(&file.file);
                let bytes = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
                paint(&bytes, most).with_context(|| format!("{} is no mask", path.display()))
            }
            None => Ok(pictures::NOTHING.to_owned()),
        };
    let name = Path::new(&image.file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let scores = match (&image.background, &image.mask) {
        (Some(_), Some(mask)) => Some(scores(&composite, &background, &raster::read_mask(folder.join(&mask.file))?)?),
        _ => None,
    };
    let (composite, background) = (pictures::fitted(composite, most), pictures::fitted(background, most));
    let picture = Picture {
        name,
        scores,
        input: image.input_sha256.as_ref().map_or_else(|| "sampled".to_owned(), |digest| digest.short()),
        seed: format!("{} / {}", image.seed, image.index.0),
        sha256: image.sha256.to_string(),
        composite: pictures::grey(&composite)?,
        background: pictures::grey(&background)?,
        mask: overlay(&image.mask, pictures::outline)?,
        zones: overlay(&image.danger_zones, pictures::danger)?,
        candidates: overlay(&image.candidates, pictures::heat)?,
        lesions: image
            .lesions
            .iter()
            .map(|lesion| Lesion {
                centre: lesion.centre,
                in_first: [
                    lesion.centre[0] * to_first[0],
                    lesion.centre[1] * to_first[1],
                    lesion.size_px * to_first[0],
                ],
                size_px: lesion.size_px,
                diameter_mm: lesion.diameter_mm,
                exemplar: lesion.exemplar.short(),
            })
            .collect(),
    };
    Ok((picture, background))
}

/// Width of [-1, 1], over which delivered planes are normalised.
const DATA_RANGE: f64 = 2.0;

fn scores(composite: &Plane, background: &Plane, mask: &Mask) -> Result<Scores> {
    let psnr = hiresmed_scores::psnr(composite, background, DATA_RANGE)?;
    let map = hiresmed_scores::ssim_map(composite, background, DATA_RANGE)?;
    Ok(Scores { psnr: psnr.is_finite().then_some(psnr), ssim: map.mean(), ssim_outside_mask: map.mean_outside(mask)? })
}

/// A delivered image, normalised to [-1, 1] over the window that it was made in.
fn plane(path: &Path) -> Result<Plane> {
    let image = dicom::read(path)?;
    let window = image.display_window()?;
    let mut plane = image.to_plane(0)?;
    plane.data_mut().iter_mut().for_each(|value| *value = window.normalise(*value));
    Ok(plane)
}

fn provenance(manifest: &Manifest) -> Vec<(String, String)> {
    let mut rows = vec![
        ("generator".to_owned(), manifest.generator.clone()),
        ("request".to_owned(), manifest.request.to_string()),
        ("seed".to_owned(), manifest.seed.to_string()),
    ];
    if let Some(image) = manifest.images.first() {
        rows.extend(image.models.iter().map(|(kind, digest)| (format!("model, {kind}"), digest.to_string())));
        rows.push(("blend".to_owned(), format!("{:?}", image.blend).to_lowercase()));
        rows.push((
            "execution".to_owned(),
            format!(
                "{}, ONNX Runtime {}, batch {}",
                image.execution.provider, image.execution.runtime_version, image.execution.batch_size
            ),
        ));
    }
    let mut exemplars: Vec<String> =
        manifest.images.iter().flat_map(|image| &image.lesions).map(|lesion| lesion.exemplar.to_string()).collect();
    exemplars.sort();
    exemplars.dedup();
    rows.extend(exemplars.into_iter().map(|digest| ("model, singan".to_owned(), digest)));
    rows
}
