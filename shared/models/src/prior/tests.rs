//! The network in libtorch against its ONNX graphs, itself after an interruption, and one image.

use std::{fs, path::Path};

use hiresmed_imaging::{Plane, raster};
use hiresmed_inference::{Package, Runtime, Session, SessionOptions, Tensor as Host, package};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use tch::{Kind, Tensor};

use super::{
    Condition, Config, Dropout, Learner, Network, Objective, Packaged, Sampling, TokenPrior, Training,
    data::{Example, Examples},
    export,
    learner::Tokeniser,
};
use crate::{
    training::{self, Budget, Dataset, Error, Flow, Learner as _, Sample, Specification, round},
    vqgan,
    weights::Weights,
};

const PRESETS: [&str; 2] = ["tiny", "tiny-autoregressive"];

/// A bright disc on a dark ground, `shift` pixels off its middle.
fn image(shift: f32) -> Plane {
    let value = |i: usize| {
        let (x, y) = ((i % 32) as f32 - 15.5 - shift, (i / 32) as f32 - 15.5);
        if x.hypot(y) < 9.0 { 0.7 } else { -0.6 + 0.01 * y }
    };
    Plane::new(32, 32, (0..32 * 32).map(value).collect())
}

/// The package of a briefly trained autoencoder with tokens of 4 x 4 pixels and 32 codes, in `folder`. Made once a test: tests
/// beside each other share libtorch's generator, and it would come out otherwise the next time.
fn autoencoder(folder: &Path) -> Package {
    tch::set_num_threads(1);
    let (config, training) = (vqgan::Config::preset("tiny").unwrap(), vqgan::Training::preset("tiny").unwrap());
    let sample = |shift: i32| Sample { name: shift.to_string(), folder: 0, plane: image(shift as f32) };
    let data = Dataset::new((-2..3).map(sample).collect(), "digest".into());
    let mut learner = vqgan::Learner::new(config, training, data, 7, None).unwrap();
    (0..8).for_each(|_| drop(learner.step().unwrap()));
    write(folder, &learner.checkpoint().unwrap())
}

fn write(folder: &Path, checkpoint: &Weights) -> Package {
    let naming = training::Naming {
        name: "tiny".into(),
        data: "formulas".into(),
        data_licence: "none".into(),
        licence: "MIT".into(),
        modality: None,
    };
    let product = training::product(checkpoint, &naming).unwrap();
    let files: Vec<_> = product.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    Package::write(folder, product.draft, &files).unwrap()
}

fn preset(name: &str) -> (Config, Training) {
    (Config::preset(name).unwrap(), Training::preset(name).unwrap())
}

fn examples(shifts: &[f32], watched: &[f32]) -> Examples {
    let example = |&shift: &f32| Example { plane: image(shift), condition: [1, 1], folder: 0 };
    Examples {
        learned: vec![shifts.iter().map(example).collect()],
        watched: watched.iter().map(example).collect(),
        digest: "digest".into(),
        spacing_mm: Some(0.7),
    }
}

fn learner(encoder: &Package, (config, training): (Config, Training), parent: Option<&Weights>) -> Learner {
    let tokeniser = Tokeniser::open(encoder.directory()).unwrap();
    Learner::new(config, training, tokeniser, examples(&[0.0, 2.0, -1.0], &[1.0]), 3, parent).unwrap()
}

fn rng(seed: u8) -> ChaCha8Rng {
    ChaCha8Rng::from_seed([seed; 32])
}

/// A network whose every tensor is far from its start, so that a mistake anywhere shows.
fn shaken(config: &Config) -> (Network, Weights) {
    let network = Network::new(config, None, &mut rng(1));
    let mut weights = Weights::default();
    training::keep_named(&network.named(), &mut weights, "").unwrap();
    for (index, array) in weights.tensors.values_mut().enumerate() {
        let noise = crate::noise::normal(&mut rng(index as u8), array.data.len());
        array.data.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.2 * noise);
    }
    (Network::load(config, &weights).unwrap(), weights)
}

fn tokens(count: usize, config: &Config) -> Tensor {
    let size = [count as i64, config.rows as i64, config.columns as i64];
    Tensor::randint(config.codes as i64 + 1, size, (Kind::Int64, tch::Device::Cpu))
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(&tensor.contiguous().reshape([-1])).unwrap()
}

fn difference(found: &[f32], expected: &Tensor) -> f32 {
    let expected = values(expected);
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn the_network_has_the_parameters_counted_by_hand() {
    for name in PRESETS {
        let (config, _) = preset(name);
        let network = Network::new(&config, None, &mut rng(1));
        let count: usize = network.named().iter().map(|(_, tensor)| tensor.numel()).sum();
        assert_eq!(count, config.parameters(), "{name}");
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    for name in PRESETS {
        let (config, _) = preset(name);
        let (network, _) = shaken(&config);
        let conditions = Tensor::from_slice(&[1i64, 2, 0, 0, 1, 1, 1, 3]).reshape([4, 2]);
        let logits = network.logits(&network.features(&tokens(4, &config), &conditions, &mut Dropout::default()));
        let (names, parameters): (Vec<_>, Vec<_>) = network.named().into_iter().unzip();
        let gradients = Tensor::run_backward(&[logits.square().sum(Kind::Float)], &parameters, false, false);
        for (name, gradient) in names.iter().zip(&gradients) {
            assert!(gradient.abs().max().double_value(&[]) > 0.0, "{name}");
        }
    }
}

#[test]
fn an_autoregressive_prior_does_not_see_what_comes_later() {
    let (config, _) = preset("tiny-autoregressive");
    let (network, _) = shaken(&config);
    let conditions = Tensor::from_slice(&[1i64, 1]).reshape([1, 2]);
    let first = tokens(1, &config).clamp_max(config.codes as i64 - 1);
    let logits = |tokens: &Tensor| {
        network.logits(&network.features(tokens, &conditions, &mut Dropout::default())).squeeze_dim(0)
    };
    let changed = first.copy();
    // Another code in the place of each from place 40 on: the lowest bit turned.
    let mut last = changed.view([-1]).narrow(0, 40, 24);
    last.copy_(&last.bitwise_xor_tensor(&last.ones_like()));
    let change = (logits(&first) - logits(&changed)).abs().amax([1i64].as_slice(), false);
    let change = values(&change);
    assert!(change[..40].iter().all(|&value| value == 0.0), "{change:?}");
    assert!(change[40..].iter().all(|&value| value > 0.0), "{change:?}");
}

#[test]
fn one_image_is_learned_by_heart() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = autoencoder(folder.path());
    for name in PRESETS {
        let (config, training) = preset(name);
        // The same tokens every time: no geometry, nothing replaced.
        let training = Training {
            steps: 500,
            learning_rate: 1e-2,
            unstated: 0.0,
            zoom: 1.0,
            shift: 0.0,
            rotation_degrees: 0.0,
            warp: 0.0,
            corrupted: 0.0,
            label_smoothing: 0.0,
            ..training
        };
        let tokeniser = Tokeniser::open(encoder.directory()).unwrap();
        let mut learner = Learner::new(config, training, tokeniser, examples(&[0.0], &[]), 3, None).unwrap();
        let losses: Vec<f64> = (0..500).map(|_| learner.step().unwrap()[0].1).collect();
        let last = losses[480..].iter().sum::<f64>() / 20.0;
        assert!(last < 0.2 * losses[0] && last < 0.5, "{name}: {} {last}", losses[0]);
    }
}

#[test]
fn an_interrupted_training_resumes_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = autoencoder(folder.path());
    for name in PRESETS {
        let (config, training) = preset(name);
        let training = Training { steps: 6, watch_every: 2, dropout: 0.2, ..training };
        let open = |parent: Option<&Weights>| learner(&encoder, (config.clone(), training.clone()), parent);
        let mut whole = open(None);
        (0..6).for_each(|_| drop(whole.step().unwrap()));
        let mut first = open(None);
        (0..3).for_each(|_| drop(first.step().unwrap()));
        let path = folder.path().join("step.safetensors");
        first.checkpoint().unwrap().write(&path).unwrap();
        let checkpoint = Weights::read(&path).unwrap();
        let mut second = open(Some(&checkpoint));
        (3..6).for_each(|_| drop(second.step().unwrap()));
        let bytes = |learner: &Learner| learner.checkpoint().unwrap().to_bytes().unwrap();
        assert!(bytes(&whole) == bytes(&second), "{name}: the states differ");
        let other = Config { width: 32, ..config.clone() };
        let tokeniser = Tokeniser::open(encoder.directory()).unwrap();
        let result = Learner::new(other, training.clone(), tokeniser, examples(&[0.0], &[]), 3, Some(&checkpoint));
        assert!(matches!(result.map(|_| ()), Err(Error::Parent(_))));
    }
}

#[test]
fn a_loss_that_is_no_number_stops_the_round_and_keeps_the_checkpoint_before() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = autoencoder(folder.path());
    let mut good = learner(&encoder, preset("tiny"), None);
    good.step().unwrap();
    let path = folder.path().join("step.safetensors");
    let mut weights = good.checkpoint().unwrap();
    weights.write(&path).unwrap();
    let before = fs::read(&path).unwrap();
    weights.tensors.get_mut("weights.head.bias").unwrap().data[0] = f32::NAN;
    let mut bad = learner(&encoder, preset("tiny"), Some(&weights));
    let result = round(&mut bad, Budget::default(), &path, &mut |_| Flow::Continue);
    assert!(matches!(result, Err(Error::NotFinite { term: "loss", step: 1, .. })), "{result:?}");
    assert!(before == fs::read(&path).unwrap(), "the checkpoint changed");
}

#[test]
fn a_wrong_data_set_is_refused_with_every_fault_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let package = autoencoder(&folder.path().join("models"));
    let data = folder.path().join("set");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("small.png"), raster::grey_png(8, 8, &[9; 64])).unwrap();
    fs::write(data.join("broken.dcm"), b"no dicom").unwrap();
    let specification = |preset: &str, autoencoder: Option<&Path>, settings| Specification {
        kind: training::Kind::Prior,
        preset: preset.into(),
        data: vec![data.clone()],
        hold_out: Vec::new(),
        steps: None,
        seed: 1,
        autoencoder: autoencoder.map(Into::into),
        perceptual: None,
        settings,
    };
    let refused = |specification: &Specification| match training::open(specification, None) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("must be refused"),
    };
    let none = serde_json::Value::Null;
    let text = refused(&specification("tiny", Some(package.directory()), none.clone()));
    assert!(text.contains("set/small.png is 8 x 8 pixels, at least 16 x 16") && text.contains("broken.dcm"), "{text}");
    let text = refused(&specification("tiny", None, none.clone()));
    assert!(text.contains("name the folder of its package"), "{text}");
    let text = refused(&specification("huge", None, none));
    assert!(text.contains("tiny-autoregressive, ct512, ct512-coarse, kub1024, paper"), "{text}");
    fs::remove_file(data.join("broken.dcm")).unwrap();
    fs::write(data.join("small.png"), raster::grey_png(32, 32, &[9; 1024])).unwrap();
    let codes = serde_json::json!({"config": {"codes": 16}});
    let text = refused(&specification("tiny", Some(package.directory()), codes));
    assert!(text.contains("codes is 16, the autoencoder has 32"), "{text}");
    let watch = serde_json::json!({"training": {"watch": ["small", "nosuch"]}});
    let text = refused(&specification("tiny", Some(package.directory()), watch));
    assert!(text.contains("`nosuch`"), "{text}");
    let wrong = serde_json::json!({"training": {"batch": 0, "zoom": 9.0}});
    let text = refused(&specification("tiny", Some(package.directory()), wrong));
    assert!(text.contains("batch is 0") && text.contains("zoom is 9"), "{text}");
}

#[test]
fn the_masked_graph_equals_libtorch() {
    let (config, _) = preset("tiny");
    let (network, weights) = shaken(&config);
    let (role, graph) = export(&config, &weights).unwrap();
    assert_eq!(role, "predict");
    let session = Session::open(&Runtime::load().unwrap(), &graph, &SessionOptions::default()).unwrap();
    for count in [1, 3] {
        let tokens = tokens(count, &config);
        let conditions: Vec<i64> = (0..2 * count as i64).map(|i| i % 2).collect();
        let expected =
            network.features(&tokens, &Tensor::from_slice(&conditions).reshape([-1, 2]), &mut Dropout::default());
        let expected = tch::no_grad(|| network.logits(&expected));
        let data = Vec::<i64>::try_from(&tokens.reshape([-1])).unwrap();
        let inputs = [
            ("tokens", Host::i64([count, config.rows, config.columns], data).unwrap()),
            ("conditions", Host::i64([count, 2], conditions).unwrap()),
        ];
        let (shape, found) = session.run_single(&inputs).unwrap().into_f32().unwrap();
        assert_eq!(shape, [count, config.tokens(), config.codes]);
        let worst = difference(&found, &expected);
        assert!(worst <= 1e-4, "{worst}");
    }
}

#[test]
fn steps_with_cached_keys_and_values_equal_libtorch_over_the_whole_map() {
    let (config, _) = preset("tiny-autoregressive");
    let (network, weights) = shaken(&config);
    let (role, graph) = export(&config, &weights).unwrap();
    assert_eq!(role, "step");
    let session = Session::open(&Runtime::load().unwrap(), &graph, &SessionOptions::default()).unwrap();
    let tokens = tokens(1, &config);
    let conditions = Tensor::from_slice(&[1i64, 2]).reshape([1, 2]);
    let expected = tch::no_grad(|| network.logits(&network.features(&tokens, &conditions, &mut Dropout::default())))
        .squeeze_dim(0);
    let tokens = Vec::<i64>::try_from(&tokens.reshape([-1])).unwrap();
    let empty = || Host::f32([config.layers, 1, config.heads, 0, config.head_width()], Vec::new()).unwrap();
    let (mut keys, mut cached) = (empty(), empty());
    for (place, token) in (0i64..).zip(tokens) {
        let inputs = [
            ("token", Host::i64([1, 1], vec![token]).unwrap()),
            ("place", Host::i64([1], vec![place]).unwrap()),
            ("conditions", Host::i64([1, 2], vec![1, 2]).unwrap()),
            ("keys", keys),
            ("values", cached),
        ];
        let mut outputs = session.run(&inputs).unwrap().into_iter().map(|(_, tensor)| tensor);
        let logits = outputs.next().unwrap();
        (keys, cached) = (outputs.next().unwrap(), outputs.next().unwrap());
        assert_eq!(keys.shape()[3], place as usize + 1);
        let worst = difference(logits.as_f32().unwrap(), &expected.select(0, place));
        assert!(worst <= 1e-4, "{place}: {worst}");
    }
}

#[test]
fn an_export_of_other_weights_names_every_fault() {
    let (config, _) = preset("tiny");
    let (_, mut weights) = shaken(&config);
    weights.tensors.remove("head.bias");
    weights.tensors.get_mut("position").unwrap().data[0] = f32::NAN;
    let text = export(&config, &weights).unwrap_err().to_string();
    assert!(text.contains("head.bias is missing") && text.contains("position holds a value that is not"), "{text}");
}

#[test]
fn a_package_samples_and_its_autoencoder_decodes() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::load().unwrap();
    let encoder = autoencoder(folder.path());
    for name in PRESETS {
        let mut learner = learner(&encoder, preset(name), None);
        (0..3).for_each(|_| drop(learner.step().unwrap()));
        let package = write(folder.path(), &learner.checkpoint().unwrap());
        assert_eq!(package.kind(), package::Kind::Prior);
        let graphs = package.description().graphs.keys().map(|role| (role.clone(), package.graph(role).unwrap()));
        let faults = hiresmed_inference::contract::check(package.description(), &graphs.collect(), &runtime);
        assert_eq!(faults, Vec::<String>::new(), "{name}");
        let prior = TokenPrior::open(&package, &runtime, &SessionOptions::default()).unwrap();
        assert_eq!((prior.autoencoder(), prior.spacing_mm()), (encoder.digest(), Some(0.7)));
        let axial = Condition { modality: Some("CT"), view: Some("axial") };
        let sampling = Sampling { steps: 5, top_k: Some(8), ..prior.sampling() };
        let sample = |seed| prior.sample(axial, &sampling, &mut rng(seed)).unwrap();
        let tokens = sample(1);
        assert_eq!(tokens, sample(1), "{name}");
        assert_ne!(tokens, sample(2), "{name}");
        assert!(tokens.data.iter().all(|code| (0..32).contains(code)), "{name}");
        assert_eq!((tokens.width, tokens.height), (32, 32));
        let decoder = vqgan::Autoencoder::open(&encoder, &runtime, &SessionOptions::default()).unwrap();
        assert_eq!(decoder.decode(&[tokens]).unwrap()[0].width(), 32);
        let unknown = Condition { modality: Some("MR"), view: None };
        let text = prior.sample(unknown, &sampling, &mut rng(1)).unwrap_err().to_string();
        assert!(text.contains("no modality \"MR\"; it has ct"), "{text}");
        let wrong = Sampling { steps: 99, ..sampling };
        assert!(matches!(prior.sample(axial, &wrong, &mut rng(1)), Err(super::Error::Sampling(_))));
        assert!(TokenPrior::open(&encoder, &runtime, &SessionOptions::default()).is_err());
    }
}

#[test]
fn a_sample_of_what_was_learned_by_heart_is_that_image() {
    let folder = tempfile::tempdir().unwrap();
    let (config, training) = preset("tiny");
    let training = Training {
        steps: 250,
        zoom: 1.0,
        shift: 0.0,
        rotation_degrees: 0.0,
        warp: 0.0,
        label_smoothing: 0.0,
        watch_every: 50,
        ..training
    };
    let encoder = autoencoder(folder.path());
    let tokeniser = Tokeniser::open(encoder.directory()).unwrap();
    let mut learner = Learner::new(config.clone(), training, tokeniser, examples(&[0.0], &[0.0]), 3, None).unwrap();
    let watched: Vec<f64> = (0..250)
        .filter_map(|_| learner.step().unwrap().into_iter().find(|(name, _)| *name == "watched").map(|(_, loss)| loss))
        .collect();
    assert!(watched.last().unwrap() < &(0.5 * watched[0]), "{watched:?}");
    let package = write(folder.path(), &learner.checkpoint().unwrap());
    assert!(package.description().scores["watched_loss"] <= *watched.last().unwrap());
    let runtime = Runtime::load().unwrap();
    let prior = TokenPrior::open(&package, &runtime, &SessionOptions::default()).unwrap();
    let decoder = vqgan::Autoencoder::open(&encoder, &runtime, &SessionOptions::default()).unwrap();
    let real = decoder.encode(&[image(0.0)]).unwrap().remove(0);
    let sampling = Sampling { top_k: Some(1), spread: 0.0, ..prior.sampling() };
    let found = prior.sample(Condition { modality: Some("ct"), view: Some("axial") }, &sampling, &mut rng(1)).unwrap();
    let equal = found.data.iter().zip(&real.data).filter(|(a, b)| a == b).count();
    assert!(equal * 10 >= 9 * real.data.len(), "{equal} of {} tokens", real.data.len());
}

#[test]
fn a_prior_without_a_usable_configuration_is_refused() {
    let (config, _) = preset("tiny");
    let (_, weights) = shaken(&config);
    let (_, graph) = export(&config, &weights).unwrap();
    let session = Session::open(&Runtime::load().unwrap(), &graph, &SessionOptions::default()).unwrap();
    let config = Config { objective: Objective::Autoregressive, heads: 3, ..config };
    let packaged = Packaged { config, autoencoder: String::new(), stride: 0, sampling: Sampling::default() };
    let text = TokenPrior::new(packaged, session).unwrap_err().to_string();
    assert!(text.contains("multiples of heads, 3") && text.contains("stride is 0"), "{text}");
}
