//! The network in libtorch against its ONNX graph, its losses against differences, and itself after an interruption.

use hiresmed_imaging::{Plane, Window};
use hiresmed_inference::{Runtime, Session, SessionOptions, Tensor as HostTensor};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use tch::{Kind, Tensor};

use super::losses::{ciou, corners, distribution_focal, losses};
use super::network::Network;
use super::{Config, Detector, Learner, Search, Training, export, score};
use crate::data::{Label, Region};
use crate::training::{Error, Learner as _, Naming, Specification, open, product};

/// Dark noise with bright discs.
fn image(side: usize, discs: &[(f32, f32, f32)], seed: u8) -> (Plane, Vec<Label>) {
    let mut rng = ChaCha8Rng::from_seed([seed; 32]);
    let noise = crate::noise::normal(&mut rng, side * side);
    let value = |at: usize| {
        let (x, y) = ((at % side) as f32 + 0.5, (at / side) as f32 + 0.5);
        let inside = discs.iter().any(|(cx, cy, radius)| (x - cx).hypot(y - cy) < *radius);
        if inside { 0.8 } else { -0.6 + 0.05 * noise[at] }
    };
    let plane = Plane::new(side, side, (0..side * side).map(value).collect());
    let label = |&(x, y, radius): &(f32, f32, f32)| Label {
        class: 0,
        region: Region::about((x, y), 2.0 * radius, 2.0 * radius),
    };
    (plane, discs.iter().map(label).collect())
}

fn samples() -> Vec<(Plane, Vec<Label>)> {
    let discs: [&[(f32, f32, f32)]; 4] =
        [&[(20.0, 24.0, 6.0)], &[(44.0, 20.0, 4.0), (18.0, 46.0, 9.0)], &[(34.0, 40.0, 5.0)], &[(50.0, 50.0, 7.0)]];
    discs.iter().zip(1..).map(|(discs, seed)| image(64, discs, seed)).collect()
}

fn tiny(steps: u64) -> Training {
    Training { steps, ..Training::preset("tiny").unwrap() }
}

fn trained(steps: u64) -> Learner {
    let mut learner = Learner::new(&samples(), tiny(steps), 3, None).unwrap();
    while learner.steps_done() < steps {
        learner.step().unwrap();
    }
    learner
}

fn network(config: &Config) -> Network {
    Network::new(config, &mut ChaCha8Rng::from_seed([1; 32]))
}

fn random(shape: &[i64], seed: u8) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    Tensor::from_slice(&crate::noise::normal(&mut ChaCha8Rng::from_seed([seed; 32]), count)).reshape(shape)
}

#[test]
fn the_network_has_the_parameters_that_are_counted() {
    for config in Training::PRESETS.map(|name| Training::preset(name).unwrap().config) {
        let count: usize = network(&config).parameters().iter().map(|(_, tensor)| tensor.numel()).sum();
        assert_eq!(count, config.parameters());
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    let training = tiny(1);
    let network = network(&training.config);
    let labels = samples().into_iter().map(|(_, labels)| labels).collect::<Vec<_>>();
    let answers = network.forward(&random(&[4, 1, 64, 64], 2), true);
    let losses = losses(&answers, &training.config.cells(64), &labels, &training).unwrap();
    let (names, parameters): (Vec<_>, Vec<_>) = network.parameters().into_iter().unzip();
    let gradients = Tensor::run_backward(&[losses.total(&training)], &parameters, false, false);
    for (name, gradient) in names.iter().zip(&gradients) {
        // The coarsest levels may have no lesion to measure.
        let idle = name.starts_with("head") && (name.contains(".box") || name.contains(".distances"));
        assert!(idle || gradient.abs().max().double_value(&[]) > 0.0, "{name}");
    }
}

#[test]
fn a_batch_without_a_lesion_has_a_loss_and_gradients() {
    let training = tiny(1);
    let network = network(&training.config);
    let answers = network.forward(&random(&[1, 1, 64, 64], 2), true);
    let losses = losses(&answers, &training.config.cells(64), &[Vec::new()], &training).unwrap();
    assert_eq!((losses.overlap.double_value(&[]), losses.distance.double_value(&[])), (0.0, 0.0));
    assert!(losses.class.double_value(&[]) > 0.0);
    let (_, parameters): (Vec<_>, Vec<_>) = network.parameters().into_iter().unzip();
    let gradients = Tensor::run_backward(&[losses.total(&training)], &parameters, false, false);
    assert!(gradients.iter().all(|gradient| gradient.isfinite().all().int64_value(&[]) == 1));
}

/// The gradient of `loss` at `x`, and by central differences in f64.
fn gradients(x: &Tensor, loss: impl Fn(&Tensor) -> Tensor) -> (Tensor, Tensor) {
    let x = x.to_kind(Kind::Double).set_requires_grad(true);
    let exact = Tensor::run_backward(&[loss(&x)], &[&x], false, false).remove(0);
    let step = 1e-5;
    let differences: Vec<f64> = (0..x.numel() as i64)
        .map(|at| {
            let moved = |by: f64| {
                let moved = x.detach().copy();
                let _ = moved.view([-1]).get(at).g_add_scalar_(by);
                loss(&moved).double_value(&[])
            };
            (moved(step) - moved(-step)) / (2.0 * step)
        })
        .collect();
    (exact, Tensor::from_slice(&differences).reshape(x.size()))
}

#[test]
fn the_losses_gradients_agree_with_differences() {
    let boxes = |values: [f64; 8]| Tensor::from_slice(&values).reshape([2, 4]);
    let expected = boxes([2.0, 3.0, 12.0, 9.0, 0.0, 0.0, 5.0, 5.0]);
    let found = boxes([3.0, 2.0, 10.0, 11.0, 7.0, 8.0, 11.0, 15.0]);
    // The weight of the shape's term is held: differences must hold it too, which those of one shape do.
    let same_shape = boxes([3.0, 4.0, 13.0, 10.0, 7.0, 8.0, 12.0, 13.0]);
    let moved = |by: &Tensor| -ciou(&(&same_shape + by.repeat([1, 2])), &expected).sum(Kind::Double);
    let (exact, differences) = gradients(&Tensor::zeros([2, 2], (Kind::Double, tch::Device::Cpu)), moved);
    assert!((&exact - &differences).abs().max().double_value(&[]) < 1e-6, "{exact} {differences}");
    // By hand: boxes of 10 x 6 about (7, 6) and 7 x 9 about (6.5, 6.5) share 7 x 6 within a hull of 10 x 9.
    let by_hand = {
        let overlap = 7.0 * 6.0 / (60.0 + 63.0 - 42.0);
        let shape = 4.0 / std::f64::consts::PI.powi(2) * ((10f64 / 6.0).atan() - (7f64 / 9.0).atan()).powi(2);
        overlap - 0.5 / (100.0 + 81.0) - shape * shape / (1.0 - overlap + shape)
    };
    assert!((ciou(&found, &expected).double_value(&[0]) - by_hand).abs() < 1e-6, "{by_hand}");

    let distances = Tensor::from_slice(&[0.0f64, 1.25, 2.5, 6.99]).reshape([1, 4]);
    let focal = |logits: &Tensor| distribution_focal(logits, &distances).sum(Kind::Double);
    let (exact, differences) = gradients(&random(&[1, 4, 8], 5), focal);
    assert!((&exact - &differences).abs().max().double_value(&[]) < 1e-6);
    // Equal bins: the logarithm of their number, wherever the distance lies.
    let equal = Tensor::zeros([1, 4, 8], (Kind::Double, tch::Device::Cpu));
    assert!((focal(&equal).double_value(&[]) - 8f64.ln()).abs() < 1e-9);
}

#[test]
fn an_interrupted_training_resumes_bit_by_bit() {
    let mut first = Learner::new(&samples(), tiny(6), 3, None).unwrap();
    (0..4).for_each(|_| drop(first.step().unwrap()));
    let checkpoint = first.checkpoint().unwrap();
    let mut second = Learner::new(&samples(), tiny(6), 3, Some(&checkpoint)).unwrap();
    (4..6).for_each(|_| drop(second.step().unwrap()));
    assert_eq!(trained(6).checkpoint().unwrap(), second.checkpoint().unwrap());
    let other = Learner::new(&samples(), tiny(6), 4, Some(&checkpoint)).unwrap_err();
    assert!(matches!(other, Error::Parent(_)), "{other}");
}

#[test]
fn a_loss_that_is_no_number_stops_the_training() {
    let (mut plane, labels) = image(64, &[(30.0, 30.0, 6.0)], 1);
    plane.set(30, 30, f32::NAN);
    let mut learner = Learner::new(&[(plane, labels)], tiny(5), 3, None).unwrap();
    let error = learner.step().unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 0, .. }), "{error}");
}

#[test]
fn the_graph_equals_libtorch_on_random_weights() {
    for config in [tiny(1).config, Config { side: 96, classes: 3, channels: 3, width: 12, ..Config::N }] {
        let network = network(&config);
        // Running statistics that are not those of the start.
        let side = config.side as i64;
        let channels = config.channels as i64;
        for seed in 2..5 {
            tch::no_grad(|| network.forward(&(random(&[2, channels, side, side], seed) * 3.0 + 1.0), true));
        }
        let mut weights = crate::weights::Weights::default();
        crate::training::keep_named(&network.named(), &mut weights, "").unwrap();
        let graph = export(&config, &weights).unwrap();
        let session = Session::open(&Runtime::load().unwrap(), &graph, &SessionOptions::default()).unwrap();
        let x = random(&[2, channels, side, side], 9).sigmoid();
        let cells = config.cells(config.side);
        let expected = tch::no_grad(|| {
            let answers = network.forward(&x, false);
            let corners = corners(&answers, &cells);
            let (first, last) = (corners.narrow(1, 0, 2), corners.narrow(1, 2, 2));
            Tensor::cat(&[(&first + &last) / 2.0, last - first, answers.classes.sigmoid()], 1)
        });
        let host = crate::training::array(&x).unwrap();
        let input = HostTensor::f32(host.shape, host.data).unwrap();
        let (shape, found) = session.run_single(&[("images", input)]).unwrap().into_f32().unwrap();
        assert_eq!(shape, [2, 4 + config.classes, cells.len()]);
        let found = Tensor::from_slice(&found).reshape(expected.size());
        // Pixels up to the side: 1e-4 of it; scores absolutely.
        let boxes = (found.narrow(1, 0, 4) - expected.narrow(1, 0, 4)).abs().max().double_value(&[]) / side as f64;
        let classes = config.classes as i64;
        let scores = (found.narrow(1, 4, classes) - expected.narrow(1, 4, classes)).abs().max().double_value(&[]);
        assert!(boxes <= 1e-4 && scores <= 1e-4, "boxes {boxes}, scores {scores}");
    }
}

#[test]
fn a_few_images_are_learned_by_heart_and_their_package_finds_the_lesions() {
    let learner = trained(280);
    let checkpoint = learner.checkpoint().unwrap();
    let naming = Naming {
        name: "discs".to_owned(),
        data: "discs".to_owned(),
        data_licence: "none".to_owned(),
        licence: "none".to_owned(),
        modality: None,
    };
    let made = product(&checkpoint, &naming).unwrap();
    assert_eq!(made.draft.parameters, learner.config().parameters() as u64);
    let runtime = Runtime::load().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<_> = made.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let package = hiresmed_inference::Package::write(folder.path(), made.draft.clone(), &files).unwrap();
    let graphs = made.files.iter().map(|(_, bytes)| ("detect".to_owned(), bytes.clone())).collect();
    assert_eq!(hiresmed_inference::contract::check(package.description(), &graphs, &runtime), Vec::<String>::new());

    let detector = Detector::open(&package, &runtime, &SessionOptions::default()).unwrap();
    assert_eq!(detector.window(), Window::LUNG_CT);
    let judged: Vec<_> = samples()
        .into_iter()
        .map(|(plane, labels)| (detector.detect(&plane, &Search::default()).unwrap(), labels))
        .collect();
    let scores = score(&judged, 0.25);
    assert!(scores.recall.unwrap() >= 0.8 && scores.ap50.unwrap() >= 0.8, "{scores:?}");
    let (plane, labels) = &samples()[0];
    let weights = detector.candidates(plane).unwrap();
    let (at, _) = weights.data().iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    assert!(labels[0].region.holds(((at % 64) as f32, (at / 64) as f32)), "the heaviest candidate is the lesion");
    // The mean differs from the network, and it is what was exported.
    let mean = learner.mean().named();
    let (name, tensor) = mean.iter().find(|(name, _)| name == "stem.weight").unwrap();
    let moving = crate::training::tensor(&checkpoint.tensors[name]);
    assert!((tensor - moving).abs().max().double_value(&[]) > 0.0);
}

#[test]
fn data_that_cannot_be_trained_on_are_refused_with_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("set");
    std::fs::create_dir(&root).unwrap();
    for (name, text) in [("a", "0 0.5 0.5 0.2 0.2"), ("b", "0 0.05 0.5 0.4 0.2"), ("c", "4 0.5 0.5 0.2 0.2")] {
        image::GrayImage::from_pixel(64, 48, image::Luma([99])).save(root.join(format!("{name}.png"))).unwrap();
        std::fs::write(root.join(format!("{name}.txt")), text).unwrap();
    }
    let specification = |hold_out: &[&str], preset: &str| Specification {
        kind: crate::training::Kind::Yolo,
        preset: preset.to_owned(),
        data: vec![root.clone()],
        hold_out: hold_out.iter().map(|&name| name.to_owned()).collect(),
        steps: Some(1),
        seed: 1,
        autoencoder: None,
        perceptual: None,
        settings: serde_json::Value::Null,
    };
    let refused =
        |hold_out: &[&str], preset: &str| open(&specification(hold_out, preset), None).err().unwrap().to_string();
    let text = refused(&[], "tiny");
    assert!(text.contains("set/b.png: box 1 reaches") && text.contains("set/c.png: box 1 is of class 4"), "{text}");
    assert!(refused(&[], "huge").contains("no preset \"huge\"; choose one of tiny"));
    assert!(refused(&["*"], "tiny").contains("every image is held out"));
    let mut learner = open(&specification(&["b", "c"], "tiny"), None).unwrap();
    learner.step().unwrap();
    std::fs::write(root.join("a.txt"), "").unwrap();
    assert!(refused(&["b", "c"], "tiny").contains("no image has a box"));
}
