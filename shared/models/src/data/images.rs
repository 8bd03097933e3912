//! Data folders of images: DICOM, NIfTI, PNG and JPEG, at any depth.

use std::path::{Path, PathBuf};

use hiresmed_imaging::series::{self, Slice};

use super::{HoldOut, shown, size, slices};

/// An image file of a data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The data folder.
    pub root: PathBuf,
    /// Its number among the data folders.
    pub folder: usize,
    /// The file.
    pub path: PathBuf,
}

/// The image files below `folders`, by folder and path, except those that `hold_out` names.
///
/// Also a sentence for every folder that cannot be listed or has no image, and for every name that holds nothing out.
pub fn images(folders: &[PathBuf], hold_out: &[String]) -> (Vec<Image>, Vec<String>) {
    let hold_out = HoldOut::new(hold_out);
    let (mut images, mut faults) = (Vec::new(), Vec::new());
    for (folder, root) in folders.iter().enumerate() {
        let paths = match series::files(root) {
            Ok(paths) => paths,
            Err(error) => {
                faults.push(error.to_string());
                continue;
            }
        };
        if paths.is_empty() {
            faults.push(format!(
                "{} has no image to train on; name a folder with DICOM, NIfTI, PNG or JPEG slices",
                root.display()
            ));
        }
        let kept = paths.into_iter().filter(|path| !hold_out.covers(root, path, &series::stem(path)));
        images.extend(kept.map(|path| Image { root: root.clone(), folder, path }));
    }
    if folders.is_empty() {
        faults.push("no data folder was named".into());
    }
    if images.is_empty() && faults.is_empty() {
        faults.push("every image is held out; name fewer, or more data".into());
    }
    // A folder that cannot be read may have what a name means.
    if faults.is_empty() {
        faults = hold_out.faults();
    }
    (images, faults)
}

impl Image {
    /// The slices of the file, each at least `least` x `least` pixels.
    ///
    /// # Errors
    /// A sentence for every fault, which names the file from the data folder on.
    pub fn read(&self, least: usize) -> Result<Vec<Slice>, Vec<String>> {
        let slices = slices(&self.root, &self.path).map_err(|fault| vec![fault])?;
        let small = slices.iter().filter(|slice| slice.plane.width() < least || slice.plane.height() < least);
        let faults: Vec<String> = small
            .map(|slice| {
                format!(
                    "{} is {} pixels, at least {least} x {least} are needed; use smaller crops",
                    self.shown(),
                    size(&slice.plane)
                )
            })
            .collect();
        if faults.is_empty() { Ok(slices) } else { Err(faults) }
    }

    /// The file's name for a person.
    pub fn shown(&self) -> String {
        shown(&self.root, Path::new(&self.path))
    }
}
