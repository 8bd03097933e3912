//! Scores against the values of scikit-image, SciPy, scikit-learn and the published arithmetic of LPIPS, which
//! `expectations.py` beside this file makes again.

#![allow(clippy::unwrap_used, reason = "a test fails where an expectation does")]

use std::path::{Path, PathBuf};

use hiresmed_imaging::{Mask, Plane};
use hiresmed_inference::Tensor;
use hiresmed_scores::features::FeatureFile;
use hiresmed_scores::{Moments, fid, folders, kid, lpips, psnr, ssim, ssim_map, study};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn expectations(part: &str) -> Value {
    let text = std::fs::read_to_string(fixture("expectations.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[part].clone()
}

fn entries(part: &str) -> Vec<(String, Value)> {
    let entries = expectations(part).as_array().unwrap().clone();
    entries.into_iter().map(|entry| (entry["name"].as_str().unwrap().to_owned(), entry)).collect()
}

fn near(value: f64, expected: &Value, tolerance: f64, what: &str) {
    let expected = expected.as_f64().unwrap();
    println!("{what}: {value}, off by {:e}", (value - expected).abs());
    assert!((value - expected).abs() <= tolerance, "{what}: {value}, expected {expected}");
}

/// A matrix as an image: the reader of features reads any.
fn image(name: &str) -> Plane {
    let mut file = FeatureFile::open(fixture(name)).unwrap();
    let mut data = Vec::new();
    file.read(0..file.rows(), &mut data).unwrap();
    Plane::new(file.dimension(), file.rows(), data.iter().map(|&value| value as f32).collect())
}

#[test]
fn images_score_as_in_scikit_image() {
    for (name, expected) in entries("images") {
        let (a, b) = (image(&format!("image-{name}-a.npy")), image(&format!("image-{name}-b.npy")));
        let range = expected["data_range"].as_f64().unwrap();
        near(psnr(&a, &b, range).unwrap(), &expected["psnr"], 1e-9, &format!("{name}: PSNR"));
        near(ssim(&a, &b, range).unwrap(), &expected["ssim"], 1e-9, &format!("{name}: SSIM"));
        let map = ssim_map(&a, &b, range).unwrap();
        near(map.mean(), &expected["ssim"], 1e-9, &format!("{name}: mean of the SSIM map"));
        let third = |at: usize, size: usize| (size / 3..2 * size / 3).contains(&at);
        let mask = Mask::from_fn(a.width(), a.height(), |x, y| third(x, a.width()) && third(y, a.height()));
        match map.mean_outside(&mask).unwrap() {
            Some(value) => near(value, &expected["ssim_outside_mask"], 1e-9, &format!("{name}: SSIM outside the mask")),
            None => assert!(expected["ssim_outside_mask"].is_null(), "{name}"),
        }
    }
}

#[test]
fn sets_score_as_in_scipy_and_scikit_learn() {
    for (name, expected) in entries("features") {
        let open = |side: &str| FeatureFile::open(fixture(&format!("features-{name}-{side}.npy"))).unwrap();
        let (mut a, mut b) = (open("a"), open("b"));
        let value = fid(&Moments::of(&mut a).unwrap(), &Moments::of(&mut b).unwrap()).unwrap().unwrap();
        let scale = expected["fid_exact"].as_f64().unwrap();
        let by_sqrtm = if expected["singular"] == true { 1e-4 } else { 1e-6 };
        near(value, &expected["fid_sqrtm"], by_sqrtm * scale, &format!("{name}: FID"));
        near(value, &expected["fid_exact"], 1e-9 * scale, &format!("{name}: FID without a square root"));
        let distance = kid(&mut a, &mut b).unwrap().unwrap();
        near(distance, &expected["kid"], 1e-9 * expected["kid"].as_f64().unwrap().abs(), &format!("{name}: KID"));
        let sets = folders::score_sets(&mut a, &mut b).unwrap();
        assert_eq!((sets.fid, sets.kid), (Some(value), Some(distance)));
        assert_eq!(!sets.warnings.is_empty(), expected["singular"] == true, "{name}: {:?}", sets.warnings);
    }
}

#[test]
fn lpips_follows_the_published_arithmetic() {
    let expected = expectations("lpips");
    let (mut a, mut b, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for layer in expected["layers"].as_array().unwrap() {
        let size = |key: &str| layer[key].as_u64().unwrap() as usize;
        let (channels, side) = (size("channels"), size("side"));
        let map = |value: fn(f64) -> f64, empty_corner: bool| {
            let corner = |i: usize| empty_corner && i.is_multiple_of(side * side);
            let data =
                (0..channels * side * side).map(|i| if corner(i) { 0.0 } else { value(i as f64).max(0.0) as f32 });
            Tensor::f32([1, channels, side, side], data.collect()).unwrap()
        };
        a.push(map(|i| (i * 0.37).sin() + 0.2, true));
        b.push(map(|i| (i * 0.53).cos() + 0.1, false));
        weights.push(layer["weights"].as_array().unwrap().iter().map(|w| w.as_f64().unwrap() as f32).collect());
    }
    near(lpips::distance(&a, &b, &weights).unwrap(), &expected["distance"], 1e-7, "LPIPS");
    assert_eq!(lpips::distance(&a, &a, &weights), Ok(0.0));
    assert!(lpips::distance(&a, &b[..2], &weights).unwrap_err().contains("3 and 2 feature maps"));
    weights[1].pop();
    assert!(lpips::distance(&a, &b, &weights).unwrap_err().contains("layer 1: 10 channels and 9 weights"));
}

#[test]
fn statistics_are_those_of_scipy_and_scikit_learn() {
    let expected = expectations("statistics");
    for case in expected["binomial"].as_array().unwrap() {
        let (k, n) = (case["k"].as_u64().unwrap(), case["n"].as_u64().unwrap());
        let tolerance = 1e-9 * case["p"].as_f64().unwrap();
        near(study::binomial_half(k, n), &case["p"], tolerance, &format!("{k} of {n}"));
    }
    for case in expected["kappa"].as_array().unwrap() {
        let cell = |i: usize, j: usize| case["table"][i][j].as_u64().unwrap();
        let kappa = study::kappa([[cell(0, 0), cell(0, 1)], [cell(1, 0), cell(1, 1)]]).unwrap();
        near(kappa, &case["kappa"], 1e-12, &case["table"].to_string());
    }
}
