//! Builds the demo's sample input from the published LIDC-IDRI-0001 volume:
//!
//! ```text
//! cargo run --release -p hiresmed-imaging --example sample_series -- SOURCE OUT
//! ```
//!
//! SOURCE holds `ct_hu_z074-111.nii.gz`, `organ_labels_z074-111.nii.gz`, `organ_label_names.csv` and
//! `nodule_contours.json`. OUT gets `series/slice-NNN.dcm` (12 bits in 16, JPEG-LS lossless), `organ-labels/slice-NNN.png`
//! (8-bit label ids), `organ-label-names.csv` and `contours.json`. Every second slice is taken, and every slice that a
//! reader drew a contour on. The same source gives the same bytes.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use hiresmed_imaging::dicom::ReadOptions;
use hiresmed_imaging::dicom::write::{PatientSlice, Syntax};
use hiresmed_imaging::files::write_atomically;
use hiresmed_imaging::{nifti, raster};
use serde_json::{Value, json};

/// Index of the volume's first slice in the whole scan.
const FIRST_SLICE: usize = 74;
const DERIVATION: &str = "LIDC-IDRI-0001, CC BY 3.0 (TCIA, Armato et al.). HU clipped to -1024..3071, in-plane position lost; \
                          pixels otherwise as published";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [source, out] = arguments.as_slice() else {
        return Err("usage: sample_series SOURCE OUT".into());
    };
    fs::create_dir_all(out.join("series"))?;
    fs::create_dir_all(out.join("organ-labels"))?;
    let contours: Value = serde_json::from_slice(&fs::read(source.join("nodule_contours.json"))?)?;
    let annotations = contours["annotations"].as_array().ok_or("nodule_contours.json has no annotations")?;
    let drawn: BTreeSet<usize> = annotations
        .iter()
        .filter_map(|annotation| annotation["contours"].as_array())
        .flatten()
        .filter_map(|contour| contour["slice_in_crop"].as_u64())
        .map(|slice| slice as usize)
        .collect();
    let taken = write_slices(source, out, &contours, &drawn)?;
    write_atomically(out.join("contours.json"), &serde_json::to_vec(&compact(&contours, annotations))?)?;
    let names = fs::read(source.join("organ_label_names.csv"))?;
    write_atomically(out.join("organ-label-names.csv"), &names)?;
    println!("{taken} slices, {} of them with contours", drawn.len());
    Ok(())
}

fn stem(slice: usize) -> String {
    format!("slice-{:03}", FIRST_SLICE + slice)
}

fn write_slices(source: &Path, out: &Path, contours: &Value, drawn: &BTreeSet<usize>) -> Result<usize, Box<dyn Error>> {
    let volume = nifti::read_volume(source.join("ct_hu_z074-111.nii.gz"), ReadOptions::default())?;
    let labels = nifti::read_labels(source.join("organ_labels_z074-111.nii.gz"), ReadOptions::default())?;
    if labels.len() != volume.slices.len() {
        return Err("the label volume and the image volume differ in depth".into());
    }
    let number = |key: &str| contours[key].as_f64().ok_or_else(|| format!("nodule_contours.json lacks {key}"));
    let (first_mm, step_mm) = (number("first_slice_z_mm")?, number("slice_spacing_mm")?);
    let mut taken = 0;
    for (index, (plane, labels)) in volume.slices.iter().zip(&labels).enumerate() {
        if index % 2 != 0 && !drawn.contains(&index) {
            continue;
        }
        let slice = PatientSlice {
            plane,
            patient_id: "LIDC-IDRI-0001",
            derivation: DERIVATION,
            number: (FIRST_SLICE + index + 1) as u32,
            z_mm: first_mm + step_mm * index as f64,
            thickness_mm: step_mm,
            syntax: Syntax::JpegLs,
        };
        write_atomically(out.join("series").join(format!("{}.dcm", stem(index))), &slice.to_bytes()?)?;
        let ids: Vec<u8> = labels.ids.iter().map(|&id| u8::try_from(id)).collect::<Result<_, _>>()?;
        let png = raster::grey_png(labels.width, labels.height, &ids);
        write_atomically(out.join("organ-labels").join(format!("{}.png", stem(index))), &png)?;
        taken += 1;
    }
    Ok(taken)
}

/// The readers' contours by slice name.
fn compact(contours: &Value, annotations: &[Value]) -> Value {
    let contour = |contour: &Value| {
        let slice = contour["slice_in_crop"].as_u64().map(|slice| stem(slice as usize));
        json!({ "slice": slice, "z_mm": contour["z_mm"], "inclusion": contour["inclusion"], "points": contour["col_row"] })
    };
    let readers: Vec<Value> = annotations
        .iter()
        .map(|annotation| {
            let contours: Vec<Value> = annotation["contours"].as_array().into_iter().flatten().map(contour).collect();
            json!({ "annotation_id": annotation["annotation_id"], "ratings": annotation["ratings"], "contours": contours })
        })
        .collect();
    json!({
        "patient": contours["patient"],
        "licence": "CC BY 3.0",
        "points": "[column, row] of pixel centres in the DICOM slices",
        "annotations": readers,
    })
}
