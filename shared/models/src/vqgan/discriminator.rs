//! The discriminator: one small convolutional network at three scales of an image pyramid.

use tch::{Kind, Tensor, nn};

use super::blocks::{Convolution, ConvolutionShape, Initialisation, Normalisation};

/// Scales of the pyramid: local, medium and global.
const SCALES: usize = 3;

#[derive(Debug)]
struct Critic {
    first: Convolution,
    norm: Normalisation,
    second: Convolution,
}

/// Per scale: convolution, normalisation, activation, convolution; hinge loss over patches.
#[derive(Debug)]
pub(crate) struct Discriminator {
    critics: Vec<Critic>,
}

impl Discriminator {
    pub(crate) fn new(path: &nn::Path, channels: i64, width: i64, seed: u64) -> Self {
        let init = Initialisation { seed, ..Initialisation::default() };
        let critic = |index: usize| {
            let path = path / index;
            Critic {
                first: Convolution::new(&(&path / "first"), init, ConvolutionShape::down(channels, width, 2)),
                norm: Normalisation::new(&(&path / "norm"), width),
                second: Convolution::new(&(&path / "second"), init, ConvolutionShape::down(width, 1, 2)),
            }
        };
        Self { critics: (0..SCALES).map(critic).collect() }
    }

    /// A map of logits per scale of `[N, C, H, W]`.
    fn forward(&self, x: &Tensor) -> Vec<Tensor> {
        let mut x = x.shallow_clone();
        let mut maps = Vec::with_capacity(SCALES);
        for (index, critic) in self.critics.iter().enumerate() {
            if index > 0 {
                x = x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None::<i64>);
            }
            maps.push(critic.second.forward(&leaky(&critic.norm.forward(&critic.first.forward(&x)))));
        }
        maps
    }

    /// The generator's loss: the critics' mean logit of `fake`, negated.
    pub(crate) fn generator_loss(&self, fake: &Tensor) -> Tensor {
        -mean(self.forward(fake).iter().map(|map| map.mean(Kind::Float)))
    }

    /// Hinge loss of the critics; neither image carries a gradient.
    pub(crate) fn critic_loss(&self, real: &Tensor, fake: &Tensor) -> Tensor {
        let real =
            self.forward(&real.detach()).into_iter().map(|map: Tensor| (map * -1.0 + 1.0).relu().mean(Kind::Float));
        let fake = self.forward(&fake.detach()).into_iter().map(|map| (map + 1.0).relu().mean(Kind::Float));
        mean(real.zip(fake).map(|(real, fake)| (real + fake) * 0.5))
    }
}

/// Trained numbers of the critics.
pub(super) fn parameters(channels: usize, width: usize) -> usize {
    SCALES * (16 * channels * width + width + 2 * width + 16 * width + 1)
}

/// What the graph of the critics' logits keeps of an image of `pixels`, bytes: of each scale the norm's input and output, the
/// rectifier's two operands and its output, at half the resolution.
pub(super) fn bytes(pixels: usize, width: usize) -> usize {
    (0..SCALES).map(|scale| 4 * 4 * width * (pixels >> (2 * scale)) / 4).sum()
}

fn mean(terms: impl Iterator<Item = Tensor>) -> Tensor {
    let terms: Vec<Tensor> = terms.collect();
    Tensor::stack(&terms, 0).mean(Kind::Float)
}

/// Leaky rectifier of slope 0.2.
fn leaky(x: &Tensor) -> Tensor {
    x.maximum(&(x * 0.2))
}
