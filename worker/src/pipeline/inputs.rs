//! Stage 1: a source image, normalised over the model's intensity window and brought to the request's size.

use bytes::Bytes;
use hiresmed_imaging::{
    Plane, Spacing, Window, dicom, raster,
    resample::{Filter, resize},
};
use hiresmed_protocol::{
    Digest,
    job::Object,
    outcome::Stage,
    request::{self, Modality, Size},
};

use super::{Geometry, Pipeline};
use crate::{Environment, jobs::Failure};

/// A source image.
#[derive(Debug, Clone)]
pub struct Source {
    /// Shape of the request, in [-1, 1], with its spacing.
    pub plane: Plane,
    /// Distance of pixel centres.
    pub spacing: Spacing,
    /// Its own geometry, where images are delivered in it.
    pub geometry: Option<Geometry>,
    /// Digest of the file.
    pub sha256: Digest,
}

impl Pipeline {
    /// Reads the source image of one background.
    ///
    /// # Errors
    /// Permanent where the file cannot be decoded correctly, is colour, or has no spacing; the reason names the file.
    pub fn input(&self, environment: &Environment, object: &Object) -> Result<Source, Failure> {
        let (name, bytes) = fetch(environment, object)?;
        let plane = decode(&bytes, name, self.autoencoder.window(), self.request.modality)?;
        let (plane, geometry) = for_networks(plane, &self.request.size, self.request.output.geometry, name)?;
        let spacing = plane.spacing.ok_or_else(|| no_spacing(name))?;
        Ok(Source { plane, spacing, geometry, sha256: object.sha256 })
    }
}

/// A source as the networks see it, of the request's size, with its own geometry where that is wanted. `name` stands for it in errors.
///
/// # Errors
/// Permanent where it cannot be brought to the size, or would be cropped and its own geometry is wanted.
pub(super) fn for_networks(
    plane: Plane,
    size: &Size,
    geometry: request::Geometry,
    name: &str,
) -> Result<(Plane, Option<Geometry>), Failure> {
    match geometry {
        request::Geometry::Request => Ok((to_size(plane, size, name)?, None)),
        request::Geometry::Source => Geometry::fit(plane, size, name).map(|(plane, geometry)| (plane, Some(geometry))),
    }
}

pub(super) fn no_spacing(name: &str) -> Failure {
    refuse(anyhow::anyhow!(
        "{name}: the file does not say how far its pixels lie apart; give size.spacing_mm in the request"
    ))
}

/// An input's name, for errors, and its bytes.
///
/// # Errors
/// Permanent where it is missing, or not what it was when the request was planned; transient where the store fails.
pub fn fetch<'a>(environment: &Environment, object: &'a Object) -> Result<(&'a str, Bytes), Failure> {
    let bytes = environment.store.get(&object.key)?;
    if Digest::of(&bytes) != object.sha256 {
        return Err(refuse(anyhow::anyhow!(
            "{}: the object has changed since the request was planned; submit the request again",
            object.key
        )));
    }
    Ok((object.key.rsplit('/').next().unwrap_or(&object.key), bytes))
}

/// The image in `bytes` (DICOM, PNG or JPEG), in [-1, 1]: CT over `window`, a radiograph over the window that its file names. Of a
/// multi-frame file the middle frame alone is used: split it to use all. `name` stands for the file in errors.
///
/// # Errors
/// Permanent where it cannot be decoded correctly, is colour, or says that it is of another modality, whose values would be taken for
/// something that they are not. A picture, and a DICOM file without a modality, say nothing and pass.
pub fn decode(bytes: &[u8], name: &str, window: Window, modality: Modality) -> Result<Plane, Failure> {
    let picture = bytes.starts_with(b"\x89PNG") || bytes.starts_with(&[0xFF, 0xD8]);
    if picture {
        let grey = raster::grey_from_bytes(bytes, name, dicom::ReadOptions::default()).map_err(refuse)?;
        let mut plane = grey.plane;
        plane.data_mut().iter_mut().for_each(|value| *value = *value / grey.max * 2.0 - 1.0);
        return Ok(plane);
    }
    let image = dicom::from_bytes(bytes, name, dicom::ReadOptions::default()).map_err(refuse)?;
    let own = image.attributes.modality.as_deref();
    let (fits, wanted) = match modality {
        Modality::Ct => (own.is_none_or(|own| own == "CT"), "CT images, in Hounsfield units"),
        Modality::Kub => (own.is_none() || image.attributes.is_radiograph(), "radiographs (DX or CR)"),
    };
    if !fits {
        return Err(refuse(anyhow::anyhow!(
            "{name}: its modality is {}, and the request is for `{}`; give {wanted}, or windowed ones as PNG",
            own.unwrap_or_default(),
            modality.as_str()
        )));
    }
    let middle = image.frames() / 2;
    let (mut plane, window) = match modality {
        Modality::Ct => (image.to_plane(middle).map_err(refuse)?, window),
        Modality::Kub => image.shown(middle).map_err(refuse)?,
    };
    if !plane.is_finite() {
        return Err(refuse(anyhow::anyhow!("{name}: pixels that are not finite numbers; export the file again")));
    }
    plane.data_mut().iter_mut().for_each(|value| *value = window.normalise(*value));
    Ok(plane)
}

/// `plane` at the size that is asked for. Where the request fixes the spacing, the image is resampled to it and cropped
/// or surrounded by air about its centre; else it is scaled to fill the size, which must have its proportions.
pub(super) fn to_size(plane: Plane, size: &Size, name: &str) -> Result<Plane, Failure> {
    let (width, height) = (size.width as usize, size.height as usize);
    let wanted = size.spacing_mm.map(Spacing::square);
    let (plane, wanted) = match (plane.spacing, wanted) {
        (Some(own), Some(wanted)) if own != wanted => {
            let (columns, rows) = resampled_size(&plane, own, wanted, size, name)?;
            (resize(&plane, columns, rows, Filter::Area), Some(wanted))
        }
        // A picture without spacing has the one that the request declares.
        (own, wanted) => (plane, wanted.or(own)),
    };
    if size.spacing_mm.is_some() {
        return Ok(centred(&plane, width, height).with_spacing(wanted));
    }
    if (plane.width(), plane.height()) == (width, height) {
        return Ok(plane.with_spacing(wanted));
    }
    if plane.width() * height != plane.height() * width {
        return Err(refuse(anyhow::anyhow!(
            "{name}: {} x {} pixels do not have the proportions of {width} x {height}; give size.spacing_mm to crop instead",
            plane.width(),
            plane.height()
        )));
    }
    let factor = plane.width() as f64 / width as f64;
    let spacing = plane.spacing.map(|own| Spacing { row_mm: own.row_mm * factor, column_mm: own.column_mm * factor });
    let filter = if factor > 1.0 { Filter::Area } else { Filter::Bicubic };
    let mut resized = resize(&plane, width, height, filter);
    resized.data_mut().iter_mut().for_each(|value| *value = value.clamp(-1.0, 1.0));
    Ok(resized.with_spacing(spacing))
}

/// Columns and rows of `plane`, with pixels `own` apart, at the spacing that is `wanted`.
///
/// # Errors
/// Permanent where that is far more than the request's size and the plane's own: nothing but a wrong spacing asks for it.
pub(super) fn resampled_size(
    plane: &Plane,
    own: Spacing,
    wanted: Spacing,
    size: &Size,
    name: &str,
) -> Result<(usize, usize), Failure> {
    let columns = (plane.width() as f64 * own.column_mm / wanted.column_mm).round().max(1.0) as usize;
    let rows = (plane.height() as f64 * own.row_mm / wanted.row_mm).round().max(1.0) as usize;
    if columns > 4 * plane.width().max(size.width as usize) || rows > 4 * plane.height().max(size.height as usize) {
        return Err(refuse(anyhow::anyhow!(
            "{name}: at {} mm it would have {columns} x {rows} pixels; give a size.spacing_mm nearer to its own",
            wanted.column_mm
        )));
    }
    Ok((columns, rows))
}

/// The middle of `plane` at another size; air where it ends.
fn centred(plane: &Plane, width: usize, height: usize) -> Plane {
    let mut result = Plane::filled(width, height, -1.0);
    let (from_x, to_x) = (plane.width().saturating_sub(width) / 2, width.saturating_sub(plane.width()) / 2);
    let (from_y, to_y) = (plane.height().saturating_sub(height) / 2, height.saturating_sub(plane.height()) / 2);
    for y in 0..plane.height().min(height) {
        for x in 0..plane.width().min(width) {
            result.set(to_x + x, to_y + y, plane.at(from_x + x, from_y + y));
        }
    }
    result
}

fn refuse(error: impl Into<anyhow::Error>) -> Failure {
    Failure::permanent(Stage::Inputs, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: u32, height: u32, spacing_mm: Option<f64>) -> Size {
        Size { width, height, spacing_mm }
    }

    #[test]
    fn an_image_is_scaled_with_its_spacing() {
        let plane = Plane::filled(64, 64, 0.25).with_spacing(Some(Spacing::square(0.5)));
        let half = to_size(plane, &size(32, 32, None), "a.dcm").unwrap();
        assert_eq!((half.width(), half.height()), (32, 32));
        assert_eq!(half.spacing, Some(Spacing::square(1.0)));
        assert!(half.data().iter().all(|value| (value - 0.25).abs() < 1e-6));
    }

    #[test]
    fn a_fixed_spacing_resamples_and_surrounds_with_air() {
        let plane = Plane::filled(64, 64, 0.5).with_spacing(Some(Spacing::square(0.5)));
        let result = to_size(plane, &size(64, 64, Some(1.0)), "a.dcm").unwrap();
        assert_eq!(result.spacing, Some(Spacing::square(1.0)));
        assert_eq!(result.at(0, 0), -1.0);
        assert_eq!(result.data().iter().filter(|&&value| value > 0.0).count(), 32 * 32);
        assert!(result.at(32, 32) > 0.49);
    }

    #[test]
    fn other_proportions_are_refused_by_name() {
        let failure = to_size(Plane::filled(64, 32, 0.0), &size(64, 64, None), "wide.dcm").unwrap_err();
        assert!(failure.to_string().contains("wide.dcm"), "{failure}");
    }

    #[test]
    fn another_modality_is_refused_with_the_next_step() {
        let written = |modality| {
            dicom::write::Synthetic {
                plane: &Plane::filled(16, 16, 0.0),
                window: Window::LUNG_CT,
                identity: dicom::write::Identity { request: "r", image: 0, object: "composite" },
                modality,
                description: "",
                body_part: "CHEST",
                software_version: "0",
                syntax: dicom::write::Syntax::Explicit,
            }
            .to_bytes()
            .unwrap()
        };
        for (modality, own, other, next) in [
            (Modality::Ct, "CT", "MR", "give CT images"),
            (Modality::Kub, "DX", "CT", "give radiographs"),
            (Modality::Kub, "CR", "MR", "give radiographs"),
        ] {
            assert!(decode(&written(own), "a.dcm", Window::LUNG_CT, modality).is_ok());
            let failure = decode(&written(other), "knee.dcm", Window::LUNG_CT, modality).unwrap_err().to_string();
            for part in ["knee.dcm", &format!("its modality is {other}"), next] {
                assert!(failure.contains(part), "{part} in {failure}");
            }
        }
    }

    #[test]
    fn damaged_files_are_refused_by_name() {
        for bytes in [&b"no image"[..], b"\x89PNG\r\n\x1a\n", &[0xFF, 0xD8, 0xFF]] {
            let failure = decode(bytes, "bad.dcm", Window::LUNG_CT, Modality::Ct).unwrap_err();
            assert!(failure.to_string().contains("bad.dcm"), "{failure}");
        }
    }
}
