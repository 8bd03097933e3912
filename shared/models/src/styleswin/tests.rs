//! StyleSwin in libtorch against its ONNX graph, finite differences, and itself after an interruption.

use std::fs;

use hiresmed_imaging::{Plane, raster};
use hiresmed_inference::{Package, Runtime, Session, SessionOptions, Tensor as Host};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use tch::{Kind, Tensor};

use super::{
    Config, Error as StyleswinError, Learner, Sampler, Training,
    discriminator::{Discriminator, penalty},
    export,
    network::Network,
};
use crate::{
    data::square,
    noise,
    training::{self, Dataset, Error, Learner as _, Naming, Sample, Specification},
    weights::Weights,
};

fn rng(seed: u8) -> ChaCha8Rng {
    ChaCha8Rng::from_seed([seed; 32])
}

fn normal(seed: u8, shape: &[i64]) -> Tensor {
    Tensor::from_slice(&noise::normal(&mut rng(seed), shape.iter().product::<i64>() as usize)).reshape(shape)
}

fn preset() -> (Config, Training) {
    (Config::preset("tiny").unwrap(), Training::preset("tiny").unwrap())
}

/// Bright discs on black, larger than the model's image.
fn discs() -> Dataset {
    let disc = |index: usize| {
        let inside = |at: usize| {
            let (x, y) = ((at % 40) as f32 - 19.5, (at / 40) as f32 - 19.5);
            x.hypot(y) < 10.0 + index as f32
        };
        let plane = Plane::new(40, 40, (0..1600).map(|at| if inside(at) { 0.6 } else { -1.0 }).collect());
        Sample { name: index.to_string(), folder: index % 2, plane }
    };
    Dataset::new((0..4).map(disc).collect(), "discs".to_owned())
}

fn learner(training: Training, parent: Option<&Weights>) -> Result<Learner, Error> {
    Learner::new(preset().0, training, &discs(), 3, parent)
}

fn discriminator() -> Discriminator {
    Discriminator::new(1, 4, &[6, 5], &mut rng(1))
}

#[test]
fn the_network_has_the_parameters_that_are_counted_and_each_has_a_gradient() {
    let (config, training) = preset();
    let network = Network::new(&config, &mut rng(1));
    let count: usize = network.trainable().iter().map(|(_, tensor)| tensor.numel()).sum();
    assert_eq!(count, config.parameters());
    let judge = Discriminator::new(1, 4, &training.discriminator_widths, &mut rng(2));
    let count: usize = judge.named().iter().map(|(_, tensor)| tensor.numel()).sum();
    // At 8 and at 4 px matrices 4 -> 8; between them convolutions 8 -> 8 of three by three; one of 9 -> 8; matrices 128 -> 8 -> 1.
    assert_eq!(count, 2 * (32 + 8) + 2 * (576 + 8) + (648 + 8) + (1024 + 8) + (8 + 1));
    let images = network.generate(&normal(3, &[3, 8]));
    assert_eq!(images.size(), [3, 1, 16, 16]);
    let loss = judge.forward(&images).square().sum(Kind::Float);
    let (names, parameters): (Vec<_>, Vec<_>) = network.trainable().into_iter().chain(judge.named()).unzip();
    let gradients = Tensor::run_backward(&[loss], &parameters, false, false);
    for (name, gradient) in names.iter().zip(&gradients) {
        assert!(gradient.abs().max().double_value(&[]) > 0.0, "{name}");
    }
}

#[test]
fn a_plain_window_sees_itself_and_a_shifted_one_never_over_the_edge() {
    let config = Config { start: 8, widths: vec![8], heads: vec![2], ..preset().0 };
    let scale = config.scales()[0];
    let windows = super::attention::Windows::new(scale);
    let features = normal(1, &[1, 8, 8, 24]);
    let relative = normal(2, &[49, 2]);
    let before = windows.attend(&features, &relative);
    // Another value in the top left corner.
    let changed = features.copy();
    let _ = changed.narrow(1, 0, 1).narrow(2, 0, 1).fill_(3.0);
    let moved = (windows.attend(&changed, &relative) - before).abs().gt(1e-6);
    let reached = |half: i64| {
        let rows = moved.narrow(3, 4 * half, 4).any_dim(3, false).squeeze_dim(0);
        (0..64).filter(|at| rows.int64_value(&[at / 8, at % 8]) == 1).collect::<Vec<i64>>()
    };
    let square = |side: i64| (0..64).filter(|at| at / 8 < side && at % 8 < side).collect::<Vec<i64>>();
    // Windows of 4 x 4; shifted by 2, the corner's own part of its window is 2 x 2.
    assert_eq!((reached(0), reached(1)), (square(4), square(2)));
}

#[test]
fn spectral_norms_are_the_gains_of_the_rectifiers_before() {
    let mut judge = discriminator();
    (0..300).for_each(|_| judge.iterate());
    let normalised = judge.normalised();
    for (name, _) in judge.estimates() {
        let name = name.strip_suffix(".weight").unwrap();
        let matrix = normalised.weight(name).flatten(1, -1);
        let largest = matrix.matmul(&matrix.tr()).linalg_eigvalsh("L").max().sqrt().double_value(&[]);
        let expected = if name.starts_with("bands") { 1.0 } else { 2f64.sqrt() };
        assert!((largest - expected).abs() < 1e-3, "{name}: {largest}");
    }
}

#[test]
fn r1_and_its_gradient_equal_finite_differences() {
    let judge = discriminator().to_double();
    let images = normal(4, &[2, 1, 16, 16]).to_kind(Kind::Double);
    let logits = |images: &Tensor| tch::no_grad(|| judge.forward(images)).sum(Kind::Double).double_value(&[]);
    let step = 1e-5;
    let mut squares = 0.0;
    for at in 0..512i64 {
        let nudge = Tensor::zeros([512], (Kind::Double, tch::Device::Cpu));
        let _ = nudge.narrow(0, at, 1).fill_(step);
        let nudge = nudge.reshape([2, 1, 16, 16]);
        squares += ((logits(&(&images + &nudge)) - logits(&(&images - &nudge))) / (2.0 * step)).powi(2);
    }
    let value = penalty(&judge.normalised(), &images);
    let expected = 0.5 * squares / 2.0;
    assert!((value.double_value(&[]) / expected - 1.0).abs() < 1e-5, "{} {expected}", value.double_value(&[]));

    let named = judge.named();
    let parameters: Vec<Tensor> =
        named.iter().filter(|(name, _)| name.ends_with(".weight")).map(|(_, tensor)| tensor.shallow_clone()).collect();
    let gradients = Tensor::run_backward(&[value], &parameters, false, false);
    let at = |parameter: &Tensor, by: f64| {
        tch::no_grad(|| {
            // Not flattened: with channels side by side that would be a copy.
            let mut first = (0..parameter.dim()).fold(parameter.shallow_clone(), |part, _| part.select(0, 0));
            let _ = first.g_add_scalar_(by);
        });
    };
    for (parameter, gradient) in parameters.iter().zip(&gradients) {
        let value = |by: f64| {
            at(parameter, by);
            let value = penalty(&judge.normalised(), &images).double_value(&[]);
            at(parameter, -by);
            value
        };
        let difference = (value(step) - value(-step)) / (2.0 * step);
        let gradient = gradient.flatten(0, -1).double_value(&[0]);
        assert!((gradient - difference).abs() <= 1e-7 + 1e-4 * difference.abs(), "{gradient} {difference}");
        assert!(difference != 0.0);
    }
}

#[test]
fn the_discriminator_tells_noise_apart_and_samples_come_to_look_like_the_data() {
    let steps = 300;
    let mut learner = learner(Training { steps, ..preset().1 }, None).unwrap();
    let latents = normal(7, &[16, 8]);
    // The discs' mean image; the mean square difference of the samples' mean image from it.
    let discs = discs();
    let real: Vec<Tensor> = discs
        .samples()
        .iter()
        .map(|sample| Tensor::from_slice(square(&sample.plane, 16).data()).reshape([1, 16, 16]))
        .collect();
    let real = Tensor::stack(&real, 0);
    let mean = real.mean_dim(&[0i64][..], true, Kind::Float);
    let distance = |learner: &Learner| {
        let made = tch::no_grad(|| learner.average().generate(&latents)).mean_dim(&[0i64][..], true, Kind::Float);
        (made - &mean).square().mean(Kind::Float).double_value(&[])
    };
    let before = distance(&learner);
    while learner.steps_done() < steps {
        learner.step().unwrap();
    }
    let after = distance(&learner);
    assert!(after < 0.3 * before, "{before} {after}");
    let logits = |images: &Tensor| tch::no_grad(|| learner.discriminator().forward(images)).mean(Kind::Float);
    let apart = (logits(&real) - logits(&normal(8, &[4, 1, 16, 16]))).double_value(&[]);
    assert!(apart > 0.0, "{apart}");
}

#[test]
fn an_interrupted_training_resumes_bit_by_bit() {
    let training = Training { steps: 6, penalty_every: 5, ..preset().1 };
    let mut whole = learner(training.clone(), None).unwrap();
    let mut first = learner(training.clone(), None).unwrap();
    (0..6).for_each(|_| drop(whole.step().unwrap()));
    (0..4).for_each(|_| drop(first.step().unwrap()));
    let checkpoint = Weights::from_bytes(&first.checkpoint().unwrap().to_bytes().unwrap()).unwrap();
    assert!(checkpoint.tensors.keys().any(|name| name.starts_with("spectral.")));
    let mut second = learner(training.clone(), Some(&checkpoint)).unwrap();
    (4..6).for_each(|_| drop(second.step().unwrap()));
    assert_eq!(whole.checkpoint().unwrap(), second.checkpoint().unwrap());
    let other = learner(Training { batch: 3, ..training }, Some(&checkpoint)).unwrap_err();
    assert!(matches!(other, Error::Parent(_)), "{other}");
}

#[test]
fn a_loss_that_is_no_number_stops_the_training() {
    let sample = Sample { name: "a".to_owned(), folder: 0, plane: Plane::filled(16, 16, f32::NAN) };
    let data = Dataset::new(vec![sample], String::new());
    let (config, training) = preset();
    let error = Learner::new(config, training, &data, 1, None).unwrap().step().unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 0, .. }), "{error}");
}

#[test]
fn wrong_data_and_settings_are_refused_with_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("set");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("small.png"), raster::grey_png(8, 8, &[9; 64])).unwrap();
    fs::write(data.join("broken.dcm"), b"no dicom").unwrap();
    let refused = |preset: &str, settings: serde_json::Value| {
        let specification = Specification {
            kind: training::Kind::Styleswin,
            preset: preset.into(),
            data: vec![data.clone()],
            hold_out: Vec::new(),
            steps: None,
            seed: 1,
            autoencoder: None,
            perceptual: None,
            settings,
        };
        match training::open(&specification, None) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("must be refused"),
        }
    };
    let text = refused("tiny", serde_json::Value::Null);
    assert!(text.contains("set/small.png is 8 x 8 pixels, at least 16 x 16") && text.contains("broken.dcm"), "{text}");
    assert!(refused("huge", serde_json::Value::Null).contains("tiny, ct64, paper"));
    let text = refused("tiny", serde_json::json!({"config": {"window": 3}, "training": {"batch": 0}}));
    assert!(text.contains("window is 3") && text.contains("batch is 0"), "{text}");
    let text = refused("tiny", serde_json::json!({"config": {"colour": 3}, "training": {"epochs": 0}}));
    assert!(text.contains("colour") && text.contains("epochs"), "{text}");
}

#[test]
fn images_that_are_not_square_keep_their_shape() {
    let wide = square(&Plane::filled(64, 32, 1.0), 16);
    assert_eq!((wide.width(), wide.height()), (16, 16));
    let rows: Vec<f32> = (0..16).map(|row| wide.at(7, row)).collect();
    assert_eq!(rows, [vec![-1.0; 4], vec![1.0; 8], vec![-1.0; 4]].concat());
    assert_eq!(square(&Plane::filled(1, 4000, 1.0), 16).width(), 16);
}

/// A checkpoint whose running average is far from its beginnings.
fn checkpoint() -> (Learner, Weights) {
    let mut learner = learner(Training { steps: 12, ..preset().1 }, None).unwrap();
    (0..12).for_each(|_| drop(learner.step().unwrap()));
    let checkpoint = learner.checkpoint().unwrap();
    (learner, checkpoint)
}

#[test]
fn the_graph_equals_libtorch() {
    let (learner, checkpoint) = checkpoint();
    let graph = export(learner.config(), &checkpoint.under("average.")).unwrap();
    let session = Session::open(&Runtime::load().unwrap(), &graph, &SessionOptions::default()).unwrap();
    for (count, truncation) in [(1usize, 1.0f32), (3, 1.0), (2, 0.5), (2, 0.0)] {
        let latents = normal(5, &[count as i64, 8]);
        let expected = tch::no_grad(|| learner.average().truncated(&latents, truncation.into()));
        let inputs = [
            ("latent", Host::f32([count, 8], noise::normal(&mut rng(5), count * 8)).unwrap()),
            ("truncation", Host::f32([count, 1], vec![truncation; count]).unwrap()),
        ];
        let (shape, found) = session.run_single(&inputs).unwrap().into_f32().unwrap();
        assert_eq!(shape, [count, 1, 16, 16]);
        let worst = (Tensor::from_slice(&found).reshape(expected.size()) - expected).abs().max().double_value(&[]);
        assert!(worst <= 1e-4, "{count} {truncation}: {worst}");
    }
    let error = export(learner.config(), &Weights::default()).unwrap_err().to_string();
    assert!(error.contains("constant is missing") && error.contains("scale2.image.bias is missing"), "{error}");
}

#[test]
fn a_package_is_sampled_alike_from_one_seed_and_index() {
    let (_, checkpoint) = checkpoint();
    let naming = Naming {
        name: "discs".to_owned(),
        data: "discs".to_owned(),
        data_licence: "MIT".to_owned(),
        licence: "MIT".to_owned(),
        modality: None,
    };
    let product = training::product(&checkpoint, &naming).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<_> = product.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let package = Package::write(folder.path(), product.draft, &files).unwrap();
    let runtime = Runtime::load().unwrap();
    let graphs = [("generate".to_owned(), package.graph("generate").unwrap())].into();
    let faults = hiresmed_inference::contract::check(package.description(), &graphs, &runtime);
    assert_eq!(faults, Vec::<String>::new());
    let open = || Sampler::open(&package, &runtime, &SessionOptions::default()).unwrap();
    let sampler = open();
    let sample = sampler.sample(1, 2).unwrap();
    assert_eq!((sample.width(), sample.height(), sampler.side()), (16, 16, 16));
    let _ = sampler.sample(1, 3).unwrap();
    assert_eq!(sample.data(), sampler.sample(1, 2).unwrap().data());
    assert_ne!(sample.data(), sampler.sample(1, 3).unwrap().data());
    let mean = open().with_truncation(0.0).unwrap();
    assert_eq!(mean.sample(1, 2).unwrap().data(), mean.sample(1, 3).unwrap().data());
    let wrong = open().with_truncation(f32::NAN).unwrap_err();
    assert!(matches!(wrong, StyleswinError::Truncation(_)), "{wrong}");
}
