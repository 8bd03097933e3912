//! Cuts the lesion exemplars of the shipped SinGANs out of public data sets.
//!
//! `cargo run -p hiresmed-models --example lesion_exemplars -- DATA OUT` with DATA holding
//!
//! - `ct-lung-lidc0001`: a NIfTI volume of LIDC-IDRI-0001 and `nodule_contours.json` (LIDC-IDRI, CC BY 3.0): the mask is what at least
//!   half of a slice's readers outlined;
//! - `ct-lung-dicom-lung_dx-a0001`: DICOM slices and `boxes.csv` (Lung-PET-CT-Dx, CC BY 4.0): the mask is the soft tissue inside the
//!   ellipse that a box encloses, its largest piece, smoothed;
//! - `ct-lung-slices-iqothnccd`: 8-bit slices (IQ-OTH/NCCD, CC BY 4.0) that come without boxes: [`SEEDS`] names nodules that we
//!   found by eye; the mask is the tissue that is connected to the seed within a radius. Their grey values are brought to the lung
//!   window by two points, air outside the body and muscle.
//!
//! OUT gets `NAME.png` (16 bit over the lung window) and `NAME.mask.png` (soft mask) for each, ready for `train singan`.

use hiresmed_imaging::{Mask, Plane, Window, dicom::ReadOptions, nifti, raster, series};
use hiresmed_models::singan::{Cut, Exemplar};
use serde_json::Value;
use std::path::Path;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Slices of LIDC-IDRI-0001's one nodule that are cut: its body and its ragged lower pole.
const LIDC_SLICES: [usize; 3] = [13, 17, 19];
/// Slices of the Lung-PET-CT-Dx mass that lie free enough of the mediastinum.
const BOXED_SLICES: [&str; 2] = ["slice_009", "slice_011"];
/// Nodules of IQ-OTH/NCCD: file, column and row of a pixel inside, radius in px that holds it.
const SEEDS: [(&str, usize, usize, f64); 2] =
    [("malignant/malignant_0129", 330, 260, 20.0), ("malignant/malignant_0391", 324, 274, 38.0)];

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, out] = arguments.as_slice() else {
        return Err("usage: lesion_exemplars DATA OUT".into());
    };
    let (data, out) = (Path::new(data), Path::new(out));
    std::fs::create_dir_all(out)?;
    let mut exemplars = from_contours(&data.join("ct-lung-lidc0001"))?;
    exemplars.extend(from_boxes(&data.join("ct-lung-dicom-lung_dx-a0001"))?);
    exemplars.extend(from_seeds(&data.join("ct-lung-slices-iqothnccd"))?);
    for exemplar in &exemplars {
        std::fs::write(out.join(format!("{}.png", exemplar.name)), raster::deep_png(&exemplar.image))?;
        std::fs::write(out.join(format!("{}.mask.png", exemplar.name)), raster::deep_png(&exemplar.mask))?;
        println!("{}: {} px of lesion", exemplar.name, exemplar.hard_mask(0.0).area());
    }
    Ok(())
}

/// Exemplars from readers' contours.
fn from_contours(folder: &Path) -> Fallible<Vec<Exemplar>> {
    let volume = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let volume = volume.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ct_hu")));
    let volume = volume.min().ok_or("no volume ct_hu*.nii.gz")?;
    let volume = nifti::read_volume(volume, ReadOptions::default())?;
    let contours: Value = serde_json::from_slice(&std::fs::read(folder.join("nodule_contours.json"))?)?;
    let mut exemplars = Vec::new();
    for index in LIDC_SLICES {
        let slice = &volume.slices[index];
        let outlines = outlines(&contours, index);
        let mask = Mask::from_fn(slice.width(), slice.height(), |x, y| {
            let votes = outlines.iter().filter(|outline| encloses(outline, x as f64, y as f64)).count();
            votes > 0 && votes * 2 >= outlines.len()
        });
        exemplars.push(Exemplar::cut(&format!("lidc-0001-{index}"), &normalised(slice), &mask, &Cut::default())?);
    }
    Ok(exemplars)
}

/// Every reader's outline of slice `index`, (column, row) points.
fn outlines(contours: &Value, index: usize) -> Vec<Vec<(f64, f64)>> {
    let point = |point: &Value| Some((point[0].as_f64()?, point[1].as_f64()?));
    let annotations = contours["annotations"].as_array().into_iter().flatten();
    annotations
        .flat_map(|annotation| annotation["contours"].as_array().into_iter().flatten())
        .filter(|contour| contour["slice_in_crop"] == index && contour["inclusion"] == true)
        .map(|contour| contour["col_row"].as_array().into_iter().flatten().filter_map(point).collect())
        .collect()
}

/// Even-odd rule.
fn encloses(outline: &[(f64, f64)], x: f64, y: f64) -> bool {
    let edges = (0..outline.len()).map(|at| (outline[at], outline[(at + 1) % outline.len()]));
    let crossings =
        edges.filter(|&((x0, y0), (x1, y1))| (y0 > y) != (y1 > y) && x < (x1 - x0) * (y - y0) / (y1 - y0) + x0);
    crossings.count() % 2 == 1
}

/// Exemplars from boxes.
fn from_boxes(folder: &Path) -> Fallible<Vec<Exemplar>> {
    let table = std::fs::read_to_string(folder.join("boxes.csv"))?;
    let mut exemplars = Vec::new();
    for name in BOXED_SLICES {
        let row = table.lines().find(|line| line.starts_with(name)).ok_or("a slice has no box")?;
        let numbers: Vec<f64> = row.split(',').skip(4).map(str::parse).collect::<Result<_, _>>()?;
        let [left, top, right, bottom] = numbers.as_slice() else {
            return Err(format!("{row} is no box").into());
        };
        let slice = normalised(&read_one(&folder.join(format!("{name}.dcm")))?.plane);
        let centre = ((left + right) / 2.0, (top + bottom) / 2.0);
        let radii = ((right - left) / 2.0 + 1.0, (bottom - top) / 2.0 + 1.0);
        let inside = |x: f64, y: f64| ((x - centre.0) / radii.0).powi(2) + ((y - centre.1) / radii.1).powi(2) <= 1.0;
        let start = (centre.0 as usize, centre.1 as usize);
        let mask = connected_tissue(&slice, start, |x, y| inside(x as f64, y as f64));
        exemplars.push(Exemplar::cut(&format!("lung-dx-a0001-{}", &name[6..]), &slice, &mask, &Cut::default())?);
    }
    Ok(exemplars)
}

/// Exemplars from seeds.
fn from_seeds(folder: &Path) -> Fallible<Vec<Exemplar>> {
    let mut exemplars = Vec::new();
    for (file, column, row, radius) in SEEDS {
        let slice = calibrated(&read_one(&folder.join(format!("{file}.jpg")))?.plane);
        let inside = |x: usize, y: usize| (x as f64 - column as f64).hypot(y as f64 - row as f64) <= radius;
        let mask = connected_tissue(&slice, (column, row), inside);
        let name = file.rsplit('/').next().unwrap_or(file).replace('_', "-");
        exemplars.push(Exemplar::cut(&format!("iqoth-{name}"), &slice, &mask, &Cut::default())?);
    }
    Ok(exemplars)
}

/// 8-bit display values as normalised ones: the darkest twentieth of the picture is air (-1000 HU), the commonest bright
/// value is muscle and blood (40 HU).
fn calibrated(display: &Plane) -> Plane {
    let mut sorted: Vec<f32> = display.data().to_vec();
    sorted.sort_by(f32::total_cmp);
    let air = sorted[sorted.len() / 20];
    let mut counts = [0usize; 256];
    sorted.iter().filter(|&&value| value > 150.0 && value < 250.0).for_each(|&value| counts[value as usize] += 1);
    let muscle = counts.iter().enumerate().max_by_key(|(_, count)| **count).map_or(225, |(value, _)| value) as f32;
    let hounsfield = |value: f32| -1000.0 + (value - air) / (muscle - air) * 1040.0;
    let values = display.data().iter().map(|&value| Window::LUNG_CT.normalise(hounsfield(value)));
    Plane::new(display.width(), display.height(), values.collect())
}

/// The tissue (above -450 HU after smoothing) that is connected to the tissue nearest to `start`, within `inside`; opened by one
/// pixel so that vessels fall off.
fn connected_tissue(slice: &Plane, start: (usize, usize), inside: impl Fn(usize, usize) -> bool) -> Mask {
    let (width, height) = (slice.width(), slice.height());
    let around = |x: usize, y: usize| {
        let rows = y.saturating_sub(1)..(y + 2).min(height);
        rows.flat_map(move |y| (x.saturating_sub(1)..(x + 2).min(width)).map(move |x| (x, y)))
    };
    let threshold = Window::LUNG_CT.normalise(-450.0);
    let smooth =
        |x: usize, y: usize| around(x, y).map(|(x, y)| slice.at(x, y)).sum::<f32>() / around(x, y).count() as f32;
    let tissue = Mask::from_fn(width, height, |x, y| inside(x, y) && smooth(x, y) > threshold);
    let eroded = Mask::from_fn(width, height, |x, y| {
        around(x, y).all(|(x, y)| tissue.get(x, y) || !inside(x, y)) && tissue.get(x, y)
    });
    let distance = |&(x, y): &(usize, usize)| x.abs_diff(start.0).pow(2) + y.abs_diff(start.1).pow(2);
    let all = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let Some(first) = all.filter(|&(x, y)| eroded.get(x, y)).min_by_key(distance) else {
        return Mask::empty(width, height);
    };
    let mut mask = Mask::empty(width, height);
    let mut open = vec![first];
    while let Some((x, y)) = open.pop() {
        if eroded.get(x, y) && !mask.get(x, y) {
            mask.set(x, y, true);
            open.extend(around(x, y));
        }
    }
    Mask::from_fn(width, height, |x, y| tissue.get(x, y) && around(x, y).any(|(x, y)| mask.get(x, y)))
}

fn read_one(path: &Path) -> Fallible<series::Slice> {
    Ok(series::read_file(path)?.into_iter().next().ok_or("a file without a slice")?)
}

fn normalised(slice: &Plane) -> Plane {
    let values = slice.data().iter().map(|&value| Window::LUNG_CT.normalise(value));
    Plane::new(slice.width(), slice.height(), values.collect())
}
