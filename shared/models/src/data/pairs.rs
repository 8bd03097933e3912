//! Data folders of pairs: `NAME.png` or `NAME.dcm` beside `NAME.mask.png`.

use hiresmed_imaging::{Plane, Window, series};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// An image and its mask on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// File name without extension.
    pub name: String,
    /// The image.
    pub image: PathBuf,
    /// The mask.
    pub mask: PathBuf,
}

impl Pair {
    /// The pairs in `folders` (not below them), by name, except those that `hold_out` names.
    ///
    /// # Errors
    /// One sentence for every folder that cannot be listed.
    pub fn find(folders: &[PathBuf], hold_out: &[String]) -> Result<Vec<Self>, Vec<String>> {
        let (mut pairs, mut faults) = (Vec::new(), Vec::new());
        for folder in folders {
            match in_folder(folder) {
                Ok(found) => pairs.extend(found),
                Err(error) => faults.push(format!("{}: {error}", folder.display())),
            }
        }
        pairs.retain(|pair| !hold_out.contains(&pair.name));
        pairs.sort();
        if faults.is_empty() { Ok(pairs) } else { Err(faults) }
    }

    /// Image and mask in [-1, 1]: DICOM over the lung window in Hounsfield units, PNG over its whole range.
    ///
    /// # Errors
    /// A sentence that names the file, for one that is unreadable and for a mask of another size.
    pub fn read(&self) -> Result<(Plane, Plane), String> {
        let (image, mask) = (read_grey(&self.image)?, read_grey(&self.mask)?);
        if (image.width(), image.height()) == (mask.width(), mask.height()) {
            return Ok((image, mask));
        }
        let size = |plane: &Plane| format!("{} x {}", plane.width(), plane.height());
        Err(format!("{} is {} and its mask is {}; they must be equal", self.image.display(), size(&image), size(&mask)))
    }
}

fn in_folder(folder: &Path) -> std::io::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let mask = entry?.path();
        let name = mask.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(name) = name.strip_suffix(".mask.png").map(str::to_owned) else { continue };
        let images = ["png", "dcm"].map(|extension| folder.join(format!("{name}.{extension}")));
        pairs.extend(images.into_iter().find(|image| image.is_file()).map(|image| Pair { name, image, mask }));
    }
    Ok(pairs)
}

/// The one slice of a file, in [-1, 1].
fn read_grey(path: &Path) -> Result<Plane, String> {
    let slices = series::read_file(path).map_err(|error| error.to_string())?;
    match slices.as_slice() {
        [slice] => Ok(slice.normalised(Window::LUNG_CT)),
        several => Err(format!("{} holds {} frames, one is needed", path.display(), several.len())),
    }
}
