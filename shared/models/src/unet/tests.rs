//! The network in libtorch against its ONNX graph and itself after an interruption.

use super::network::{Network, losses};
use super::{Config, DangerZones, Learner, Training, export};
use crate::training::{Error, Learner as _};
use hiresmed_imaging::Plane;
use hiresmed_inference::{Runtime, Session, SessionOptions, Tensor as HostTensor};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use tch::{Kind, Tensor};

/// A body (grey ellipse) with two dark lungs, and the mask of the lungs.
fn slice(size: usize, shift: f32) -> (Plane, Plane) {
    let inside = |at: usize, x0: f32, rx: f32, ry: f32| {
        let (x, y) = ((at % size) as f32 / size as f32 - 0.5 - shift, (at / size) as f32 / size as f32 - 0.5);
        ((x - x0) / rx).powi(2) + (y / ry).powi(2) < 1.0
    };
    let lung = |at: usize| inside(at, -0.18, 0.12, 0.2) || inside(at, 0.18, 0.12, 0.2);
    let image = |at: usize| {
        if lung(at) {
            -0.8
        } else if inside(at, 0.0, 0.42, 0.36) {
            0.45
        } else {
            -1.0
        }
    };
    let mask = |at: usize| if lung(at) { 1.0 } else { -1.0 };
    let plane = |value: &dyn Fn(usize) -> f32| Plane::new(size, size, (0..size * size).map(value).collect());
    (plane(&image), plane(&mask))
}

fn samples() -> Vec<(Plane, Plane)> {
    [-0.04, 0.0, 0.03].map(|shift| slice(64, shift)).to_vec()
}

fn trained(steps: u64) -> Learner {
    let training = Training { steps, ..Training::preset("tiny").unwrap() };
    let mut learner = Learner::new(&samples(), training, 3, None).unwrap();
    while learner.steps_done() < steps {
        learner.step().unwrap();
    }
    learner
}

#[test]
fn the_network_has_the_parameters_counted_by_hand() {
    let config = Config::default();
    let network = Network::new(&config, &mut ChaCha8Rng::from_seed([1; 32]));
    let count: usize = network.named().iter().map(|(_, tensor)| tensor.numel()).sum();
    assert_eq!(count, config.parameters());
}

#[test]
fn every_parameter_gets_a_gradient() {
    let config = Training::preset("tiny").unwrap().config;
    let network = Network::new(&config, &mut ChaCha8Rng::from_seed([1; 32]));
    let x =
        Tensor::from_slice(&crate::noise::normal(&mut ChaCha8Rng::from_seed([2; 32]), 32 * 32)).reshape([1, 1, 32, 32]);
    let (dice, entropy) = losses(&network.forward(&x), &x.gt(0.0).to_kind(Kind::Float));
    let (names, parameters): (Vec<_>, Vec<_>) = network.named().into_iter().unzip();
    let gradients = Tensor::run_backward(&[dice + entropy], &parameters, false, false);
    for (name, gradient) in names.iter().zip(&gradients) {
        assert!(gradient.abs().max().double_value(&[]) > 0.0, "{name}");
    }
}

#[test]
fn dice_takes_the_permissible_class_as_foreground() {
    let target = Tensor::from_slice(&[1f32, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let everything_forbidden = Tensor::full([8], -20.0, (Kind::Float, tch::Device::Cpu));
    let right = (&target * 2.0 - 1.0) * 20.0;
    let dice = |logits: &Tensor| losses(logits, &target).0.double_value(&[]);
    assert!(dice(&everything_forbidden) > 0.45, "forbidding everything must not score");
    assert!(dice(&right) < 1e-3);
}

#[test]
fn an_interrupted_training_resumes_bit_by_bit() {
    let training = Training { steps: 6, ..Training::preset("tiny").unwrap() };
    let mut first = Learner::new(&samples(), training.clone(), 3, None).unwrap();
    (0..4).for_each(|_| drop(first.step().unwrap()));
    let checkpoint = first.checkpoint().unwrap();
    let mut second = Learner::new(&samples(), training.clone(), 3, Some(&checkpoint)).unwrap();
    (4..6).for_each(|_| drop(second.step().unwrap()));
    assert_eq!(trained(6).checkpoint().unwrap(), second.checkpoint().unwrap());
    let other = Learner::new(&samples(), training, 4, Some(&checkpoint)).unwrap_err();
    assert!(matches!(other, Error::Parent(_)), "{other}");
}

#[test]
fn a_loss_that_is_no_number_stops_the_training() {
    let (mut image, mask) = slice(64, 0.0);
    image.set(30, 30, f32::NAN);
    let mut learner = Learner::new(&[(image, mask)], Training::preset("tiny").unwrap(), 3, None).unwrap();
    let error = learner.step().unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 0, .. }), "{error}");
}

#[test]
fn the_graph_equals_libtorch_at_two_sizes_and_finds_the_lungs() {
    // Where the rate's cosine ends after 60 steps, arithmetic of another processor can end below every threshold.
    let learner = trained(150);
    let (config, weights) = (learner.config().clone(), learner.checkpoint().unwrap());
    let graph = export(&config, &weights).unwrap();
    let session = Session::open(&Runtime::load().unwrap(), &graph, &SessionOptions::default()).unwrap();
    let (real, mask) = slice(64, 0.02);
    let random = crate::noise::normal(&mut ChaCha8Rng::from_seed([9; 32]), 32 * 48);
    for (shape, data) in [([1, 1, 32, 48], random), ([1, 1, 64, 64], real.data().to_vec())] {
        let x = Tensor::from_slice(&data).reshape(shape.map(|size| size as i64));
        let expected = tch::no_grad(|| learner.network().forward(&x));
        let (_, found) =
            session.run_single(&[("x", HostTensor::f32(shape, data).unwrap())]).unwrap().into_f32().unwrap();
        let worst = (Tensor::from_slice(&found).reshape(expected.size()) - expected).abs().max().double_value(&[]);
        assert!(worst <= 1e-4, "{worst}");
    }
    let zones = DangerZones::new(config, session).unwrap().permissible(&real).unwrap();
    let both = (0..64 * 64).filter(|&at| zones.data()[at] == 1 && mask.data()[at] > 0.0).count();
    let lung = mask.data().iter().filter(|&&value| value > 0.0).count();
    let dice = 2.0 * both as f64 / (zones.area() + lung) as f64;
    assert!(dice > 0.8, "{dice}");
}
