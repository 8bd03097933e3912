//! The images of a folder, from their heads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hiresmed_imaging::dicom::{self, DicomImage, ReadOptions};
use hiresmed_imaging::{Error, Fault, Plane, raster, series};

/// What an image's values are, by its own account.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    /// PNG or JPEG: from 0 to 255 or 65,535.
    Display {
        /// The file's white.
        max: f64,
    },
    /// DICOM: rescaled values.
    Rescaled {
        /// Low end of the first window, else of the stored range after rescale.
        low: f64,
        /// High end.
        high: f64,
        /// Whether the file has a window.
        windowed: bool,
    },
}

/// An image whose pixels have not been read.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The file.
    pub path: PathBuf,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// What its values are.
    pub values: Values,
}

impl Image {
    /// The pixels: display values, or rescaled ones.
    ///
    /// # Errors
    /// The file cannot be decoded.
    pub fn read(&self) -> Result<Plane, Error> {
        let mut slices = series::read_file(&self.path)?;
        match slices.pop() {
            Some(slice) if slices.is_empty() => Ok(slice.plane),
            _ => Err(Error::new(&self.path, Fault::Malformed("the file has changed while it was scored".into()))),
        }
    }
}

/// The images of `folder` and below it by their stems, and every fault: files that are no image of one grey frame, stems
/// that occur twice.
///
/// # Errors
/// When a folder cannot be listed.
pub(super) fn list(folder: &Path) -> Result<(BTreeMap<String, Image>, Vec<String>), Error> {
    let mut images: BTreeMap<String, Image> = BTreeMap::new();
    let mut faults = Vec::new();
    for path in series::files(folder)? {
        let image = match head(&path) {
            Ok(image) => image,
            // A text without an extension beside the images is none of our business.
            Err(Error { fault: Fault::NotDicom, .. }) if path.extension().is_none() => continue,
            Err(error) => {
                faults.push(error.to_string());
                continue;
            }
        };
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match images.get(&stem) {
            Some(first) => faults.push(format!(
                "{}: {} has the same stem; images are paired by stem, so give one of them another name",
                path.display(),
                first.path.display()
            )),
            None => drop(images.insert(stem, image)),
        }
    }
    Ok((images, faults))
}

fn head(path: &Path) -> Result<Image, Error> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("png" | "jpg" | "jpeg") => {
            let head = raster::read_head(path, ReadOptions::default())?;
            let values = Values::Display { max: f64::from(head.max) };
            Ok(Image { path: path.to_owned(), width: head.width, height: head.height, values })
        }
        Some("nii" | "gz") => {
            let fault = Fault::Unsupported("a volume is not scored; export its slices as DICOM or PNG".into());
            Err(Error::new(path, fault))
        }
        _ => {
            let image = dicom::read(path)?;
            if image.frames() != 1 {
                let frames = image.frames();
                let fault = Fault::Unsupported(format!("{frames} frames in one file; export one frame a file"));
                return Err(Error::new(path, fault));
            }
            let values = rescaled(&image);
            Ok(Image { path: path.to_owned(), width: image.width(), height: image.height(), values })
        }
    }
}

/// The first window (centre ± half the width), else all that the stored bits can say, both in rescaled units.
fn rescaled(image: &DicomImage) -> Values {
    let attributes = &image.attributes;
    let first = |values: &Option<Vec<f64>>| values.as_ref().and_then(|values| values.first().copied());
    if let (Some(centre), Some(width)) = (first(&attributes.window_center), first(&attributes.window_width))
        && width > 0.0
    {
        return Values::Rescaled { low: centre - width / 2.0, high: centre + width / 2.0, windowed: true };
    }
    let bits = i32::from(attributes.bits_stored.unwrap_or(16));
    let (lowest, highest) = if attributes.signed() {
        (-2f64.powi(bits - 1), 2f64.powi(bits - 1) - 1.0)
    } else {
        (0.0, 2f64.powi(bits) - 1.0)
    };
    let slope = attributes.rescale_slope.unwrap_or(1.0);
    let intercept = attributes.rescale_intercept.unwrap_or(0.0);
    let (a, b) = (lowest * slope + intercept, highest * slope + intercept);
    Values::Rescaled { low: a.min(b), high: a.max(b), windowed: false }
}
