//! What the perceptual term of equation 1 is measured with: LPIPS over a site's AlexNet or VGG16, or, where it has none, the
//! features of an encoder that was trained here.

use std::{fs, path::Path};

use hiresmed_inference::{
    onnx,
    package::{Kind, Package},
};
use tch::{Device, Kind as Element, Tensor, nn};

use super::{
    blocks::{BlockOptions, Initialisation},
    config::Config,
    encoder::Encoder,
    memory,
};
use crate::{
    training::{Error, load_named, tensor},
    weights::{Array, Weights},
};

/// What LPIPS subtracts from red, green and blue in [-1, 1], and divides by (Zhang et al. 2018, version 0.1).
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];
/// Keeps the length of a feature vector from 0.
const EPSILON: f64 = 1e-10;

/// A convolution of a backbone: its number in the published state dictionary (`features.N.weight`), stride and padding; before it
/// a maximum over squares of `pool` pixels, two apart, where that is not 0.
struct Step {
    number: usize,
    pool: i64,
    stride: i64,
    padding: i64,
}

const fn step(number: usize, pool: i64, stride: i64, padding: i64) -> Step {
    Step { number, pool, stride, padding }
}

/// A backbone whose weights a site may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backbone {
    /// AlexNet.
    AlexNet,
    /// VGG16.
    Vgg16,
}

impl Backbone {
    /// What the graph of a distance keeps of an image of `pixels`, bytes: of every convolution its output, of a maximum where it was,
    /// of every stage the difference to the other image; and that one's stages while they are compared.
    pub fn bytes(self, pixels: usize) -> usize {
        let (widths, layout) = match self {
            Self::AlexNet => ([64, 192, 384, 256, 256], &BACKBONES[0]),
            Self::Vgg16 => ([64, 128, 256, 512, 512], &BACKBONES[1]),
        };
        let (mut pixels, mut sum, mut from) = (pixels, 0, 3);
        for (steps, width) in layout.stages.iter().zip(widths) {
            for step in *steps {
                if step.pool > 0 {
                    pixels /= 4;
                    // Values and places.
                    sum += (4 + 8) * from * pixels;
                }
                pixels /= (step.stride * step.stride) as usize;
                sum += 4 * width * pixels;
                from = width;
            }
            sum += 2 * 4 * width * pixels;
        }
        sum
    }
}

/// What is known of a backbone: the convolutions, each with a rectifier behind it, whose last ones LPIPS looks at.
struct Layout {
    backbone: Backbone,
    name: &'static str,
    stages: [&'static [Step]; 5],
    /// Side and width of the first convolution, by which a file is told to hold it.
    first: [usize; 2],
    /// Smallest side of an image that has a pixel left in the last stage.
    least: usize,
}

const BACKBONES: [Layout; 2] = [
    Layout {
        backbone: Backbone::AlexNet,
        name: "AlexNet",
        stages: [
            &[step(0, 0, 4, 2)],
            &[step(3, 3, 1, 2)],
            &[step(6, 3, 1, 1)],
            &[step(8, 0, 1, 1)],
            &[step(10, 0, 1, 1)],
        ],
        first: [11, 64],
        least: 63,
    },
    Layout {
        backbone: Backbone::Vgg16,
        name: "VGG16",
        stages: [
            &[step(0, 0, 1, 1), step(2, 0, 1, 1)],
            &[step(5, 2, 1, 1), step(7, 0, 1, 1)],
            &[step(10, 2, 1, 1), step(12, 0, 1, 1), step(14, 0, 1, 1)],
            &[step(17, 2, 1, 1), step(19, 0, 1, 1), step(21, 0, 1, 1)],
            &[step(24, 2, 1, 1), step(26, 0, 1, 1), step(28, 0, 1, 1)],
        ],
        first: [3, 64],
        least: 16,
    },
];

/// A frozen network and how its features are compared.
pub(super) struct Features {
    /// What it is, for the card: `LPIPS over VGG16`, `features of the encoder lung-ct-512`; with the digest of its weights.
    pub(super) name: String,
    /// Smallest side of an image that it takes.
    pub(super) least: usize,
    network: Network,
}

enum Network {
    Lpips { backbone: Backbone, stages: Vec<Vec<(Step, Tensor, Tensor)>>, linear: Vec<Tensor> },
    Encoder { encoder: Encoder, config: Config },
}

impl Features {
    /// AlexNet or VGG16 from a file (safetensors or ONNX) that has the published names, `features.0.weight` and so on, and LPIPS'
    /// linear weights, `lin0` to `lin4` (or `lin0.model.1.weight`), in the same file or in `STEM.lin.safetensors` beside it.
    ///
    /// # Errors
    /// [`Error::Specification`] naming the file and all that is missing.
    pub(super) fn lpips(path: &Path, device: Device) -> Result<Self, Error> {
        let faulty = |faults: Vec<String>| {
            let faults = faults.into_iter().map(|fault| format!("the perceptual network {}: {fault}", path.display()));
            Error::Specification(faults.collect())
        };
        let mut weights = read(path).map_err(|cause| faulty(vec![cause]))?;
        let beside = path.with_extension("lin.safetensors");
        if beside.is_file() {
            weights.tensors.extend(read(&beside).map_err(|cause| faulty(vec![cause]))?.tensors);
        }
        let first = weights.tensors.get("features.0.weight").map(|array| array.shape.as_slice()).unwrap_or_default();
        let known = |backbone: &&Layout| matches!(first, [to, 3, side, _] if [*side, *to] == backbone.first);
        let Some(backbone) = BACKBONES.iter().find(known) else {
            let fault = format!(
                "features.0.weight is {first:?}: neither AlexNet's, 64 x 3 x 11 x 11, nor VGG16's, 64 x 3 x 3 x 3"
            );
            return Err(faulty(vec![fault]));
        };
        let (mut faults, mut stages, mut linear, mut from) = (Vec::new(), Vec::new(), Vec::new(), 3);
        for (index, steps) in backbone.stages.iter().enumerate() {
            let mut stage = Vec::new();
            for &Step { number, pool, stride, padding } in *steps {
                let names = [format!("features.{number}.weight"), format!("features.{number}.bias")];
                let shape = weights.tensors.get(&names[0]).map(|array| array.shape.clone()).unwrap_or_default();
                let [to, width, height, side] = shape[..] else {
                    faults.push(format!("{} is missing", names[0]));
                    continue;
                };
                let checked =
                    [weights.checked(&names[0], &[to, from, height, side]), weights.checked(&names[1], &[to])];
                from = to;
                match checked {
                    [Ok(weight), Ok(bias)] if width > 0 => {
                        let [weight, bias] = [weight, bias].map(|array| tensor(array).to_device(device));
                        stage.push((step(number, pool, stride, padding), weight, bias));
                    }
                    other => faults.extend(other.into_iter().filter_map(Result::err)),
                }
            }
            let names = [format!("lin{index}"), format!("lin{index}.model.1.weight")];
            match names.iter().find_map(|name| weights.tensors.get(name)) {
                Some(Array { data, .. }) if data.len() == from && data.iter().all(|value| value.is_finite()) => {
                    linear.push(Tensor::from_slice(data).reshape([1, from as i64, 1, 1]).to_device(device));
                }
                Some(Array { shape, .. }) => {
                    faults.push(format!("lin{index} is {shape:?}, expected {from} finite weights"))
                }
                None => faults.push(format!("lin{index}, LPIPS' weights of stage {index}, is missing")),
            }
            stages.push(stage);
        }
        if !faults.is_empty() {
            return Err(faulty(faults));
        }
        let digest = digest(&weights).map_err(|cause| faulty(vec![cause]))?;
        let name = format!("LPIPS over {} ({digest})", backbone.name);
        Ok(Self {
            name,
            least: backbone.least,
            network: Network::Lpips { backbone: backbone.backbone, stages, linear },
        })
    }

    /// The encoder of an autoencoder's package: no published metric, but what a network that was trained on such images tells
    /// apart.
    ///
    /// # Errors
    /// [`Error::Specification`] for a package that was not made here, or of another kind.
    pub(super) fn encoder(folder: &Path, device: Device) -> Result<Self, Error> {
        let fault =
            |cause: String| Error::Specification(vec![format!("the perceptual network {}: {cause}", folder.display())]);
        let package = Package::open(folder).map_err(|error| fault(error.to_string()))?;
        if !matches!(package.kind(), Kind::Vqgan | Kind::VqganResidual) {
            return Err(fault(format!("it is a {}, not an autoencoder", package.kind())));
        }
        let config: Config = serde_json::from_value(package.description().configuration.clone())
            .map_err(|error| fault(format!("it was not made here: {error}")))?;
        let bytes = package.file("encoder.onnx").map_err(|error| fault(error.to_string()))?;
        let weights = initialisers(&bytes).map_err(fault)?;
        let mut store = nn::VarStore::new(device);
        let options = BlockOptions {
            block: config.block,
            squeeze_excitation: config.squeeze_excitation,
            drop_path: 0.0,
            init: Initialisation::default(),
        };
        let encoder = Encoder::new(&(store.root() / "encoder"), &config, options);
        let mut variables: Vec<_> = store.variables().into_iter().collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        store.freeze();
        load_named(variables, &weights, "").map_err(|error| fault(error.to_string()))?;
        let name = format!("features of the encoder {} ({:.12})", package.name(), package.digest());
        Ok(Self { name, least: config.stride(), network: Network::Encoder { encoder, config } })
    }

    /// What the graph of a distance keeps of an image of `side` x `side` pixels, bytes.
    pub(super) fn bytes(&self, side: usize) -> usize {
        match &self.network {
            Network::Lpips { backbone, .. } => backbone.bytes(side * side),
            Network::Encoder { config, .. } => memory::of_encoder(config, side),
        }
    }

    /// Feature maps of `[N, C, H, W]` in [-1, 1], from fine to coarse.
    fn of(&self, images: &Tensor) -> Vec<Tensor> {
        let size = images.size();
        let grey = images.mean_dim(&[1i64][..], true, Element::Float);
        match &self.network {
            Network::Encoder { encoder, config } => {
                encoder.stages(&grey.expand([size[0], config.channels as i64, size[2], size[3]], false))
            }
            Network::Lpips { stages, .. } => {
                let values =
                    |values: [f32; 3]| Tensor::from_slice(&values).reshape([1, 3, 1, 1]).to_device(images.device());
                let mut x = (grey - values(SHIFT)) / values(SCALE);
                let stage = |steps: &Vec<(Step, Tensor, Tensor)>| {
                    for (step, weight, bias) in steps {
                        if step.pool > 0 {
                            x = x.max_pool2d([step.pool; 2], [2, 2], [0, 0], [1, 1], false);
                        }
                        x = x.conv2d(weight, Some(bias), [step.stride; 2], [step.padding; 2], [1, 1], 1).relu();
                    }
                    x.shallow_clone()
                };
                stages.iter().map(stage).collect()
            }
        }
    }

    /// Mean distance between `[N, C, H, W]` images in [-1, 1], a scalar with gradient towards both (equation 19): over layers, the
    /// mean over pixels of the weighted squares between unit vectors; of an encoder all weights are 1.
    pub(super) fn distance(&self, a: &Tensor, b: &Tensor) -> Tensor {
        let unit = |x: &Tensor| {
            // Under the root: where all features are 0 its gradient would be no number.
            let square = x.square().sum_dim_intlist(&[1i64][..], true, Element::Float);
            x / (square + EPSILON * EPSILON).sqrt()
        };
        let layers = self.of(a).into_iter().zip(self.of(b)).enumerate().map(|(index, (a, b))| {
            let square = (unit(&a) - unit(&b)).square();
            let weighted = match &self.network {
                Network::Lpips { linear, .. } => square * &linear[index],
                Network::Encoder { .. } => square,
            };
            weighted.sum_dim_intlist(&[1i64][..], false, Element::Float).mean(Element::Float)
        });
        Tensor::stack(&layers.collect::<Vec<_>>(), 0).sum(Element::Float)
    }
}

/// Tensors of a safetensors or an ONNX file; the error says what is wrong with it.
fn read(path: &Path) -> Result<Weights, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    match path.extension().is_some_and(|ending| ending == "onnx") {
        true => initialisers(&bytes),
        false => Weights::from_bytes(&bytes),
    }
}

/// The constants of an ONNX graph that are f32, by name.
fn initialisers(bytes: &[u8]) -> Result<Weights, String> {
    let model = onnx::Model::parse(bytes).map_err(|error| error.to_string())?;
    let mut weights = Weights::default();
    for name in model.initialiser_names() {
        // Others are shapes and indices.
        let Ok(Some(found)) = model.initialiser(name) else { continue };
        let Ok((shape, data)) = found.into_f32() else { continue };
        weights.tensors.insert(name.to_owned(), Array { shape, data });
    }
    Ok(weights)
}

/// The first digits of the SHA-256 over the tensors.
fn digest(weights: &Weights) -> Result<String, String> {
    use sha2::Digest as _;
    let plain = Weights { tensors: weights.tensors.clone(), ..Weights::default() };
    Ok(hex::encode(&sha2::Sha256::digest(plain.to_bytes()?)[..6]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small random values by name and shape.
    fn array(shape: &[usize], seed: usize) -> Array {
        let value = |i: usize| ((((i + 1) * (seed + 7) * 2_654_435_761) >> 7) % 2000) as f32 / 1000.0 - 1.0;
        let fan_in: usize = shape.iter().skip(1).product::<usize>().max(1);
        let scale = (2.0 / fan_in as f32).sqrt();
        Array { shape: shape.to_vec(), data: (0..shape.iter().product()).map(|i| value(i) * scale).collect() }
    }

    /// A network of these convolutions (number, to, from, kernel side), with linear weights of its stages' ends.
    fn network(convolutions: &[(usize, usize, usize, usize)], stages: [usize; 5]) -> Weights {
        let mut weights = Weights::default();
        for &(number, to, from, side) in convolutions {
            weights.tensors.insert(format!("features.{number}.weight"), array(&[to, from, side, side], number));
            weights.tensors.insert(format!("features.{number}.bias"), array(&[to], number + 100));
        }
        for (index, width) in stages.into_iter().enumerate() {
            let shape = vec![1, width, 1, 1];
            let data = array(&shape, index + 200).data.iter().map(|value| value.abs()).collect();
            weights.tensors.insert(format!("lin{index}.model.1.weight"), Array { shape, data });
        }
        weights
    }

    fn alexnet() -> Weights {
        let convolutions = [(0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3)];
        network(&convolutions, [64, 192, 384, 256, 256])
    }

    fn vgg16() -> Weights {
        let numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28];
        let widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512];
        let convolutions: Vec<_> =
            numbers.iter().zip(widths.windows(2)).map(|(&number, pair)| (number, pair[1], pair[0], 3)).collect();
        network(&convolutions, [64, 128, 256, 512, 512])
    }

    fn image(seed: i64) -> Tensor {
        tch::manual_seed(seed);
        Tensor::rand([2, 1, 64, 64], (Element::Float, Device::Cpu)) * 2.0 - 1.0
    }

    #[test]
    fn a_distance_is_none_between_equals_and_pulls_towards_them() {
        let folder = tempfile::tempdir().unwrap();
        for (name, weights, finest) in [("AlexNet", alexnet(), 15), ("VGG16", vgg16(), 64)] {
            let path = folder.path().join(format!("{name}.safetensors"));
            weights.write(&path).unwrap();
            let features = Features::lpips(&path, Device::Cpu).unwrap();
            assert!(features.name.starts_with(&format!("LPIPS over {name}")), "{}", features.name);
            let (a, b) = (image(1).set_requires_grad(true), image(2));
            let maps = features.of(&a);
            assert_eq!((maps.len(), maps[0].size()[2]), (5, finest), "{name}");
            assert_eq!(features.distance(&b, &b).double_value(&[]), 0.0);
            let distance = features.distance(&a, &b);
            assert!(distance.double_value(&[]) > 0.0);
            let gradient = Tensor::run_backward(&[&distance], &[&a], false, false).remove(0);
            let nearer = a.detach() - gradient * 1e-2;
            assert!(features.distance(&nearer, &b).double_value(&[]) < distance.double_value(&[]), "{name}");
        }
    }

    #[test]
    fn a_layer_is_equation_19() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alex.safetensors");
        let mut weights = alexnet();
        // Only the first stage counts, by its first channel.
        for index in 0..5 {
            let linear = weights.tensors.get_mut(&format!("lin{index}.model.1.weight")).unwrap();
            linear.data.iter_mut().enumerate().for_each(|(c, value)| *value = f32::from(index == 0 && c == 0));
        }
        weights.write(&path).unwrap();
        let features = Features::lpips(&path, Device::Cpu).unwrap();
        let (a, b) = (image(3), image(4));
        let (of_a, of_b) = (features.of(&a).remove(0), features.of(&b).remove(0));
        let (_, _, height, width) = of_a.size4().unwrap();
        let mut sum = 0.0;
        for n in 0..2 {
            for y in 0..height {
                for x in 0..width {
                    let of = |map: &Tensor| {
                        let value = |c: i64| map.double_value(&[n, c, y, x]);
                        value(0) / ((0..64).map(|c| value(c).powi(2)).sum::<f64>().sqrt() + 1e-10)
                    };
                    sum += (of(&of_a) - of(&of_b)).powi(2);
                }
            }
        }
        let expected = sum / (2 * height * width) as f64;
        let found = features.distance(&a, &b).double_value(&[]);
        assert!((found - expected).abs() < 1e-5 * expected, "{found} {expected}");
    }

    #[test]
    fn weights_that_do_not_fit_are_all_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alex.safetensors");
        let mut weights = alexnet();
        weights.tensors.remove("features.6.bias");
        weights.tensors.remove("lin4.model.1.weight");
        weights.tensors.insert("features.3.weight".to_owned(), array(&[192, 32, 5, 5], 3));
        weights.write(&path).unwrap();
        let text = Features::lpips(&path, Device::Cpu).err().unwrap().to_string();
        for part in ["alex.safetensors", "features.6.bias is missing", "lin4", "features.3.weight is [192, 32, 5, 5]"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        fs::write(&path, "no weights").unwrap();
        assert!(Features::lpips(&path, Device::Cpu).err().unwrap().to_string().contains("alex.safetensors"));
        let text = Features::encoder(folder.path(), Device::Cpu).err().unwrap().to_string();
        assert!(text.contains("the perceptual network"), "{text}");
    }

    #[test]
    fn the_shipped_encoder_tells_images_apart() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/pack/models");
        let shipped = hiresmed_inference::package::Catalogue::open(&[shipped]).unwrap();
        let entry = shipped.entries().iter().find(|entry| entry.description.name == "lung-ct-512").unwrap();
        let features = Features::encoder(&entry.directory, Device::Cpu).unwrap();
        assert!(features.name.starts_with("features of the encoder lung-ct-512"), "{}", features.name);
        let (a, b) = (image(5), image(6));
        let blurred = a.avg_pool2d([3, 3], [1, 1], [1, 1], false, true, None::<i64>);
        let distance = |x: &Tensor, y: &Tensor| features.distance(x, y).double_value(&[]);
        assert_eq!(distance(&a, &a), 0.0);
        assert!(distance(&a, &blurred) > 0.0 && distance(&a, &b) > 0.0);
    }
}
