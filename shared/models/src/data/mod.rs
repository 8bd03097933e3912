//! Folders with the data of a training: which of their files are meant, and whether these can be trained on. Needs no
//! libtorch, so that a training can be refused before it is queued.

mod boxes;
mod hold_out;
mod images;
mod lists;
mod pairs;
mod region;
mod square;

pub use boxes::{Boxed, Label};
pub use hold_out::HoldOut;
pub use images::{Image, images};
pub use pairs::Pair;
pub use region::Region;
pub use square::square;

use std::path::Path;

use hiresmed_imaging::{Plane, series};

/// A file's name for a person: relative to the data folder, with that folder's own name before it.
fn shown(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path);
    match root.file_name() {
        Some(own) if relative != path => Path::new(own).join(relative).display().to_string(),
        _ => relative.display().to_string(),
    }
}

/// The slices of a file, or a sentence that names it as [`shown`] does.
fn slices(root: &Path, path: &Path) -> Result<Vec<series::Slice>, String> {
    series::read_file(path).map_err(|error| format!("{}: {}", shown(root, path), error.fault))
}

fn size(plane: &Plane) -> String {
    format!("{} x {}", plane.width(), plane.height())
}
