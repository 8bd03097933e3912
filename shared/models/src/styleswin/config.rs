//! What a StyleSwin is ([`Config`]) and how one is trained ([`Training`]); both travel with the weights.

use serde::{Deserialize, Serialize};

/// The presets' names, smallest first.
pub const PRESETS: [&str; 3] = ["tiny", "ct64", "paper"];

/// The generator's architecture. Everything that determines its parameters' names and shapes is here, and nothing else.
///
/// Scales are listed coarse to fine; each has twice the side of the one before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Channels of the image.
    pub channels: usize,
    /// Length of the latent vector z.
    pub latent: usize,
    /// Length of the style vector w.
    pub style: usize,
    /// Layers of the mapping from z to w.
    pub mapping_layers: usize,
    /// Side of the learned constant at the coarsest scale, px.
    pub start: usize,
    /// Features of each scale; multiples of 4.
    pub widths: Vec<usize>,
    /// Heads of each scale's attention; even, since half of them see shifted windows.
    pub heads: Vec<usize>,
    /// Transformer blocks of each scale.
    pub blocks: usize,
    /// Side of an attention window, px; a scale that is smaller is one window.
    pub window: usize,
    /// Features inside a block's two matrices, as a multiple of its own.
    pub expansion: usize,
}

/// One scale of the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale {
    pub side: usize,
    pub width: usize,
    pub heads: usize,
    /// Side of its windows.
    pub window: usize,
    /// By how much the second half of the heads sees them shifted; 0 where there is one window only.
    pub shift: usize,
}

impl Scale {
    /// Pixels of a window.
    pub(super) fn places(&self) -> usize {
        self.window * self.window
    }

    /// Windows along one side.
    pub(super) fn windows(&self) -> usize {
        self.side / self.window
    }

    /// Offsets that two pixels of a window can have.
    pub(super) fn offsets(&self) -> usize {
        (2 * self.window - 1).pow(2)
    }

    /// For each pair of pixels of a window, the row of the table of relative positions; `[places, places]`.
    pub(super) fn relative(&self) -> Vec<i64> {
        let (window, places) = (self.window, self.places());
        let along = |a: usize, b: usize| a + window - 1 - b;
        let pair =
            |(a, b): (usize, usize)| along(a / window, b / window) * (2 * window - 1) + along(a % window, b % window);
        (0..places * places).map(|at| pair((at / places, at % places)) as i64).collect()
    }

    /// The part of the image that each pixel of each shifted window is from: what lay at opposite edges meets in a window and
    /// must not see each other; `[windows², places]`.
    pub(super) fn regions(&self) -> Vec<f32> {
        let (window, windows, places) = (self.window, self.windows(), self.places());
        let part = |at: usize| usize::from(at + window >= self.side) + usize::from(at + self.shift >= self.side);
        let region = |(index, place): (usize, usize)| {
            let row = index / windows * window + place / window;
            let column = index % windows * window + place % window;
            (3 * part(row) + part(column)) as f32
        };
        (0..windows * windows * places).map(|at| region((at / places, at % places))).collect()
    }

    /// Sines and cosines of a row's or a column's place, `[side, width / 2]`: half of the features say the row, half the column.
    pub(super) fn sinusoids(&self) -> Vec<f32> {
        let quarter = self.width / 4;
        let angle = |place: usize, at: usize| place as f64 / 10_000f64.powf(at as f64 / quarter as f64);
        let of_place = |place: usize| {
            let sines = (0..quarter).map(move |at| angle(place, at).sin() as f32);
            sines.chain((0..quarter).map(move |at| angle(place, at).cos() as f32))
        };
        (0..self.side).flat_map(of_place).collect()
    }
}

impl Config {
    /// The architecture of a preset, or `None` for an unknown name (see [`PRESETS`]).
    ///
    /// `paper` has the widths, heads and depths of StyleSwin's authors for 1024 x 1024; `ct64` is what two processor cores train in
    /// minutes; `tiny` is for tests.
    pub fn preset(name: &str) -> Option<Self> {
        Some(match name {
            "tiny" => Self {
                channels: 1,
                latent: 8,
                style: 8,
                mapping_layers: 2,
                start: 4,
                widths: vec![8, 8, 8],
                heads: vec![2, 2, 2],
                blocks: 1,
                window: 4,
                expansion: 2,
            },
            "ct64" => Self {
                channels: 1,
                latent: 128,
                style: 128,
                mapping_layers: 4,
                start: 4,
                widths: vec![128, 128, 128, 64, 32],
                heads: vec![8, 8, 8, 4, 2],
                blocks: 2,
                window: 8,
                expansion: 2,
            },
            "paper" => Self {
                channels: 1,
                latent: 512,
                style: 512,
                mapping_layers: 8,
                start: 4,
                widths: vec![512, 512, 512, 512, 256, 128, 64, 32, 16],
                heads: vec![16, 16, 16, 16, 8, 4, 4, 4, 4],
                blocks: 2,
                window: 8,
                expansion: 4,
            },
            _ => return None,
        })
    }

    /// Side of the image, px.
    pub fn side(&self) -> usize {
        self.start << self.widths.len().saturating_sub(1)
    }

    /// The scales, coarse to fine.
    pub(super) fn scales(&self) -> Vec<Scale> {
        let scale = |(at, (&width, &heads)): (usize, (&usize, &usize))| {
            let side = self.start << at;
            let window = self.window.min(side);
            Scale { side, width, heads, window, shift: if side > window { window / 2 } else { 0 } }
        };
        self.widths.iter().zip(&self.heads).enumerate().map(scale).collect()
    }

    /// Names and shapes of all tensors. Matrices are `[from, to]`; `mapping.mean` is the mean style, which is not trained.
    pub(super) fn layout(&self) -> Vec<(String, Vec<usize>)> {
        let mut layout: Vec<(String, Vec<usize>)> = vec![(MEAN_STYLE.to_owned(), vec![self.style])];
        let mut linear = |name: String, from: usize, to: usize| {
            layout.push((format!("{name}.weight"), vec![from, to]));
            layout.push((format!("{name}.bias"), vec![to]));
        };
        for layer in 0..self.mapping_layers {
            linear(format!("mapping{layer}"), if layer == 0 { self.latent } else { self.style }, self.style);
        }
        for (at, scale) in self.scales().into_iter().enumerate() {
            let width = scale.width;
            for block in 0..self.blocks {
                let name = |part: &str| format!("scale{at}.block{block}.{part}");
                linear(name("style0"), self.style, 2 * width);
                linear(name("attention"), width, 3 * width);
                linear(name("projection"), width, width);
                linear(name("style1"), self.style, 2 * width);
                linear(name("expand"), width, self.expansion * width);
                linear(name("contract"), self.expansion * width, width);
            }
            linear(format!("scale{at}.image"), width, self.channels);
        }
        let mut before: Option<usize> = None;
        for (at, scale) in self.scales().into_iter().enumerate() {
            match before {
                None => layout.push(("constant".to_owned(), vec![self.start, self.start, scale.width])),
                Some(from) => {
                    layout.push((format!("scale{at}.norm.weight"), vec![from]));
                    layout.push((format!("scale{at}.norm.bias"), vec![from]));
                    layout.push((format!("scale{at}.project.weight"), vec![from, scale.width]));
                }
            }
            for block in 0..self.blocks {
                layout.push((format!("scale{at}.block{block}.relative"), vec![scale.offsets(), scale.heads]));
            }
            before = Some(scale.width);
        }
        layout
    }

    /// Trainable parameters of the generator.
    pub fn parameters(&self) -> usize {
        let trained = self.layout().into_iter().filter(|(name, _)| name != MEAN_STYLE);
        trained.map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Every fault of this configuration, each naming its field, the value and what is allowed.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        check((1..=4).contains(&self.channels), format!("channels is {}, allowed is 1 to 4", self.channels));
        check((1..=4096).contains(&self.latent), format!("latent is {}, allowed is 1 to 4096", self.latent));
        check((1..=4096).contains(&self.style), format!("style is {}, allowed is 1 to 4096", self.style));
        check(
            (1..=16).contains(&self.mapping_layers),
            format!("mapping_layers is {}, allowed is 1 to 16", self.mapping_layers),
        );
        check(matches!(self.start, 4 | 8), format!("start is {}, allowed are 4 and 8", self.start));
        check(
            (2..=9).contains(&self.widths.len()),
            format!("widths has {} scales, allowed are 2 to 9", self.widths.len()),
        );
        check(
            self.widths.len() == self.heads.len(),
            format!("widths has {} scales and heads {}", self.widths.len(), self.heads.len()),
        );
        for &width in &self.widths {
            check(
                width % 4 == 0 && (4..=1024).contains(&width),
                format!("widths has {width}, allowed are multiples of 4 from 4 to 1024"),
            );
        }
        for (&width, &heads) in self.widths.iter().zip(&self.heads) {
            check(
                heads >= 2 && heads % 2 == 0 && width % heads == 0,
                format!("heads has {heads} for a width of {width}, allowed are even numbers that divide the width"),
            );
        }
        check((1..=8).contains(&self.blocks), format!("blocks is {}, allowed is 1 to 8", self.blocks));
        check(matches!(self.window, 4 | 8), format!("window is {}, allowed are 4 and 8", self.window));
        check((1..=8).contains(&self.expansion), format!("expansion is {}, allowed is 1 to 8", self.expansion));
        faults
    }
}

/// Name of the mean style: where truncation draws styles to.
pub(super) const MEAN_STYLE: &str = "mapping.mean";

/// How a StyleSwin is trained: non-saturating logistic loss, R1, two learning rates (TTUR), Adam.
///
/// Images come whole, resampled to the model's side, mirrored at random. What the discriminator sees, real or made, is shifted,
/// changed in contrast and brightness and has a square blanked, alike for both and at random (differentiable augmentation, Zhao et
/// al. 2020): with tens of images the discriminator knows each by heart otherwise. StyleSwin's authors balance consistency (bCR)
/// instead, on tens of thousands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Optimisation steps in all.
    pub steps: u64,
    /// Images per step.
    pub batch: usize,
    /// The discriminator's learning rate.
    pub discriminator_rate: f64,
    /// The generator's learning rate; a quarter of the discriminator's.
    pub generator_rate: f64,
    /// Adam's β.
    pub beta: (f64, f64),
    /// Weight of R1, half the mean square of the discriminator's gradient at real images.
    pub penalty: f64,
    /// R1 is taken at every so many steps, so many times as heavy.
    pub penalty_every: u64,
    /// Decay of the running average of the generator that is exported.
    pub average_decay: f64,
    /// Widths of the discriminator, coarse to fine: one scale fewer than the generator has, since wavelets halve the image first.
    pub discriminator_widths: Vec<usize>,
    /// Whether images are mirrored left to right at random.
    pub mirror: bool,
    /// Random shift of what the discriminator sees, share of the side, each way; rounded to whole pixels.
    pub shift: f64,
    /// Random contrast (factor from 1 - this to 1 + this) and brightness (this each way, on [-1, 1]) of what it sees.
    pub intensity: f64,
    /// Side of the square that is blanked at random in what it sees, share of the side.
    pub cutout: f64,
}

impl Training {
    /// The training of a preset, or `None` for an unknown name (see [`PRESETS`]). `paper` has the authors' rates; the others learn
    /// faster, for trainings of minutes.
    pub fn preset(name: &str) -> Option<Self> {
        let base = |rate: f64, widths: &[usize]| Self {
            // More bring the samples nearer to the training images.
            steps: 3_000,
            batch: 8,
            discriminator_rate: rate,
            generator_rate: rate / 4.0,
            beta: (0.0, 0.99),
            penalty: 10.0,
            penalty_every: 16,
            average_decay: 0.995,
            discriminator_widths: widths.to_vec(),
            mirror: true,
            shift: 0.125,
            intensity: 0.2,
            cutout: 0.4,
        };
        Some(match name {
            "tiny" => Self { steps: 100, batch: 4, average_decay: 0.9, ..base(4e-3, &[8, 8]) },
            "ct64" => base(8e-4, &[128, 128, 128, 64]),
            "paper" => Self {
                steps: 800_000,
                batch: 32,
                average_decay: 0.998,
                ..base(2e-4, &[512, 512, 512, 512, 512, 256, 128, 32])
            },
            _ => return None,
        })
    }

    /// Every fault of this training for `config`, each naming its field, the value and what is allowed.
    pub fn faults(&self, config: &Config) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        check(self.steps > 0, "steps is 0, allowed is 1 or more".to_owned());
        check((1..=1024).contains(&self.batch), format!("batch is {}, allowed is 1 to 1024", self.batch));
        for (name, rate) in [("discriminator_rate", self.discriminator_rate), ("generator_rate", self.generator_rate)] {
            check(rate > 0.0 && rate < 1.0, format!("{name} is {rate}, allowed is above 0, below 1"));
        }
        let (first, second) = self.beta;
        check(
            (0.0..1.0).contains(&first) && (0.0..1.0).contains(&second),
            format!("beta is {first} and {second}, allowed is 0 to below 1"),
        );
        check((0.0..=1e4).contains(&self.penalty), format!("penalty is {}, allowed is 0 to 10000", self.penalty));
        check(self.penalty_every > 0, "penalty_every is 0, allowed is 1 or more".to_owned());
        check(
            (0.0..1.0).contains(&self.average_decay),
            format!("average_decay is {}, allowed is 0 to below 1", self.average_decay),
        );
        check(
            self.discriminator_widths.len() + 1 == config.widths.len(),
            format!(
                "discriminator_widths has {} scales and widths {}; it has one fewer",
                self.discriminator_widths.len(),
                config.widths.len()
            ),
        );
        for &width in &self.discriminator_widths {
            check((1..=2048).contains(&width), format!("discriminator_widths has {width}, allowed is 1 to 2048"));
        }
        for (name, share, most) in
            [("shift", self.shift, 0.5), ("intensity", self.intensity, 1.0), ("cutout", self.cutout, 0.9)]
        {
            check((0.0..=most).contains(&share), format!("{name} is {share}, allowed is 0 to {most}"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_count_by_hand() {
        // Two mapping layers 8 -> 8 with bias; the constant, 4 x 4 x 8.
        let mapping = 2 * (64 + 8) + 128;
        // Two styles 8 -> 16 with bias, attention 8 -> 24, projection 8 -> 8, matrices 8 -> 16 -> 8, 7 x 7 offsets for 2 heads.
        let block = 2 * (128 + 16) + (192 + 24) + (64 + 8) + (128 + 16) + (128 + 8) + 98;
        // To the image 8 -> 1; from scale to scale a norm and a matrix 8 -> 8.
        let scales = 3 * (block + 9) + 2 * (16 + 64);
        assert_eq!(Config::preset("tiny").unwrap().parameters(), mapping + scales);
    }

    #[test]
    fn every_preset_is_possible() {
        for (name, side) in PRESETS.into_iter().zip([16, 64, 1024]) {
            let (config, training) = (Config::preset(name).unwrap(), Training::preset(name).unwrap());
            assert_eq!(config.faults(), Vec::<String>::new(), "{name}");
            assert_eq!(training.faults(&config), Vec::<String>::new(), "{name}");
            assert_eq!(config.side(), side);
            assert_eq!(training.generator_rate * 4.0, training.discriminator_rate);
            assert_eq!((training.beta, training.penalty, training.penalty_every), ((0.0, 0.99), 10.0, 16));
        }
        assert_eq!((Config::preset("large"), Training::preset("large")), (None, None));
    }

    #[test]
    fn every_fault_is_listed() {
        let config =
            Config { start: 5, heads: vec![3, 2], widths: vec![6, 8, 8], window: 7, ..Config::preset("tiny").unwrap() };
        let text = config.faults().join("\n");
        for part in ["start is 5", "3 scales and heads 2", "widths has 6", "heads has 3", "window is 7"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let tiny = Training::preset("tiny").unwrap();
        let training = Training { batch: 0, penalty_every: 0, cutout: 1.0, discriminator_widths: vec![8; 3], ..tiny };
        let text = training.faults(&Config::preset("tiny").unwrap()).join("\n");
        for part in [
            "batch is 0",
            "penalty_every is 0",
            "cutout is 1",
            "discriminator_widths has 3 scales and widths 3; it has one fewer",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn relative_positions_are_shared_by_pairs_of_one_offset() {
        let scale = Scale { side: 4, width: 8, heads: 2, window: 2, shift: 1 };
        // Pixels 0 1 / 2 3: offset (0, 0) is row 4 of 9, from 0 to 1 one less, from 0 to 2 three less.
        assert_eq!(scale.relative(), [4, 3, 1, 0, 5, 4, 2, 1, 7, 6, 4, 3, 8, 7, 5, 4]);
    }

    #[test]
    fn regions_part_what_a_shift_brings_together() {
        let scale = Scale { side: 4, width: 8, heads: 2, window: 2, shift: 1 };
        let regions = scale.regions();
        assert_eq!(regions[..4], [0.0; 4], "a window inside the image is whole");
        assert_eq!(regions[4..8], [1.0, 2.0, 1.0, 2.0], "the right edge's second column came from the left");
        assert_eq!(regions[12..], [4.0, 5.0, 7.0, 8.0]);
    }
}
