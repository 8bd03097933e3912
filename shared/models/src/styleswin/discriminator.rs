//! The discriminator: a residual convolutional network whose every matrix has spectral norm 1.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
#[cfg(test)]
use tch::Kind;
use tch::{Tensor, no_grad};

use super::network::leaky;
use crate::{
    noise,
    training::{channels_last, on_device},
};

/// Convolution of the image, residual blocks down to the coarsest scale, the batch's deviation as one more feature, two matrices:
/// f32 `[N, channels, side, side]` to logits f32 `[N, 1]`.
///
/// Every weight, as a matrix `[out, rest]`, is divided by an estimate of its largest singular value (spectral normalisation, Miyato et
/// al. 2018); [`iterate`](Self::iterate) makes the estimate better.
#[derive(Debug)]
pub struct Discriminator {
    /// Widths, fine to coarse.
    widths: Vec<i64>,
    tensors: BTreeMap<String, Tensor>,
    /// Estimates of each weight's first left singular vector, `[out]`, by its name: part of the state of a training.
    left: BTreeMap<String, Tensor>,
    /// Of the right one, `[rest]`: follows from the left one.
    right: BTreeMap<String, Tensor>,
}

/// Names and shapes of all tensors. `widths` go fine to coarse; the coarsest scale has `start` pixels a side.
fn layout(channels: i64, start: i64, widths: &[i64]) -> Vec<(String, Vec<i64>)> {
    let mut layout = Vec::new();
    let mut with_bias = |name: String, shape: Vec<i64>| {
        layout.push((format!("{name}.bias"), vec![shape[0]]));
        layout.push((format!("{name}.weight"), shape));
    };
    let mut last = channels;
    for (at, &width) in widths.iter().enumerate() {
        match at {
            0 => with_bias("image".to_owned(), vec![width, channels, 1, 1]),
            _ => {
                with_bias(format!("block{at}.first"), vec![last, last, 3, 3]);
                with_bias(format!("block{at}.second"), vec![width, last, 3, 3]);
                with_bias(format!("block{at}.shortcut"), vec![width, last, 1, 1]);
            }
        }
        last = width;
    }
    with_bias("last".to_owned(), vec![last, last + 1, 3, 3]);
    with_bias("dense".to_owned(), vec![last, last * start * start]);
    with_bias("logit".to_owned(), vec![1, last]);
    layout
}

impl Discriminator {
    /// New weights: N(0, 2 / fan-in), biases 0. `widths` go coarse to fine, as a configuration has them.
    pub fn new(channels: usize, start: usize, widths: &[usize], rng: &mut ChaCha8Rng) -> Self {
        let widths: Vec<i64> = widths.iter().rev().map(|&width| width as i64).collect();
        let mut normal = |count: i64| noise::normal(rng, count as usize);
        let (mut tensors, mut left) = (BTreeMap::new(), BTreeMap::new());
        for (name, shape) in layout(channels as i64, start as i64, &widths) {
            let (out, count) = (shape[0], shape.iter().product::<i64>());
            let values = if name.ends_with(".weight") {
                left.insert(name.clone(), unit(&on_device(&normal(out))));
                let deviation = (2.0 * out as f32 / count as f32).sqrt();
                normal(count).iter().map(|value| value * deviation).collect()
            } else {
                vec![0.0; count as usize]
            };
            let tensor = on_device(&values).reshape(&shape);
            let tensor = if shape.len() == 4 { channels_last(&tensor) } else { tensor };
            tensors.insert(name, tensor.set_requires_grad(true));
        }
        let mut new = Self { widths, tensors, left, right: BTreeMap::new() };
        new.iterate();
        new
    }

    /// The trainable tensors with their names, sorted, sharing storage.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// The estimates that a checkpoint must keep, sharing storage.
    pub fn estimates(&self) -> Vec<(String, Tensor)> {
        self.left.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// One power iteration of every weight.
    pub fn iterate(&mut self) {
        no_grad(|| {
            for (name, left) in &mut self.left {
                let matrix = self.tensors[name].flatten(1, -1);
                let right = unit(&matrix.tr().mv(left));
                left.copy_(&unit(&matrix.mv(&right)));
                self.right.insert(name.clone(), right);
            }
        });
    }

    /// The same in double precision, for checks by finite differences.
    #[cfg(test)]
    pub(super) fn to_double(&self) -> Self {
        let convert = |tensors: &BTreeMap<String, Tensor>, trained: bool| {
            let convert = |(name, tensor): (&String, &Tensor)| {
                (name.clone(), tensor.detach().to_kind(Kind::Double).set_requires_grad(trained))
            };
            tensors.iter().map(convert).collect()
        };
        Self {
            widths: self.widths.clone(),
            tensors: convert(&self.tensors, true),
            left: convert(&self.left, false),
            right: convert(&self.right, false),
        }
    }

    /// The discriminator as it is until a weight or an estimate changes.
    pub(super) fn normalised(&self) -> Normalised<'_> {
        let over_norm = |(name, left): (&String, &Tensor)| {
            let weight = &self.tensors[name];
            let norm = left.dot(&weight.flatten(1, -1).mv(&self.right[name]));
            (name.strip_suffix(".weight").unwrap_or(name).to_owned(), weight / norm)
        };
        Normalised { of: self, weights: self.left.iter().map(over_norm).collect() }
    }

    /// Logits `[N, 1]` of "real" of images `[N, channels, side, side]`.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        self.normalised().forward(images)
    }
}

/// A discriminator with each weight over the estimate of its spectral norm, made once for all passes of a step.
pub(super) struct Normalised<'a> {
    of: &'a Discriminator,
    /// By the layer's name.
    weights: BTreeMap<String, Tensor>,
}

impl Normalised<'_> {
    /// Weight and bias. Every name that is asked for here is in the layout.
    fn layer(&self, name: &str) -> (&Tensor, &Tensor) {
        (&self.weights[name], &self.of.tensors[&format!("{name}.bias")])
    }

    /// The weight of a layer.
    #[cfg(test)]
    pub(super) fn weight(&self, name: &str) -> &Tensor {
        &self.weights[name]
    }

    fn convolve(&self, x: &Tensor, name: &str) -> Tensor {
        let (weight, bias) = self.layer(name);
        let padding = weight.size()[2] / 2;
        x.conv2d(weight, Some(bias), [1, 1], [padding, padding], [1, 1], 1)
    }

    fn linear(&self, x: &Tensor, name: &str) -> Tensor {
        let (weight, bias) = self.layer(name);
        x.linear(weight, Some(bias))
    }

    /// As [`Discriminator::forward`].
    pub(super) fn forward(&self, images: &Tensor) -> Tensor {
        let mut x = leaky(&self.convolve(&side_by_side(images), "image"));
        for at in 1..self.of.widths.len() {
            let inner = leaky(&self.convolve(&x, &format!("block{at}.first")));
            let inner = halve(&leaky(&self.convolve(&inner, &format!("block{at}.second"))));
            // Both ways have the same part in the sum, which keeps its variance.
            x = (inner + self.convolve(&halve(&x), &format!("block{at}.shortcut"))) * std::f64::consts::FRAC_1_SQRT_2;
        }
        let (variance, _) = x.var_mean_correction(&[0i64][..], 0, true);
        // The root's slope at 0 is infinite, and a batch of one has no variance.
        let deviation = (variance + 1e-8).sqrt().mean(x.kind()).expand_as(&x.narrow(1, 0, 1));
        let x = leaky(&self.convolve(&Tensor::cat(&[x, deviation], 1), "last"));
        self.linear(&leaky(&self.linear(&x.flatten(1, -1), "dense")), "logit")
    }
}

/// Half the mean over the images of the squared gradient of their logits by their pixels (R1, Mescheder et al. 2018);
/// differentiable in the discriminator's weights. `[N, channels, side, side]` to a scalar.
pub(super) fn penalty(discriminator: &Normalised<'_>, images: &Tensor) -> Tensor {
    let images = images.detach().set_requires_grad(true);
    let logits = discriminator.forward(&images).sum(images.kind());
    let gradient = Tensor::run_backward(&[logits], &[&images], true, true);
    gradient[0].square().sum(images.kind()) * (0.5 / images.size()[0] as f64)
}

/// The images with their channels side by side in memory, which each convolution then keeps. One channel must be told so: its layout is
/// either.
fn side_by_side(images: &Tensor) -> Tensor {
    let laid_out = images.permute([0, 2, 3, 1]);
    laid_out.contiguous().flatten(0, -1).view(&laid_out.size()[..]).permute([0, 3, 1, 2])
}

/// Mean of every square of two by two pixels.
fn halve(x: &Tensor) -> Tensor {
    x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None::<i64>)
}

/// The vector at length 1.
fn unit(vector: &Tensor) -> Tensor {
    vector / (vector.norm() + 1e-12)
}
