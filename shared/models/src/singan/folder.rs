//! Which exemplar of a data folder a training learns.

use super::exemplar::{Cut, Exemplar};
use crate::data::{Pair, images};
use hiresmed_imaging::{Mask, Plane, Window};
use std::path::PathBuf;

/// Reads the exemplar called `wanted`, or the only one that `folders` hold outside `hold_out`.
///
/// A mask with grey values is the soft mask of a finished crop; a mask of 0 and 255 alone is cut around with [`Cut::default`].
///
/// # Errors
/// Every fault, one sentence each.
pub fn exemplar(folders: &[PathBuf], hold_out: &[String], wanted: Option<&str>) -> Result<Exemplar, Vec<String>> {
    let mut pairs = Pair::find(folders, hold_out)?;
    pairs.retain(|pair| wanted.is_none_or(|wanted| wanted == pair.name));
    match pairs.as_slice() {
        [pair] => read_pair(pair).map_err(|cause| vec![cause]),
        [] => Err(vec![format!(
            "there is no exemplar{}: give a folder with NAME.png or NAME.dcm and NAME.mask.png",
            wanted.map(|wanted| format!(" called {wanted}")).unwrap_or_default()
        )]),
        several => {
            let names: Vec<&str> = several.iter().map(|pair| pair.name.as_str()).collect();
            Err(vec![format!(
                "there are {} exemplars ({}) and a SinGAN learns one: hold the others out, or name a folder with one",
                names.len(),
                names.join(", ")
            )])
        }
    }
}

/// Reads the one image that `folders` hold outside `hold_out`, or the one called `wanted`, whole; its mask is empty.
///
/// # Errors
/// Every fault, one sentence each.
pub fn whole(folders: &[PathBuf], hold_out: &[String], wanted: Option<&str>) -> Result<Exemplar, Vec<String>> {
    let (mut found, faults) = images(folders, hold_out);
    if !faults.is_empty() {
        return Err(faults);
    }
    found.retain(|image| wanted.is_none_or(|wanted| wanted == hiresmed_imaging::series::stem(&image.path)));
    let image = match found.as_slice() {
        [image] => image,
        [] => return Err(vec![format!("there is no image called {}", wanted.unwrap_or_default())]),
        several => {
            return Err(vec![format!(
                "there are {} images and a SinGAN learns one: hold the others out, name a folder with one, or name one as `exemplar`",
                several.len()
            )]);
        }
    };
    match image.read(1)?.as_slice() {
        [slice] => {
            let image = slice.normalised(Window::LUNG_CT);
            let mask = Plane::filled(image.width(), image.height(), -1.0);
            Ok(Exemplar { name: hiresmed_imaging::series::stem(&found[0].path), image, mask })
        }
        slices => Err(vec![format!("{} has {} slices and a SinGAN learns one", image.shown(), slices.len())]),
    }
}

fn read_pair(pair: &Pair) -> Result<Exemplar, String> {
    let (image, mask) = pair.read()?;
    if mask.data().iter().any(|value| value.abs() < 0.999) {
        return Ok(Exemplar { name: pair.name.clone(), image, mask });
    }
    let hard = Mask::from_fn(mask.width(), mask.height(), |x, y| mask.at(x, y) > 0.0);
    Exemplar::cut(&pair.name, &image, &hard, &Cut::default()).map_err(|error| error.to_string())
}
