//! The U-Net in libtorch.

use super::config::{Config, groups};
use super::export::EPSILON;
use crate::{
    noise,
    training::{channels_last, on_device},
};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

/// Same-padding U-Net: two convolutions (no bias), GroupNorm and ReLU a level, max-pooling down, transposed convolutions up, skips
/// concatenated. `f32 [N, 1, side, side] -> f32 [N, 1, side, side]` logits.
#[derive(Debug)]
pub struct Network {
    config: Config,
    tensors: Vec<(String, Tensor)>,
}

/// Hands the tensors out in the order in which [`layout`] lists them.
struct Cursor<'a> {
    tensors: &'a [(String, Tensor)],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn next(&mut self) -> &'a Tensor {
        self.at += 1;
        &self.tensors[self.at - 1].1
    }

    /// Convolution, GroupNorm, ReLU; twice.
    fn pair(&mut self, x: &Tensor) -> Tensor {
        let mut x = x.shallow_clone();
        for _ in 0..2 {
            let (weight, gain, shift) = (self.next(), self.next(), self.next());
            x = x.conv2d(weight, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1);
            let groups = groups(gain.size()[0] as usize) as i64;
            x = x.group_norm(groups, Some(gain), Some(shift), f64::from(EPSILON), false).relu_();
        }
        x
    }
}

/// Names and shapes of all tensors, in the order of the forward pass.
pub(super) fn layout(config: &Config) -> Vec<(String, Vec<usize>)> {
    let mut layout = Vec::new();
    let pair = |layout: &mut Vec<(String, Vec<usize>)>, scope: &str, from: usize, to: usize| {
        for (at, from) in [from, to].into_iter().enumerate() {
            layout.push((format!("{scope}.convolution{at}.weight"), vec![to, from, 3, 3]));
            layout.push((format!("{scope}.norm{at}.weight"), vec![to]));
            layout.push((format!("{scope}.norm{at}.bias"), vec![to]));
        }
    };
    let mut from = 1;
    for (level, &width) in config.widths.iter().enumerate() {
        pair(&mut layout, &format!("down{level}"), from, width);
        from = width;
    }
    for (level, &width) in config.widths.iter().enumerate().rev().skip(1) {
        layout.push((format!("up{level}.transposed.weight"), vec![from, width, 2, 2]));
        layout.push((format!("up{level}.transposed.bias"), vec![width]));
        pair(&mut layout, &format!("up{level}"), 2 * width, width);
        from = width;
    }
    layout.push(("output.weight".to_owned(), vec![1, from, 1, 1]));
    layout.push(("output.bias".to_owned(), vec![1]));
    layout
}

impl Network {
    /// New weights: convolutions N(0, 2 / fan-in) (He et al. 2015), norms 1 and 0.
    pub fn new(config: &Config, rng: &mut ChaCha8Rng) -> Self {
        let initial = |(name, shape): (String, Vec<usize>)| {
            let count = shape.iter().product::<usize>();
            let values = match shape.len() {
                4 => {
                    let fan_in = if name.contains("transposed") { shape[0] } else { shape[1] * shape[2] * shape[3] };
                    let deviation = (2.0 / fan_in as f32).sqrt();
                    noise::normal(rng, count).iter().map(|value| value * deviation).collect()
                }
                _ => vec![if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 }; count],
            };
            let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
            let tensor = on_device::<f32>(&values).reshape(&shape);
            let tensor = if shape.len() == 4 { channels_last(&tensor) } else { tensor };
            (name, tensor.set_requires_grad(true))
        };
        Self { config: config.clone(), tensors: layout(config).into_iter().map(initial).collect() }
    }

    /// All parameters with their names, sharing storage.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// `f32 [N, 1, h, w] -> f32 [N, 1, h, w]` logits; h and w are multiples of 2^(levels - 1).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut cursor = Cursor { tensors: &self.tensors, at: 0 };
        let mut skips: Vec<Tensor> = Vec::new();
        for level in 0..self.config.widths.len() {
            let input = match skips.last() {
                None => x.shallow_clone(),
                Some(above) => above.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false),
            };
            debug_assert_eq!(skips.len(), level);
            skips.push(cursor.pair(&input));
        }
        let mut x = skips.pop().unwrap_or_else(|| Tensor::zeros([0], (Kind::Float, Device::Cpu)));
        while let Some(skip) = skips.pop() {
            let (weight, bias) = (cursor.next(), cursor.next());
            // The bias apart: a transposed convolution's own has a gradient that oneDNN computes one element after the other.
            let up = x.conv_transpose2d(weight, None::<&Tensor>, [2, 2], [0, 0], [0, 0], 1, [1, 1]);
            let up = up + bias.reshape([1, -1, 1, 1]);
            x = cursor.pair(&Tensor::cat(&[up, skip], 1));
        }
        let (weight, bias) = (cursor.next(), cursor.next());
        x.conv2d(weight, Some(bias), [1, 1], [0, 0], [1, 1], 1)
    }
}

/// Dice (1 - soft Dice of the permissible class over the batch) and binary cross-entropy of `logits` against `target` in {0, 1}.
///
/// The permissible class is the foreground: with the forbidden one, "everything is forbidden" already scores high.
pub(super) fn losses(logits: &Tensor, target: &Tensor) -> (Tensor, Tensor) {
    let share = logits.sigmoid();
    let overlap = (&share * target).sum(Kind::Float);
    let total = share.sum(Kind::Float) + target.sum(Kind::Float);
    let dice = -((overlap * 2.0 + 1.0) / (total + 1.0)) + 1.0;
    let entropy =
        logits.binary_cross_entropy_with_logits(target, None::<&Tensor>, None::<&Tensor>, tch::Reduction::Mean);
    (dice, entropy)
}
