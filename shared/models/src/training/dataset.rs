//! The images of a training: folders of slices as normalised planes in memory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hiresmed_imaging::{Plane, Window};
use rand::{Rng, RngExt};
use sha2::{Digest, Sha256};

use super::Error;

/// One image, normalised to [-1, 1] over the training's window.
#[derive(Debug, Clone)]
pub struct Sample {
    /// File name.
    pub name: String,
    /// Which of the data folders it is from: each folder is drawn from equally often.
    pub folder: usize,
    /// Its pixels.
    pub plane: Plane,
}

/// The images of a training.
#[derive(Debug, Clone)]
pub struct Dataset {
    samples: Vec<Sample>,
    /// Samples of each folder, none empty.
    folders: Vec<Vec<usize>>,
    digest: String,
}

impl Dataset {
    /// Reads every DICOM, PNG and JPEG below `folders`, except what `hold_out` names: a folder's name, or the start of
    /// a file's name. Eight-bit images are taken as displayed over the window already.
    ///
    /// # Errors
    /// [`Error::Data`] with every fault: unreadable files, empty folders, images smaller than `least` pixels.
    pub fn open(folders: &[PathBuf], hold_out: &[String], window: Window, least: usize) -> Result<Self, Error> {
        let (mut samples, mut grouped, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        let mut hash = Sha256::new();
        for folder in folders {
            let mut paths = Vec::new();
            if let Err(error) = walk(folder, hold_out, &mut paths) {
                faults.push(format!("{}: {error}", folder.display()));
            }
            paths.sort();
            let mut members = Vec::new();
            for path in paths {
                match read(&path, window) {
                    Ok(None) => {}
                    Ok(Some((_, plane))) if plane.width() < least || plane.height() < least => faults.push(format!(
                        "{} is {} x {} pixels, at least {least} x {least} are needed",
                        path.display(),
                        plane.width(),
                        plane.height()
                    )),
                    Ok(Some((bytes, plane))) => {
                        hash.update(Sha256::digest(&bytes));
                        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                        members.push(samples.len());
                        samples.push(Sample { name, folder: grouped.len(), plane });
                    }
                    Err(cause) => faults.push(format!("{}: {cause}", path.display())),
                }
            }
            if members.is_empty() {
                faults.push(format!("{} has no image to train on; give a folder with DICOM, PNG or JPEG slices", folder.display()));
            }
            grouped.push(members);
        }
        if folders.is_empty() {
            faults.push("no data folder was given".into());
        }
        if faults.is_empty() {
            Ok(Self { samples, folders: grouped, digest: hex::encode(hash.finalize()) })
        } else {
            Err(Error::Data(faults))
        }
    }

    /// All samples.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// SHA-256 over the digests of the files, in the order they were read.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// A random sample: first a folder, then one of its images, so that a large folder does not drown a small one.
    pub fn draw(&self, random: &mut impl Rng) -> &Sample {
        let folder = &self.folders[random.random_range(0..self.folders.len())];
        &self.samples[folder[random.random_range(0..folder.len())]]
    }
}

fn walk(folder: &Path, hold_out: &[String], paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if !hold_out.contains(&name) {
                walk(&path, hold_out, paths)?;
            }
        } else if !hold_out.iter().any(|held| name.starts_with(held.as_str())) {
            paths.push(path);
        }
    }
    Ok(())
}

/// The file's bytes and image, or `None` where the file is no image.
fn read(path: &Path, window: Window) -> Result<Option<(Vec<u8>, Plane)>, String> {
    let extension = path.extension().map(|text| text.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plane = match extension.as_str() {
        "dcm" => read_dicom(path, window)?,
        "jpg" | "jpeg" | "png" => {
            let picture = image::open(path).map_err(|error| error.to_string())?.into_luma8();
            let (width, height) = (picture.width() as usize, picture.height() as usize);
            Plane::new(width, height, picture.into_raw().iter().map(|&value| f32::from(value) / 127.5 - 1.0).collect())
        }
        _ => return Ok(None),
    };
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    Ok(Some((bytes, plane)))
}

fn read_dicom(path: &Path, window: Window) -> Result<Plane, String> {
    use dicom_pixeldata::{ConvertOptions, ModalityLutOption, PixelDecoder, VoiLutOption};
    let object = dicom_object::open_file(path).map_err(|error| error.to_string())?;
    let pixels = object.decode_pixel_data().map_err(|error| error.to_string())?;
    let options = ConvertOptions::new().with_modality_lut(ModalityLutOption::Default).with_voi_lut(VoiLutOption::Identity);
    let values: Vec<f32> = pixels.to_vec_frame_with_options(0, &options).map_err(|error| error.to_string())?;
    let (width, height) = (pixels.columns() as usize, pixels.rows() as usize);
    if values.len() != width * height {
        return Err(format!("{} samples for {width} x {height} pixels; a grey image is needed", values.len()));
    }
    Ok(Plane::new(width, height, values.into_iter().map(|value| window.normalise(value)).collect()))
}
