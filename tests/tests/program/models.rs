//! Model packages: unknown, damaged, replaced, and made elsewhere.

use std::{fs, path::Path};

use hiresmed_inference::{
    ElementType,
    onnx::{Convolution, Dim, Graph},
};

use crate::harness::Bench;

#[test]
fn all_unknown_models_are_named_at_once() {
    let bench = Bench::new();
    let text = "count = 1\nmodels = { vqgan = \"va\", unet = \"ub\", density = \"dc\", singan = [\"sd\"] }";
    let request = bench.request(text);
    let unknown = ["4 models", "vqgan model `va`", "unet model `ub`", "density model `dc`", "singan model `sd`"];
    bench.run(&["submit", &request]).complains(2, &unknown);
}

/// The files of one kind's packages in the store, but for the aliases.
fn stored(bench: &Bench, kind: &str, ending: &str) -> std::path::PathBuf {
    let folder = bench.state().join("store/models").join(kind);
    let packages = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let package = packages.into_iter().find(|path| path.join("model.json").is_file()).unwrap();
    let mut files = fs::read_dir(package).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.to_str().unwrap().ends_with(ending)).unwrap()
}

#[test]
fn a_damaged_or_deleted_model_is_put_back_from_what_comes_with_the_project() {
    let bench = Bench::new();
    bench.run(&["status"]).expect(0);
    let damaged = stored(&bench, "unet", ".onnx");
    let whole = fs::read(&damaged).unwrap();
    let mut changed = whole.clone();
    changed[100] ^= 1;
    fs::write(&damaged, changed).unwrap();
    let deleted = stored(&bench, "vqgan", "decoder.onnx");
    fs::remove_file(&deleted).unwrap();
    let cut = stored(&bench, "density", "model.json");
    fs::write(&cut, "{").unwrap();
    let request = bench.request("count = 1");
    bench.run(&["submit", &request, "--wait"]).expect(0);
    assert_eq!(fs::read(&damaged).unwrap(), whole);
    assert!(deleted.is_file());
}

#[test]
fn a_pack_that_does_not_exist_is_said() {
    let bench = Bench::new();
    let request = bench.request("count = 1");
    let output = bench.command(&["submit", &request]).env("HIRESMED_PACK", "/no/such/pack").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("HIRESMED_PACK: the folder /no/such/pack does not exist"), "{errors}");
}

#[test]
fn whole_images_of_a_baseline_are_drawn_again_the_same() {
    let bench = Bench::new();
    let sample = |more: &[&str]| {
        let arguments = [&["model", "sample", "ddpm", "ddm-ct-64", "--seed", "7", "--side", "96"], more].concat();
        let pack = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/pack");
        bench.command(&arguments).env("HIRESMED_PACK", pack).output().unwrap()
    };
    let images = |folder: &str| {
        let out = bench.path(folder);
        let output = sample(&["--count", "2", "--steps", "2", "--out", out.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        ["000000.dcm", "000001.dcm", "samples.json"].map(|name| fs::read(out.join(name)).unwrap())
    };
    let first = images("first");
    assert!(first[0] != first[1], "two images are the same");
    assert!(first == images("second"), "the same seed gave other images");
    let read = hiresmed_imaging::inspect::inspect(bench.path("first").join("000000.dcm"));
    assert_eq!((read.ok, read.columns, read.rows), (true, Some(96), Some(96)), "{read:?}");
    let out = bench.path("third");
    for (more, said) in [(&["--steps", "0"], "--steps"), (&["--side", "0"], "--side")] {
        let output = sample(&[&more[..], &["--out", out.to_str().unwrap()]].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && errors.contains(said), "{errors}");
    }
    let text = ["model", "sample", "unet", "any", "--out", out.to_str().unwrap()];
    bench.run(&text).complains(2, &["a unet draws no whole images"]);
}

/// A danger-zone model of a site's own.
fn site_model(folder: &Path, channels: i64, bias: f32) {
    let mut graph = Graph::new("unet");
    let dims = |channels| [Dim::from("n"), Dim::Fixed(channels), Dim::from("h"), Dim::from("w")];
    let x = graph.input("x", ElementType::F32, &dims(channels));
    let weight = graph.constant_f32("weight", &[1, channels as usize, 1, 1], &vec![-4.0; channels as usize]);
    let bias = graph.constant_f32("bias", &[1], &[bias]);
    let logits = graph.conv(&x, &weight, Some(&bias), Convolution::default());
    graph.output(&logits, "logits", ElementType::F32, &dims(1));
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("segment.onnx"), graph.finish().unwrap()).unwrap();
    let description = r#"{"version": 1, "kind": "unet", "name": "site-unet", "licence": "in-house",
        "window": {"low": -1000, "high": 400}, "graphs": {"segment": "segment.onnx"}}"#;
    fs::write(folder.join("model.json"), description).unwrap();
}

#[test]
fn an_imported_model_replaces_another_of_its_name_aloud() {
    let bench = Bench::new();
    let folder = bench.path("site");
    let import = || bench.run(&["model", "import", folder.to_str().unwrap()]);
    site_model(&folder, 1, -0.72);
    let first = import();
    let digest = first.expect(0).trim().to_owned();
    assert!(!first.errors.contains("until now"), "{}", first.errors);
    assert!(!import().errors.contains("until now"), "the same package replaces nothing");
    site_model(&folder, 1, -0.5);
    import().complains(0, &[&format!("site-unet named {digest} until now")]);
    site_model(&folder, 3, -0.72);
    import().complains(2, &["its input has 3 channels; the pipeline has 1 there"]);
    fs::write(folder.join("model.json"), "{\"kind\": \"unet\"}").unwrap();
    import().complains(2, &["model.json", "it lacks version, name, licence"]);
}
