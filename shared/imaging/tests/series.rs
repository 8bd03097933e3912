//! Folders as a site has them: several formats, several series, and files that cannot be read.

// A failed test panics: that is its message.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use hiresmed_imaging::dicom::write::{PatientSlice, Syntax};
use hiresmed_imaging::series::{Units, read_folder};
use hiresmed_imaging::{Fault, Plane, Spacing, Window, raster};

fn write_slice(path: &Path, patient_id: &str, number: u32, z_mm: f64) {
    let plane = Plane::filled(8, 6, number as f32 - 1000.0).with_spacing(Some(Spacing::square(0.7)));
    let (derivation, thickness_mm, syntax) = ("", 2.5, Syntax::JpegLs);
    let slice = PatientSlice { plane: &plane, patient_id, derivation, number, z_mm, thickness_mm, syntax };
    fs::write(path, slice.to_bytes().unwrap()).unwrap();
}

#[test]
fn slices_are_ordered_by_position_and_faults_are_collected() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let series = root.join("patient-1");
    fs::create_dir(&series).unwrap();
    // Names that say the opposite of the positions.
    write_slice(&series.join("c.dcm"), "P1", 1, -30.0);
    write_slice(&series.join("b.dcm"), "P1", 2, -20.0);
    write_slice(&series.join("a.dcm"), "P1", 3, -10.0);
    write_slice(&series.join("no-extension"), "P1", 4, 0.0);
    let whole = fs::read(series.join("a.dcm")).unwrap();
    fs::write(series.join("truncated.dcm"), &whole[..whole.len() - 30]).unwrap();
    fs::write(series.join("README"), "not an image").unwrap();
    fs::write(series.join("boxes.csv"), "file,x,y").unwrap();
    fs::write(series.join(".hidden.dcm"), "x").unwrap();
    fs::write(root.join("view.png"), raster::preview_png(&Plane::filled(5, 4, 0.5), 0.0, 1.0)).unwrap();

    let read = read_folder(root).unwrap();
    let names: Vec<(&str, &str)> =
        read.slices.iter().map(|slice| (slice.series.as_str(), slice.name.as_str())).collect();
    let top = root.file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(names.iter().filter(|(series, _)| *series == top).count(), 1);
    let in_series: Vec<&str> =
        names.iter().filter(|(series, _)| *series == "patient-1").map(|(_, name)| *name).collect();
    assert_eq!(in_series, ["c", "b", "a", "no-extension"]);
    assert_eq!(read.faults.len(), 1);
    assert!(read.faults[0].to_string().contains("truncated.dcm"));
    assert!(matches!(read.faults[0].fault, Fault::Truncated { .. }));

    let slice = read.slices.iter().find(|slice| slice.name == "b").unwrap();
    assert_eq!((slice.plane.at(0, 0), slice.position_mm), (-998.0, Some(-20.0)));
    assert_eq!((slice.modality.as_deref(), slice.units), (Some("CT"), Units::RealWorld));
    assert_eq!(slice.plane.spacing, Some(Spacing::square(0.7)));
    assert!((slice.normalised(Window::LUNG_CT).at(0, 0) - (2.0 / 1400.0 * 2.0 - 1.0)).abs() < 1e-6);
    let picture = read.slices.iter().find(|slice| slice.name == "view").unwrap();
    assert_eq!(picture.units, Units::Display { max: 255.0 });
    assert!((picture.normalised(Window::LUNG_CT).at(0, 0) - (128.0 / 255.0 * 2.0 - 1.0)).abs() < 1e-6);
}

#[test]
fn names_are_unique_within_a_series() {
    let folder = tempfile::tempdir().unwrap();
    write_slice(&folder.path().join("a.dcm"), "P1", 1, 0.0);
    fs::write(folder.path().join("a.png"), raster::preview_png(&Plane::filled(5, 4, 0.5), 0.0, 1.0)).unwrap();
    let mut names: Vec<String> =
        read_folder(folder.path()).unwrap().slices.into_iter().map(|slice| slice.name).collect();
    names.sort();
    assert_eq!(names, ["a", "a-2"]);
}

#[test]
fn a_missing_folder_is_an_error_that_names_it() {
    let error = read_folder("no/such/folder").unwrap_err();
    assert!(error.to_string().contains("no/such/folder"));
}
