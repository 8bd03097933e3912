//! The images of a training: folders of slices as normalised planes in memory.

use std::{fs, path::PathBuf};

use hiresmed_imaging::{Plane, Window};
use rand::{Rng, RngExt};
use sha2::{Digest, Sha256};

use super::Error;
use crate::data;

/// One image, normalised to [-1, 1] over the training's window.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Name within its folder.
    pub name: String,
    /// Which of the data folders it is from.
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
    /// Reads every image below `folders` (DICOM, NIfTI, PNG, JPEG), except what `hold_out` names (see
    /// [`HoldOut`](data::HoldOut)). Values in real-world units are normalised over `window`; others are taken as windowed.
    ///
    /// # Errors
    /// [`Error::Data`] with every fault: unreadable files, folders without an image, images under `least` x `least`.
    pub fn open(folders: &[PathBuf], hold_out: &[String], window: Window, least: usize) -> Result<Self, Error> {
        let (images, mut faults) = data::images(folders, hold_out);
        let (mut samples, mut hash) = (Vec::new(), Sha256::new());
        for image in images {
            match read(&image, window, least) {
                Ok((digest, planes)) => {
                    hash.update(digest);
                    let folder = image.folder;
                    samples.extend(planes.into_iter().map(|(name, plane)| Sample { name, folder, plane }));
                }
                Err(of_file) => faults.extend(of_file),
            }
        }
        if !faults.is_empty() {
            return Err(Error::Data(faults));
        }
        Ok(Self::new(samples, hex::encode(hash.finalize())))
    }

    /// A set of samples that are in memory already; `digest` names them in the model package.
    pub fn new(samples: Vec<Sample>, digest: String) -> Self {
        let count = samples.iter().map(|sample| sample.folder + 1).max().unwrap_or(0);
        let mut folders = vec![Vec::new(); count];
        samples.iter().enumerate().for_each(|(index, sample)| folders[sample.folder].push(index));
        folders.retain(|members| !members.is_empty());
        Self { samples, folders, digest }
    }

    /// All samples.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// SHA-256 over the files' digests, in the order in which they were read; hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// A random sample, or `None` of an empty set: first a folder, then one of its images, so that a large folder does
    /// not drown a small one.
    pub fn draw(&self, random: &mut impl Rng) -> Option<&Sample> {
        if self.folders.is_empty() {
            return None;
        }
        let folder = &self.folders[random.random_range(0..self.folders.len())];
        self.samples.get(folder[random.random_range(0..folder.len())])
    }
}

/// A file's digest and its slices by name; else a sentence for every fault.
#[allow(clippy::type_complexity)]
fn read(image: &data::Image, window: Window, least: usize) -> Result<([u8; 32], Vec<(String, Plane)>), Vec<String>> {
    let bytes = fs::read(&image.path).map_err(|error| vec![format!("{}: {error}", image.shown())])?;
    let slices = image.read(least)?;
    let planes = slices.into_iter().map(|slice| (slice.name.clone(), slice.normalised(window))).collect();
    Ok((Sha256::digest(&bytes).into(), planes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    use super::*;

    fn png(path: &Path, side: u32) {
        image::GrayImage::from_pixel(side, side, image::Luma([128])).save(path).unwrap();
    }

    #[test]
    fn every_fault_is_listed_before_the_first_step() {
        let folder = tempfile::tempdir().unwrap();
        let empty = tempfile::tempdir().unwrap();
        png(&folder.path().join("small.png"), 8);
        fs::write(folder.path().join("broken.dcm"), b"no dicom").unwrap();
        let folders = [folder.path().to_path_buf(), empty.path().to_path_buf(), folder.path().join("absent")];
        let Err(Error::Data(faults)) = Dataset::open(&folders, &[], Window::LUNG_CT, 16) else {
            panic!("must be refused")
        };
        let text = faults.join("\n");
        assert_eq!(faults.len(), 4, "{text}");
        for part in ["small.png", "broken.dcm", "no image", "absent"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let Err(Error::Data(faults)) = Dataset::open(&folders[..1], &[], Window::LUNG_CT, 16) else {
            panic!("must be refused")
        };
        let own = folder.path().file_name().unwrap().to_str().unwrap();
        for (fault, file) in faults.iter().zip(["broken.dcm", "small.png"]) {
            assert!(fault.starts_with(&format!("{own}/{file}")), "{fault}");
        }
        assert_eq!(faults.len(), 2);
    }

    #[test]
    fn held_out_series_and_files_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        for series in ["a", "b"] {
            fs::create_dir(folder.path().join(series)).unwrap();
            png(&folder.path().join(series).join("one.png"), 16);
            png(&folder.path().join(series).join("two.png"), 16);
        }
        let names = |hold_out: &[&str]| {
            let hold_out: Vec<String> = hold_out.iter().map(|&name| name.to_owned()).collect();
            Dataset::open(&[folder.path().to_path_buf()], &hold_out, Window::LUNG_CT, 16).unwrap().samples().len()
        };
        assert_eq!((names(&[]), names(&["a"]), names(&["a", "tw*"])), (4, 2, 1));
    }

    #[test]
    fn folders_are_drawn_from_equally() {
        let sample = |folder| Sample { name: String::new(), folder, plane: Plane::filled(1, 1, 0.0) };
        let set = Dataset::new([vec![sample(0)], vec![sample(1); 9]].concat(), String::new());
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let small = (0..1000).filter(|_| set.draw(&mut random).unwrap().folder == 0).count();
        assert!((400..600).contains(&small), "{small}");
    }
}
