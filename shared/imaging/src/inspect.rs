//! What a DICOM file holds, in one flat record: the contract of `hiresmed inspect`.

use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::Fault;
use crate::dicom::{Attributes, DicomImage, ReadOptions, describe, read_bounded};

/// One number, or several where the attribute has several values.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Numbers {
    /// A single value.
    One(f64),
    /// Two or more.
    Many(Vec<f64>),
}

/// A stored value: whole, or of floating point pixel data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Stored {
    /// A whole number.
    Whole(i64),
    /// A floating point number.
    Real(f64),
}

/// A file's record. The order of the fields is the order of the keys; what is unknown is `None` (null in JSON).
///
/// Stored values are those before rescale, over all frames and samples: integers, or floating point numbers where the pixel data are; YBR
/// is converted to RGB first.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Inspection {
    /// The path as it was given.
    pub file: String,
    /// Whether every frame was decoded.
    pub ok: bool,
    /// The cause of a refusal.
    pub error: Option<String>,
    /// Transfer Syntax UID.
    pub transfer_syntax: Option<String>,
    /// Modality.
    pub modality: Option<String>,
    /// Rows.
    pub rows: Option<u16>,
    /// Columns.
    pub columns: Option<u16>,
    /// Frames; 1 for an image that does not say.
    pub frames: Option<u32>,
    /// Bits Allocated.
    pub bits_allocated: Option<u16>,
    /// Bits Stored.
    pub bits_stored: Option<u16>,
    /// Pixel Representation.
    pub pixel_representation: Option<u16>,
    /// Photometric Interpretation as the file has it.
    pub photometric: Option<String>,
    /// Rescale Slope.
    pub rescale_slope: Option<f64>,
    /// Rescale Intercept.
    pub rescale_intercept: Option<f64>,
    /// Window Center.
    pub window_center: Option<Numbers>,
    /// Window Width.
    pub window_width: Option<Numbers>,
    /// Least stored value.
    pub stored_min: Option<Stored>,
    /// Largest stored value.
    pub stored_max: Option<Stored>,
    /// Sum of the stored values.
    pub stored_sum: Option<Stored>,
    /// SHA-256 over the stored values as little-endian numbers of the allocated width (one byte for 1-bit pixels), frame
    /// by frame, samples interleaved; hex.
    pub stored_sha256: Option<String>,
}

/// Inspects the file at `path`. Every failure is part of the result.
pub fn inspect(path: impl AsRef<Path>) -> Inspection {
    inspect_with(path, ReadOptions::default())
}

/// [`inspect`] under the caller's bounds.
pub fn inspect_with(path: impl AsRef<Path>, options: ReadOptions) -> Inspection {
    let path = path.as_ref();
    let file = path.display().to_string();
    let bytes = match read_bounded(path, options) {
        Ok(bytes) => bytes,
        Err(fault) => return refused(Inspection { file, ..Inspection::default() }, &fault),
    };
    let (attributes, image) = describe(&bytes, path, options);
    let inspection = header(file, attributes);
    match image {
        Ok(image) => decoded(inspection, &image),
        Err(fault) => refused(inspection, &fault),
    }
}

fn header(file: String, attributes: Attributes) -> Inspection {
    Inspection {
        file,
        transfer_syntax: attributes.transfer_syntax,
        modality: attributes.modality,
        rows: attributes.rows,
        columns: attributes.columns,
        frames: attributes.frames,
        bits_allocated: attributes.bits_allocated,
        bits_stored: attributes.bits_stored,
        pixel_representation: attributes.pixel_representation,
        photometric: attributes.photometric,
        rescale_slope: attributes.rescale_slope,
        rescale_intercept: attributes.rescale_intercept,
        window_center: attributes.window_center.map(Numbers::from),
        window_width: attributes.window_width.map(Numbers::from),
        ..Inspection::default()
    }
}

impl From<Vec<f64>> for Numbers {
    fn from(values: Vec<f64>) -> Self {
        match values[..] {
            [value] => Self::One(value),
            _ => Self::Many(values),
        }
    }
}

fn refused(inspection: Inspection, fault: &Fault) -> Inspection {
    Inspection { ok: false, error: Some(fault.to_string()), ..inspection }
}

fn decoded(mut inspection: Inspection, image: &DicomImage) -> Inspection {
    if image.is_real() {
        return decoded_reals(inspection, image);
    }
    let width = usize::from(inspection.bits_allocated.unwrap_or(8).div_ceil(8));
    let (mut low, mut high, mut sum) = (i64::MAX, i64::MIN, 0i64);
    let mut hash = Sha256::new();
    let mut bytes = Vec::new();
    for index in 0..image.frames() {
        let frame = match image.frame(index) {
            Ok(frame) => frame,
            Err(error) => return refused(inspection, &error.fault),
        };
        bytes.clear();
        for value in frame.values {
            low = low.min(value);
            high = high.max(value);
            sum = sum.saturating_add(value);
            bytes.extend_from_slice(&value.to_le_bytes()[..width]);
        }
        hash.update(&bytes);
    }
    inspection.ok = true;
    inspection.stored_min = Some(Stored::Whole(low));
    inspection.stored_max = Some(Stored::Whole(high));
    inspection.stored_sum = Some(Stored::Whole(sum));
    inspection.stored_sha256 = Some(hex::encode(hash.finalize()));
    inspection
}

fn decoded_reals(mut inspection: Inspection, image: &DicomImage) -> Inspection {
    let (mut low, mut high, mut sum) = (f64::INFINITY, f64::NEG_INFINITY, 0f64);
    let mut hash = Sha256::new();
    for index in 0..image.frames() {
        let values = match image.real_frame(index) {
            Ok(values) => values,
            Err(error) => return refused(inspection, &error.fault),
        };
        for value in values {
            (low, high, sum) = (low.min(value), high.max(value), sum + value);
            match inspection.bits_allocated {
                Some(32) => hash.update((value as f32).to_le_bytes()),
                _ => hash.update(value.to_le_bytes()),
            }
        }
    }
    inspection.ok = true;
    [inspection.stored_min, inspection.stored_max, inspection.stored_sum] =
        [low, high, sum].map(|value| Some(Stored::Real(value)));
    inspection.stored_sha256 = Some(hex::encode(hash.finalize()));
    inspection
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::write::{Identity, Syntax, Synthetic};
    use crate::files::write_atomically;
    use crate::{Plane, Window};

    const KEYS: [&str; 20] = [
        "file",
        "ok",
        "error",
        "transfer_syntax",
        "modality",
        "rows",
        "columns",
        "frames",
        "bits_allocated",
        "bits_stored",
        "pixel_representation",
        "photometric",
        "rescale_slope",
        "rescale_intercept",
        "window_center",
        "window_width",
        "stored_min",
        "stored_max",
        "stored_sum",
        "stored_sha256",
    ];

    fn keys(inspection: &Inspection) -> Vec<String> {
        // The text itself: a parsed object might sort its keys.
        let text = serde_json::to_string(inspection).unwrap();
        let mut found: Vec<(usize, String)> =
            KEYS.iter().map(|key| (text.find(&format!("\"{key}\":")).unwrap(), (*key).to_owned())).collect();
        found.sort();
        found.into_iter().map(|(_, key)| key).collect()
    }

    #[test]
    fn a_written_image_is_described_in_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.dcm");
        let plane = Plane::new(3, 1, vec![-1.0, 1.0, Window::LUNG_CT.from_stored(258)]);
        let identity = Identity { request: "r", image: 0, object: "composite" };
        let synthetic = Synthetic {
            plane: &plane,
            window: Window::LUNG_CT,
            identity,
            modality: "CT",
            description: "",
            body_part: "CHEST",
            software_version: "0",
            syntax: Syntax::JpegLs,
        };
        write_atomically(&path, &synthetic.to_bytes().unwrap()).unwrap();
        let inspection = inspect(&path);
        assert_eq!(keys(&inspection), KEYS);
        assert!(inspection.ok && inspection.error.is_none());
        assert_eq!((inspection.columns, inspection.rows, inspection.frames), (Some(3), Some(1), Some(1)));
        assert_eq!(
            (inspection.stored_min, inspection.stored_max),
            (Some(Stored::Whole(0)), Some(Stored::Whole(65_535)))
        );
        assert_eq!(inspection.stored_sum, Some(Stored::Whole(65_793)));
        assert_eq!(inspection.window_center, Some(Numbers::One(-299.5)));
        let digest = hex::encode(Sha256::digest([0, 0, 0xFF, 0xFF, 2, 1]));
        assert_eq!(inspection.stored_sha256, Some(digest));
    }

    #[test]
    fn a_refusal_has_every_key_and_the_cause() {
        let folder = tempfile::tempdir().unwrap();
        let missing = inspect(folder.path().join("missing.dcm"));
        assert_eq!(keys(&missing), KEYS);
        assert!(!missing.ok && missing.error.is_some() && missing.rows.is_none() && missing.stored_sha256.is_none());
        let path = folder.path().join("text.dcm");
        std::fs::write(&path, "no image at all").unwrap();
        assert!(inspect(&path).error.unwrap().contains("not a DICOM file"));
    }
}
