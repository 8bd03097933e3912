//! What two folders hold and how it fits together, before any pixel is read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Error;
use super::files::{Image, list};
use super::intensity::Scale;

/// What is to be scored.
#[derive(Debug, Clone, Default)]
pub struct Folders {
    /// Real images.
    pub real: PathBuf,
    /// Synthetic images.
    pub synthetic: PathBuf,
    /// Lesion masks, by the same stems.
    pub masks: Option<PathBuf>,
    /// Difference of the largest and smallest possible value, in the images' units; chosen by [`Scale`]'s rule otherwise.
    pub data_range: Option<f64>,
    /// Whether images without a fitting partner or mask are passed over; otherwise each is a fault.
    pub unpaired: bool,
}

/// Two images of one size, and the mask.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The common stem.
    pub name: String,
    /// The real image.
    pub real: Image,
    /// The synthetic image.
    pub synthetic: Image,
    /// The lesion mask, of the same size.
    pub mask: Option<Image>,
}

/// What the folders hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// Pairs, by name.
    pub pairs: Vec<Pair>,
    /// All real images, by stem.
    pub real: Vec<Image>,
    /// All synthetic images, by stem.
    pub synthetic: Vec<Image>,
    /// The data range; `None` where there are no images.
    pub scale: Option<Scale>,
    /// What was passed over, with the reason.
    pub passed_over: Vec<String>,
}

/// Lists both folders and pairs their images by stem.
///
/// # Errors
/// A folder cannot be listed, or, all in one error: files that are no grey images, stems without a partner, unequal sizes,
/// missing masks, no image at all. With `unpaired` only files that cannot be read and stems that occur twice are faults.
pub fn survey(folders: &Folders) -> Result<Survey, Error> {
    let (real, mut faults) = list(&folders.real)?;
    let (synthetic, of_synthetic) = list(&folders.synthetic)?;
    faults.extend(of_synthetic);
    let masks = folders.masks.as_ref().map(|folder| list(folder)).transpose()?;
    let (pairs, misfits) = pair(&real, &synthetic, masks.as_ref());
    let mut passed_over = Vec::new();
    if folders.unpaired {
        passed_over = misfits
    } else {
        faults.extend(misfits)
    }
    if !folders.unpaired && real.is_empty() && synthetic.is_empty() && faults.is_empty() {
        let (real, synthetic) = (folders.real.display(), folders.synthetic.display());
        faults.push(format!("neither {real} nor {synthetic} has a PNG, JPEG or DICOM image"));
    }
    if !faults.is_empty() {
        return Err(Error::Faults { faults });
    }
    let (real, synthetic): (Vec<_>, Vec<_>) = (real.into_values().collect(), synthetic.into_values().collect());
    let scale = if real.is_empty() && synthetic.is_empty() {
        None
    } else {
        let (real, synthetic): (Vec<_>, Vec<_>) = (real.iter().collect(), synthetic.iter().collect());
        Some(Scale::choose(&real, &synthetic, folders.data_range)?)
    };
    Ok(Survey { pairs, real, synthetic, scale, passed_over })
}

type Images = BTreeMap<String, Image>;
/// Masks by stem, and what in their folder is none.
type Masks = (Images, Vec<String>);

/// The pairs, and all that does not fit.
fn pair(real: &Images, synthetic: &Images, masks: Option<&Masks>) -> (Vec<Pair>, Vec<String>) {
    let mut misfits = Vec::new();
    let mut pairs = Vec::new();
    for (name, real) in real {
        let Some(synthetic) = synthetic.get(name) else {
            misfits.push(format!("{}: no synthetic image of this stem", real.path.display()));
            continue;
        };
        if (real.width, real.height) != (synthetic.width, synthetic.height) {
            misfits.push(unequal(real, synthetic));
            continue;
        }
        let mask = match masks.map(|(masks, _)| masks.get(name)) {
            None => None,
            Some(None) => {
                misfits.push(format!("{}: no mask of this stem", real.path.display()));
                None
            }
            Some(Some(mask)) if (mask.width, mask.height) != (real.width, real.height) => {
                misfits.push(unequal(real, mask));
                None
            }
            Some(mask) => mask.cloned(),
        };
        pairs.push(Pair { name: name.clone(), real: real.clone(), synthetic: synthetic.clone(), mask });
    }
    for (_, image) in synthetic.iter().filter(|(name, _)| !real.contains_key(*name)) {
        misfits.push(format!("{}: no real image of this stem", image.path.display()));
    }
    misfits.extend(masks.into_iter().flat_map(|(_, faults)| faults.iter().cloned()));
    (pairs, misfits)
}

fn unequal(a: &Image, b: &Image) -> String {
    let (path, other) = (a.path.display(), b.path.display());
    format!("{path} has {}x{} pixels, {other} {}x{}", a.width, a.height, b.width, b.height)
}
