//! The encoder: `[N, C, H, W]` in [-1, 1] to `[N, latent, H / stride, W / stride]`.

use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor, nn};

use super::{
    blocks::{BlockOptions, Convolution, ConvolutionShape, Normalisation, ResidualBlock},
    chain::Segment,
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
            out: Convolution::new(
                &(path / "out"),
                options.init.exact(),
                ConvolutionShape::same(from, config.latent as i64, 1),
            ),
        }
    }

    /// What each stage and the middle blocks give, from fine to coarse, as in use after training.
    pub(crate) fn stages(&self, x: &Tensor) -> Vec<Tensor> {
        let mut maps: Vec<Tensor> = Vec::with_capacity(self.stages.len() + 1);
        for (down, block) in &self.stages {
            maps.push(block.forward(&down.forward(maps.last().unwrap_or(x)), None));
        }
        let middle = self
            .middle
            .iter()
            .fold(None, |h: Option<Tensor>, block| Some(block.forward(h.as_ref().or(maps.last()).unwrap_or(x), None)));
        maps.extend(middle);
        maps
    }

    /// `[N, C, H, W]` to `[N, latent, H / stride, W / stride]`, f32, as in use after training.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = x.shallow_clone();
        for (down, block) in &self.stages {
            h = block.forward(&down.forward(&h), None);
        }
        for block in &self.middle {
            h = block.forward(&h, None);
        }
        self.end(&h)
    }

    fn end(&self, h: &Tensor) -> Tensor {
        self.out.forward(&self.norm.forward(h).silu())
    }

    /// The same for a training batch `[N, C, H, W]` of this size, in segments: a stage, a middle block, the end.
    pub(super) fn segments(&self, size: [i64; 4], device: Device, random: &mut ChaCha8Rng) -> Vec<Segment<'_>> {
        let mut pixels = (size[2] * size[3]) as usize;
        let mut segments = Vec::with_capacity(self.stages.len() + self.middle.len() + 1);
        for (index, (down, block)) in self.stages.iter().enumerate() {
            pixels /= (down.stride() * down.stride()) as usize;
            let kept = block.kept_paths(size[0], device, random);
            segments.push(Segment::new(&[&format!("encoder.stages.{index}")], pixels, move |x, part| {
                block.forward(&down.forward(x), kept.as_ref().map(|kept| part.of(kept)).as_ref())
            }));
        }
        segments.extend(middle("encoder", &self.middle, (size[0], pixels), device, random));
        segments.push(Segment::new(&["encoder.norm", "encoder.out"], pixels, |x, _| self.end(x)));
        segments
    }
}

/// Middle blocks of the encoder or the decoder, a segment each, for a batch of so many images of so many pixels.
pub(super) fn middle<'a>(
    of: &str,
    blocks: &'a [ResidualBlock],
    (count, pixels): (i64, usize),
    device: Device,
    random: &mut ChaCha8Rng,
) -> Vec<Segment<'a>> {
    let segment = |(index, block): (usize, &'a ResidualBlock)| {
        let kept = block.kept_paths(count, device, random);
        Segment::new(&[&format!("{of}.middle.{index}")], pixels, move |x, part| {
            block.forward(x, kept.as_ref().map(|kept| part.of(kept)).as_ref())
        })
    };
    blocks.iter().enumerate().map(segment).collect()
}
