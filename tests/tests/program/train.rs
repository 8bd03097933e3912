//! Training through the program, interrupted and not.

use std::{fs, path::PathBuf, thread::sleep, time::Duration};

use crate::harness::{Bench, slice};

/// A folder with a few slices to train on.
fn data(bench: &Bench) -> PathBuf {
    let folder = bench.path("slices");
    fs::create_dir_all(&folder).unwrap();
    for number in 6..9 {
        fs::copy(slice(number), folder.join(format!("{number}.dcm"))).unwrap();
    }
    folder
}

fn train<'a>(data: &'a str, name: &'a str) -> [&'a str; 12] {
    ["train", "vqgan", "--data", data, "--preset", "tiny", "--steps", "60", "--seed", "3", "--name", name]
}

/// The digest of the package without its name: what was learned.
fn graphs(bench: &Bench, name: &str) -> Vec<String> {
    let list = bench.run(&["model", "list", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(list.expect(0)).unwrap();
    let rows = rows.as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name} is not in {rows:?}"));
    let folder = bench.state().join("cache/models/vqgan").join(row["digest"].as_str().unwrap());
    let description: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("model.json")).unwrap()).unwrap();
    description["files"].as_object().unwrap().values().map(|digest| digest.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_training_that_is_killed_goes_on_from_its_last_checkpoint_to_the_same_model() {
    let calm = Bench::new();
    let folder = data(&calm);
    calm.run(&train(folder.to_str().unwrap(), "mine")).expect(0);
    let expected = graphs(&calm, "mine");

    let bench = Bench::new();
    let folder = data(&bench);
    let mut kills = 0;
    for delay_ms in [1500, 3000, 4500, 6000] {
        let mut child = bench.start(&train(folder.to_str().unwrap(), "mine"));
        sleep(Duration::from_millis(delay_ms));
        if child.try_wait().unwrap().is_none() {
            kills += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills > 0, "the training was over before it was killed");
    bench.run(&train(folder.to_str().unwrap(), "mine")).expect(0);
    assert_eq!(graphs(&bench, "mine"), expected);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let bench = Bench::new();
    let folder = data(&bench);
    let folder = folder.to_str().unwrap();
    bench
        .run(&["train", "vqgan", "--data", folder, "--preset", "nobody"])
        .complains(2, &["--preset nobody", "known are"]);
    bench.run(&["train", "vqgan", "--data", "/nowhere", "--preset", "tiny"]).complains(2, &["/nowhere cannot be read"]);
    let held = ["train", "vqgan", "--data", folder, "--preset", "tiny", "--hold-out", "nosuch"];
    bench.run(&held).complains(2, &["nothing is called `nosuch`"]);
    let pair = bench.path("lesions");
    fs::create_dir_all(&pair).unwrap();
    for (file, height) in [("one.png", 48), ("one.mask.png", 44)] {
        image::GrayImage::from_pixel(48, height, image::Luma([99])).save(pair.join(file)).unwrap();
    }
    let singan = ["train", "singan", "--data", pair.to_str().unwrap(), "--preset", "lesion"];
    bench.run(&singan).complains(2, &["lesions/one.png is 48 x 48 pixels", "lesions/one.mask.png is 48 x 44"]);
    assert!(bench.run(&["status"]).expect(0).is_empty(), "nothing refused is recorded");
}

#[test]
fn blocks_are_compared() {
    let bench = Bench::new();
    let folder = data(&bench);
    let (folder, out) = (folder.to_str().unwrap(), bench.path("compared"));
    let compare = ["train", "compare", "--preset", "tiny", "--steps", "8", "--seeds", "1", "--look-every", "4"];
    let places = ["--data", folder, "--held-out", folder, "--out", out.to_str().unwrap()];
    let output = bench.run(&[&compare[..], &places[..]].concat());
    assert!(output.expect(0).contains("| level | block | epochs | steps | seconds |"));
    for file in ["compare.md", "compare.svg", "compare.json"] {
        assert!(out.join(file).is_file(), "{file} was not written");
    }
    assert!(bench.run(&["train", "compare", "--help"]).expect(0).contains("--held-out"));
}

#[test]
fn a_perceptual_term_is_measured_with_an_encoder_or_a_file() {
    let bench = Bench::new();
    let folder = data(&bench);
    let train =
        ["train", "vqgan", "--data", folder.to_str().unwrap(), "--preset", "tiny", "--steps", "4", "--name", "seen"];
    let with = |more: &[&str]| bench.run(&[&train[..], more].concat());
    with(&["--autoencoder", "nobody"]).complains(2, &["vqgan model `nobody`"]);
    with(&["--perceptual", "/nowhere.onnx"]).complains(2, &["--perceptual /nowhere.onnx"]);
    let paper = ["train", "vqgan", "--data", folder.to_str().unwrap(), "--preset", "paper"];
    bench.run(&paper).complains(2, &["perceptual", "--autoencoder"]);
    with(&["--autoencoder", "lung-ct-512"]).expect(0);
    let list = bench.run(&["model", "list", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(list.expect(0)).unwrap();
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == "seen").unwrap();
    let card = PathBuf::from(row["card"].as_str().expect("a model of the fleet has a card"));
    let text = fs::read_to_string(&card).unwrap();
    assert!(text.contains("features of the encoder lung-ct-512") && text.contains("losses.svg"), "{text}");
    let curves = fs::read_to_string(card.with_file_name("losses.svg")).unwrap();
    assert!(curves.contains("perceptual") && curves.contains("quantisation"), "{curves}");
}

#[test]
fn a_prior_is_trained_over_the_tokens_of_an_autoencoder_and_names_it() {
    let bench = Bench::new();
    let folder = data(&bench);
    let train =
        ["train", "prior", "--data", folder.to_str().unwrap(), "--preset", "tiny", "--steps", "4", "--name", "drawn"];
    bench.run(&[&train[..], &["--autoencoder", "nobody"]].concat()).complains(2, &["vqgan model `nobody`"]);
    bench.run(&train).expect(0);
    let list = bench.run(&["model", "list", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(list.expect(0)).unwrap();
    let digest = |name: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name);
        row.unwrap_or_else(|| panic!("{name} is not in {rows}"))["digest"].as_str().unwrap().to_owned()
    };
    let folder = bench.state().join("cache/models/prior").join(digest("drawn"));
    let description: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("model.json")).unwrap()).unwrap();
    let configuration = &description["configuration"];
    assert_eq!(configuration["autoencoder"], digest("lung-ct-512"));
    assert_eq!(configuration["config"]["codes"], 1024, "the autoencoder's");
    assert!(description["scores"]["samples_nearest_least"].is_number(), "{description}");
    let card = fs::read_to_string(folder.join("card.md")).unwrap();
    assert!(card.contains("## Does it recite") && card.contains("samples.png"), "{card}");
    assert!(image::open(folder.join("samples.png")).is_ok());
}

#[test]
fn finished_models_are_scored_on_what_was_held_out() {
    let bench = Bench::new();
    for (model, beside, score) in [
        ("vqgan", None, "psnr_db"),
        ("unet", Some("mask.png"), "dice_held_out"),
        ("yolo", Some("txt"), "ap50_held_out"),
        ("ddpm", None, "held_out_nearest_least"),
        ("styleswin", None, "held_out_nearest_least"),
    ] {
        let folder = bench.path(model);
        fs::create_dir_all(&folder).unwrap();
        for number in 6..9 {
            fs::copy(slice(number), folder.join(format!("{number}.dcm"))).unwrap();
            let beside = beside.map(|ending| folder.join(format!("{number}.{ending}")));
            match beside {
                Some(path) if model == "unet" => {
                    image::GrayImage::from_fn(512, 512, |x, _| image::Luma([if x < 256 { 255 } else { 0 }]))
                        .save(path)
                        .unwrap()
                }
                Some(path) => fs::write(path, "0 0.3 0.5 0.1 0.1\n").unwrap(),
                None => {}
            }
        }
        let data = ["train", model, "--data", folder.to_str().unwrap(), "--hold-out", "8"];
        bench.run(&[&data[..], &["--preset", "tiny", "--steps", "4", "--name", model]].concat()).expect(0);
        let list = bench.run(&["model", "list", "--json"]);
        let rows: serde_json::Value = serde_json::from_str(list.expect(0)).unwrap();
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == model).unwrap();
        let card = PathBuf::from(row["card"].as_str().unwrap());
        let text = fs::read_to_string(&card).unwrap();
        let section = if score.contains("nearest") { "## Does it recite" } else { "## Held-out scores" };
        assert!(text.contains(section) && !text.contains("Nobody has scored"), "{text}");
        let description = fs::read(card.with_file_name("model.json")).unwrap();
        let description: serde_json::Value = serde_json::from_slice(&description).unwrap();
        if !score.contains("nearest") {
            assert_eq!(description["scores"]["held_out_images"], 1.0, "{description}");
        }
        assert!(description["scores"][score].is_number(), "{description}");
    }
}
