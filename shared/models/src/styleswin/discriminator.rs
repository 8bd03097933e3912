//! The discriminator: a convolutional network over an image's wavelets at every scale, whose every matrix has a fixed spectral norm.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
#[cfg(test)]
use tch::Kind;
use tch::{Tensor, no_grad};

use super::{network::leaky, wavelets::Wavelets};
use crate::{
    noise,
    training::{channels_last, on_device},
};

/// Gain of the rectifier, as in the authors' (Karras et al. 2020): it keeps the variance of a normal.
const GAIN: f64 = std::f64::consts::SQRT_2;

/// StyleSwin's discriminator, after SWAGAN's (Gal et al. 2021): f32 `[N, channels, side, side]` to logits f32 `[N, 1]`.
///
/// The image is halved from scale to scale, and at each the Haar bands of two by two pixels enter by a matrix of their own; a block of two
/// convolutions takes the features to the next coarser scale. Last come the batch's deviation as one more feature, a convolution and two
/// matrices. A period that the image's grid has in it, as that of a generator's windows, is plain in the bands of its scale; from pixels a
/// convolution has to find it.
///
/// Every weight, as a matrix `[out, rest]`, is divided by an estimate of its largest singular value (spectral normalisation, Miyato et
/// al. 2018); [`iterate`](Self::iterate) makes the estimate better.
#[derive(Debug)]
pub struct Discriminator {
    wavelets: Wavelets,
    /// Scales of features; the finest has half the side of the image.
    scales: usize,
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
    for (at, &width) in widths.iter().enumerate() {
        with_bias(format!("bands{at}"), vec![width, 4 * channels, 1, 1]);
        if let Some(&coarser) = widths.get(at + 1) {
            with_bias(format!("block{at}.first"), vec![width, width, 3, 3]);
            with_bias(format!("block{at}.second"), vec![coarser, width, 3, 3]);
        }
    }
    let last = widths.last().copied().unwrap_or(0);
    with_bias("last".to_owned(), vec![last, last + 1, 3, 3]);
    with_bias("dense".to_owned(), vec![last, last * start * start]);
    with_bias("logit".to_owned(), vec![1, last]);
    layout
}

impl Discriminator {
    /// New weights: N(0, 2 / fan-in), biases 0. `widths` go coarse to fine, as a configuration has them; the image has twice the side of the
    /// finest.
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
        let wavelets = Wavelets::new(channels as i64);
        let mut new = Self { wavelets, scales: widths.len(), tensors, left, right: BTreeMap::new() };
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
            wavelets: self.wavelets.to_double(),
            scales: self.scales,
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
            // The rectifier's gain, in the weight behind it: there are fewer of those than of features.
            let gain = if name.starts_with("bands") { 1.0 } else { GAIN };
            (name.strip_suffix(".weight").unwrap_or(name).to_owned(), weight * (gain / norm))
        };
        Normalised { of: self, weights: self.left.iter().map(over_norm).collect() }
    }

    /// Logits `[N, 1]` of "real" of images `[N, channels, side, side]`.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        self.normalised().forward(images)
    }
}

/// A discriminator with each weight over the estimate of its spectral norm, made once for all passes of a step; those behind a rectifier
/// have its gain in them.
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

    /// At every pixel, zeros outside; or at every second one, inside `x` only.
    fn convolve(&self, x: &Tensor, name: &str, stride: i64) -> Tensor {
        let (weight, bias) = self.layer(name);
        let padding = if stride == 1 { weight.size()[2] / 2 } else { 0 };
        x.conv2d(weight, Some(bias), [stride, stride], [padding, padding], [1, 1], 1)
    }

    fn linear(&self, x: &Tensor, name: &str) -> Tensor {
        let (weight, bias) = self.layer(name);
        x.linear(weight, Some(bias))
    }

    /// As [`Discriminator::forward`].
    pub(super) fn forward(&self, images: &Tensor) -> Tensor {
        let wavelets = &self.of.wavelets;
        let mut image = side_by_side(images);
        let mut x = leaky(&self.convolve(&wavelets.bands(&image), "bands0", 1));
        for at in 1..self.of.scales {
            let inner = leaky(&self.convolve(&x, &format!("block{}.first", at - 1), 1));
            let coarser = leaky(&self.convolve(&wavelets.blurred(&inner), &format!("block{}.second", at - 1), 2));
            image = wavelets.halved(&image);
            x = coarser + leaky(&self.convolve(&wavelets.bands(&image), &format!("bands{at}"), 1));
        }
        let (variance, _) = x.var_mean_correction(&[0i64][..], 0, true);
        // The root's slope at 0 is infinite, and a batch of one has no variance.
        let deviation = (variance + 1e-8).sqrt().mean(x.kind()).expand_as(&x.narrow(1, 0, 1));
        let x = leaky(&self.convolve(&Tensor::cat(&[x, deviation], 1), "last", 1));
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

/// The vector at length 1.
fn unit(vector: &Tensor) -> Tensor {
    vector / (vector.norm() + 1e-12)
}
