//! Training on a tiny configuration, and the exported graphs against libtorch.

use hiresmed_imaging::{Plane, series};
use hiresmed_inference::{
    Runtime, Session, SessionOptions, Tensor as Host,
    package::{self, Catalogue, Package},
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use tch::Tensor;

use super::{Autoencoder, Block, Config, Learner, Network, Training, export};
use crate::{
    noise,
    training::{self, Budget, Dataset, Ending, Error, Flow, Learner as _, Sample, round},
    weights::{Array, Weights},
};

/// Smooth images with an edge, by formula.
fn images(count: usize, side: usize) -> Dataset {
    let plane = |seed: usize| {
        let value = |i: usize| {
            let (x, y) = ((i % side) as f32, (i / side) as f32);
            let wave = (0.3 * x + seed as f32).sin() * (0.2 * y).cos();
            if x + y > side as f32 { 0.5 * wave + 0.3 } else { 0.5 * wave - 0.3 }
        };
        Plane::new(side, side, (0..side * side).map(value).collect())
    };
    let sample = |seed: usize| Sample { name: seed.to_string(), folder: 0, plane: plane(seed) };
    Dataset::new((0..count).map(sample).collect(), "digest".into())
}

fn tiny() -> (Config, Training) {
    (Config::preset("tiny").unwrap(), Training::preset("tiny").unwrap())
}

/// Two threads at most, so that tests beside each other do not fight for cores; called first in every test.
fn learner(config: Config, training: Training, parent: Option<&Weights>) -> Learner {
    tch::set_num_threads(1);
    Learner::new(config, training, images(3, 40), 7, parent).unwrap()
}

fn figure(figures: &[training::Figure], name: &str) -> f64 {
    figures.iter().find(|(key, _)| *key == name).unwrap().1
}

#[test]
fn parameters_are_as_many_as_counted_by_hand() {
    let (config, _) = tiny();
    let count = |config: &Config| Network::new(config, None).trainable().iter().map(|(_, t)| t.numel()).sum::<usize>();
    // Block of width w: norm1 2w, conv1 9w² + w, norm2 2w, second; HDFB's second: norm 2w, conv 9w² + w, depth-wise 26w,
    // pointwise w² + w; residual: 9w² + w. Excitation of width w: w·w/4 + w/4 + w/4·w + w.
    let hdfb = |w: usize| 19 * w * w + 35 * w;
    let residual = |w: usize| 18 * w * w + 6 * w;
    // Light: norm 2w, conv 9w² + w, depth-wise 10w, pointwise w² + w.
    let light = |w: usize| 10 * w * w + 14 * w;
    let excitation = |w: usize| w * w / 2 + w / 4 + w;
    // Strides 2, 2: kernels of 4. Encoder 1 -> 8 -> 16 -> latent 8; decoder 8 -> 16 -> 8 -> 8 -> 1.
    let rest = (16 * 8 + 8) + (16 * 8 * 16 + 16) + 2 * 16 + (16 * 8 + 8) // encoder: down, down, norm, out
        + 32 * 8 // codes
        + (8 * 16 + 16) // in
        + (16 * 16 * 8 + 8) + (16 * 8 + 8) // up 16 -> 8 and its shortcut
        + (16 * 8 * 8 + 8) + (8 * 8 + 8) // up 8 -> 8
        + 2 * excitation(8) + 2 * 8 + (9 * 8 + 1);
    let blocks = |block: &dyn Fn(usize) -> usize| block(8) + 2 * block(16) + block(16) + 2 * block(8);
    assert_eq!(count(&config), rest + blocks(&hdfb));
    assert_eq!(count(&Config { block: Block::HdfbLight, ..config.clone() }), rest + blocks(&light));
    assert_eq!(count(&Config { block: Block::Residual, ..config }), rest + blocks(&residual));
}

#[test]
fn shapes_follow_the_strides() {
    tch::set_num_threads(1);
    for (strides, widths) in [(vec![2, 2], vec![8, 16]), (vec![4], vec![8]), (vec![4, 2], vec![8, 12])] {
        let config = Config { strides, widths, ..Config::preset("tiny").unwrap() };
        assert_eq!(config.faults(), Vec::<String>::new());
        let network = Network::new(&config, None);
        let side = 3 * config.stride() as i64;
        let tokens = network.encode(&Tensor::randn([2, 1, side, side], (tch::Kind::Float, tch::Device::Cpu)));
        assert_eq!(tokens.size(), [2, 3, 3]);
        assert_eq!(network.decode(&tokens).size(), [2, 1, side, side]);
    }
}

#[test]
fn one_image_is_learned() {
    let (config, training) = tiny();
    let training = Training { steps: 120, augment: super::Augmentation::None, learning_rate: 3e-3, ..training };
    let mut learner = learner(config, training, None);
    let first = figure(&learner.step().unwrap(), "l1");
    let last = (1..120).map(|_| figure(&learner.step().unwrap(), "l1")).last().unwrap();
    assert!(last < 0.3 * first, "{first} {last}");
}

#[test]
fn every_parameter_receives_a_gradient() {
    for block in [Block::Hdfb, Block::HdfbLight, Block::Residual] {
        let (config, training) = tiny();
        let training = Training { discriminator_start: Some(0), ..training };
        tch::set_num_threads(1);
        // Of a seed whose excitations, two units wide here, are not all silent.
        let mut learner = Learner::new(Config { block, ..config }, training, images(3, 40), 1, None).unwrap();
        let before: Vec<_> =
            learner.network().trainable().into_iter().map(|(name, t)| (name, t.detach().copy())).collect();
        learner.step().unwrap();
        for ((name, before), (_, after)) in before.iter().zip(learner.network().trainable()) {
            assert!(before != &after.detach(), "{name} did not move");
        }
    }
}

/// Gradients of a batch's trained tensors: of `y`'s product with fixed numbers and the quantisation loss.
fn gradients(network: &Network, x: &Tensor, outwards: &Tensor, at_once: Option<usize>, seed: u8) -> Vec<Tensor> {
    let weights = Training::preset("tiny").unwrap().loss;
    let pass = network.run(x, &weights, at_once, &mut ChaCha8Rng::from_seed([seed; 32])).unwrap();
    pass.backward(outwards.copy(), 0.7, &network.trainable()).unwrap().0
}

/// The largest difference between two lists of tensors, as a share of the largest number in the first one's tensor.
fn worst(a: &[Tensor], b: &[Tensor]) -> f64 {
    assert_eq!(a.len(), b.len());
    let share = |(a, b): (&Tensor, &Tensor)| {
        let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
        largest(&(a - b)) / largest(a).max(1e-12)
    };
    a.iter().zip(b).map(share).fold(0.0, f64::max)
}

#[test]
fn activations_that_are_made_again_give_the_same_gradients() {
    tch::set_num_threads(1);
    for (block, drop_path, squeeze_excitation) in [
        (Block::Hdfb, 0.0, true),
        (Block::Hdfb, 0.5, true),
        (Block::Hdfb, 0.0, false),
        (Block::HdfbLight, 0.5, true),
        (Block::Residual, 0.0, true),
    ] {
        let config = Config { block, drop_path, squeeze_excitation, ..Config::preset("tiny").unwrap() };
        let network = Network::new(&config, None);
        let normal = |seed: u8| {
            let values = noise::normal(&mut ChaCha8Rng::from_seed([seed; 32]), 5 * 32 * 24);
            Tensor::from_slice(&values).reshape([5, 1, 32, 24])
        };
        let (x, outwards) = (normal(1).tanh(), normal(2));
        let kept = gradients(&network, &x, &outwards, None, 1);
        for ((name, _), gradient) in network.trainable().iter().zip(&kept) {
            assert!(gradient.abs().max().double_value(&[]) > 0.0, "{name} has no gradient");
        }
        // One image at a time at full resolution and several among the tokens; two and all; all at once.
        for at_once in [32 * 24, 2 * 32 * 24, 1 << 20] {
            let again = gradients(&network, &x, &outwards, Some(at_once), 1);
            let worst = worst(&kept, &again);
            assert!(worst < 2e-5, "{block:?} {drop_path} {squeeze_excitation} {at_once}: {worst}");
        }
        if drop_path > 0.0 {
            let other = gradients(&network, &x, &outwards, None, 2);
            assert!(worst(&kept, &other) > 1e-2, "drop path drops nothing");
        } else {
            // By libtorch's own backward pass through the whole.
            let weights = Training::preset("tiny").unwrap().loss;
            let (y, quantised) = network.whole(&x, &weights);
            let loss = (y * &outwards).sum(tch::Kind::Float) + quantised.loss * 0.7;
            let parameters: Vec<Tensor> = network.trainable().into_iter().map(|(_, tensor)| tensor).collect();
            let expected = Tensor::run_backward(&[loss], &parameters, false, false);
            let worst = worst(&expected, &kept);
            assert!(worst < 2e-5, "{block:?} {squeeze_excitation}: {worst}");
        }
    }
}

#[test]
fn a_step_that_makes_activations_again_is_the_same_step() {
    let (config, training) = tiny();
    let loss = super::LossWeights { adversarial: 0.5, ..training.loss.clone() };
    let training = Training { discriminator_start: Some(0), loss, augment: super::Augmentation::None, ..training };
    let config = Config { drop_path: 0.3, ..config };
    let run = |checkpointing: bool| {
        let mut learner = learner(config.clone(), Training { checkpointing, ..training.clone() }, None);
        let figures: Vec<_> = (0..3).flat_map(|_| learner.step().unwrap()).collect();
        (figures, learner.network().trainable().into_iter().map(|(_, tensor)| tensor.detach()).collect::<Vec<_>>())
    };
    let ((figures, weights), (figures_again, weights_again)) = (run(false), run(true));
    for ((name, value), (_, again)) in figures.iter().zip(&figures_again) {
        assert!((value - again).abs() <= 1e-3 * value.abs().max(1e-3), "{name}: {value} {again}");
    }
    assert!(figures.iter().any(|(name, value)| *name == "adaptive" && *value > 0.0));
    assert!(worst(&weights, &weights_again) < 1e-3, "{}", worst(&weights, &weights_again));
}

#[test]
fn a_step_that_the_machine_cannot_hold_is_refused_before_it_is_made() {
    tch::set_num_threads(1);
    let (config, training) = tiny();
    // 64 images of 32,768 x 32,768 pixels, each of them a plane that is never made.
    let crops = vec![super::Crops { from_step: 0, size: 1 << 15, batch: 64 }];
    let none = Dataset::new(Vec::new(), "digest".into());
    let refused = |checkpointing: bool| {
        let training = Training { crops: crops.clone(), checkpointing, ..training.clone() };
        Learner::new(config.clone(), training, none.clone(), 7, None).map(|_| ()).unwrap_err().to_string()
    };
    let text = refused(false);
    assert!(text.contains("GB, and this machine has") && text.contains("set training.checkpointing"), "{text}");
    assert!(!refused(true).contains("training.checkpointing"), "{}", refused(true));
}

#[test]
fn convolutions_in_bf16_are_near_those_in_f32() {
    tch::set_num_threads(1);
    let config = Config::preset("tiny").unwrap();
    let open = |compute: tch::Kind| {
        let init = super::blocks::Initialisation { compute, ..Default::default() };
        Network::on(&config, init, tch::Device::Cpu)
    };
    let (exact, rough) = (open(tch::Kind::Float), open(tch::Kind::BFloat16));
    let tokens = exact.encode(&(smooth(64, 64)));
    let (y, near) = (exact.decode(&tokens), rough.decode(&tokens));
    assert_eq!(near.kind(), tch::Kind::Float);
    let difference = (&y - &near).abs().max().double_value(&[]) / y.std(false).double_value(&[]);
    // bf16 has 8 bits: 0.4 % of each number, over a dozen layers.
    assert!((1e-4..0.1).contains(&difference), "{difference}");
    let x = smooth(64, 64);
    let outwards = &y - &x;
    for at_once in [None, Some(1)] {
        let (a, b) = (gradients(&exact, &x, &outwards, at_once, 1), gradients(&rough, &x, &outwards, at_once, 1));
        assert!(b.iter().all(|gradient| gradient.kind() == tch::Kind::Float));
        let flat = |list: &[Tensor]| Tensor::cat(&list.iter().map(|t| t.reshape([-1])).collect::<Vec<_>>(), 0);
        let (a, b) = (flat(&a), flat(&b));
        let length = |tensor: &Tensor| tensor.square().sum(tch::Kind::Double).sqrt().double_value(&[]);
        let cosine = (&a * &b).sum(tch::Kind::Double).double_value(&[]) / (length(&a) * length(&b));
        assert!(cosine > 0.99, "{cosine}");
    }
}

/// The whole state, as bytes.
fn state(learner: &Learner) -> Vec<u8> {
    learner.checkpoint().unwrap().to_bytes().unwrap()
}

#[test]
fn an_interrupted_training_equals_an_undisturbed_one_bit_by_bit() {
    let (config, training) = tiny();
    let training = Training { discriminator_start: Some(3), ..training };
    let training =
        Training { loss: super::LossWeights { adversarial: 0.5, ..training.loss }, dead_after: 1, ..training };
    let config = Config { drop_path: 0.2, ..config };
    for checkpointing in [false, true] {
        interrupted(&config, &Training { checkpointing, ..training.clone() });
    }
}

fn interrupted(config: &Config, training: &Training) {
    let mut whole = learner(config.clone(), training.clone(), None);
    (0..8).for_each(|_| drop(whole.step().unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("step.safetensors");
    let mut first = learner(config.clone(), training.clone(), None);
    let summary = round(&mut first, Budget { steps: Some(5), duration: None }, &path, &mut |_| Flow::Continue).unwrap();
    assert_eq!((summary.ending, summary.steps_done), (Ending::Paused, 5));
    // Steps after the checkpoint are lost with the process.
    drop(first.step());
    let mut second = learner(config.clone(), training.clone(), Some(&Weights::read(&path).unwrap()));
    (5..8).for_each(|_| drop(second.step().unwrap()));
    assert!(state(&whole) == state(&second), "the states differ");
}

#[test]
fn a_caller_stops_between_steps() {
    let (config, training) = tiny();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("step.safetensors");
    let mut learner = learner(config, training, None);
    let mut stop = |progress: &training::Progress| if progress.step == 2 { Flow::Stop } else { Flow::Continue };
    let summary = round(&mut learner, Budget::default(), &path, &mut stop).unwrap();
    assert_eq!((summary.ending, summary.steps), (Ending::Stopped, 2));
    assert_eq!(Weights::read(&path).unwrap().metadata["step"], "2");
}

#[test]
fn a_loss_that_is_no_number_stops_the_round_and_keeps_the_checkpoint_before() {
    let (config, training) = tiny();
    let mut good = learner(config.clone(), training.clone(), None);
    good.step().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("step.safetensors");
    let mut weights = good.checkpoint().unwrap();
    weights.write(&path).unwrap();
    weights.tensors.get_mut("weights.decoder.out.bias").unwrap().data[0] = f32::NAN;
    let mut bad = learner(config, training, Some(&weights));
    let result = round(&mut bad, Budget::default(), &path, &mut |_| Flow::Continue);
    assert!(matches!(result, Err(Error::NotFinite { term: "loss", step: 1, .. })), "{result:?}");
    assert!(state(&good) == std::fs::read(&path).unwrap(), "the checkpoint changed");
}

#[test]
fn a_parent_of_another_architecture_is_refused() {
    let (config, training) = tiny();
    let parent = learner(config.clone(), training.clone(), None).checkpoint().unwrap();
    let other = Config { latent: 4, ..config };
    let result = Learner::new(other, training, images(1, 40), 7, Some(&parent)).map(|_| ());
    assert!(matches!(result, Err(Error::Parent(_))), "{result:?}");
}

#[test]
fn a_parent_with_another_perceptual_term_is_refused() {
    let (config, training) = tiny();
    let mut parent = learner(config.clone(), training.clone(), None).checkpoint().unwrap();
    parent.metadata.insert("perceptual".to_owned(), "LPIPS over VGG16 (123)".to_owned());
    let text = Learner::new(config, training, images(1, 40), 7, Some(&parent)).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("LPIPS over VGG16 (123), this training's with nothing"), "{text}");
}

#[test]
fn exported_graphs_equal_libtorch() {
    let runtime = Runtime::load().unwrap();
    for block in [Block::Hdfb, Block::HdfbLight, Block::Residual] {
        let (config, training) = tiny();
        let config = Config { block, strides: vec![4, 2], ..config };
        let mut learner = learner(config.clone(), training, None);
        (0..3).for_each(|_| drop(learner.step().unwrap()));
        let checkpoint = learner.checkpoint().unwrap();
        let weights = checkpoint.under("average.");
        let network = Network::load(&config, &weights).unwrap();
        let graphs = export(&config, &weights).unwrap();
        let open = |bytes: &[u8]| Session::open(&runtime, bytes, &SessionOptions::default()).unwrap();
        let (encoder, decoder, whole) = (open(&graphs.encoder), open(&graphs.decoder), open(&graphs.reconstruct));
        for (height, width) in [(32i64, 40i64), (48, 24)] {
            for x in [Tensor::randn([2, 1, height, width], (tch::Kind::Float, tch::Device::Cpu)), smooth(height, width)]
            {
                let tokens = encoder.run_single(&[("x", host(&x))]).unwrap();
                let expected = network.encode(&x);
                let (_, found) = tokens.clone().into_i64().unwrap();
                let expected_tokens = Vec::<i64>::try_from(&expected.reshape([-1])).unwrap();
                assert_eq!(found, expected_tokens, "tokens");
                let y = decoder.run_single(&[("tokens", tokens)]).unwrap();
                let reference = network.decode(&expected).clamp(-1.0, 1.0);
                assert!(difference(&y, &reference) <= 1e-4, "{block:?} {}", difference(&y, &reference));
                let outputs = whole.run(&[("x", host(&x))]).unwrap();
                let (_, y) = outputs.iter().find(|(name, _)| name == "y").unwrap();
                assert!(difference(y, &reference) <= 1e-4);
            }
        }
    }
}

#[test]
fn an_export_of_other_weights_names_every_fault() {
    let (config, training) = tiny();
    let mut weights = learner(config.clone(), training, None).checkpoint().unwrap().under("average.");
    weights.tensors.remove("encoder.out.bias");
    weights.tensors.get_mut("quantiser.codes").unwrap().shape = vec![8, 32];
    let text = export(&config, &weights).unwrap_err().to_string();
    assert!(text.contains("encoder.out.bias is missing") || text.contains("quantiser.codes is [8, 32]"), "{text}");
}

/// An opened package of a briefly trained network, in `folder`.
fn autoencoder(folder: &std::path::Path) -> Autoencoder {
    let (config, training) = tiny();
    let mut learner = learner(config, training, None);
    (0..3).for_each(|_| drop(learner.step().unwrap()));
    let naming = training::Naming {
        name: "tiny".into(),
        data: "formulas".into(),
        data_licence: "none".into(),
        licence: "MIT".into(),
        modality: None,
    };
    let product = training::product(&learner.checkpoint().unwrap(), &naming).unwrap();
    let files: Vec<_> = product.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let package = Package::write(folder, product.draft, &files).unwrap();
    Autoencoder::open(&package, &Runtime::load().unwrap(), &SessionOptions::default()).unwrap()
}

#[test]
fn images_of_any_size_come_back_at_their_size() {
    let folder = tempfile::tempdir().unwrap();
    let model = autoencoder(folder.path());
    let image = |width: usize, height: usize| {
        let data = (0..width * height).map(|i| ((i % width) as f32 * 0.4).sin() * 0.8).collect();
        Plane::new(width, height, data).with_spacing(Some(hiresmed_imaging::Spacing::square(0.7)))
    };
    // One batch of equal sizes, then others; padding repeats the edge, so a padded image equals one that was wider before.
    let images = [image(40, 32), image(40, 32), image(37, 30), image(5, 3)];
    let tokens = model.encode(&images).unwrap();
    assert_eq!((tokens[2].columns, tokens[2].rows, tokens[2].width, tokens[2].height), (10, 8, 37, 30));
    let back = model.reconstruct(&images).unwrap();
    for (image, back) in images.iter().zip(&back) {
        assert_eq!((image.width(), image.height(), image.spacing), (back.width(), back.height(), back.spacing));
        assert!(back.data().iter().all(|value| (-1.0..=1.0).contains(value)));
    }
    assert_eq!(back[0], back[1]);
    let decoded = model.decode(&tokens).unwrap();
    assert!(decoded.iter().zip(&back).all(|(decoded, back)| decoded.data() == back.data()));
    assert!(matches!(model.encode(&[Plane::filled(0, 0, 0.0)]), Err(super::Error::Input(_))));
    let wrong = super::Tokens { data: vec![0; 3], ..tokens[0].clone() };
    assert!(matches!(model.decode(&[wrong]), Err(super::Error::Input(_))));
}

/// The shipped model's initialisers, loaded back into libtorch by their names, give what its graphs give on a real slice.
#[test]
fn the_shipped_graphs_equal_libtorch_on_a_real_slice() {
    tch::set_num_threads(1);
    let pack = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/pack");
    let catalogue = Catalogue::open(&[pack.join("models")]).unwrap();
    let entry = catalogue.entries().iter().find(|entry| entry.description.kind == package::Kind::Vqgan);
    let package = Package::open(&entry.expect("a background model is shipped").directory).unwrap();
    let config: Config = serde_json::from_value(package.description().configuration.clone()).unwrap();
    let mut weights = Weights::default();
    for role in ["encoder", "decoder"] {
        let model = package.model(role).unwrap();
        for (name, _) in Network::new(&config, None).trainable() {
            if let Some(found) = model.initialiser(&name).unwrap() {
                let (shape, data) = found.into_f32().unwrap();
                weights.tensors.insert(name, Array { shape, data });
            }
        }
    }
    let network = Network::load(&config, &weights).unwrap();
    let model = Autoencoder::open(&package, &Runtime::load().unwrap(), &SessionOptions::default()).unwrap();
    let slices = series::files(pack.join("sample/series")).unwrap();
    let slice = series::read_file(&slices[slices.len() / 2]).unwrap().remove(0).normalised(model.window());
    for (left, top, width, height) in [(160, 200, 128, 96), (100, 150, 64, 160)] {
        let pixels = (0..width * height).map(|i| slice.at(left + i % width, top + i / width)).collect();
        let crop = Plane::new(width, height, pixels);
        let x = Tensor::from_slice(crop.data()).reshape([1, 1, height as i64, width as i64]);
        let tokens = model.encode(std::slice::from_ref(&crop)).unwrap();
        let expected = network.encode(&x).reshape([-1]);
        let ties =
            tokens[0].data.iter().zip(Vec::<i64>::try_from(&expected).unwrap()).filter(|(a, b)| **a != *b).count();
        // Two codes may tie to rounding.
        assert!(ties <= 2, "{ties} tokens differ");
        let y = model.decode(&tokens).unwrap().remove(0);
        let size = [1, tokens[0].rows as i64, tokens[0].columns as i64];
        let reference = host(&network.decode(&Tensor::from_slice(&tokens[0].data).reshape(size)).clamp(-1.0, 1.0));
        let pairs = y.data().iter().zip(reference.as_f32().unwrap());
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-4, "{worst}");
    }
}

fn smooth(height: i64, width: i64) -> Tensor {
    let rows = Tensor::linspace(-1.0, 1.0, height, (tch::Kind::Float, tch::Device::Cpu)).reshape([1, 1, height, 1]);
    let columns = Tensor::linspace(-1.0, 1.0, width, (tch::Kind::Float, tch::Device::Cpu)).reshape([1, 1, 1, width]);
    (rows * 3.0).sin() * (columns * 5.0).cos()
}

fn host(x: &Tensor) -> Host {
    let shape: Vec<usize> = x.size().iter().map(|&size| size as usize).collect();
    Host::f32(shape, Vec::<f32>::try_from(&x.contiguous().reshape([-1])).unwrap()).unwrap()
}

fn difference(found: &Host, expected: &Tensor) -> f32 {
    let expected = host(expected);
    assert_eq!(found.shape(), expected.shape());
    let pairs = found.as_f32().unwrap().iter().zip(expected.as_f32().unwrap());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
