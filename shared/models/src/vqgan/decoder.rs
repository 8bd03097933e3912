//! The decoder: codes `[N, latent, h, w]` to images `[N, C, h * stride, w * stride]`.

use tch::{Tensor, nn};

use super::{
    blocks::{BlockOptions, Convolution, ConvolutionShape, Normalisation, ResidualBlock, Up},
    config::Config,
};

/// The decoder: codes `[N, latent, h, w]` to an image `[N, C, h * stride, w * stride]`, linear (callers clamp to [-1, 1]).
///
/// No connection skips the codebook: what is not in the tokens is not in the image.
#[derive(Debug)]
pub(crate) struct Decoder {
    input: Convolution,
    middle: Vec<ResidualBlock>,
    stages: Vec<(Up, ResidualBlock)>,
    norm: Normalisation,
    out: Convolution,
}

impl Decoder {
    pub(crate) fn new(path: &nn::Path, config: &Config, options: BlockOptions) -> Self {
        let mut from = config.widths.last().copied().unwrap_or(config.output_width) as i64;
        let input =
            Convolution::new(&(path / "in"), options.init, ConvolutionShape::same(config.latent as i64, from, 1));
        let middle = (0..config.middle_blocks)
            .map(|index| ResidualBlock::new(&(path / "middle" / index), from, from, false, options))
            .collect();
        let mut stages = Vec::new();
        for (index, (width, &stride)) in
            config.decoder_widths().into_iter().zip(config.strides.iter().rev()).enumerate()
        {
            let (stage, width) = (path / "stages" / index, width as i64);
            stages.push((
                Up::new(&(&stage / "up"), from, width, stride as i64, options.init),
                ResidualBlock::new(&(&stage / "block"), width, width, true, options),
            ));
            from = width;
        }
        Self {
            input,
            middle,
            stages,
            norm: Normalisation::new(&(path / "norm"), from),
            out: Convolution::new(
                &(path / "out"),
                options.init,
                ConvolutionShape::same(from, config.channels as i64, 3),
            ),
        }
    }

    pub(crate) fn forward(&self, codes: &Tensor, train: bool) -> Tensor {
        let mut h = self.input.forward(codes);
        for block in &self.middle {
            h = block.forward(&h, train);
        }
        for (up, block) in &self.stages {
            h = block.forward(&up.forward(&h), train);
        }
        self.out.forward(&self.norm.forward(&h).silu())
    }

    /// The last layer's kernel, on which VQGAN balances its losses.
    pub(crate) fn last_layer(&self) -> &Tensor {
        self.out.weight()
    }
}
