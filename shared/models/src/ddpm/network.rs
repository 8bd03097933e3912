//! The denoising U-Net in libtorch.

use std::collections::BTreeMap;
use std::rc::Rc;

use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor, no_grad};

use super::architecture::{Convolution, Layer, Layers, layers, network};
use super::config::{Config, EPSILON};
use crate::{
    noise,
    training::{channels_last, device, on_device},
};

/// The network's tensors by name: `NAME.weight` and `NAME.bias` of every layer.
#[derive(Debug)]
pub struct Network {
    config: Config,
    tensors: BTreeMap<String, Tensor>,
}

impl Network {
    /// New weights: N(0, 1 / fan-in) (LeCun et al. 1998), norms 1 and 0; the last convolution of every branch and of the network 0, so
    /// that it starts as a sum of its ways around.
    pub(super) fn new(config: &Config, rng: &mut ChaCha8Rng) -> Self {
        let mut tensors = BTreeMap::new();
        for (name, layer) in layers(config) {
            let (shape, biases) = layer.shapes();
            let count: usize = shape.iter().product();
            let weights = match layer {
                Layer::Norm { .. } => vec![1.0; count],
                Layer::Convolution(Convolution { zero: true, .. }) => vec![0.0; count],
                Layer::Convolution(Convolution { from, kernel, .. }) => normal(rng, count, from * kernel * kernel),
                Layer::Linear { from, .. } => normal(rng, count, from),
            };
            let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
            let four = shape.len() == 4;
            let weight = on_device(&weights).reshape(shape);
            let weight = if four { channels_last(&weight) } else { weight }.set_requires_grad(true);
            let bias: Vec<i64> = biases.iter().map(|&size| size as i64).collect();
            let bias = Tensor::zeros(bias, (Kind::Float, device())).set_requires_grad(true);
            tensors.insert(format!("{name}.weight"), weight);
            tensors.insert(format!("{name}.bias"), bias);
        }
        Self { config: config.clone(), tensors }
    }

    /// A copy with storage of its own that needs no gradient: for the running average.
    pub(super) fn detached(&self) -> Self {
        let copy = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach().copy());
        Self { config: self.config.clone(), tensors: self.tensors.iter().map(copy).collect() }
    }

    /// All parameters with their names, sorted, sharing storage.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// Moves every tensor towards `other`'s, of which `1 - share` is taken over.
    pub(super) fn follow(&mut self, other: &Self, share: f64) {
        no_grad(|| {
            for (mine, theirs) in self.tensors.values_mut().zip(other.tensors.values()) {
                let _ = mine.lerp_(theirs, 1.0 - share);
            }
        });
    }

    /// The noise in `images` `f32 [N, channels, side, side]` at `times` `i64 [N]`, counted from 0; of the images' shape.
    pub fn forward(&self, images: &Tensor, times: &Tensor) -> Tensor {
        let mut run = Run { tensors: &self.tensors, groups: self.config.groups as i64 };
        let frequencies = on_device(&self.config.frequencies());
        let angles = times.to_kind(Kind::Float).unsqueeze(1) * frequencies;
        let time = Tensor::cat(&[angles.sin(), angles.cos()], 1);
        let noise = network(&mut run, &self.config, &Rc::new(images.shallow_clone()), &Rc::new(time));
        noise.shallow_clone()
    }
}

fn normal(rng: &mut ChaCha8Rng, count: usize, fan_in: usize) -> Vec<f32> {
    let deviation = (1.0 / fan_in.max(1) as f32).sqrt();
    noise::normal(rng, count).iter().map(|value| value * deviation).collect()
}

struct Run<'a> {
    tensors: &'a BTreeMap<String, Tensor>,
    groups: i64,
}

impl<'a> Run<'a> {
    /// Weight and bias. Every name that is asked for is one of the same configuration's layers.
    fn layer(&self, name: &str) -> [&'a Tensor; 2] {
        ["weight", "bias"].map(|part| &self.tensors[&format!("{name}.{part}")])
    }
}

impl Layers for Run<'_> {
    type Value = Rc<Tensor>;

    fn convolution(&mut self, name: &str, x: &Rc<Tensor>, shape: Convolution) -> Rc<Tensor> {
        let [weight, bias] = self.layer(name);
        let (stride, padding) = (shape.stride as i64, shape.kernel as i64 / 2);
        Rc::new(x.conv2d(weight, Some(bias), [stride; 2], [padding; 2], [1, 1], 1))
    }

    fn linear(&mut self, name: &str, x: &Rc<Tensor>, _: usize, _: usize) -> Rc<Tensor> {
        let [weight, bias] = self.layer(name);
        Rc::new(x.linear(&weight.tr(), Some(bias)))
    }

    fn norm(&mut self, name: &str, x: &Rc<Tensor>, _: usize) -> Rc<Tensor> {
        let [weight, bias] = self.layer(name);
        Rc::new(x.group_norm(self.groups, Some(weight), Some(bias), f64::from(EPSILON), false))
    }

    fn silu(&mut self, x: &Rc<Tensor>) -> Rc<Tensor> {
        Rc::new(x.silu())
    }

    fn add(&mut self, a: &Rc<Tensor>, b: &Rc<Tensor>) -> Rc<Tensor> {
        Rc::new(&**a + &**b)
    }

    fn shift(&mut self, x: &Rc<Tensor>, by: &Rc<Tensor>) -> Rc<Tensor> {
        Rc::new(&**x + by.unsqueeze(2).unsqueeze(3))
    }

    fn concat(&mut self, a: &Rc<Tensor>, b: &Rc<Tensor>) -> Rc<Tensor> {
        Rc::new(Tensor::cat(&[&**a, &**b], 1))
    }

    fn double(&mut self, x: &Rc<Tensor>) -> Rc<Tensor> {
        let size = x.size();
        Rc::new(x.upsample_nearest2d([2 * size[2], 2 * size[3]], None, None))
    }

    fn attend(&mut self, mixed: &Rc<Tensor>, like: &Rc<Tensor>, width: usize) -> Rc<Tensor> {
        let parts = mixed.flatten(2, 3).chunk(3, 1);
        let scores = parts[0].transpose(1, 2).matmul(&parts[1]) * (width as f64).powf(-0.5);
        let mixed = parts[2].matmul(&scores.softmax(-1, None).transpose(1, 2));
        Rc::new(mixed.reshape(like.size()))
    }
}
