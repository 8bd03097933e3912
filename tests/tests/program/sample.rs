//! Backgrounds that are drawn from a prior over tokens.

use std::fs;

use hiresmed_imaging::{Plane, Window, resample, series};
use hiresmed_inference::{
    ElementType, Runtime, SessionOptions, Tensor,
    onnx::{Dim, Graph},
    package::{Catalogue, Draft, Kind, Package},
};
use hiresmed_protocol::{Digest, manifest::Image, request::BackgroundMode};

use crate::harness::{Bench, Delivered, Said, pack, slice};

/// Tokens of a row of the map, as many as rows: images of 128 pixels at the shipped autoencoder's stride.
const SIDE: usize = 32;
const CODES: usize = 1024;

const SAMPLED: &str = "background.mode = \"sample\"\nseed = 5\n";

/// Writes a prior over the tokens of `autoencoder` into the bench's pack and gives its digest: those of a real slice, but for every
/// twentieth or so, which is any.
fn prior(bench: &Bench, autoencoder: Option<&str>, spacing_mm: Option<f64>) -> Digest {
    let catalogue = Catalogue::open(&[pack().join("models")]).unwrap();
    let mut shipped = catalogue.entries().iter().filter(|entry| entry.description.kind == Kind::Vqgan);
    let shipped = shipped.find(|entry| entry.description.name == "lung-ct-512").unwrap();
    let package = Package::open(&shipped.directory).unwrap();
    let session = package.session("encoder", &Runtime::load().unwrap(), &SessionOptions::default()).unwrap();
    let real = series::read_file(slice(10)).unwrap().remove(0).normalised(Window::LUNG_CT);
    let small = resample::resize(&real, 4 * SIDE, 4 * SIDE, resample::Filter::Area);
    let x = Tensor::f32([1, 1, 4 * SIDE, 4 * SIDE], small.into_data()).unwrap();
    let (_, tokens) = session.run_single(&[("x", x)]).unwrap().into_i64().unwrap();
    let mut likely = vec![0f32; SIDE * SIDE * CODES];
    tokens.iter().enumerate().for_each(|(place, &code)| likely[place * CODES + code as usize] = 10.0);
    let mut graph = Graph::new("prior");
    let side = SIDE as i64;
    graph.input("tokens", ElementType::I64, &[Dim::from("N"), side.into(), side.into()]);
    graph.input("conditions", ElementType::I64, &[Dim::from("N"), 2.into()]);
    let logits = graph.constant_f32("likely", &[1, SIDE * SIDE, CODES], &likely);
    let dims = [Dim::from("N"), (side * side).into(), (CODES as i64).into()];
    graph.output(&logits, "logits", ElementType::F32, &dims);
    let mut draft = Draft::new(Kind::Prior, "fixture", "MIT OR Apache-2.0");
    draft.spacing_mm = spacing_mm;
    draft.configuration = serde_json::json!({
        "config": {
            "objective": "masked", "rows": SIDE, "columns": SIDE, "codes": CODES, "patch": 8, "embedding": 8,
            "local_blocks": 0, "width": 8, "layers": 1, "heads": 1, "modalities": ["ct"], "views": ["axial"]
        },
        "autoencoder": autoencoder.unwrap_or(package.digest()),
        "stride": 4,
        "sampling": {"steps": 3}
    });
    draft.graphs.insert("predict".to_owned(), "predict.onnx".to_owned());
    let models = bench.path("pack/models");
    Package::write(&models, draft, &[("predict.onnx", &graph.finish().unwrap())]).unwrap().digest().parse().unwrap()
}

#[test]
fn without_a_prior_a_sampled_background_is_refused_with_the_next_step() {
    let bench = Bench::new();
    let request = bench.request(&format!("{SAMPLED}count = 1"));
    let said = ["prior model `default`", "none is registered", "hiresmed train"];
    bench.run(&["submit", &request]).complains(2, &said);
}

/// Pixels of a delivery's backgrounds.
fn backgrounds(bench: &Bench, folder: &str, delivered: &Delivered) -> Vec<Plane> {
    let file = |image: &Image| bench.path(folder).join(&image.background.as_ref().unwrap().file);
    let read = |image| series::read_file(file(image)).unwrap().remove(0).plane;
    delivered.manifest.images.iter().map(read).collect()
}

#[test]
fn every_image_has_a_background_of_its_own_whatever_the_chunk() {
    let bench = Bench::new();
    let digest = prior(&bench, None, Some(2.8));
    let id = bench.submit(&format!("{SAMPLED}count = 3\nchunk = 1"));
    bench.run(&["watch", &id]).expect(0);
    let one_by_one = bench.delivery(&id, "one");
    let images = &one_by_one.manifest.images;
    assert_eq!(one_by_one.indices(), [0, 1, 2], "{:?}", one_by_one.manifest.failures);
    for image in images {
        assert_eq!((image.mode, image.input_sha256), (BackgroundMode::Sample, None));
        assert_eq!((image.models["prior"], image.spacing_mm), (digest, [2.8, 2.8]));
    }
    let backgrounds = backgrounds(&bench, "one", &one_by_one);
    assert!(backgrounds[0] != backgrounds[1] && backgrounds[1] != backgrounds[2] && backgrounds[0] != backgrounds[2]);
    let id = bench.submit(&format!("{SAMPLED}count = 3\nchunk = 3"));
    bench.run(&["watch", &id]).expect(0);
    let together = bench.delivery(&id, "three");
    // The request's id is in the files, and nothing else differs.
    assert_eq!(self::backgrounds(&bench, "three", &together), backgrounds);
    assert!(images.iter().zip(&together.manifest.images).all(|(a, b)| a.lesions == b.lesions));
    // The likeliest code everywhere: chance has no say.
    let id = bench.submit(&format!("{SAMPLED}count = 2\nbackground.top_k = 1"));
    bench.run(&["watch", &id]).expect(0);
    let certain = self::backgrounds(&bench, "certain", &bench.delivery(&id, "certain"));
    assert!(certain.len() == 2 && certain[0] == certain[1]);
    let report = fs::read_to_string(bench.path("one").join("report.html")).unwrap();
    assert!(report.contains("sampled"));
}

#[test]
fn a_prior_of_another_autoencoder_is_refused_by_name() {
    let bench = Bench::new();
    let other = Digest::of(b"another autoencoder").to_string();
    prior(&bench, Some(&other), Some(2.8));
    // Without a name it is the prior's own, which is not there.
    let request = bench.request(&format!("{SAMPLED}count = 1\non_failure = \"stop\""));
    let missing = format!("`models.vqgan`: there is no vqgan model `{other}`");
    bench.run(&["submit", &request, "--wait"]).complains(2, &[&missing]);
    let request = bench.request(&format!("{SAMPLED}count = 1\non_failure = \"stop\"\nmodels.vqgan = \"lung-ct-512\""));
    let said = bench.run(&["submit", &request, "--wait"]);
    let next = format!("set models.vqgan to \"{other}\"");
    said.complains(1, &["has learned the tokens of the autoencoder", &next]);
}

#[test]
fn a_prior_that_does_not_know_its_spacing_needs_the_requests() {
    let bench = Bench::new();
    prior(&bench, None, None);
    let request = bench.request(&format!("{SAMPLED}count = 1\non_failure = \"stop\""));
    bench.run(&["submit", &request, "--wait"]).complains(1, &["give size.spacing_mm in the request"]);
}

#[test]
fn the_shipped_prior_draws_trunks_into_which_lesions_fit() {
    let bench = Bench::new();
    let out = bench.path("out");
    let arguments = ["demo", "--background", "sample", "--count", "4", "--seed", "1", "--out", out.to_str().unwrap()];
    Said::of(bench.command(&arguments).env("HIRESMED_PACK", pack()).output().unwrap()).expect(0);
    let delivered = Delivered::read(&out);
    let images = &delivered.manifest.images;
    // A sample without a lung in which a lesion has room is drawn again.
    assert_eq!(images.len(), 4, "{:?}", delivered.manifest.failures);
    for image in images {
        assert_eq!((image.mode, image.input_sha256), (BackgroundMode::Sample, None));
        assert!(image.spacing_mm[0] > 0.5 && !image.lesions.is_empty());
    }
    let backgrounds = backgrounds(&bench, "out", &delivered);
    assert_ne!(backgrounds[0], backgrounds[1]);
    for plane in &backgrounds {
        // Air around a body, and lungs in it: neither noise nor an empty field.
        let tissue = plane.data().iter().filter(|&&hu| hu > -300.0).count() as f64 / plane.data().len() as f64;
        assert!((0.1..0.8).contains(&tissue), "{tissue} of the image is tissue");
        let edge = (0..plane.width()).filter(|&x| plane.at(x, 0) > -300.0).count();
        assert!(edge < plane.width() / 4, "{edge} pixels of the upper edge are tissue");
    }
}
