//! The images of a prior's training, with what they say of themselves.

use std::path::PathBuf;

use hiresmed_imaging::{Plane, Window, series::Slice};
use sha2::{Digest, Sha256};

use super::config::{Config, Training};
use crate::{
    data::{self, HoldOut},
    training::Error,
};

/// An image in [-1, 1] over the autoencoder's window.
#[derive(Debug, Clone)]
pub struct Example {
    /// The pixels, of any size.
    pub plane: Plane,
    /// Indices of modality and view, 0 where not stated.
    pub condition: [i64; 2],
    /// Which of the data folders it is from.
    pub folder: usize,
}

/// What a prior is trained on.
#[derive(Debug, Clone)]
pub struct Examples {
    /// To learn from, by folder; none of them empty.
    pub learned: Vec<Vec<Example>>,
    /// To watch the loss on.
    pub watched: Vec<Example>,
    /// SHA-256 over the digests of the files to learn from, hex.
    pub digest: String,
    /// Middle value of the distances of pixel centres, where files say them, each at the size to which its image is brought.
    pub spacing_mm: Option<f64>,
}

impl Examples {
    /// Reads every image below `folders` except what `hold_out` names.
    ///
    /// # Errors
    /// [`Error::Data`] with every fault: unreadable files, folders without an image, names that hold nothing out, images of a
    /// modality or view that the configuration does not know, images less than half as wide or high as the token map's `side`
    /// (columns and rows in pixels).
    pub fn open(
        folders: &[PathBuf],
        hold_out: &[String],
        config: &Config,
        training: &Training,
        window: Window,
        side: (usize, usize),
    ) -> Result<Self, Error> {
        let (images, mut faults) = data::images(folders, hold_out);
        let watch = HoldOut::new(&training.watch);
        let (mut learned, mut watched, mut hash) = (vec![Vec::new(); folders.len()], Vec::new(), Sha256::new());
        let mut spacings = Vec::new();
        for image in images {
            let is_watched = watch.covers(&image.root, &image.path, &hiresmed_imaging::series::stem(&image.path));
            let slices = match image.read(side.0.min(side.1) / 2) {
                Ok(slices) => slices,
                Err(of_file) => {
                    faults.extend(of_file);
                    continue;
                }
            };
            if !is_watched {
                match std::fs::read(&image.path) {
                    Ok(bytes) => hash.update(Sha256::digest(&bytes)),
                    Err(error) => faults.push(format!("{}: {error}", image.shown())),
                }
            }
            for slice in slices {
                match condition(&slice, config, training) {
                    Ok(condition) => {
                        let plane = slice.normalised(window);
                        let scale = scale(&plane, side);
                        spacings.extend(plane.spacing.map(|own| (own.row_mm * own.column_mm).sqrt() * scale));
                        let example = Example { plane, condition, folder: image.folder };
                        if is_watched { watched.push(example) } else { learned[image.folder].push(example) }
                    }
                    Err(fault) => faults.push(format!("{}: {fault}", image.shown())),
                }
            }
        }
        if faults.is_empty() {
            faults = watch.faults();
        }
        learned.retain(|examples: &Vec<Example>| !examples.is_empty());
        if learned.is_empty() && faults.is_empty() {
            faults.push(
                "every image is watched and none is left to learn from; watch fewer, or name more data".to_owned(),
            );
        }
        if !faults.is_empty() {
            return Err(Error::Data(faults));
        }
        spacings.sort_by(f64::total_cmp);
        let spacing_mm = spacings.get(spacings.len() / 2).copied();
        Ok(Self { learned, watched, digest: hex::encode(hash.finalize()), spacing_mm })
    }
}

/// Pixels of an image for one pixel of a map of `side` (columns and rows in pixels) that shows all of it.
pub(super) fn scale(plane: &Plane, side: (usize, usize)) -> f64 {
    (plane.width() as f64 / side.0 as f64).max(plane.height() as f64 / side.1 as f64)
}

/// Indices of modality and view, as the file says or else the training.
fn condition(slice: &Slice, config: &Config, training: &Training) -> Result<[i64; 2], String> {
    let find = |what: &str, list: &[String], stated: Option<&str>| {
        Config::index(list, stated).ok_or_else(|| {
            let stated = stated.unwrap_or_default();
            format!(
                "its {what} is {stated}, and this prior is for {}; leave it out, or name it in config",
                list.join(", ")
            )
        })
    };
    let view = slice.view.map(|view| view.as_str()).or(training.view.as_deref());
    Ok([
        find("modality", &config.modalities, slice.modality.as_deref().or(training.modality.as_deref()))?,
        find("view", &config.views, view)?,
    ])
}
