//! `hiresmed score`: pairs by stem, every fault at once, sets by their features.

use std::{fs, path::Path};

use hiresmed_imaging::raster::grey_png;
use hiresmed_inference::{
    ElementType,
    onnx::{Dim, Graph},
};
use serde_json::Value;

use crate::harness::{Bench, Said, slice};

const SIDE: usize = 32;

/// A textured image; `shift` changes its values a little.
fn png(folder: &Path, name: &str, side: usize, shift: usize) {
    fs::create_dir_all(folder).unwrap();
    let pixels: Vec<u8> = (0..side * side).map(|at| ((at * 37 + at / side * 11) % 200 + shift) as u8).collect();
    fs::write(folder.join(name), grey_png(side, side, &pixels)).unwrap();
}

/// A matrix of f64 as numpy.save writes it.
fn npy(path: &Path, rows: usize, columns: usize, value: impl Fn(usize) -> f64) {
    let head = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({rows}, {columns}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((head.len() as u16).to_le_bytes());
    bytes.extend(head.as_bytes());
    bytes.extend((0..rows * columns).flat_map(|at| value(at).to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

/// Runs the command on the bench's folders `real` and `synthetic`.
fn score(bench: &Bench, more: &[&str]) -> Said {
    let (real, synthetic) = (bench.path("real"), bench.path("synthetic"));
    let mut arguments = vec!["score", "--real", real.to_str().unwrap(), "--synthetic", synthetic.to_str().unwrap()];
    arguments.extend(more);
    bench.run(&arguments)
}

fn json(said: &Said) -> Value {
    serde_json::from_str(said.expect(0)).unwrap()
}

fn keys(value: &Value) -> Vec<String> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    keys
}

#[test]
fn pairs_are_scored_and_what_is_undefined_is_null() {
    let bench = Bench::new();
    let (real, synthetic, masks) = (bench.path("real"), bench.path("synthetic"), bench.path("masks"));
    for (name, shift) in [("a.png", 10), ("b.png", 20)] {
        png(&real, name, SIDE, 0);
        png(&synthetic, name, SIDE, shift);
    }
    fs::create_dir_all(&masks).unwrap();
    fs::write(masks.join("a.png"), grey_png(SIDE, SIDE, &[0; SIDE * SIDE])).unwrap();
    fs::write(masks.join("b.png"), grey_png(SIDE, SIDE, &[1; SIDE * SIDE])).unwrap();
    let said = score(&bench, &["--masks", masks.to_str().unwrap(), "--json"]);
    assert!(said.errors.contains("data range 255"), "{}", said.errors);
    let report = json(&said);
    assert_eq!(keys(&report), ["mean", "pairs", "sd", "sets"]);
    assert_eq!(keys(&report["pairs"][0]), ["name", "psnr", "psnr_paper", "ssim", "ssim_outside_mask"]);
    assert_eq!(report["sets"], serde_json::json!({"fid": null, "kid": null}));
    // A shift by a constant is its own mean squared error.
    let expected = |shift: f64| 20.0 * (255.0 / shift).log10();
    let near = |value: &Value, expected: f64| {
        assert!((value.as_f64().unwrap() - expected).abs() < 1e-9, "{value}, expected {expected}");
    };
    near(&report["pairs"][0]["psnr"], expected(10.0));
    near(&report["pairs"][1]["psnr_paper"], expected(20.0) + 20.0 * 255f64.log10());
    near(&report["mean"]["psnr"], (expected(10.0) + expected(20.0)) / 2.0);
    near(&report["sd"]["psnr"], (expected(10.0) - expected(20.0)) / 2f64.sqrt());
    assert_eq!(report["pairs"][0]["ssim"], report["pairs"][0]["ssim_outside_mask"], "nothing is masked");
    assert!(report["pairs"][1]["ssim_outside_mask"].is_null(), "everything is masked");
    assert!(report["mean"]["ssim_outside_mask"].is_null() && report["mean"]["ssim"].is_number());

    png(&synthetic, "a.png", SIDE, 0);
    let report = json(&score(&bench, &["--json", "--data-range", "100"]));
    assert!(report["pairs"][0]["psnr"].is_null() && report["mean"]["psnr"].is_null(), "infinite");
    near(&report["pairs"][0]["ssim"], 1.0);
    near(&report["pairs"][1]["psnr"], 20.0 * 5f64.log10());
    assert!(score(&bench, &[]).expect(0).contains("inf"));
    score(&bench, &["--data-range", "-1"]).complains(2, &["a data range of -1"]);
}

#[test]
fn everything_that_is_not_paired_is_listed_in_one_error() {
    let bench = Bench::new();
    let (real, synthetic, masks) = (bench.path("real"), bench.path("synthetic"), bench.path("masks"));
    for name in ["fits.png", "alone.png", "size.png", "unmasked.png", "damaged.png"] {
        png(&real, name, SIDE, 0);
    }
    for name in ["fits.png", "extra.png", "unmasked.png", "damaged.png"] {
        png(&synthetic, name, SIDE, 5);
    }
    png(&synthetic, "size.png", SIDE + 1, 5);
    fs::write(synthetic.join("damaged.png"), b"no image").unwrap();
    png(&masks, "fits.png", SIDE, 0);
    let masks = masks.to_str().unwrap();
    let said = score(&bench, &["--masks", masks, "--json"]);
    let faults = [
        "alone.png: no synthetic image",
        "extra.png: no real image",
        "size.png has 32x32 pixels",
        "unmasked.png: no mask",
        "damaged.png",
    ];
    said.complains(2, &faults);
    assert_eq!(said.out, "");

    fs::remove_file(synthetic.join("damaged.png")).unwrap();
    let said = score(&bench, &["--masks", masks, "--json", "--unpaired"]);
    let names: Vec<_> = json(&said)["pairs"].as_array().unwrap().iter().map(|pair| pair["name"].clone()).collect();
    assert_eq!(names, ["fits", "unmasked"]);
    assert!(said.errors.contains("passed over: ") && said.errors.contains("extra.png"), "{}", said.errors);

    let empty = Bench::new();
    fs::create_dir_all(empty.path("real")).unwrap();
    score(&empty, &[]).complains(2, &["synthetic", "check that the path exists"]);
    fs::create_dir_all(empty.path("synthetic")).unwrap();
    score(&empty, &[]).complains(2, &["has a PNG, JPEG or DICOM image"]);
}

#[test]
fn dicom_is_scored_in_rescaled_units() {
    let bench = Bench::new();
    for (folder, number) in [("real", 6), ("synthetic", 8)] {
        fs::create_dir_all(bench.path(folder)).unwrap();
        fs::copy(slice(number), bench.path(folder).join("slice.dcm")).unwrap();
    }
    let said = score(&bench, &["--json"]);
    assert!(said.errors.contains("by the DICOM files'"), "{}", said.errors);
    let planes = [6, 8].map(|number| hiresmed_imaging::dicom::read(slice(number)).unwrap().to_plane(0).unwrap());
    let squares = planes[0].data().iter().zip(planes[1].data()).map(|(a, b)| f64::from(a - b).powi(2));
    let error = squares.sum::<f64>() / planes[0].data().len() as f64;
    let given = json(&score(&bench, &["--json", "--data-range", "1400"]));
    let psnr = given["pairs"][0]["psnr"].as_f64().unwrap();
    assert!((psnr - 10.0 * (1400.0 * 1400.0 / error).log10()).abs() < 1e-6, "{psnr}");
    assert!(given["sd"]["psnr"].is_null(), "one pair has no deviation");
}

#[test]
fn sets_are_scored_by_features_given_or_extracted() {
    let bench = Bench::new();
    for index in 0..6 {
        png(&bench.path("real"), &format!("r{index}.png"), SIDE, index);
        png(&bench.path("synthetic"), &format!("s{index}.png"), SIDE, index * 3);
    }
    let (a, b) = (bench.path("a.npy"), bench.path("b.npy"));
    npy(&a, 3, 1, |at| [0.0, 2.0, 4.0][at]);
    npy(&b, 3, 1, |at| [2.0, 7.0, 12.0][at]);
    let files = ["--features-real", a.to_str().unwrap(), "--features-synthetic", b.to_str().unwrap()];
    let report = json(&score(&bench, &[&["--unpaired", "--json"][..], &files].concat()));
    assert!((report["sets"]["fid"].as_f64().unwrap() - 34.0).abs() < 1e-9, "{report}");
    // Kernel (xy + 1)³ by hand: within 2 (1 + 1 + 729) / 6 and 2 (15³ + 25³ + 85³) / 6, between the nine products.
    let within =
        |v: [f64; 3]| [(0, 1), (0, 2), (1, 2)].map(|(i, j)| (v[i] * v[j] + 1.0).powi(3)).iter().sum::<f64>() / 3.0;
    let (x, y): ([f64; 3], [f64; 3]) = ([0.0, 2.0, 4.0], [2.0, 7.0, 12.0]);
    let between = x.iter().flat_map(|x| y.map(|y| (x * y + 1.0).powi(3))).sum::<f64>() / 9.0;
    let kid = within(x) + within(y) - 2.0 * between;
    assert!((report["sets"]["kid"].as_f64().unwrap() - kid).abs() < 1e-6 * kid.abs(), "{report}, expected {kid}");

    npy(&b, 1, 1, |_| 0.0);
    let said = score(&bench, &[&["--unpaired", "--json"][..], &files].concat());
    assert_eq!(json(&said)["sets"], serde_json::json!({"fid": null, "kid": null}));
    npy(&b, 3, 2, |at| at as f64);
    score(&bench, &[&["--unpaired"][..], &files].concat()).complains(2, &["1 and 2 dimensions"]);
    npy(&b, 3, 1, |at| if at == 1 { f64::NAN } else { 0.0 });
    score(&bench, &[&["--unpaired"][..], &files].concat()).complains(2, &["b.npy: row 1"]);

    let extractor = bench.path("extractor.onnx");
    let mut graph = Graph::new("means");
    let dims = [Dim::Fixed(1), Dim::Fixed(3), Dim::from("h"), Dim::from("w")];
    let x = graph.input("x", ElementType::F32, &dims);
    let means = graph.reduce_mean(&x, &[2, 3], false);
    graph.output(&means, "features", ElementType::F32, &[1, 3].map(Dim::Fixed));
    fs::write(&extractor, graph.finish().unwrap()).unwrap();
    let said = score(&bench, &["--unpaired", "--json", "--extractor", extractor.to_str().unwrap()]);
    let sets = &json(&said)["sets"];
    // Means of equal channels: three times the distance along one, m being 2/255 a grey level.
    let (shifts, spread): ([f64; 2], f64) = ([2.5, 7.5], 3.5f64.sqrt());
    let level = 2.0 / 255.0;
    let expected = 3.0 * level * level * ((shifts[1] - shifts[0]).powi(2) + (2.0 * spread).powi(2));
    assert!((sets["fid"].as_f64().unwrap() - expected).abs() < 1e-4 * expected, "{sets}, expected {expected}");
    assert!(sets["kid"].is_number());
}

#[test]
fn lpips_stands_beside_the_other_scores_when_given() {
    let bench = Bench::new();
    png(&bench.path("real"), "a.png", SIDE, 0);
    png(&bench.path("synthetic"), "a.png", SIDE, 51);
    let metric = bench.path("metric.onnx");
    let mut graph = Graph::new("metric");
    let dims = [Dim::Fixed(1), Dim::Fixed(3), Dim::from("h"), Dim::from("w")];
    let (a, b) = (graph.input("a", ElementType::F32, &dims), graph.input("b", ElementType::F32, &dims));
    let difference = graph.sub(&b, &a);
    let mean = graph.reduce_mean(&difference, &[1, 2, 3], true);
    graph.output(&mean, "distance", ElementType::F32, &[1; 4].map(Dim::Fixed));
    fs::write(&metric, graph.finish().unwrap()).unwrap();
    let report = json(&score(&bench, &["--json", "--lpips", metric.to_str().unwrap()]));
    for part in [&report["pairs"][0], &report["mean"]] {
        assert!((part["lpips"].as_f64().unwrap() - 0.4).abs() < 1e-6, "{part}");
    }
    assert!(report["sd"]["lpips"].is_null() && keys(&report["sd"]).contains(&"lpips".to_owned()));
    score(&bench, &["--lpips", bench.path("real/a.png").to_str().unwrap()]).complains(2, &["a.png", "open the graph"]);
}
