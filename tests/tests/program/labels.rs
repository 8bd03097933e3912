//! Masks and sizes as DICOM objects, opened by what others read them with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use hiresmed_imaging::{
    Plane, Spacing, Window,
    dicom::{
        self,
        write::{Identity, Syntax, Synthetic},
    },
    raster,
};

use crate::harness::{Bench, Delivered};

/// What asks for both objects.
const LABELLED: &str = "output.seg = true\noutput.sr = true\n";

/// The Python of `tests/tools/install`, with the packages of `tests/tools/requirements.txt`.
fn python() -> PathBuf {
    let named = std::env::var_os("HIRESMED_TEST_PYTHON").map(PathBuf::from);
    named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.runtimes/test-python/bin/python"))
}

/// pydicom and highdicom find in the delivery's labels what its manifest and PNG masks say.
pub fn opens_elsewhere(delivery: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program/check_labels.py");
    let output = Command::new(python()).arg(script).arg(delivery).output().expect("`tests/tools/install` installs it");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let images = Delivered::read(delivery).manifest.images.len();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{images} images agree"));
}

/// A deflated file as an explicit one, beside it: `dciodvfy` reads no deflated ones, whoever wrote them.
fn inflated(file: &Path) -> PathBuf {
    let explicit = file.with_extension("explicit.dcm");
    let script = "import pydicom, sys; data = pydicom.dcmread(sys.argv[1]); \
                  data.file_meta.TransferSyntaxUID = '1.2.840.10008.1.2.1'; data.save_as(sys.argv[2])";
    let status = Command::new(python()).args(["-c", script]).args([file, &explicit]).status().unwrap();
    assert!(status.success(), "{}", file.display());
    explicit
}

/// `dciodvfy` finds a file to be an object of `iod`, with no fault but that it is older than (0008,001C).
pub fn valid(file: &Path, iod: &str) {
    let output = Command::new("dciodvfy").arg(file).output().expect("dciodvfy: `tests/tools/install` installs it");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<&str> =
        said.lines().filter(|line| line.starts_with("Error") && !line.contains("(0x0008,0x001c)")).collect();
    assert!(errors.is_empty() && said.lines().any(|line| line.trim() == iod), "{}: {said}", file.display());
}

#[test]
fn segments_and_measurements_are_those_of_the_masks_in_every_syntax() {
    let bench = Bench::new();
    for (syntax, images, labels) in [
        ("explicit", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1"),
        ("deflated", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.1.99"),
        ("jpeg-ls", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.1"),
    ] {
        let text = format!("{LABELLED}count = 2\noutput.transfer_syntax = \"{syntax}\"");
        let id = bench.submit(&text);
        bench.run(&["watch", &id]).expect(0);
        let (out, delivered) = (bench.path(syntax), bench.delivery(&id, syntax));
        assert_eq!((delivered.below("labels-seg/"), delivered.below("labels-sr/")), (2, 2));
        opens_elsewhere(&out);
        for image in &delivered.manifest.images {
            let (seg, sr) = (image.seg.as_ref().unwrap(), image.sr.as_ref().unwrap());
            assert_eq!((delivered.files[&seg.file], delivered.files[&sr.file]), (seg.sha256, sr.sha256));
            for (file, iod) in [(&image.file, "CTImage"), (&seg.file, "Segmentation"), (&sr.file, "ComprehensiveSR")] {
                let path = out.join(file);
                let bytes = fs::read(&path).unwrap();
                let readable = if syntax == "deflated" { inflated(&path) } else { path };
                valid(&readable, iod);
                // (0002,0010) stands before everything that is encoded by it.
                let (head, expected) = (&bytes[..400.min(bytes.len())], if iod == "CTImage" { images } else { labels });
                let written = |uid: &str| head.windows(uid.len()).any(|part| part == uid.as_bytes());
                assert!(written(expected), "{file} is not {expected}");
            }
            assert_eq!(dicom::read(out.join(&image.file)).unwrap().attributes.modality.as_deref(), Some("CT"));
        }
    }
    // What was asked for once and is not any more is no part of the delivery.
    let id = bench.submit("count = 2");
    bench.run(&["watch", &id]).expect(0);
    let plain = bench.delivery(&id, "explicit");
    assert_eq!((plain.below("labels-seg/"), plain.below("labels-sr/")), (0, 0));
    assert!(plain.manifest.images.iter().all(|image| image.seg.is_none() && image.sr.is_none()));
}

#[test]
fn what_is_of_no_modality_is_a_valid_secondary_capture() {
    let bench = Bench::new();
    let data = (0..64 * 48).map(|at| (at % 64) as f32 / 32.0 - 1.0).collect();
    let plane = Plane::new(64, 48, data).with_spacing(Some(Spacing::square(0.7)));
    for (syntax, name) in [(Syntax::Explicit, "explicit.dcm"), (Syntax::JpegLs, "jpeg-ls.dcm")] {
        let object = Synthetic {
            plane: &plane,
            window: Window::LUNG_CT,
            identity: Identity { request: "r-1/42", image: 3, object: "composite" },
            modality: "OT",
            description: "A synthetic image",
            body_part: "CHEST",
            software_version: "0",
            syntax,
        };
        let path = bench.path(name);
        fs::write(&path, object.to_bytes().unwrap()).unwrap();
        valid(&path, "SCImage");
    }
}

#[test]
fn several_lesions_are_a_segment_each() {
    let bench = Bench::new();
    let request = bench.path("several.toml");
    let text = "version = 1\nkind = \"synthesise\"\ncount = 2\nsize = { width = 128, height = 112, spacing_mm = 2.7 }\nseed = 3\n\
                lesions = { count = { min = 2, max = 3 }, diameter_mm = { min = 14.0, max = 18.0 } }\n";
    fs::write(&request, format!("{text}{LABELLED}")).unwrap();
    let out = bench.path("out");
    let arguments = ["submit", request.to_str().unwrap(), "--wait", "--out", out.to_str().unwrap()];
    bench.run(&arguments).expect(0);
    opens_elsewhere(&out);
    let delivered = Delivered::read(&out);
    for image in &delivered.manifest.images {
        assert!(image.lesions.len() >= 2);
        valid(&out.join(&image.seg.as_ref().unwrap().file), "Segmentation");
        let mask = raster::read_mask(out.join(&image.mask.as_ref().unwrap().file)).unwrap();
        assert_eq!(mask.components().len(), image.lesions.len());
    }
    // The same request gives the same bytes, wherever it is made.
    let other = Bench::new();
    let out = other.path("out");
    other.run(&["submit", request.to_str().unwrap(), "--wait", "--out", out.to_str().unwrap()]).expect(0);
    Delivered::read(&out).equals(&delivered, "made again");
}

#[test]
fn measurements_need_segments() {
    let bench = Bench::new();
    let said = "`output.sr` = true: must be false unless output.seg is true";
    bench.run(&["submit", &bench.request("count = 1\noutput.sr = true")]).complains(2, &[said]);
}
