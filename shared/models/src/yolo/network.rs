//! The detector in libtorch.

use std::collections::BTreeMap;
use std::rc::Rc;

use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor, no_grad};

use super::architecture::{Convolution, Heads, Layer, Layers, Level, layers, network};
use super::config::{Config, EPSILON};
use crate::{
    noise,
    training::{channels_last, device, on_device},
};

/// Share of a batch's statistics in the running ones.
const MOMENTUM: f64 = 0.03;
/// Lesions that the first scores expect in an image of 640 x 640 px.
const EXPECTED_LESIONS: f64 = 5.0;
const EXPECTED_SIDE: f64 = 640.0;

/// The network's tensors by name: `NAME.weight`, `NAME.bias` of outputs, `NAME.norm.{weight, bias, mean, variance}`.
#[derive(Debug)]
pub struct Network {
    config: Config,
    tensors: BTreeMap<String, Tensor>,
}

/// What the network says of a batch, over all levels' cells.
#[derive(Debug)]
pub(super) struct Answers {
    /// Logits of the distances' bins, `f32 [N, 4, bins, cells]`.
    pub distances: Tensor,
    /// Logits of the classes, `f32 [N, classes, cells]`.
    pub classes: Tensor,
}

impl Network {
    /// New weights: convolutions N(0, 2 / fan-in) (He et al. 2015), norms 1 and 0; outputs start at boxes of equal bins and at
    /// scores as low as lesions are rare.
    pub(super) fn new(config: &Config, rng: &mut ChaCha8Rng) -> Self {
        let mut tensors = BTreeMap::new();
        for (name, layer) in layers(config) {
            let (shape, normed) = match layer {
                Layer::Normed(Convolution { from, to, kernel, groups, .. }) => {
                    ([to, from / groups, kernel, kernel], true)
                }
                Layer::Output { from, to } => ([to, from, 1, 1], false),
            };
            let fan_in = shape[1] * shape[2] * shape[3];
            let deviation = (2.0 / fan_in as f32).sqrt() * if normed { 1.0 } else { 0.1 };
            let values: Vec<f32> =
                noise::normal(rng, shape[0] * fan_in).iter().map(|value| value * deviation).collect();
            let weight = channels_last(&on_device(&values).reshape(shape.map(|size| size as i64)));
            tensors.insert(format!("{name}.weight"), weight.set_requires_grad(true));
            let full = |value: f64| Tensor::full([shape[0] as i64], value, (Kind::Float, device()));
            if normed {
                tensors.insert(format!("{name}.norm.weight"), full(1.0).set_requires_grad(true));
                tensors.insert(format!("{name}.norm.bias"), full(0.0).set_requires_grad(true));
                tensors.insert(format!("{name}.norm.mean"), full(0.0));
                tensors.insert(format!("{name}.norm.variance"), full(1.0));
            } else {
                let bias = if name.ends_with(".classes") { prior(&name, config) } else { 0.0 };
                tensors.insert(format!("{name}.bias"), full(bias).set_requires_grad(true));
            }
        }
        Self { config: config.clone(), tensors }
    }

    /// A copy with storage of its own that needs no gradient.
    pub(super) fn detached(&self) -> Self {
        let copy = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach().copy());
        Self { config: self.config.clone(), tensors: self.tensors.iter().map(copy).collect() }
    }

    /// All tensors with their names, sharing storage: parameters and running statistics.
    pub(super) fn named(&self) -> Vec<(String, Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// The tensors that training changes by their gradients.
    pub(super) fn parameters(&self) -> Vec<(String, Tensor)> {
        let trainable = |name: &str| !name.ends_with(".mean") && !name.ends_with(".variance");
        self.named().into_iter().filter(|(name, _)| trainable(name)).collect()
    }

    /// Moves every tensor towards `other`'s, of which `1 - share` is taken over.
    pub(super) fn follow(&mut self, other: &Self, share: f64) {
        no_grad(|| {
            for (mine, theirs) in self.tensors.values_mut().zip(other.tensors.values()) {
                let _ = mine.lerp_(theirs, 1.0 - share);
            }
        });
    }

    /// `images` `f32 [N, channels, side, side]` in [0, 1], of any side that is a multiple of 32. In training, batch norms take the
    /// batch's own statistics and remember them.
    pub(super) fn forward(&self, images: &Tensor, training: bool) -> Answers {
        let mut run = Run { tensors: &self.tensors, training };
        let levels = network(&mut run, &self.config, &Rc::new(images.shallow_clone()));
        let batch = images.size()[0];
        let flat = |part: fn(&Level<Rc<Tensor>>) -> &Rc<Tensor>| {
            let levels: Vec<Tensor> = levels.iter().map(|level| part(level).flatten(2, 3)).collect();
            Tensor::cat(&levels, 2)
        };
        let distances = flat(|level| &level.distances).reshape([batch, 4, self.config.bins as i64, -1]);
        Answers { distances, classes: flat(|level| &level.classes) }
    }
}

/// The logit at which a level's cells expect [`EXPECTED_LESIONS`] among them.
fn prior(name: &str, config: &Config) -> f64 {
    let stride = config.strides().find(|stride| name.starts_with(&format!("head{stride}."))).unwrap_or(32);
    let cells = (EXPECTED_SIDE / stride as f64).powi(2);
    (EXPECTED_LESIONS / config.classes as f64 / cells).ln()
}

struct Run<'a> {
    tensors: &'a BTreeMap<String, Tensor>,
    training: bool,
}

impl Layers for Run<'_> {
    type Value = Rc<Tensor>;

    fn convolution(&mut self, name: &str, x: &Rc<Tensor>, shape: Convolution) -> Rc<Tensor> {
        let Convolution { kernel, stride, groups, .. } = shape;
        let (stride, padding) = (stride as i64, kernel as i64 / 2);
        let weight = &self.tensors[&format!("{name}.weight")];
        let x = x.conv2d(weight, None::<&Tensor>, [stride; 2], [padding; 2], [1, 1], groups as i64);
        let [gain, shift, mean, variance] =
            ["weight", "bias", "mean", "variance"].map(|part| Some(&self.tensors[&format!("{name}.norm.{part}")]));
        let x = x.batch_norm(gain, shift, mean, variance, self.training, MOMENTUM, EPSILON, false);
        Rc::new(if shape.silu { x.silu() } else { x })
    }

    fn output(&mut self, name: &str, x: &Rc<Tensor>, _: usize, _: usize) -> Rc<Tensor> {
        let [weight, bias] = ["weight", "bias"].map(|part| &self.tensors[&format!("{name}.{part}")]);
        Rc::new(x.conv2d(weight, Some(bias), [1, 1], [0, 0], [1, 1], 1))
    }

    fn add(&mut self, a: &Rc<Tensor>, b: &Rc<Tensor>) -> Rc<Tensor> {
        Rc::new(&**a + &**b)
    }

    fn concat(&mut self, parts: &[Rc<Tensor>]) -> Rc<Tensor> {
        Rc::new(Tensor::cat(&parts.iter().map(|part| &**part).collect::<Vec<_>>(), 1))
    }

    fn halves(&mut self, x: &Rc<Tensor>, channels: usize) -> (Rc<Tensor>, Rc<Tensor>) {
        let channels = channels as i64;
        (Rc::new(x.narrow(1, 0, channels)), Rc::new(x.narrow(1, channels, channels)))
    }

    fn pool(&mut self, x: &Rc<Tensor>) -> Rc<Tensor> {
        Rc::new(x.max_pool2d([5, 5], [1, 1], [2, 2], [1, 1], false))
    }

    fn double(&mut self, x: &Rc<Tensor>) -> Rc<Tensor> {
        let size = x.size();
        Rc::new(x.upsample_nearest2d([2 * size[2], 2 * size[3]], None, None))
    }

    fn attend(&mut self, mixed: &Rc<Tensor>, like: &Rc<Tensor>, heads: Heads) -> (Rc<Tensor>, Rc<Tensor>) {
        let Heads { count, key, value } = heads;
        let (count, key, value) = (count as i64, key as i64, value as i64);
        let mixed = mixed.reshape([like.size()[0], count, 2 * key + value, -1]);
        let (queries, keys) = (mixed.narrow(2, 0, key), mixed.narrow(2, key, key));
        let values = mixed.narrow(2, 2 * key, value);
        let products = queries.transpose(2, 3).matmul(&keys) * (key as f64).powf(-0.5);
        let attended = values.matmul(&products.softmax(-1, None).transpose(2, 3));
        (Rc::new(attended.reshape(like.size())), Rc::new(values.reshape(like.size())))
    }
}
