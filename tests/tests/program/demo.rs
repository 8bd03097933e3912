//! The delivery that `hiresmed demo` promises, held against the files themselves.

use std::{collections::BTreeSet, fs, path::Path};

use hiresmed_imaging::{Mask, dicom, raster};
use hiresmed_protocol::manifest::Image;

use crate::harness::{Bench, Delivered};

#[test]
fn a_demo_delivers_what_it_promises() {
    let bench = Bench::new();
    let out = bench.path("out");
    let said = bench.run(&["demo", "--out", out.to_str().unwrap(), "--count", "3", "--seed", "5"]);
    assert!(said.expect(0).trim().ends_with("report.html"), "{}", said.out);
    let delivered = Delivered::read(&out);
    assert_eq!(delivered.indices(), [0, 1, 2]);
    assert_eq!(stems(&out, "images", "dcm").len(), 3);
    for (folder, ending) in [("masks", "png"), ("backgrounds", "dcm"), ("labels-yolo", "txt")] {
        assert_eq!(stems(&out, folder, ending), stems(&out, "images", "dcm"), "{folder}");
    }
    for image in &delivered.manifest.images {
        assert_eq!(image.seed, 5);
        holds(&out, image);
    }
    let names: BTreeSet<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with('.')), "nothing is left behind: {names:?}");
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("<html"));
    let scores: Vec<f64> = page.split("\"ssim_outside_mask\":").skip(1).map(number).collect();
    assert!(scores.len() == 3 && scores.iter().all(|score| (0.99..=1.0).contains(score)), "{scores:?}");

    let again = bench.path("again");
    bench.run(&["demo", "--out", again.to_str().unwrap(), "--count", "3", "--seed", "5"]).expect(0);
    Delivered::read(&again).equals(&delivered, "in a second demo");
    let request: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("annotations.coco.json")).unwrap()).unwrap();
    let lesions: usize = delivered.manifest.images.iter().map(|image| image.lesions.len()).sum();
    assert_eq!(request["annotations"].as_array().unwrap().len(), lesions);
}

#[test]
fn a_second_demo_in_a_folder_leaves_nothing_of_the_first() {
    let bench = Bench::new();
    let (out, clean) = (bench.path("out"), bench.path("clean"));
    let demo = |out: &Path, count: &str, seed: &str| {
        bench.run(&["demo", "--out", out.to_str().unwrap(), "--count", count, "--seed", seed]).expect(0);
    };
    demo(&out, "3", "1");
    fs::write(out.join("labels-yolo/classes.txt"), "nodule").unwrap();
    demo(&out, "1", "2");
    assert_eq!(fs::read_to_string(out.join("labels-yolo/classes.txt")).unwrap(), "nodule", "it is not ours");
    fs::remove_file(out.join("labels-yolo/classes.txt")).unwrap();
    demo(&clean, "1", "2");
    Delivered::read(&out).equals(&Delivered::read(&clean), "in a folder that was used before");
}

/// The number that `text` begins with.
fn number(text: &str) -> f64 {
    text.split([',', '}']).next().unwrap().parse().unwrap()
}

fn stems(out: &Path, folder: &str, ending: &str) -> BTreeSet<String> {
    let paths = fs::read_dir(out.join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let named = paths.filter(|path| path.extension().is_some_and(|own| own == ending));
    named.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

/// Lesions inside the image and off its border, a component each; only their surroundings changed, and most of them did.
fn holds(out: &Path, image: &Image) {
    let read = |file: &str| dicom::read(out.join(file)).unwrap();
    let (composite, background) = (read(&image.file), read(&image.background.as_ref().unwrap().file));
    let planes = [&composite, &background].map(|image| image.to_plane(0).unwrap());
    let mask = raster::read_mask(out.join(&image.mask.as_ref().unwrap().file)).unwrap();
    let (width, height) = (mask.width(), mask.height());
    assert!(!image.lesions.is_empty());
    let components = mask.components();
    assert_eq!(components.len(), image.lesions.len(), "{}", image.file);

    let changed = Mask::from_fn(width, height, |x, y| planes[0].at(x, y) != planes[1].at(x, y));
    assert_eq!(changed.without(&mask.dilated(3)).area(), 0, "{}: pixels far from any lesion changed", image.file);
    for index in 0..components.len() {
        let component = components.mask(index);
        let share = changed.and(&component).area() as f64 / component.area() as f64;
        assert!(share > 0.5, "{}: {share} of component {index} changed", image.file);
        let bounds = component.bounds().unwrap();
        assert!(bounds.left > 0 && bounds.top > 0, "{}", image.file);
        assert!(bounds.left + bounds.width < width && bounds.top + bounds.height < height, "{}", image.file);
        let (x, y) = component.centroid().unwrap();
        let listed = image.lesions.iter().find(|lesion| (lesion.centre[0] - x).hypot(lesion.centre[1] - y) < 1.0);
        let listed = listed.unwrap_or_else(|| panic!("{}: no lesion of the manifest at {x}, {y}", image.file));
        assert!((listed.size_px - component.longest_diameter()).abs() < 1.0);
    }
}
