//! Five valid convolutions: the generator and the critic of one scale, in libtorch, of one model or of several side by side.

use super::config::{KERNEL, LAYERS, PADDING};
use super::export::{EPSILON, SLOPE};
use crate::{
    noise,
    training::{device, on_device},
};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// A named tensor of a checkpoint.
pub type Named = (String, Tensor);

/// Five 3 x 3 convolutions without padding; a norm and LeakyReLU(0.2) after the first four.
///
/// The norm is BatchNorm over a batch of one, that is over each image by itself, in training and ever after. The published recipe
/// freezes a finished scale with its running statistics; those mix reconstructions and samples, whose statistics differ, so each
/// scale then works off its training point, and after few iterations grey values and masks run away from scale to scale (measured).
///
/// `f32 [N, in, h, w] -> [N, out, h - 10, w - 10]`; `in` is 2, image and mask, or 1, a whole image.
#[derive(Debug)]
pub struct Stack {
    tensors: Vec<Named>,
    slope: Tensor,
}

/// Tensors of one layer, in the order in which [`Stack`] holds them.
const CONVOLUTION: [&str; 2] = ["convolution.weight", "convolution.bias"];
const NORM: [&str; 2] = ["norm.weight", "norm.bias"];

impl Stack {
    /// New weights: convolutions N(0, 0.02), norms N(1, 0.02), shifts 0, drawn from `rng`.
    pub fn new(width: usize, (from, out): (usize, usize), rng: &mut ChaCha8Rng) -> Self {
        let mut normal = |shape: &[i64], mean: f32| {
            let count = shape.iter().product::<i64>() as usize;
            let values: Vec<f32> = noise::normal(rng, count).iter().map(|value| mean + 0.02 * value).collect();
            on_device(&values).reshape(shape)
        };
        let (width, input, out, kernel) = (width as i64, from as i64, out as i64, KERNEL as i64);
        let mut tensors = Vec::new();
        for layer in 0..LAYERS {
            let from = if layer == 0 { input } else { width };
            let to = if layer + 1 == LAYERS { out } else { width };
            tensors.push((format!("layer{layer}.{}", CONVOLUTION[0]), normal(&[to, from, kernel, kernel], 0.0)));
            tensors.push((format!("layer{layer}.{}", CONVOLUTION[1]), zeros(&[to])));
            if layer + 1 < LAYERS {
                let values = [normal(&[width], 1.0), zeros(&[width])];
                tensors.extend(NORM.iter().zip(values).map(|(name, value)| (format!("layer{layer}.{name}"), value)));
            }
        }
        Self::over(tensors)
    }

    /// A stack over `tensors`, which [`named`](Self::named) gave.
    fn over(tensors: Vec<Named>) -> Self {
        for (_, tensor) in &tensors {
            let _ = tensor.set_requires_grad(true);
        }
        Self { tensors, slope: on_device(&[SLOPE]) }
    }

    /// All tensors with their names, sharing storage, without gradients.
    pub fn named(&self) -> Vec<Named> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect()
    }

    /// The trainable tensors with their names, in a fixed order.
    pub fn parameters(&self) -> Vec<Named> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// Copies every value of `other`, a stack of the same width: a warm start, or weights from a checkpoint.
    pub fn copy_from(&mut self, other: &Stack) {
        tch::no_grad(|| {
            for ((_, to), (_, from)) in self.tensors.iter_mut().zip(&other.tensors) {
                to.copy_(from);
            }
        });
    }

    /// The same stack in double precision, for checks by finite differences.
    #[cfg(test)]
    pub(super) fn to_double(&self) -> Self {
        let convert = |(name, tensor): &Named| (name.clone(), tensor.detach().to_kind(Kind::Double));
        let mut stack = Self::over(self.tensors.iter().map(convert).collect());
        stack.slope = stack.slope.to_kind(Kind::Double);
        stack
    }

    /// Turns gradients off: the scale is finished.
    pub fn freeze(&mut self) {
        for (_, tensor) in &self.tensors {
            let _ = tensor.set_requires_grad(false);
        }
    }
}

/// Stacks of one width side by side, one for each model, as groups of the same convolutions: `f32 [N, in g, h, w] -> [N, out g, h - 10,
/// w - 10]`, no output activation. Channels of a model follow each other, and no value of one model reaches another.
pub fn forward(stacks: &[&Stack], input: &Tensor) -> Tensor {
    let groups = stacks.len() as i64;
    let tensor = |at: usize| match stacks {
        [stack] => stack.tensors[at].1.shallow_clone(),
        _ => Tensor::cat(&stacks.iter().map(|stack| &stack.tensors[at].1).collect::<Vec<_>>(), 0),
    };
    let mut at = 0..;
    let mut next = || tensor(at.next().unwrap_or_default());
    let slope = stacks.first().map(|stack| stack.slope.shallow_clone()).unwrap_or_default();
    let mut x = input.shallow_clone();
    for layer in 0..LAYERS {
        let (weight, bias) = (next(), next());
        x = x.conv2d(&weight, Some(&bias), [1, 1], [0, 0], [1, 1], groups);
        if layer + 1 < LAYERS {
            let (weight, bias) = (next(), next());
            let none = None::<&Tensor>;
            let epsilon = f64::from(EPSILON);
            x = x.instance_norm(Some(&weight), Some(&bias), none, none, true, 0.0, epsilon, false).prelu(&slope);
        }
    }
    x
}

/// The generators' whole output: tanh of the residual plus the previous scale.
///
/// `noise` and `previous` are `f32 [N, c g, h, w]`; noise is already multiplied by its amplitude. Padding is put once, so the output
/// is `[N, c g, h, w]`: zeros around the noise, the edge's own values around the image. The published recipe pads both with
/// zeros; in a lung crop zero is tissue, and that frame comes too near when a lesion is sampled smaller than it was learned.
pub fn generate(generators: &[&Stack], noise: &Tensor, previous: &Tensor) -> Tensor {
    let around = [PADDING as i64; 4];
    let input = noise.constant_pad_nd(around) + previous.replication_pad2d(around);
    forward(generators, &input).tanh() + previous
}

fn zeros(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Float, device()))
}

/// Bicubic resize (a = -0.75, pixel centres aligned, no antialiasing) of `f32 [N, C, h, w]` to `[height, width]`; what the
/// exported graph does between scales.
pub fn resize(x: &Tensor, [height, width]: [usize; 2]) -> Tensor {
    let size = [height as i64, width as i64];
    if x.size()[2..] == size {
        return x.shallow_clone();
    }
    x.upsample_bicubic2d(size, false, None, None)
}

/// For each model `f32 [g]`: mean over the image of (|gradient over channels| - 1)^2, the gradient being that of the critic's summed
/// output with respect to its input `f32 [1, c g, h, w]` (WGAN-GP, with the norm taken per pixel as SinGAN does). Differentiable in the
/// critics' weights.
pub fn gradient_penalty(critics: &[&Stack], input: &Tensor) -> Tensor {
    let input = input.detach().set_requires_grad(true);
    let output = forward(critics, &input).sum(input.kind());
    let gradient = Tensor::run_backward(&[output], &[&input], true, true);
    let size = input.size();
    let by_model = gradient[0].square().reshape([critics.len() as i64, -1, size[2], size[3]]);
    let norm = by_model.sum_dim_intlist([1i64].as_slice(), false, input.kind());
    // The square root's slope at 0 is infinite: a gradient of exactly 0 would make the weights NaN.
    ((norm + 1e-12).sqrt() - 1.0).square().mean_dim([1i64, 2].as_slice(), false, input.kind())
}
