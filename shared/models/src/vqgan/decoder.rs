//! The decoder: codes `[N, latent, h, w]` to images `[N, C, h * stride, w * stride]`.

use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor, nn};

use super::{
    blocks::{BlockOptions, Convolution, ConvolutionShape, Normalisation, ResidualBlock, Up},
    chain::Segment,
    config::Config,
    encoder::middle,
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
                options.init.exact(),
                ConvolutionShape::same(from, config.channels as i64, 3),
            ),
        }
    }

    /// `[N, latent, h, w]` to `[N, C, h * stride, w * stride]`, f32, as in use after training.
    pub(crate) fn forward(&self, codes: &Tensor) -> Tensor {
        let mut h = self.input.forward(codes);
        for block in &self.middle {
            h = block.forward(&h, None);
        }
        for (up, block) in &self.stages {
            h = block.forward(&up.forward(&h), None);
        }
        self.end(&h)
    }

    fn end(&self, h: &Tensor) -> Tensor {
        self.out.forward(&self.norm.forward(h).silu())
    }

    /// The same for a training batch of codes `[N, latent, h, w]` of this size, in segments: the start, a middle block, a stage, the
    /// end, which alone the adaptive weight runs again.
    pub(super) fn segments(&self, size: [i64; 4], device: Device, random: &mut ChaCha8Rng) -> Vec<Segment<'_>> {
        let mut pixels = (size[2] * size[3]) as usize;
        let mut segments = vec![Segment::new(&["decoder.in"], pixels, |x, _| self.input.forward(x))];
        segments.extend(middle("decoder", &self.middle, (size[0], pixels), device, random));
        for (index, (up, block)) in self.stages.iter().enumerate() {
            pixels *= (up.stride() * up.stride()) as usize;
            let kept = block.kept_paths(size[0], device, random);
            segments.push(Segment::new(&[&format!("decoder.stages.{index}")], pixels, move |x, part| {
                block.forward(&up.forward(x), kept.as_ref().map(|kept| part.of(kept)).as_ref())
            }));
        }
        segments.push(Segment::new(&["decoder.norm", "decoder.out"], pixels, |x, _| self.end(x)));
        segments
    }

    /// The last layer's kernel, on which VQGAN balances its losses.
    pub(crate) fn last_layer(&self) -> &Tensor {
        self.out.weight()
    }
}
