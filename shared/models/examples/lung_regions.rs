//! Writes the training pairs of the shipped danger-zone U-Net.
//!
//! `cargo run -p hiresmed-models --example lung_regions -- DATA OUT` with DATA holding `ct-lung-lidc0001`: a NIfTI volume of
//! LIDC-IDRI-0001 (LIDC-IDRI, CC BY 3.0) and its organ labels (TotalSegmentator class ids). OUT gets `zNN.png` (16 bit over the lung
//! window) and `zNN.mask.png` (white where a nodule may be) for every slice.
//!
//! Permissible is lung (the five lobes) without large vessels and airways: soft tissue inside the lung that is at least five pixels
//! wide, and the labelled veins, with a margin of one pixel. Thin vessels stay permissible: nodules lie beside and over them.

use hiresmed_imaging::{Mask, Plane, Window, dicom::ReadOptions, nifti, raster};
use std::path::{Path, PathBuf};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// TotalSegmentator's ids of the five lung lobes.
const LOBES: [u16; 5] = [10, 11, 12, 13, 14];
/// Trachea, heart, aorta, pulmonary vein: excluded with their margin where a lobe's label overlaps their blurred edge.
const FORBIDDEN: [u16; 4] = [16, 51, 52, 53];
/// Above it, a pixel inside the lung is vessel, airway wall or lesion; Hounsfield units.
const SOFT_TISSUE_HU: f32 = -300.0;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, out] = arguments.as_slice() else {
        return Err("usage: lung_regions DATA OUT".into());
    };
    let (folder, out) = (Path::new(data).join("ct-lung-lidc0001"), Path::new(out));
    std::fs::create_dir_all(out)?;
    let volume = nifti::read_volume(find(&folder, "ct_hu")?, ReadOptions::default())?;
    let labels = nifti::read_labels(find(&folder, "organ_labels")?, ReadOptions::default())?;
    for (index, (slice, labels)) in volume.slices.iter().zip(&labels).enumerate() {
        let region = permissible(slice, &labels.mask(&LOBES), &labels.mask(&FORBIDDEN));
        let normalised = slice.data().iter().map(|&value| Window::LUNG_CT.normalise(value));
        let image = Plane::new(slice.width(), slice.height(), normalised.collect());
        std::fs::write(out.join(format!("z{index:02}.png")), raster::deep_png(&image))?;
        let white = region.data().iter().map(|&value| f32::from(value) * 2.0 - 1.0).collect();
        let mask = Plane::new(slice.width(), slice.height(), white);
        std::fs::write(out.join(format!("z{index:02}.mask.png")), raster::deep_png(&mask))?;
    }
    println!("{} slices", volume.slices.len());
    Ok(())
}

fn find(folder: &Path, start: &str) -> Fallible<PathBuf> {
    let paths = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = paths.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)));
    Ok(found.next().ok_or(format!("no {start}* in {}", folder.display()))?)
}

/// Lung without large vessels, airways and what is labelled otherwise.
fn permissible(slice: &Plane, lung: &Mask, forbidden: &Mask) -> Mask {
    let (width, height) = (slice.width(), slice.height());
    let reach = grow(lung, 1);
    let tissue = Mask::from_fn(width, height, |x, y| reach.get(x, y) && slice.at(x, y) > SOFT_TISSUE_HU);
    let large = grow(&grow(&shrink(&tissue, 2), 2), 1);
    let forbidden = grow(forbidden, 1);
    Mask::from_fn(width, height, |x, y| lung.get(x, y) && !large.get(x, y) && !forbidden.get(x, y))
}

/// Pixels with a set pixel within `radius`, along both axes.
fn grow(mask: &Mask, radius: usize) -> Mask {
    any_around(mask, radius, true)
}

/// Pixels with only set pixels within `radius`, along both axes.
fn shrink(mask: &Mask, radius: usize) -> Mask {
    let unset = any_around(mask, radius, false);
    Mask::from_fn(mask.width(), mask.height(), |x, y| !unset.get(x, y))
}

fn any_around(mask: &Mask, radius: usize, wanted: bool) -> Mask {
    let span = |at: usize, size: usize| at.saturating_sub(radius)..(at + radius + 1).min(size);
    Mask::from_fn(mask.width(), mask.height(), |x, y| {
        span(y, mask.height()).any(|y| span(x, mask.width()).any(|x| mask.get(x, y) == wanted))
    })
}
