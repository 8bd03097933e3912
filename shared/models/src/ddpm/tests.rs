//! The network in libtorch against its ONNX graph, against one batch, and against itself after an interruption.

use hiresmed_imaging::{
    Plane,
    resample::{Filter, resize},
};
use hiresmed_inference::{Package, Runtime, Session, SessionOptions, Tensor as HostTensor};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use tch::Tensor;

use super::network::Network;
use super::{Config, Error as SamplingError, Learner, PRESETS, Sampler, Training};
use crate::training::{Dataset, Error, Kind, Learner as _, Naming, Sample, Specification, open, product};
use crate::weights::Weights;

fn tiny() -> (Config, Training) {
    (Config::preset("tiny").unwrap(), Training::preset("tiny").unwrap())
}

/// Bright discs on dark ground, of two sizes.
fn data() -> Dataset {
    let disc = |radius: f32| {
        let value = |at: usize| {
            let (x, y) = ((at % 32) as f32 - 15.5, (at / 32) as f32 - 15.5);
            if x.hypot(y) < radius { 0.7 } else { -0.9 }
        };
        Plane::new(32, 32, (0..32 * 32).map(value).collect())
    };
    let sample = |radius| Sample { name: "disc".to_owned(), folder: 0, plane: disc(radius) };
    Dataset::new(vec![sample(7.0), sample(11.0)], "discs".to_owned())
}

fn trained(training: Training) -> Learner {
    let mut learner = Learner::new(tiny().0, training, &data(), 3, None).unwrap();
    while learner.steps_done() < learner.steps_planned() {
        learner.step().unwrap();
    }
    learner
}

fn random(shape: &[i64], seed: u8) -> Vec<f32> {
    crate::noise::normal(&mut ChaCha8Rng::from_seed([seed; 32]), shape.iter().product::<i64>() as usize)
}

fn naming() -> Naming {
    Naming {
        name: "discs".into(),
        data: "discs".into(),
        data_licence: "none".into(),
        licence: "none".into(),
        modality: None,
    }
}

#[test]
fn the_network_has_the_parameters_that_are_counted_and_starts_at_no_noise() {
    for config in PRESETS.into_iter().filter(|name| *name != "paper").map(|name| Config::preset(name).unwrap()) {
        let network = Network::new(&config, &mut ChaCha8Rng::from_seed([1; 32]));
        let count: usize = network.named().iter().map(|(_, tensor)| tensor.numel()).sum();
        assert_eq!(count, config.parameters());
        let shape = [2, 1, config.side as i64, config.side as i64];
        let x = Tensor::from_slice(&random(&shape, 2)).reshape(shape);
        let noise = tch::no_grad(|| network.forward(&x, &Tensor::from_slice(&[0i64, 999])));
        assert_eq!((noise.size(), noise.abs().max().double_value(&[])), (shape.to_vec(), 0.0));
    }
}

#[test]
fn every_parameter_learns() {
    let learner = trained(Training { steps: 4, ..tiny().1 });
    let fresh = Learner::new(tiny().0, tiny().1, &data(), 3, None).unwrap();
    let (before, after) = (fresh.checkpoint().unwrap(), learner.checkpoint().unwrap());
    let before = before.under("weights.");
    for (name, array) in &after.under("weights.").tensors {
        assert_ne!(array, &before.tensors[name], "{name}");
    }
}

#[test]
fn one_image_is_learned_by_heart_and_sampled() {
    let training = Training {
        steps: 400,
        batch: 8,
        learning_rate: 5e-3,
        mirror: false,
        shift_px: 0,
        average_decay: 0.98,
        ..tiny().1
    };
    let image = data().samples()[0].clone();
    let set = Dataset::new(vec![image.clone()], "disc".to_owned());
    // Few levels, of which the last still has a trace of the image: what is found in nearly pure noise takes long to learn.
    let config = Config { times: 50, beta: (1e-3, 0.2), ..tiny().0 };
    let mut learner = Learner::new(config, training, &set, 3, None).unwrap();
    let mut losses = Vec::new();
    while learner.steps_done() < learner.steps_planned() {
        losses.push(learner.step().unwrap()[0].1);
    }
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    // Without weights the noise itself is the error: its mean square is 1.
    assert!((losses[0] - 1.0).abs() < 0.1, "{}", losses[0]);
    assert!(mean(&losses[350..]) < 0.1, "{}", mean(&losses[350..]));
    let sampler = packaged(&learner.checkpoint().unwrap());
    let expected = resize(&image.plane, 16, 16, Filter::Area);
    let sample = sampler.sample(5, 0, 50).unwrap();
    let squares = sample.data().iter().zip(expected.data()).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
    let apart = (squares / 256.0).sqrt();
    assert!(apart < 0.3, "{apart}");
}

/// A sampler of the package of a checkpoint, which keeps its kind's contract.
fn packaged(checkpoint: &Weights) -> Sampler {
    let made = product(checkpoint, &naming()).unwrap();
    let runtime = Runtime::load().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<_> = made.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let package = Package::write(folder.path(), made.draft.clone(), &files).unwrap();
    let graphs = made.files.iter().map(|(_, bytes)| ("denoise".to_owned(), bytes.clone())).collect();
    assert_eq!(hiresmed_inference::contract::check(package.description(), &graphs, &runtime), Vec::<String>::new());
    Sampler::open(&package, &runtime, &SessionOptions::default()).unwrap()
}

#[test]
fn a_sample_depends_on_its_seed_its_index_and_its_steps_alone() {
    let sampler = packaged(&trained(Training { steps: 30, ..tiny().1 }).checkpoint().unwrap());
    let sample = |seed, index, steps| sampler.sample(seed, index, steps).unwrap();
    let first = sample(1, 2, 10);
    assert_ne!(first, sample(1, 3, 10));
    assert_ne!(first, sample(2, 2, 10));
    assert_ne!(first, sample(1, 2, 11));
    assert_eq!(first, sample(1, 2, 10));
    assert_eq!(sample(1, 2, 1000), sample(1, 2, 1000));
    assert!(first.data().iter().all(|value| (-1.0..=1.0).contains(value)));
    for steps in [0, 1001] {
        assert!(matches!(sampler.sample(1, 2, steps), Err(SamplingError::Steps { most: 1000, .. })));
    }
}

#[test]
fn an_interrupted_training_resumes_bit_by_bit() {
    let training = Training { steps: 6, ..tiny().1 };
    let learner = |seed, parent: Option<&Weights>| Learner::new(tiny().0, training.clone(), &data(), seed, parent);
    let mut first = learner(3, None).unwrap();
    (0..4).for_each(|_| drop(first.step().unwrap()));
    let checkpoint = first.checkpoint().unwrap();
    let mut second = learner(3, Some(&checkpoint)).unwrap();
    (4..6).for_each(|_| drop(second.step().unwrap()));
    assert_eq!(trained(training.clone()).checkpoint().unwrap(), second.checkpoint().unwrap());
    let other = learner(4, Some(&checkpoint)).unwrap_err();
    assert!(matches!(other, Error::Parent(_)), "{other}");
}

#[test]
fn a_loss_that_is_no_number_stops_the_training() {
    let mut plane = Plane::filled(32, 32, 0.0);
    plane.set(16, 16, f32::NAN);
    let set = Dataset::new(vec![Sample { name: String::new(), folder: 0, plane }], String::new());
    let (config, training) = tiny();
    let mut learner = Learner::new(config, training, &set, 3, None).unwrap();
    let error = learner.step().unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 0, .. }), "{error}");
}

#[test]
fn the_graph_equals_libtorch() {
    let learner = trained(Training { steps: 30, ..tiny().1 });
    let graph = super::export(learner.config(), &learner.checkpoint().unwrap().under("average.")).unwrap();
    let session = Session::open(&Runtime::load().unwrap(), &graph, &SessionOptions::default()).unwrap();
    for times in [vec![0i64], vec![999, 1, 500]] {
        let shape = [times.len() as i64, 1, 16, 16];
        let x = random(&shape, 9);
        let expected = tch::no_grad(|| {
            learner.average().forward(&Tensor::from_slice(&x).reshape(shape), &Tensor::from_slice(&times))
        });
        let x = HostTensor::f32(shape.map(|size| size as usize), x).unwrap();
        let time = HostTensor::i64([times.len()], times).unwrap();
        let (_, found) = session.run_single(&[("x", x), ("time", time)]).unwrap().into_f32().unwrap();
        let worst = (Tensor::from_slice(&found).reshape(shape) - &expected).abs().max().double_value(&[]);
        assert!(worst <= 1e-4 && expected.abs().max().double_value(&[]) > 0.1, "{worst}");
    }
}

#[test]
fn data_and_settings_that_cannot_be_trained_are_refused_with_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    for (name, side) in [("large", 16), ("low", 12)] {
        image::GrayImage::from_pixel(20, side, image::Luma([99]))
            .save(folder.path().join(format!("{name}.png")))
            .unwrap();
    }
    std::fs::write(folder.path().join("broken.dcm"), b"no dicom").unwrap();
    let specification = |hold_out: &[&str], preset: &str, settings: serde_json::Value| Specification {
        kind: Kind::Ddpm,
        preset: preset.to_owned(),
        data: vec![folder.path().to_path_buf()],
        hold_out: hold_out.iter().map(|&name| name.to_owned()).collect(),
        steps: Some(1),
        seed: 1,
        autoencoder: None,
        perceptual: None,
        settings,
    };
    let none = || serde_json::Value::Null;
    let refused = |hold_out: &[&str], preset: &str, settings: serde_json::Value| {
        open(&specification(hold_out, preset, settings), None).err().unwrap().to_string()
    };
    let text = refused(&[], "tiny", none());
    assert!(text.contains("low.png is 20 x 12 pixels, at least 16 x 16") && text.contains("broken.dcm"), "{text}");
    assert!(refused(&[], "huge", none()).contains("no preset \"huge\"; choose one of tiny, ct64, paper"));
    assert!(refused(&["*"], "tiny", none()).contains("every image is held out"));
    let text = refused(&[], "tiny", serde_json::json!({"config": {"side": 15}, "training": {"batch": 0}}));
    assert!(text.contains("side is 15") && text.contains("batch is 0"), "{text}");
    let mut learner = open(&specification(&["low", "broken"], "tiny", none()), None).unwrap();
    learner.step().unwrap();
}
