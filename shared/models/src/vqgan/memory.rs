//! How much memory a training step needs, counted from the shapes.
//!
//! Counted are the tensors that libtorch keeps for the backward pass: what each operation saves, once where two save the same. A
//! layer of width w on p pixels of n images is 4 w p n bytes. Not counted: what libtorch itself occupies, the images on disk and in
//! memory, the workspace of cuDNN or oneDNN, and what an allocator wastes.

use super::{
    chain::{PIXELS_AT_ONCE, Part},
    config::{Block, Config},
    discriminator,
    training::{Crops, Precision, Training},
};

/// Bytes of an f32.
const F32: usize = 4;

/// Layers of an operation's own while it runs backward: the gradients of its output and input, and one that it computes with.
const AT_WORK: usize = 3;

/// The memory of a training step, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Weights of network and discriminator.
    pub weights: usize,
    /// Adam's two moments of each.
    pub moments: usize,
    /// The running average.
    pub average: usize,
    /// What is alive beside them at the peak of each phase of a step, in their order: activations, and gradients as far as they are
    /// known.
    pub phases: Vec<(String, usize)>,
}

impl Memory {
    /// Of a step with `crops`; `perceptual` is what the perceptual term keeps of an image ([`Backbone::bytes`](super::Backbone::bytes)), 0 without the term.
    pub fn of_step(config: &Config, training: &Training, crops: Crops, perceptual: usize) -> Self {
        let counted = Counted::new(config, training.precision, crops);
        let network = counted.parameters();
        let critics = discriminator::parameters(config.channels, training.discriminator_width);
        Self {
            weights: F32 * (network + critics),
            moments: 2 * F32 * (network + critics),
            average: F32 * network,
            phases: counted.phases(training, perceptual),
        }
    }

    /// In the largest of the phases.
    pub fn at_work(&self) -> usize {
        self.phases.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }

    /// At the step's peak.
    pub fn peak(&self) -> usize {
        self.weights + self.moments + self.average + self.at_work()
    }
}

/// A segment of the network: see [`super::chain`]. Bytes are of one image.
struct Segment {
    name: String,
    pixels: usize,
    input: usize,
    output: usize,
    /// What the graph keeps beside the input.
    saved: usize,
    /// One layer at its finest.
    layer: usize,
    /// Trained numbers.
    parameters: usize,
}

struct Counted {
    batch: usize,
    /// Pixels of an image.
    pixels: usize,
    /// Bytes of an image.
    image: usize,
    encoder: Vec<Segment>,
    /// Trained numbers of the codebook.
    codes: usize,
    decoder: Vec<Segment>,
}

impl Counted {
    fn new(config: &Config, precision: Precision, crops: Crops) -> Self {
        let compute = if precision == Precision::Bf16 { 2 } else { F32 };
        // What a convolution keeps of an input that is f32: the input itself, or its copy.
        let copy = |values: usize| if compute == F32 { 0 } else { compute * values };
        let block = |width: usize, pixels: usize, excited: bool| {
            // The first norm's output and the first convolution's input. Then the second norm's input and output, the enhancement's
            // input, and the inputs of three convolutions and a GELU; or the inputs of a GELU and two convolutions; or the second
            // norm's input and output and a convolution's input.
            let (whole, computed) = match config.block {
                Block::Hdfb => (4, 5),
                Block::HdfbLight => (1, 4),
                Block::Residual => (3, 2),
            };
            let excited = usize::from(excited && config.squeeze_excitation);
            (F32 * (whole + excited) + compute * computed) * width * pixels
        };
        let segment = |name: String, pixels: usize, (input, output): (usize, usize), saved: usize, layer: usize| {
            Segment { name, pixels, input: F32 * input, output: F32 * output, saved, layer: F32 * layer, parameters: 0 }
        };
        let conv = |from: usize, to: usize, kernel: usize| from * to * kernel * kernel + to;
        let of_block = |width: usize, excited: bool| {
            let separable = |kernel: usize| conv(1, width, kernel) + conv(width, width, 1);
            let rest = match config.block {
                Block::Hdfb => 4 * width + conv(width, width, 3) + separable(5),
                Block::HdfbLight => separable(3),
                Block::Residual => 2 * width + conv(width, width, 3),
            };
            let inner = (width / 4).max(1);
            let excitation = conv(width, inner, 1) + conv(inner, width, 1);
            let excited = excited && config.squeeze_excitation;
            2 * width + conv(width, width, 3) + rest + if excited { excitation } else { 0 }
        };
        let (mut pixels, mut from) = (crops.size * crops.size, config.channels);
        let mut encoder = Vec::new();
        for (index, (&width, &stride)) in config.widths.iter().zip(&config.strides).enumerate() {
            let input = from * pixels;
            pixels /= stride * stride;
            let layer = width * pixels;
            let saved = copy(input) + F32 * layer + block(width, pixels, false);
            let parameters = conv(from, width, 2 * stride) + of_block(width, false);
            let name = format!("encoder stage {index}");
            encoder.push(Segment { parameters, ..segment(name, pixels, (input, layer), saved, layer) });
            from = width;
        }
        let middle = |name: &str, pixels: usize, width: usize| {
            let (layer, saved) = (width * pixels, block(width, pixels, false));
            let segment = |index| Segment {
                parameters: of_block(width, false),
                ..segment(format!("{name} middle {index}"), pixels, (layer, layer), saved, layer)
            };
            (0..config.middle_blocks).map(segment).collect::<Vec<_>>()
        };
        let (latent, layer) = (config.latent * pixels, from * pixels);
        encoder.extend(middle("encoder", pixels, from));
        let end = segment("encoder end".to_owned(), pixels, (layer, latent), 2 * F32 * layer, layer);
        encoder.push(Segment { parameters: 2 * from + conv(from, config.latent, 1), ..end });
        let start = segment("decoder start".to_owned(), pixels, (latent, layer), copy(latent), layer);
        let mut decoder = vec![Segment { parameters: conv(config.latent, from, 1), ..start }];
        decoder.extend(middle("decoder", pixels, from));
        let widths = config.decoder_widths().into_iter().zip(config.strides.iter().rev());
        for (index, (width, &stride)) in widths.enumerate() {
            let input = from * pixels;
            pixels *= stride * stride;
            let layer = width * pixels;
            let saved = copy(input) + F32 * layer + block(width, pixels, true);
            let parameters = conv(from, width, 2 * stride) + conv(from, width, 1) + of_block(width, true);
            let name = format!("decoder stage {index}");
            decoder.push(Segment { parameters, ..segment(name, pixels, (input, layer), saved, layer) });
            from = width;
        }
        let (layer, image) = (from * pixels, config.channels * pixels);
        let end = segment("decoder end".to_owned(), pixels, (layer, image), 2 * F32 * layer, layer);
        decoder.push(Segment { parameters: 2 * from + conv(from, config.channels, 3), ..end });
        let codes = config.codes * config.latent;
        Self { batch: crops.batch, pixels, image: F32 * image, encoder, codes, decoder }
    }

    fn parameters(&self) -> usize {
        self.codes + self.encoder.iter().chain(&self.decoder).map(|segment| segment.parameters).sum::<usize>()
    }

    /// Bytes alive at the peak of each phase, beside weights, moments, average and gradients.
    fn phases(&self, training: &Training, perceptual: usize) -> Vec<(String, usize)> {
        let (batch, again) = (self.batch, training.checkpointing);
        let at_once = again.then_some(PIXELS_AT_ONCE);
        let of_part = |bytes: usize, pixels: usize| {
            let counts = Part::all(batch, pixels, at_once).map(|part| part.count as usize);
            bytes * counts.max().unwrap_or(0)
        };
        // Images, reconstructions, and the gradient of these.
        let images = 3 * self.image * batch;
        // What is kept of all segments up to and with each.
        let mut kept = images;
        let alive: Vec<(&Segment, usize)> = self
            .encoder
            .iter()
            .chain(&self.decoder)
            .map(|segment| {
                kept += (segment.input + if again { 0 } else { segment.saved }) * batch;
                (segment, kept)
            })
            .collect();
        let mut phases = Vec::new();
        if perceptual > 0 {
            phases.push(("perceptual term".to_owned(), kept + of_part(perceptual, self.pixels)));
        }
        let adversarial = training.discriminator_start.is_some() && training.loss.adversarial > 0.0;
        let critics = discriminator::bytes(self.pixels, training.discriminator_width) * batch;
        if adversarial {
            phases.push(("generator's loss".to_owned(), kept + critics));
        }
        let mut gradients = F32 * self.codes;
        for (segment, kept) in alive.iter().rev() {
            gradients += F32 * segment.parameters;
            let bytes = if again {
                // The gradients at both ends are the batch's, all else is a part's.
                (segment.output + segment.input) * batch
                    + of_part(segment.saved + AT_WORK * segment.layer, segment.pixels)
            } else {
                AT_WORK * segment.layer * batch
            };
            phases.push((format!("{}, backward", segment.name), kept + bytes + gradients));
        }
        // Of the largest tensor Adam has a clipped gradient, its square, and the change with its divisor.
        let largest = self.encoder.iter().chain(&self.decoder).map(|segment| segment.parameters).max().unwrap_or(0);
        phases.push(("optimiser".to_owned(), images + gradients + 4 * F32 * largest));
        if adversarial {
            phases.push(("critics' loss".to_owned(), images + 2 * critics));
        }
        phases
    }
}

/// What the graph of a distance between the features of an encoder keeps of an image of `side` x `side` pixels, bytes: its layers,
/// of every map the difference to the other image, and that one's maps.
pub(super) fn of_encoder(config: &Config, side: usize) -> usize {
    let counted = Counted::new(config, Precision::F32, Crops { from_step: 0, size: side, batch: 1 });
    counted.encoder.iter().map(|segment| segment.saved + 3 * segment.output).sum()
}

/// Bytes of the machine's memory, where the system says it (Linux).
pub(super) fn of_machine() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vqgan::{Backbone, Network, PRESETS};

    #[test]
    fn parameters_are_those_of_the_networks() {
        for name in PRESETS {
            let config = Config::preset(name).unwrap();
            // Large ones take seconds to draw.
            let expected =
                Counted::new(&config, Precision::F32, Crops { from_step: 0, size: 64, batch: 1 }).parameters();
            if expected < 4_000_000 {
                let network = Network::new(&config, None);
                let counted: usize = network.trainable().iter().map(|(_, tensor)| tensor.numel()).sum();
                assert_eq!(expected, counted, "{name}");
            }
        }
    }

    /// At 1024 x 1024 and batch 8 a step fits a card of 32 GB, half a gigabyte of it libtorch's own, with a quarter in reserve.
    #[test]
    fn the_large_presets_fit_a_card_of_32_gb() {
        let crops = Crops { from_step: 0, size: 1024, batch: 8 };
        for name in ["paper", "hires"] {
            let (config, training) = (Config::preset(name).unwrap(), Training::preset(name).unwrap());
            let peak = |training: &Training| {
                let memory = Memory::of_step(&config, training, crops, Backbone::Vgg16.bytes(1024 * 1024));
                println!("{name} {:?} {}", training.precision, memory.peak());
                memory.phases.iter().for_each(|(phase, bytes)| println!("  {bytes:>14} {phase}"));
                memory.peak()
            };
            for precision in [Precision::F32, Precision::Bf16] {
                let training = Training { precision, ..training.clone() };
                assert!(peak(&training) < 24_000_000_000, "{name}");
                assert!(peak(&Training { checkpointing: false, ..training }) > 24_000_000_000, "{name}");
            }
        }
    }
}
