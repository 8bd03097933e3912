//! The encoder: `[N, C, H, W]` in [-1, 1] to `[N, latent, H / stride, W / stride]`.

use tch::{Tensor, nn};

use super::{
    blocks::{BlockOptions, Convolution, ConvolutionShape, Normalisation, ResidualBlock},
    config::Config,
};

/// Per stage a strided convolution and a block, then the middle blocks and a 1x1 convolution to the codes' length.
#[derive(Debug)]
pub(crate) struct Encoder {
    stages: Vec<(Convolution, ResidualBlock)>,
    middle: Vec<ResidualBlock>,
    norm: Normalisation,
    out: Convolution,
}

impl Encoder {
    pub(crate) fn new(path: &nn::Path, config: &Config, options: BlockOptions) -> Self {
        let mut from = config.channels as i64;
        let mut stages = Vec::new();
        for (index, (&width, &stride)) in config.widths.iter().zip(&config.strides).enumerate() {
            let (stage, width) = (path / "stages" / index, width as i64);
            let down = ConvolutionShape::down(from, width, stride as i64);
            stages.push((
                Convolution::new(&(&stage / "down"), options.init, down),
                ResidualBlock::new(&(&stage / "block"), width, width, false, options),
            ));
            from = width;
        }
        let middle = (0..config.middle_blocks)
            .map(|index| ResidualBlock::new(&(path / "middle" / index), from, from, false, options))
            .collect();
        Self {
            stages,
            middle,
            norm: Normalisation::new(&(path / "norm"), from),
            out: Convolution::new(&(path / "out"), options.init, ConvolutionShape::same(from, config.latent as i64, 1)),
        }
    }

    /// What each stage and the middle blocks give, from fine to coarse, as in use after training.
    pub(crate) fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        let mut maps: Vec<Tensor> = Vec::with_capacity(self.stages.len() + 1);
        for (down, block) in &self.stages {
            maps.push(block.forward(&down.forward(maps.last().unwrap_or(x)), false));
        }
        let middle = self
            .middle
            .iter()
            .fold(None, |h: Option<Tensor>, block| Some(block.forward(h.as_ref().or(maps.last()).unwrap_or(x), false)));
        maps.extend(middle);
        maps
    }

    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let mut h = x.shallow_clone();
        for (down, block) in &self.stages {
            h = block.forward(&down.forward(&h), train);
        }
        for block in &self.middle {
            h = block.forward(&h, train);
        }
        self.out.forward(&self.norm.forward(&h).silu())
    }
}
