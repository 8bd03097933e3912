//! The networks in libtorch against their ONNX graph, finite differences and themselves after an interruption.

use super::batch;
use super::export::export;
use super::learner::{Learner, noise_map};
use super::network::{Stack, generate, gradient_penalty, resize};
use super::{Config, Exemplar, Generator, Stop, Training, WholeImage, generator_parameters, train_together};
use crate::training::{self, Error, Learner as _};
use hiresmed_imaging::Plane;
use hiresmed_inference::{
    Runtime, Session, SessionOptions, Tensor as HostTensor,
    package::{self, Package},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use tch::{Kind, Tensor};

fn rng(seed: u8) -> ChaCha8Rng {
    ChaCha8Rng::from_seed([seed; 32])
}

/// A bright disc of 12 px in 32 x 32, with its mask.
fn disc() -> Exemplar {
    let value = |at: usize, low: f32, high: f32| {
        let (x, y) = ((at % 32) as f32 - 15.5, (at / 32) as f32 - 15.5);
        low + (high - low) / (1.0 + (x.hypot(y) - 6.0).exp())
    };
    let plane = |low, high| Plane::new(32, 32, (0..32 * 32).map(|at| value(at, low, high)).collect());
    Exemplar { name: "disc".into(), image: plane(-0.8, 0.4), mask: plane(-1.0, 1.0) }
}

fn tiny(iterations: u64) -> Training {
    Training { iterations, ..Training::preset("tiny").unwrap() }
}

#[test]
fn a_generator_has_the_parameters_counted_by_hand() {
    let count: usize = Stack::new(32, (2, 2), &mut rng(1)).parameters().iter().map(|(_, tensor)| tensor.numel()).sum();
    assert_eq!(count, generator_parameters(32, 2));
}

#[test]
fn the_gradient_penalty_differentiates_twice() {
    // In double precision: the derivative of the penalty by a weight against the penalty's own finite difference.
    let critic = Stack::new(3, (2, 1), &mut rng(2)).to_double();
    let input = noise_map(&mut rng(3), 1, 2, [13, 13]).to_kind(Kind::Double);
    let parameters: Vec<Tensor> = critic.parameters().into_iter().map(|(_, tensor)| tensor).collect();
    let penalty = || gradient_penalty(&[&critic], &input).sum(Kind::Double);
    let analytic = Tensor::run_backward(&[penalty()], &parameters[..3], false, false);
    // Weight of the first convolution, and of the first norm (parameters 0 and 2).
    for (at, index) in [(0, 5), (2, 1)] {
        let step = 1e-5;
        let flat = parameters[at].detach().reshape([-1]);
        let value = flat.double_value(&[index]);
        let set = |value: f64| tch::no_grad(|| flat.get(index).fill_(value));
        let _ = set(value + step);
        let above = penalty().double_value(&[]);
        let _ = set(value - step);
        let below = penalty().double_value(&[]);
        let _ = set(value);
        let numeric = (above - below) / (2.0 * step);
        let found = analytic[at].reshape([-1]).double_value(&[index]);
        assert!((found - numeric).abs() <= 1e-4 * numeric.abs().max(1e-3), "{at}: {found} against {numeric}");
        assert!(numeric.abs() > 1e-9, "a weight that the penalty does not see proves nothing");
    }
}

#[test]
fn an_interrupted_training_resumes_bit_by_bit() {
    let exemplar = disc();
    let mut whole = Learner::new(&exemplar, tiny(3), 7, None).unwrap();
    // Five of nine steps: the middle of the second scale.
    let mut first = Learner::new(&exemplar, tiny(3), 7, None).unwrap();
    assert!(whole.steps_planned() > 6);
    for _ in 0..5 {
        first.step().unwrap();
    }
    let checkpoint = first.checkpoint().unwrap();
    let mut second = Learner::new(&exemplar, tiny(3), 7, Some(&checkpoint)).unwrap();
    while whole.steps_done() < whole.steps_planned() {
        whole.step().unwrap();
    }
    while second.steps_done() < second.steps_planned() {
        second.step().unwrap();
    }
    assert_eq!(whole.checkpoint().unwrap(), second.checkpoint().unwrap());
    let other = Learner::new(&exemplar, tiny(4), 7, Some(&checkpoint)).unwrap_err();
    assert!(matches!(other, Error::Parent(_)), "{other}");
}

/// Settings that end a scale of 20 iterations as soon as they may: nothing falls by nine tenths.
fn stopping() -> Training {
    let stop = Stop { window: 2, tolerance: 0.99, least: 5 };
    Training { stop: Some(stop), decay_at: 0.9, ..tiny(20) }
}

#[test]
fn a_scale_that_stops_early_skips_the_rest_of_its_steps() {
    let mut learner = Learner::new(&disc(), stopping(), 7, None).unwrap();
    let planned = learner.steps_planned();
    // The sixth iteration ends the third window and is not before the fifth; two more go at a tenth of the rate.
    let mut steps = Vec::new();
    while learner.steps_done() < planned {
        learner.step().unwrap();
        steps.push(learner.steps_done());
    }
    assert_eq!(steps[..9], [1, 2, 3, 4, 5, 6, 7, 20, 21]);
    assert_eq!(learner.iterations(), vec![8; learner.config().scales()]);
    assert_eq!((learner.steps_planned(), learner.step().unwrap()), (planned, Vec::new()));
    // Without it every iteration is made.
    let mut whole = Learner::new(&disc(), Training { stop: None, ..tiny(3) }, 7, None).unwrap();
    let made =
        std::iter::from_fn(|| (whole.steps_done() < whole.steps_planned()).then(|| whole.step().unwrap())).count();
    assert_eq!(made as u64, whole.steps_planned());
}

#[test]
fn an_interrupted_training_stops_where_the_whole_one_does() {
    let mut whole = Learner::new(&disc(), stopping(), 7, None).unwrap();
    let mut parts = Learner::new(&disc(), stopping(), 7, None).unwrap();
    while whole.steps_done() < whole.steps_planned() {
        whole.step().unwrap();
        parts.step().unwrap();
        // Through the bytes, as on a disk.
        let file = tempfile::NamedTempFile::new().unwrap();
        parts.checkpoint().unwrap().write(file.path()).unwrap();
        let read = crate::weights::Weights::read(file.path()).unwrap();
        parts = Learner::new(&disc(), stopping(), 7, Some(&read)).unwrap();
        assert_eq!(parts.iterations(), whole.iterations());
    }
    assert_eq!(whole.checkpoint().unwrap(), parts.checkpoint().unwrap());
}

/// Discs of one pyramid with a grain of their own each. Without a grain a flat background's pixels cross the kink of LeakyReLU all at
/// once, by a difference of rounding.
fn discs() -> Vec<Exemplar> {
    let disc = disc();
    let grained = |at: usize, value: f32, by: usize| value + 0.1 * ((at * by % 1_013) as f32 / 1_013.0 - 0.5);
    let exemplar = |by: usize| {
        let values = disc.image.data().iter().enumerate().map(|(at, &value)| grained(at, value, by));
        Exemplar { name: format!("disc-{by}"), image: Plane::new(32, 32, values.collect()), mask: disc.mask.clone() }
    };
    [7_919, 6_101, 104_729].map(exemplar).to_vec()
}

#[test]
fn a_model_learns_in_company_what_it_learns_alone() {
    let exemplars = discs();
    let open =
        |at: usize, parent: Option<&crate::weights::Weights>| Learner::new(&exemplars[at], tiny(2), 7, parent).unwrap();
    let mut alone: Vec<Learner> = (0..3).map(|at| open(at, None)).collect();
    for step in 0..alone[0].steps_planned() {
        // From the same state, since a training amplifies rounding from step to step.
        let states: Vec<_> = alone.iter().map(|learner| learner.checkpoint().unwrap()).collect();
        let mut together: Vec<Learner> = states.iter().enumerate().map(|(at, state)| open(at, Some(state))).collect();
        assert!(together[0].is_alike(&together[1]) && together[0].is_alike(&alone[2]));
        let expected: Vec<_> = alone.iter_mut().map(|learner| learner.step().unwrap()).collect();
        let found = batch::step(&mut together.iter_mut().collect::<Vec<_>>());
        let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
        for (expected, found) in expected.iter().flatten().zip(found.iter().flatten()) {
            assert_eq!(expected.0, found.0);
            let difference = (expected.1 - found.1).abs();
            assert!(difference <= 1e-3 * expected.1.abs().max(0.1), "step {step}: {expected:?} and {found:?}");
        }
        // The models are not the same one.
        assert_ne!(expected[0][4], expected[1][4]);
        assert!(together.iter().zip(&alone).all(|(one, other)| one.steps_done() == other.steps_done()));
    }
    let other = Learner::new(&discs()[0], tiny(3), 7, None).unwrap();
    assert!(!other.is_alike(&Learner::new(&discs()[1], tiny(2), 7, None).unwrap()), "other settings");
}

#[test]
fn a_model_does_not_depend_on_who_is_in_its_company() {
    let figures = |others: [usize; 2]| {
        let exemplars = discs();
        let members = [0, others[0], others[1]];
        let mut learners = members.map(|at| Learner::new(&exemplars[at], tiny(2), 7, None).unwrap());
        let mut step = || batch::step(&mut learners.iter_mut().collect::<Vec<_>>()).swap_remove(0).unwrap();
        (0..4).map(|_| step()).collect::<Vec<_>>()
    };
    assert_eq!(figures([1, 2]), figures([2, 1]));
}

#[test]
fn several_are_trained_together_and_go_on_from_their_checkpoints() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for exemplar in discs() {
        for (plane, ending) in [(&exemplar.image, "png"), (&exemplar.mask, "mask.png")] {
            let pixels: Vec<u8> = plane.data().iter().map(|value| ((value + 1.0) * 127.5) as u8).collect();
            let picture = hiresmed_imaging::raster::grey_png(32, 32, &pixels);
            std::fs::write(data.path().join(format!("{}.{ending}", exemplar.name)), picture).unwrap();
        }
    }
    let specification = training::Specification {
        kind: training::Kind::Singan,
        preset: "tiny".to_owned(),
        data: vec![data.path().to_owned()],
        hold_out: Vec::new(),
        steps: None,
        seed: 3,
        autoencoder: None,
        perceptual: None,
        settings: serde_json::Value::Null,
    };
    let names: Vec<String> = discs().into_iter().map(|exemplar| exemplar.name).collect();
    let mut told = Vec::new();
    let mut train = |stop_after: usize| {
        let mut steps = 0;
        let mut progress = |name: &str, progress: &training::Progress| {
            told.push((name.to_owned(), progress.step));
            steps += 1;
            if steps == stop_after { training::Flow::Stop } else { training::Flow::Continue }
        };
        train_together(&specification, &names, out.path(), std::time::Duration::MAX, &mut progress).unwrap();
    };
    train(3);
    train(0);
    let planned = Training::preset("tiny").unwrap().pyramid([32, 32]).len() as u64 * 2;
    for name in &names {
        let steps: Vec<u64> = told.iter().filter(|(of, _)| of == name).map(|(_, step)| *step).collect();
        assert_eq!(steps, (1..=planned).collect::<Vec<_>>(), "{name}");
        let path = training::newest_checkpoint(&out.path().join(name)).unwrap();
        let checkpoint = crate::weights::Weights::read(&path).unwrap();
        assert_eq!(
            (checkpoint.metadata["name"].as_str(), checkpoint.metadata["steps"].clone()),
            (name.as_str(), planned.to_string())
        );
        assert_eq!(training::History::of(&checkpoint).unwrap().unwrap().curve("reconstruction").len() as u64, planned);
    }
}

#[test]
fn one_that_fails_does_not_stop_its_company() {
    let mut exemplars = discs();
    exemplars[1].image.set(3, 3, f32::NAN);
    let mut learners: Vec<Learner> =
        exemplars.iter().map(|exemplar| Learner::new(exemplar, tiny(2), 7, None).unwrap()).collect();
    let stepped = batch::step(&mut learners.iter_mut().collect::<Vec<_>>());
    assert_eq!(stepped.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn reconstruction_falls_on_one_exemplar() {
    let training = Training { width: 8, reconstruction: 100.0, iterations: 40, ..Training::preset("tiny").unwrap() };
    let mut learner = Learner::new(&disc(), training, 1, None).unwrap();
    let error = |learner: &mut Learner| {
        let figures = learner.step().unwrap();
        figures.iter().find(|(name, _)| *name == "reconstruction").unwrap().1
    };
    let first = error(&mut learner);
    let last = (1..40).map(|_| error(&mut learner)).last().unwrap();
    assert!(last < 0.5 * first, "{first} to {last}");
}

#[test]
fn a_loss_that_is_no_number_stops_the_training() {
    let mut exemplar = disc();
    exemplar.image.set(3, 3, f32::NAN);
    let mut learner = Learner::new(&exemplar, tiny(2), 1, None).unwrap();
    let error = learner.step().unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 0, .. }), "{error}");
}

/// The pyramid in libtorch: what the exported graph must equal.
fn forward(config: &Config, generators: &[Stack], noises: &[Tensor]) -> Tensor {
    let mut output = Tensor::zeros([1], (Kind::Float, tch::Device::Cpu));
    for (scale, generator) in generators.iter().enumerate() {
        let size = noises[scale].size();
        let noise = &noises[scale] * f64::from(config.noise_amplitudes[scale]);
        let previous = match scale {
            0 => noise.zeros_like(),
            _ => resize(&output, [size[2] as usize, size[3] as usize]),
        };
        output = tch::no_grad(|| generate(&[generator], &noise, &previous));
    }
    output
}

#[test]
fn the_graph_equals_libtorch_at_two_sizes() {
    graph_equals_libtorch(tiny(2));
}

#[test]
fn a_whole_image_graph_equals_libtorch_at_two_sizes() {
    graph_equals_libtorch(Training { whole: true, ..tiny(2) });
}

fn graph_equals_libtorch(training: Training) {
    let mut learner = Learner::new(&disc(), training, 5, None).unwrap();
    while learner.steps_done() < learner.steps_planned() {
        learner.step().unwrap();
    }
    let (config, weights) = (learner.config().clone(), learner.checkpoint().unwrap());
    let graph = export("disc", &config, &weights).unwrap();
    let session = Session::open(&Runtime::load().unwrap(), &graph, &SessionOptions::default()).unwrap();
    let other: Vec<[usize; 2]> = config.sizes.iter().map(|[h, w]| [h * 2 / 3, w * 3 / 2]).collect();
    for (seed, sizes) in [(1, config.sizes.clone()), (2, other)] {
        let mut rng = rng(seed);
        let noises: Vec<Tensor> =
            sizes.iter().enumerate().map(|(at, &size)| noise_map(&mut rng, at, config.channels, size)).collect();
        let expected = forward(&config, learner.generators(), &noises);
        let host = |(at, noise): (usize, &Tensor)| {
            let maps = if at == 0 { noise.narrow(1, 0, 1) } else { noise.shallow_clone() };
            let shape: Vec<usize> = maps.size().iter().map(|&size| size as usize).collect();
            HostTensor::f32(shape, Vec::<f32>::try_from(maps.contiguous().reshape([-1])).unwrap()).unwrap()
        };
        let names: Vec<String> = (0..sizes.len()).map(|scale| format!("z{scale}")).collect();
        let inputs: Vec<(&str, HostTensor)> =
            names.iter().map(String::as_str).zip(noises.iter().enumerate().map(host)).collect();
        let (shape, found) = session.run_single(&inputs).unwrap().into_f32().unwrap();
        assert_eq!(shape, expected.size().iter().map(|&size| size as usize).collect::<Vec<_>>());
        let difference = Tensor::from_slice(&found).reshape(expected.size()) - &expected;
        let worst = difference.abs().max().double_value(&[]);
        assert!(worst <= 1e-4, "{worst}");
    }
}

#[test]
fn a_whole_image_is_learned_packaged_and_sampled() {
    let data = tempfile::tempdir().unwrap();
    let pixels: Vec<u8> = disc().image.data().iter().map(|value| ((value + 1.0) * 127.5) as u8).collect();
    for name in ["disc.png", "other.png"] {
        std::fs::write(data.path().join(name), hiresmed_imaging::raster::grey_png(32, 32, &pixels)).unwrap();
    }
    let mut specification = training::Specification {
        kind: training::Kind::Singan,
        preset: "whole".to_owned(),
        data: vec![data.path().to_owned()],
        hold_out: Vec::new(),
        steps: Some(8),
        seed: 3,
        autoencoder: None,
        perceptual: None,
        settings: serde_json::json!({ "width": 4, "width_max": 4 }),
    };
    let text = training::open(&specification, None).err().unwrap().to_string();
    assert!(text.contains("there are 2 images and a SinGAN learns one"), "{text}");
    specification.hold_out = vec!["other".to_owned()];
    let mut learner = training::open(&specification, None).unwrap();
    while learner.steps_done() < learner.steps_planned() {
        learner.step().unwrap();
    }
    let text = |text: &str| text.to_owned();
    let naming = training::Naming {
        name: text("disc"),
        data: text("a disc"),
        data_licence: text("CC0-1.0"),
        licence: text("CC0-1.0"),
        modality: None,
    };
    let product = training::product(&learner.checkpoint().unwrap(), &naming).unwrap();
    let files: Vec<_> = product.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let package = Package::write(data.path(), product.draft, &files).unwrap();
    assert_eq!(package.kind(), package::Kind::SinganWhole);
    let (runtime, options) = (Runtime::load().unwrap(), SessionOptions::default());
    let sampler = WholeImage::open(&package, &runtime, &options).unwrap();
    let sample = sampler.sample(1, 0).unwrap();
    assert_eq!((sample.width(), sample.height()), (32, 32));
    assert_eq!(sample, sampler.sample(1, 0).unwrap());
    assert_ne!(sample, sampler.sample(1, 1).unwrap());
    let text = Generator::open(&package, &runtime, &options).unwrap_err().to_string();
    assert!(text.contains("is a singan-whole, not a singan"), "{text}");
}

#[test]
fn a_generator_refuses_what_it_cannot_make() {
    let learner = Learner::new(&disc(), tiny(2), 5, None).unwrap();
    let mut config = learner.config().clone();
    config.noise_amplitudes = vec![1.0; config.scales()];
    assert!(export("disc", &config, &learner.checkpoint().unwrap()).unwrap_err().to_string().contains("missing"));
    let mut trained = Learner::new(&disc(), tiny(1), 5, None).unwrap();
    while trained.steps_done() < trained.steps_planned() {
        trained.step().unwrap();
    }
    let graph = export("disc", trained.config(), &trained.checkpoint().unwrap()).unwrap();
    let session = Session::open(&Runtime::load().unwrap(), &graph, &SessionOptions::default()).unwrap();
    let generator = Generator::new("disc", trained.config().clone(), session).unwrap();
    for wanted in [f32::NAN, 0.0, -3.0, 1e9] {
        assert!(matches!(generator.sample(&mut rng(1), wanted), Err(super::Error::Range { .. })));
    }
}
