//! Data folders of pairs: `NAME.png` or `NAME.dcm` beside `NAME.mask.png`, at any depth.

use hiresmed_imaging::{Plane, Window};
use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{HoldOut, shown, size, slices};

/// What the file of a mask is called behind its pair's name.
const MASK: &str = ".mask.png";

/// An image and its mask on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// File name without extension.
    pub name: String,
    /// The image.
    pub image: PathBuf,
    /// The mask.
    pub mask: PathBuf,
    /// The data folder.
    pub root: PathBuf,
}

impl Pair {
    /// The pairs in `folders` and below them, by name, except those that `hold_out` names.
    ///
    /// # Errors
    /// One sentence for every folder that cannot be listed, and for every name that holds nothing out.
    pub fn find(folders: &[PathBuf], hold_out: &[String]) -> Result<Vec<Self>, Vec<String>> {
        let hold_out = HoldOut::new(hold_out);
        let (mut pairs, mut faults) = (Vec::new(), Vec::new());
        for root in folders {
            match below(root) {
                Ok(found) => pairs.extend(found),
                Err(error) => faults.push(format!("{}: {error}", root.display())),
            }
        }
        pairs.retain(|pair| !hold_out.covers(&pair.root, &pair.image, &pair.name));
        pairs.sort();
        // A folder that cannot be read may have what a name means.
        if faults.is_empty() {
            faults = hold_out.faults();
        }
        if faults.is_empty() { Ok(pairs) } else { Err(faults) }
    }

    /// Image and mask in [-1, 1]: DICOM over the lung window in Hounsfield units, PNG over its whole range.
    ///
    /// # Errors
    /// A sentence that names the file from the data folder on, for one that is unreadable and for a mask of another size.
    pub fn read(&self) -> Result<(Plane, Plane), String> {
        let (image, mask) = (self.grey(&self.image)?, self.grey(&self.mask)?);
        if (image.width(), image.height()) == (mask.width(), mask.height()) {
            return Ok((image, mask));
        }
        Err(format!(
            "{} is {} pixels and its mask {} is {}; they must be equal, export the mask at the image's size",
            shown(&self.root, &self.image),
            size(&image),
            shown(&self.root, &self.mask),
            size(&mask)
        ))
    }

    /// The one slice of a file, in [-1, 1].
    fn grey(&self, path: &Path) -> Result<Plane, String> {
        match slices(&self.root, path)?.as_slice() {
            [slice] => Ok(slice.normalised(Window::LUNG_CT)),
            several => {
                Err(format!("{} holds {} frames, one is needed; split it", shown(&self.root, path), several.len()))
            }
        }
    }
}

fn below(root: &Path) -> std::io::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            // Links to folders are not followed: they may run in circles.
            if entry.file_type()?.is_dir() && !file.starts_with('.') {
                open.push(entry.path());
            }
            let Some(name) = file.strip_suffix(MASK).filter(|name| !name.starts_with('.')) else { continue };
            let image = ["png", "dcm"].map(|extension| folder.join(format!("{name}.{extension}")));
            let image = image.into_iter().find(|image| image.is_file());
            let (name, mask, root) = (name.to_owned(), entry.path(), root.to_path_buf());
            pairs.extend(image.map(|image| Pair { name, image, mask, root }));
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(path: &Path, width: u32, height: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::GrayImage::from_pixel(width, height, image::Luma([128])).save(path).unwrap();
    }

    #[test]
    fn pairs_are_found_at_any_depth_and_named_from_their_folder_on() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("set");
        for name in ["a1", "deep/er/a10"] {
            png(&root.join(format!("{name}.png")), 48, 48);
            png(&root.join(format!("{name}.mask.png")), 48, 44);
        }
        png(&root.join("lonely.mask.png"), 48, 48);
        let find = |hold_out: &[&str]| {
            let hold_out: Vec<String> = hold_out.iter().map(|&name| name.to_owned()).collect();
            let names = |pairs: Vec<Pair>| pairs.into_iter().map(|pair| pair.name).collect::<Vec<_>>();
            Pair::find(std::slice::from_ref(&root), &hold_out).map(names)
        };
        assert_eq!(find(&[]).unwrap(), ["a1", "a10"]);
        assert_eq!(find(&["a1"]).unwrap(), ["a10"]);
        assert_eq!(find(&["er"]).unwrap(), ["a1"]);
        assert!(find(&["a1*"]).unwrap().is_empty());
        assert!(find(&["nosuch"]).unwrap_err()[0].contains("`nosuch`"));
        let fault = Pair::find(std::slice::from_ref(&root), &[]).unwrap()[1].read().unwrap_err();
        assert!(fault.starts_with("set/deep/er/a10.png is 48 x 48 pixels"), "{fault}");
        assert!(fault.contains("set/deep/er/a10.mask.png is 48 x 44"), "{fault}");
    }
}
