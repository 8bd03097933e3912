//! Stage 6: an image's files, each an object of the store, and its entry in the manifest.

use std::borrow::Cow;

use hiresmed_imaging::{
    Mask, Plane, Spacing,
    dicom::write::{Error, Finding, Identity, Labels, Lesion, Syntax, Synthetic},
    labels::{self, YoloBox},
    morphology::Bounds,
    raster,
};
use hiresmed_protocol::{
    ImageIndex,
    manifest::{self, File, Image},
    outcome::{Output, Stage},
    request::{Modality, TransferSyntax},
};

use super::{Composite, Geometry, Pipeline, Placed, Sampled, Scene};
use crate::jobs::{Context, Failure, Upload};

/// An image's files, and its entry in the manifest.
#[derive(Debug)]
pub struct Encoded {
    /// The entry.
    pub image: Image,
    /// What names the files.
    pub outputs: Vec<Output>,
    /// The files themselves, for the store.
    pub uploads: Vec<Upload>,
}

/// An image on its way out.
struct Writer<'a> {
    context: &'a Context,
    /// The stem that all files of the image share.
    stem: String,
    outputs: Vec<Output>,
    uploads: Vec<Upload>,
}

impl Writer<'_> {
    fn file(&mut self, folder: &str, ending: &str, bytes: Vec<u8>) -> File {
        let (output, upload) = self.context.object(format!("{folder}/{}.{ending}", self.stem), bytes);
        let file = File { file: output.file.clone(), sha256: output.sha256 };
        self.outputs.push(output);
        self.uploads.push(upload);
        file
    }

    /// A DICOM file, where it is `wanted`.
    fn file_if(
        &mut self,
        wanted: bool,
        folder: &str,
        bytes: impl FnOnce() -> Result<Vec<u8>, Error>,
    ) -> Result<Option<File>, Failure> {
        wanted.then(|| Ok(self.file(folder, "dcm", bytes().map_err(refused)?))).transpose()
    }
}

fn refused(error: Error) -> Failure {
    Failure::permanent(Stage::Outputs, error)
}

impl Pipeline {
    /// Encodes an image's files and describes it.
    ///
    /// # Errors
    /// Permanent where an image cannot be encoded.
    pub fn outputs(
        &self,
        context: &Context,
        index: ImageIndex,
        scene: &Scene,
        sampled: &[Sampled],
        places: &Placed,
        composite: &Composite,
    ) -> Result<Encoded, Failure> {
        let (wanted, background, geometry) = (self.request.output, &scene.background, scene.geometry.as_ref());
        let spacing = geometry.map_or(background.spacing, |geometry| geometry.spacing);
        let delineated = delineated(geometry, sampled, places)?;
        let lesions = describe(&delineated, sampled, places, spacing)?;
        let mut writer = Writer { context, stem: index.stem(), outputs: Vec::new(), uploads: Vec::new() };
        let request = format!("{}/{}", context.job().request, self.request.seed);
        // In a source's geometry an image can take as much memory as all else: one at a time.
        let plane = delivered(geometry, &composite.plane, Geometry::image);
        let synthetic = self.synthetic(&request, index, &plane, "composite");
        let image = writer.file("images", "dcm", synthetic.to_bytes().map_err(refused)?);
        let labelled = labelled(&lesions, &delineated, spacing);
        let labels = Labels { image: &synthetic, finding: finding(self.request.modality), lesions: &labelled };
        let seg = writer.file_if(wanted.seg, "labels-seg", || labels.segmentation())?;
        let sr = writer.file_if(wanted.sr, "labels-sr", || labels.measurements())?;
        let (width, height) = (plane.width(), plane.height());
        drop(plane);
        let mask = wanted.masks.then(|| {
            let mask = match geometry {
                None => Cow::Borrowed(&composite.mask),
                Some(_) => Cow::Owned(union(&delineated, width, height)),
            };
            writer.file("masks", "png", raster::mask_png(&mask))
        });
        let before = writer.file_if(wanted.backgrounds, "backgrounds", || {
            let plane = delivered(geometry, &background.plane, Geometry::image);
            self.synthetic(&request, index, &plane, "background").to_bytes()
        })?;
        let yolo = wanted.yolo.then(|| {
            let boxes: Vec<_> =
                lesions.iter().map(|lesion| YoloBox::new(0, bounds(lesion.bbox), width, height)).collect();
            writer.file("labels-yolo", "txt", labels::yolo_text(&boxes).into_bytes())
        });
        let evidence = wanted.evidence.then(|| evidence(&mut writer, geometry, places));
        let (danger_zones, candidates) = evidence.unzip();
        let image = Image {
            file: image.file,
            sha256: image.sha256,
            index,
            seed: self.request.seed,
            dimensions: geometry.map(|_| [width as u32, height as u32]),
            models: self.digests.clone(),
            lesions,
            mask,
            background: before,
            danger_zones,
            candidates,
            yolo,
            seg,
            sr,
            input_sha256: scene.source_sha256,
            mode: self.request.background.mode,
            blend: self.request.blend,
            spacing_mm: [spacing.row_mm, spacing.column_mm],
            execution: self.execution.clone(),
        };
        Ok(Encoded { image, outputs: writer.outputs, uploads: writer.uploads })
    }

    /// An image to be written; `request` is the request's id and seed.
    fn synthetic<'a>(&self, request: &'a str, index: ImageIndex, plane: &'a Plane, object: &'a str) -> Synthetic<'a> {
        Synthetic {
            plane,
            window: self.autoencoder.window(),
            identity: Identity { request, image: index.0, object },
            modality: self.request.modality.dicom_term(),
            description: match object {
                "background" => "Synthetic background without lesions",
                _ => "Synthetic image with lesions",
            },
            body_part: match self.request.modality {
                Modality::Ct => "CHEST",
                Modality::Kub => "ABDOMEN",
            },
            software_version: env!("CARGO_PKG_VERSION"),
            syntax: match self.request.output.transfer_syntax {
                TransferSyntax::Explicit => Syntax::Explicit,
                TransferSyntax::Deflated => Syntax::Deflated,
                TransferSyntax::JpegLs => Syntax::JpegLs,
            },
        }
    }
}

/// An image or a map of an image as it is delivered: as it is, or by `way` in its source's geometry.
fn delivered<'a, T: Clone>(geometry: Option<&Geometry>, map: &'a T, way: fn(&Geometry, &T) -> T) -> Cow<'a, T> {
    geometry.map_or(Cow::Borrowed(map), |geometry| Cow::Owned(way(geometry, map)))
}

/// Writes danger zones and candidates.
fn evidence(writer: &mut Writer<'_>, geometry: Option<&Geometry>, places: &Placed) -> (File, File) {
    let permissible = delivered(geometry, &places.permissible, Geometry::mask);
    let danger_zones = writer.file("danger-zones", "png", raster::mask_png(&permissible.inverted()));
    let weights = delivered(geometry, &places.candidates, Geometry::weights);
    (danger_zones, writer.file("candidates", "png", candidates_png(&weights)))
}

/// A lesion's pixels where it is delivered.
struct Delineated<'a> {
    /// The lesion's pixels, in a frame of their own.
    mask: Cow<'a, Mask>,
    /// Column of the mask's first pixel in the image.
    left: i64,
    /// Row of the mask's first pixel in the image.
    top: i64,
}

/// The lesions that found a place, as they are delivered.
fn delineated<'a>(
    geometry: Option<&Geometry>,
    sampled: &'a [Sampled],
    places: &Placed,
) -> Result<Vec<Delineated<'a>>, Failure> {
    let one = |(n, (lesion, place)): (usize, (&'a Sampled, &hiresmed_compositing::placement::Placed))| {
        let Some(geometry) = geometry else {
            return Ok(Delineated { mask: Cow::Borrowed(&lesion.mask), left: place.left, top: place.top });
        };
        let part = geometry.mask_part(&lesion.mask, (place.left, place.top));
        let (mask, (left, top)) = part.ok_or_else(|| no_pixels(n))?;
        Ok(Delineated { mask: Cow::Owned(mask), left: left as i64, top: top as i64 })
    };
    sampled.iter().zip(&places.lesions).enumerate().map(one).collect()
}

fn no_pixels(n: usize) -> Failure {
    Failure::permanent(Stage::Outputs, anyhow::anyhow!("lesion {} has no pixels", n + 1))
}

/// All lesions of an image of `width` x `height` that came back to their source's geometry, and so lie inside of it.
fn union(delineated: &[Delineated<'_>], width: usize, height: usize) -> Mask {
    let mut union = Mask::empty(width, height);
    for Delineated { mask, left, top } in delineated {
        union.paste(mask, *left as usize, *top as usize);
    }
    union
}

/// The lesions, measured on their masks where they are delivered.
fn describe(
    delineated: &[Delineated<'_>],
    sampled: &[Sampled],
    places: &Placed,
    spacing: Spacing,
) -> Result<Vec<manifest::Lesion>, Failure> {
    let one = |(n, (delineated, lesion)): (usize, (&Delineated<'_>, &Sampled))| {
        let Delineated { mask, left, top } = delineated;
        let (size_px, centre, bbox) = measure(mask).ok_or_else(|| no_pixels(n))?;
        // The footprint rule keeps every mask inside the image, so that its box is not negative there.
        let shift = |value: u32, by: i64| u32::try_from(i64::from(value) + by).unwrap_or(0);
        Ok(manifest::Lesion {
            centre: [centre.0 + *left as f64, centre.1 + *top as f64],
            size_px,
            exemplar: lesion.exemplar,
            diameter_mm: mask.longest_diameter_mm(spacing),
            requested_diameter_mm: lesion.requested_mm,
            bbox: [shift(bbox[0], *left), shift(bbox[1], *top), bbox[2], bbox[3]],
            area_px: mask.area() as u64,
            pinned: n < places.pinned,
        })
    };
    delineated.iter().zip(sampled).enumerate().map(one).collect()
}

/// What is found in images of a modality.
fn finding(modality: Modality) -> Finding {
    match modality {
        Modality::Ct => Finding::Nodule,
        Modality::Kub => Finding::Calculus,
    }
}

/// The lesions as DICOM labels have them, in the manifest's order and with its diameters.
fn labelled<'a>(described: &[manifest::Lesion], delineated: &'a [Delineated<'_>], spacing: Spacing) -> Vec<Lesion<'a>> {
    let one = |(described, delineated): (&manifest::Lesion, &'a Delineated<'_>)| Lesion {
        mask: &delineated.mask,
        left: delineated.left,
        top: delineated.top,
        diameter_mm: described.diameter_mm,
        area_mm2: described.area_px as f64 * spacing.row_mm * spacing.column_mm,
    };
    described.iter().zip(delineated).map(one).collect()
}

/// Longest diameter in pixels, centroid, and box (left, top, width, height) of a mask in its own frame; none for an empty one.
fn measure(mask: &Mask) -> Option<(f64, (f64, f64), [u32; 4])> {
    let bounds = mask.bounds()?;
    let bbox = [bounds.left, bounds.top, bounds.width, bounds.height].map(|value| value as u32);
    Some((mask.longest_diameter(), mask.centroid()?, bbox))
}

fn bounds([left, top, width, height]: [u32; 4]) -> Bounds {
    Bounds { left: left as usize, top: top as usize, width: width as usize, height: height as usize }
}

/// C_final in 8 bits: 255 at its greatest weight, 0 exactly where a lesion's centre may not be.
fn candidates_png(candidates: &Plane) -> Vec<u8> {
    let greatest = candidates.data().iter().copied().fold(0.0, f32::max);
    let scale = if greatest > 0.0 { 254.0 / greatest } else { 0.0 };
    let level = |&weight: &f32| if weight > 0.0 { 1 + (weight * scale).round().clamp(0.0, 254.0) as u8 } else { 0 };
    let pixels: Vec<u8> = candidates.data().iter().map(level).collect();
    raster::grey_png(candidates.width(), candidates.height(), &pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_keep_their_zero() {
        let mut plane = Plane::filled(8, 8, 0.0);
        plane.set(3, 4, 1e-6);
        plane.set(5, 5, 1.0);
        let png = raster::grey_from_bytes(&candidates_png(&plane), "c.png", Default::default()).unwrap().plane;
        assert_eq!((png.at(0, 0), png.at(3, 4), png.at(5, 5)), (0.0, 1.0, 255.0));
    }

    #[test]
    fn a_mask_is_measured_in_its_own_frame() {
        let mask = Mask::from_fn(10, 10, |x, y| (2..6).contains(&x) && y == 3);
        let measured = measure(&mask).unwrap();
        assert_eq!(measured, (4.0, (3.5, 3.0), [2, 3, 4, 1]));
        assert!(measure(&Mask::empty(4, 4)).is_none());
    }
}
