//! Synthetic images go into an archive, whatever it does in between: against one that misbehaves as it is told, and against Orthanc.

mod archive;
mod arrival;
mod orthanc;
mod refusals;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use hiresmed_imaging::{
    Plane, Spacing, Window,
    dicom::write::{Identity, PatientSlice, Syntax, Synthetic},
};
use serde_json::Value;

use self::archive::Archive;
use crate::harness::{Bench, Said};

const SIDE: usize = 32;
/// The name of a patient, in what is not synthetic.
const NAME: &str = "DOE_JANE";

fn plane(number: u64) -> Plane {
    let pixels = (0..(SIDE * SIDE) as u64).map(|at| ((at * 31 + number * 7) % 200) as f32 / 100.0 - 1.0);
    Plane::new(SIDE, SIDE, pixels.collect()).with_spacing(Some(Spacing::square(0.8)))
}

/// An image of this project's, and its SOP Instance UID.
fn synthetic(number: u64) -> (String, Vec<u8>) {
    let plane = plane(number);
    let image = Synthetic {
        plane: &plane,
        window: Window { low: -1000.0, high: 1000.0 },
        identity: Identity { request: "a delivery", image: number, object: "composite" },
        modality: "CT",
        description: "Synthetic lung CT with nodules",
        body_part: "CHEST",
        software_version: "1",
        syntax: Syntax::Explicit,
    };
    (image.sop_instance_uid(), image.to_bytes().unwrap())
}

/// Writes images into a folder as an export has them, with files that are no images, and gives their UIDs.
fn export(folder: &Path, count: u64) -> Vec<String> {
    for below in ["images", "masks", ".state"] {
        fs::create_dir_all(folder.join(below)).unwrap();
    }
    fs::write(folder.join("manifest.json"), "{}").unwrap();
    fs::write(folder.join("masks/0.png"), b"\x89PNG").unwrap();
    // Inputs, which a demo keeps in a hidden folder.
    fs::write(folder.join(".state/input.dcm"), patients()).unwrap();
    let write = |number| {
        let (uid, bytes) = synthetic(number);
        fs::write(folder.join(format!("images/{number:04}.dcm")), bytes).unwrap();
        uid
    };
    (0..count).map(write).collect()
}

fn patients() -> Vec<u8> {
    let plane = Plane::new(SIDE, SIDE, vec![0.0; SIDE * SIDE]);
    let slice = PatientSlice {
        plane: &plane,
        patient_id: NAME,
        derivation: "none",
        number: 1,
        z_mm: 0.0,
        thickness_mm: 1.0,
        syntax: Syntax::Explicit,
    };
    slice.to_bytes().unwrap()
}

/// An image of 2 MiB.
fn large(number: u32) -> Vec<u8> {
    let plane = Plane::new(1024, 1024, vec![0.0; 1 << 20]);
    let slice = PatientSlice {
        plane: &plane,
        patient_id: NAME,
        derivation: "none",
        number,
        z_mm: f64::from(number),
        thickness_mm: 1.0,
        syntax: Syntax::Explicit,
    };
    slice.to_bytes().unwrap()
}

/// The command, impatient unless it is told otherwise.
fn deliver(bench: &Bench, archive: &Archive, more: &[&str]) -> Command {
    let (out, url) = (bench.path("out"), archive.url());
    let arguments = ["deliver", out.to_str().unwrap(), "--to", &url, "--check-for", "1"];
    let impatient: &[&str] = if more.contains(&"--first-wait") { &[] } else { &["--first-wait", "0.02"] };
    bench.command(&[&arguments[..], impatient, more].concat())
}

fn run(bench: &Bench, archive: &Archive, more: &[&str]) -> Said {
    Said::of(deliver(bench, archive, more).output().unwrap())
}

/// The record's lines but the first.
fn lines(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("delivery.jsonl")).unwrap();
    text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The record's lines by the file's name.
fn record(out: &Path) -> BTreeMap<String, Value> {
    let lines = lines(out);
    let name =
        |line: &Value| PathBuf::from(line["path"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
    let by_name: BTreeMap<String, Value> = lines.iter().map(|line| (name(line), line.clone())).collect();
    assert_eq!(by_name.len(), lines.len(), "a record a file: {lines:?}");
    by_name
}

/// Outcome and reason of a line.
fn end(line: &Value) -> (&str, &str) {
    (line["outcome"].as_str().unwrap(), line["reason"].as_str().unwrap_or_default())
}
