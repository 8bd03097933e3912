//! Training data: checked while the user's own names are known, then brought into the store under names of its own.
//!
//! What is held out is left out of it. Where the finished model can be scored on images, those are a source of their own; else neither
//! they nor their names reach the store.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use hiresmed_models::{
    data::{self, Boxed, Pair},
    ddpm, prior, singan, styleswin, vqgan, yolo,
};
use hiresmed_protocol::{SiteId, request::TrainedModel};
use hiresmed_services::store::Store;

use super::{Names, ending, put, root, stem};
use crate::failure::refused;

/// Faults that an error lists.
const LISTED: usize = 20;

/// The files of a data folder, with the names under which they are stored.
type Files = Vec<(String, PathBuf)>;

/// Data that can be trained on.
#[derive(Debug)]
pub struct Data {
    folders: Vec<Files>,
    /// What is held out and scored on.
    held: Files,
    /// Label files that were written for storing; they go with it.
    _written: Option<tempfile::TempDir>,
}

impl Data {
    /// Finds the images, or for networks that learn a mask the pairs, or for a detector the images with boxes, below `folders` without
    /// those that `hold_out` names, and reads each: what the training would refuse is refused here. What is held out is read as well
    /// where the model is scored on it.
    ///
    /// # Errors
    /// Every fault, by the user's own names.
    pub fn check(model: TrainedModel, preset: &str, folders: &[PathBuf], hold_out: &[String]) -> Result<Self> {
        let folders = folders.iter().map(|folder| root(folder)).collect::<Result<Vec<_>>>()?;
        let mut written = None;
        let found = match model {
            TrainedModel::Vqgan | TrainedModel::Prior | TrainedModel::Ddpm | TrainedModel::Styleswin => {
                slices(least(model, preset), &folders, hold_out)?
            }
            TrainedModel::Unet | TrainedModel::Singan => pairs(model, &folders, hold_out)?,
            TrainedModel::Yolo => {
                let labels = tempfile::tempdir().context("no temporary folder can be made")?;
                let found = boxed(preset, &folders, hold_out, labels.path())?;
                written = Some(labels);
                found
            }
        };
        let of = |folder: &PathBuf| -> Files {
            let own = found.iter().filter(|item| !item.held && item.root == *folder);
            own.flat_map(|item| item.files.clone()).collect()
        };
        let folders: Vec<Files> = folders.iter().map(of).collect();
        let held = found.iter().filter(|item| item.held && model.is_scored());
        Ok(Self {
            // A folder that is held out as a whole is no data folder.
            folders: folders.into_iter().filter(|files| !files.is_empty()).collect(),
            held: held.flat_map(|item| item.files.clone()).collect(),
            _written: written,
        })
    }

    /// Brings the files into the store and gives the names by which a request calls them: what is trained on, and what is scored on.
    ///
    /// # Errors
    /// A file or the store cannot be read or written.
    pub async fn take(
        &self,
        store: &Arc<dyn Store>,
        site: &SiteId,
        names: &Names,
    ) -> Result<(Vec<String>, Vec<String>)> {
        let (mut data, mut score_on) = (Vec::new(), Vec::new());
        for files in &self.folders {
            data.push(put(store, site, names, files).await?);
        }
        if !self.held.is_empty() {
            score_on.push(put(store, site, names, &self.held).await?);
        }
        Ok((data, score_on))
    }
}

/// An image, alone or with its mask or boxes.
struct Item {
    /// Its data folder.
    root: PathBuf,
    files: Files,
    /// Whether it is held out.
    held: bool,
}

/// The least side of an image, pixels.
fn least(model: TrainedModel, preset: &str) -> usize {
    if model == TrainedModel::Ddpm {
        return ddpm::Config::preset(preset).map_or(0, |config| config.side);
    }
    if model == TrainedModel::Prior {
        // Half of what the map shows will do, and a token shows two pixels at least: the trainer knows its autoencoder's.
        return prior::Config::preset(preset).map_or(0, |config| config.rows.min(config.columns));
    }
    if model == TrainedModel::Styleswin {
        return styleswin::Config::preset(preset).map_or(0, |config| config.side());
    }
    let crops = vqgan::Training::preset(preset).map(|training| training.crops).unwrap_or_default();
    crops.iter().map(|crops| crops.size).max().unwrap_or(0)
}

/// The images for networks that learn whole slices.
fn slices(least: usize, folders: &[PathBuf], hold_out: &[String]) -> Result<Vec<Item>> {
    let (kept, mut faults) = data::images(folders, hold_out);
    let images = if hold_out.is_empty() { kept.clone() } else { data::images(folders, &[]).0 };
    faults.extend(images.iter().filter_map(|image| image.read(least).err()).flatten());
    none_of(faults)?;
    let kept: HashSet<&Path> = kept.iter().map(|image| image.path.as_path()).collect();
    let stored = |image: data::Image| {
        let name = format!("{}{}", stem(&[&image.path])?, ending(&file_name(&image.path)).unwrap_or_default());
        Ok(Item { held: !kept.contains(image.path.as_path()), root: image.root, files: vec![(name, image.path)] })
    };
    images.into_iter().map(stored).collect()
}

/// The pairs for the other networks.
fn pairs(model: TrainedModel, folders: &[PathBuf], hold_out: &[String]) -> Result<Vec<Item>> {
    let find =
        |hold_out: &[String]| Pair::find(folders, hold_out).or_else(|faults| none_of(faults).map(|()| Vec::new()));
    let kept: HashSet<Pair> = find(hold_out)?.into_iter().collect();
    let pairs = find(&[])?;
    let faults = match model {
        TrainedModel::Singan => singan::exemplar(folders, hold_out, None).err().unwrap_or_default(),
        _ if kept.is_empty() => {
            vec!["there is no slice: give a folder with NAME.png or NAME.dcm and NAME.mask.png".to_owned()]
        }
        _ => pairs.iter().filter_map(|pair| pair.read().err()).collect(),
    };
    none_of(faults)?;
    let stored = |pair: Pair| {
        let held = !kept.contains(&pair);
        let stem = stem(&[&pair.image, &pair.mask])?;
        let image = format!("{stem}{}", ending(&file_name(&pair.image)).unwrap_or_default());
        Ok(Item { root: pair.root, files: vec![(image, pair.image), (format!("{stem}.mask.png"), pair.mask)], held })
    };
    pairs.into_iter().map(stored).collect()
}

/// The images with boxes for the detector. Whatever form the boxes have, a YOLO label file of each image is written
/// into `written` and stored: a COCO list names its images by the user's names, and holds what is held out.
fn boxed(preset: &str, folders: &[PathBuf], hold_out: &[String], written: &Path) -> Result<Vec<Item>> {
    let classes = yolo::Training::preset(preset).map_or(1, |training| training.config.classes);
    let find =
        |hold_out: &[String]| Boxed::find(folders, hold_out).or_else(|faults| none_of(faults).map(|()| Vec::new()));
    let kept: HashSet<PathBuf> = find(hold_out)?.into_iter().map(|boxed| boxed.image.path).collect();
    let images = find(&[])?;
    let (mut stored, mut faults, mut boxes) = (Vec::new(), Vec::new(), 0);
    for (at, Boxed { image, .. }) in images.iter().enumerate() {
        let text = match images[at].label_text(classes) {
            Ok(text) => text,
            Err(of_image) => {
                faults.extend(of_image);
                continue;
            }
        };
        let held = !kept.contains(&image.path);
        boxes += if held { 0 } else { text.lines().count() };
        let labels = written.join(format!("{at}.txt"));
        fs::write(&labels, text).with_context(|| format!("{} cannot be written", labels.display()))?;
        let stem = stem(&[&image.path, &labels])?;
        let name = format!("{stem}{}", ending(&file_name(&image.path)).unwrap_or_default());
        let files = vec![(name, image.path.clone()), (format!("{stem}.txt"), labels)];
        stored.push(Item { root: image.root.clone(), files, held });
    }
    if faults.is_empty() && boxes == 0 {
        faults.push("no image has a box; there is nothing to find".to_owned());
    }
    none_of(faults)?;
    Ok(stored)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// # Errors
/// There is a fault: it lists them.
fn none_of(faults: Vec<String>) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    let more = faults.len().saturating_sub(LISTED);
    let mut text = format!("this data set cannot be trained on:\n  {}", faults[..faults.len() - more].join("\n  "));
    if more > 0 {
        text.push_str(&format!("\n  and {more} further faults"));
    }
    Err(refused(anyhow!(text)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use hiresmed_imaging::raster::grey_png;
    use hiresmed_services::store::Directory;

    use super::*;
    use crate::state::StateFolder;

    fn png(path: PathBuf, width: usize, height: usize, value: u8) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, grey_png(width, height, &vec![value; width * height])).unwrap();
    }

    #[tokio::test]
    async fn data_are_stored_without_their_names_and_apart_from_what_is_held_out() {
        let folder = tempfile::tempdir().unwrap();
        let set = folder.path().join("JANE");
        for (name, value) in [("a1", 1), ("deep/a10", 2), ("deep/MRN4711", 3)] {
            png(set.join(format!("{name}.png")), 64, 64, value);
            png(set.join(format!("{name}.mask.png")), 64, 64, 255);
        }
        let state = StateFolder::open(Some(&folder.path().join("state"))).unwrap();
        let store: Arc<dyn Store> = Arc::new(Directory::open(state.store()).unwrap());
        let check = |hold_out: &str| {
            Data::check(TrainedModel::Unet, "lung", std::slice::from_ref(&set), &[hold_out.to_owned()])
        };
        let data = check("a1").unwrap();
        let (sources, score_on) = data.take(&store, &SiteId::local(), &Names::read(&state)).await.unwrap();
        let keys = store.list("sites/").await.unwrap();
        assert_eq!((sources.len(), score_on.len(), keys.len()), (1, 1, 6), "{keys:?}");
        let of = |source: &str| keys.iter().filter(|key| key.contains(source) && key.ends_with(".mask.png")).count();
        assert_eq!((of(&sources[0]), of(&score_on[0])), (2, 1), "{keys:?}");
        for key in &keys {
            let image = key.replace(".mask.png", ".png");
            assert!(keys.contains(&image) && !key.contains("a10") && !key.contains("MRN"), "{key}");
        }
        assert!(format!("{:#}", check("nosuch").unwrap_err()).contains("`nosuch`"));
    }

    #[tokio::test]
    async fn boxes_are_stored_as_label_files_whatever_form_they_had() {
        let folder = tempfile::tempdir().unwrap();
        let set = folder.path().join("JANE");
        for (name, value) in [("images/MRN1_0", 1), ("images/MRN1_1", 2), ("images/MRN2_0", 3)] {
            png(set.join(format!("{name}.png")), 40, 20, value);
        }
        let coco = serde_json::json!({
            "images": [{"id": 1, "file_name": "images/MRN1_0.png"}, {"id": 2, "file_name": "images/MRN1_1.png"},
                {"id": 3, "file_name": "images/MRN2_0.png"}],
            "annotations": [{"image_id": 2, "category_id": 1, "bbox": [18, 8, 4, 4]}],
            "categories": [{"id": 1}],
        });
        fs::write(set.join("annotations.json"), coco.to_string()).unwrap();
        let state = StateFolder::open(Some(&folder.path().join("state"))).unwrap();
        let store: Arc<dyn Store> = Arc::new(Directory::open(state.store()).unwrap());
        let check = |hold_out: &str| {
            Data::check(TrainedModel::Yolo, "tiny", std::slice::from_ref(&set), &[hold_out.to_owned()])
        };
        let data = check("MRN2_*").unwrap();
        let (sources, score_on) = data.take(&store, &SiteId::local(), &Names::read(&state)).await.unwrap();
        let keys = store.list("sites/").await.unwrap();
        let of = |source: &str| keys.iter().filter(|key| key.contains(source)).count();
        assert_eq!((keys.len(), of(&sources[0]), of(&score_on[0])), (6, 4, 2), "{keys:?}");
        assert!(!keys.iter().any(|key| key.contains("MRN")), "{keys:?}");
        let mut texts = Vec::new();
        for key in keys.iter().filter(|key| key.ends_with(".txt")) {
            assert!(keys.contains(&key.replace(".txt", ".png")), "{key}");
            texts.push(String::from_utf8(store.get(key).await.unwrap().to_vec()).unwrap());
        }
        texts.sort();
        assert_eq!(texts, ["", "", "0 0.500000 0.500000 0.100000 0.200000\n"]);
        let nothing = check("MRN1_1").unwrap_err().to_string();
        assert!(nothing.contains("no image has a box"), "{nothing}");
    }

    #[test]
    fn what_cannot_be_trained_on_is_refused_by_the_users_names() {
        let folder = tempfile::tempdir().unwrap();
        let set = folder.path().join("lesions");
        png(set.join("one.png"), 48, 48, 9);
        png(set.join("one.mask.png"), 48, 44, 9);
        for model in [TrainedModel::Singan, TrainedModel::Unet] {
            let error = Data::check(model, "lesion", std::slice::from_ref(&set), &[]).unwrap_err().to_string();
            assert!(
                error.contains("lesions/one.png is 48 x 48") && error.contains("one.mask.png is 48 x 44"),
                "{error}"
            );
        }
        let error = Data::check(TrainedModel::Vqgan, "ct512", std::slice::from_ref(&set), &[]).unwrap_err().to_string();
        assert!(error.contains("lesions/one.png is 48 x 48 pixels, at least"), "{error}");
        let baseline = Data::check(TrainedModel::Styleswin, "ct64", std::slice::from_ref(&set), &[]);
        let error = baseline.unwrap_err().to_string();
        assert!(error.contains("lesions/one.png is 48 x 48 pixels, at least 64 x 64"), "{error}");
    }
}
