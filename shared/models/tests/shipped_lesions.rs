//! The shipped SinGANs and danger zones keep what their cards promise.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use hiresmed_imaging::{Plane, Window, series};
use hiresmed_inference::package::Kind;
use hiresmed_inference::{Catalogue, Package, Runtime, SessionOptions};
use hiresmed_models::singan::Generator;
use hiresmed_models::unet::DangerZones;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use std::path::{Path, PathBuf};

fn pack() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/pack")
}

fn packages(kind: Kind) -> Vec<Package> {
    let catalogue = Catalogue::open(&[pack().join("models")]).unwrap();
    catalogue.of_kind(kind).map(|entry| Package::open(&entry.directory).unwrap()).collect()
}

fn options() -> SessionOptions {
    SessionOptions { threads: 1, ..SessionOptions::default() }
}

#[test]
fn six_exemplars_of_two_patients_ship() {
    let names: Vec<String> = packages(Kind::Singan).iter().map(|package| package.name().to_owned()).collect();
    assert!(names.len() >= 6, "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("lidc")) && names.iter().any(|name| !name.starts_with("lidc")));
}

#[test]
fn lesions_have_the_wanted_diameter_and_differ() {
    let runtime = Runtime::load().unwrap();
    for package in packages(Kind::Singan) {
        let generator = Generator::open(&package, &runtime, &options()).unwrap();
        for wanted in [6.0f32, 8.0, 11.0, 14.0, 17.0, 30.0] {
            let mut masks = Vec::new();
            for seed in 0..8 {
                let lesion = generator.sample(&mut ChaCha8Rng::from_seed([seed; 32]), wanted).unwrap();
                let again = generator.sample(&mut ChaCha8Rng::from_seed([seed; 32]), wanted).unwrap();
                assert_eq!(lesion, again, "the same noise gives the same lesion");
                let found = lesion.mask.longest_diameter() as f32;
                assert!((found / wanted - 1.0).abs() <= 0.1, "{}: {found} px for {wanted} px", package.name());
                assert_eq!(found, lesion.diameter_px);
                assert_eq!(lesion.mask.components().len(), 1);
                assert_eq!(lesion.mask.holes_filled(), lesion.mask);
                let bounds = lesion.mask.bounds().unwrap();
                assert!(bounds.left >= 3 && bounds.top >= 3);
                assert!(lesion.image.data().iter().all(|value| (-1.0..=1.0).contains(value)));
                masks.push(lesion.mask);
            }
            masks.dedup();
            assert!(masks.len() >= 4, "{}: {} shapes of 8 at {wanted} px", package.name(), masks.len());
        }
    }
}

/// First slice of the demo's sample series, normalised.
fn sample_slices() -> Vec<Plane> {
    let slices = series::read_folder(pack().join("sample")).unwrap().slices;
    let ct = slices.iter().filter(|slice| slice.modality.as_deref() == Some("CT"));
    ct.map(|slice| slice.normalised(Window::LUNG_CT)).collect()
}

#[test]
fn danger_zones_leave_the_lungs() {
    let runtime = Runtime::load().unwrap();
    let package = packages(Kind::Unet).pop().unwrap();
    let zones = DangerZones::open(&package, &runtime, &options()).unwrap();
    let slices = sample_slices();
    assert!(!slices.is_empty());
    for image in slices.iter().step_by(6) {
        let permissible = zones.permissible(image).unwrap();
        let share = permissible.area() as f64 / (image.width() * image.height()) as f64;
        assert!((0.1..0.5).contains(&share), "{share}");
        // Bone and muscle: above 0 HU in the lung window.
        let dense =
            (0..image.data().len()).filter(|&at| permissible.data()[at] == 1 && image.data()[at] > 0.43).count();
        assert!((dense as f64) < 0.02 * permissible.area() as f64, "{dense} of {}", permissible.area());
    }
}
