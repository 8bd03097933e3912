//! What a diffusion model is, and how it is trained.

use serde::{Deserialize, Serialize};

use super::{architecture::layers, schedule::Schedule};
use crate::rates::rise_then_cosine;

/// Names that [`Config::preset`] and [`Training::preset`] know.
pub const PRESETS: [&str; 3] = ["tiny", "ct64", "paper"];

/// Added to a group norm's variance.
pub(super) const EPSILON: f32 = 1e-6;

/// The least frequency of the time's sinusoids, relative to the highest (Vaswani et al. 2017).
const LEAST_FREQUENCY: f64 = 1e-4;

/// Architecture of a denoising U-Net, and the noise that it removes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Channels of the image; 1 for grey. A grey image is repeated over them, and what is sampled is averaged.
    pub channels: usize,
    /// Side of the square image, px; a multiple of 2^(levels - 1).
    pub side: usize,
    /// Channels of each level, finest first; every level halves the image.
    pub widths: Vec<usize>,
    /// Residual blocks of a level, down and up each.
    pub blocks: usize,
    /// Groups of channels that are normalised together; it divides every width.
    pub groups: usize,
    /// Sides of the levels, px, whose blocks are followed by self-attention; the middle always has it.
    pub attention: Vec<usize>,
    /// Features of the time; a quarter of them are sinusoids.
    pub time_width: usize,
    /// Noise levels, T.
    pub times: usize,
    /// β of the first and the last noise level; linear between.
    pub beta: (f64, f64),
}

impl Config {
    /// The architecture of a preset: `tiny` (16 px, for tests), `ct64` (64 px, for two cores) and `paper` (128 px); `None` for an
    /// unknown name.
    pub fn preset(name: &str) -> Option<Self> {
        let ct64 = Self {
            channels: 1,
            side: 64,
            widths: vec![16, 32, 64, 96],
            blocks: 1,
            groups: 8,
            attention: vec![8],
            time_width: 128,
            times: 1000,
            beta: (1e-4, 0.02),
        };
        match name {
            "tiny" => {
                Some(Self { side: 16, widths: vec![8, 16], groups: 4, attention: vec![8], time_width: 16, ..ct64 })
            }
            "ct64" => Some(ct64),
            "paper" => Some(Self {
                side: 128,
                widths: vec![128, 128, 256, 256, 512],
                blocks: 2,
                groups: 32,
                attention: vec![16],
                time_width: 512,
                ..ct64
            }),
            _ => None,
        }
    }

    /// Every fault that would keep this network from being built, empty when there is none.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |good: bool, fault: String| {
            if !good {
                faults.push(fault);
            }
        };
        let levels = self.widths.len();
        check(matches!(self.channels, 1 | 3), format!("channels is {}, allowed are 1 and 3", self.channels));
        check((1..=8).contains(&levels), format!("widths has {levels} levels, allowed are 1 to 8"));
        check((1..=64).contains(&self.groups), format!("groups is {}, allowed is 1 to 64", self.groups));
        let groups = self.groups.max(1);
        for width in self.widths.iter().filter(|width| !(1..=2048).contains(*width) || !width.is_multiple_of(groups)) {
            check(false, format!("widths has {width}, allowed are multiples of groups, {groups}, up to 2048"));
        }
        let step = 1usize << levels.saturating_sub(1).min(16);
        check(
            (8..=1024).contains(&self.side) && self.side.is_multiple_of(step),
            format!("side is {}, allowed are multiples of {step} px from 8 to 1024", self.side),
        );
        check((1..=8).contains(&self.blocks), format!("blocks is {}, allowed is 1 to 8", self.blocks));
        let sides: Vec<usize> = (0..levels.min(16)).map(|level| self.level_side(level)).collect();
        for side in self.attention.iter().filter(|side| !sides.contains(side)) {
            check(false, format!("attention has {side}, the levels' sides are {sides:?}"));
        }
        check(
            (16..=4096).contains(&self.time_width) && self.time_width.is_multiple_of(8),
            format!("time_width is {}, allowed are multiples of 8 from 16 to 4096", self.time_width),
        );
        check((2..=10_000).contains(&self.times), format!("times is {}, allowed is 2 to 10000", self.times));
        let (first, last) = self.beta;
        check(
            0.0 < first && first <= last && last < 1.0,
            format!("beta is {first} to {last}, allowed is above 0, rising, below 1"),
        );
        faults
    }

    /// Trainable parameters.
    pub fn parameters(&self) -> usize {
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        let layers = layers(self).into_iter().map(|(_, layer)| layer.shapes());
        layers.map(|(weight, bias)| count(&weight) + count(&bias)).sum()
    }

    fn level_side(&self, level: usize) -> usize {
        self.side >> level
    }

    /// Whether the blocks of a level are followed by self-attention.
    pub(super) fn attends(&self, level: usize) -> bool {
        self.attention.contains(&self.level_side(level))
    }

    /// Sinusoids of the time: as many sines as cosines.
    pub(super) fn sinusoids(&self) -> usize {
        self.time_width / 8 * 2
    }

    /// Frequencies of the time's sinusoids, radians a step, from 1 down in a geometric row: the features of time t are the sines of t
    /// times each, then the cosines.
    pub(super) fn frequencies(&self) -> Vec<f32> {
        let count = self.sinusoids() / 2;
        let span = count.saturating_sub(1).max(1) as f64;
        (0..count).map(|at| LEAST_FREQUENCY.powf(at as f64 / span) as f32).collect()
    }

    /// The noise levels.
    pub(super) fn schedule(&self) -> Schedule {
        Schedule::linear(self.times, self.beta)
    }
}

/// How a diffusion model is trained: mean squared error of the predicted noise, Adam, a running average of the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Optimisation steps in all; the learning rate's cosine ends here.
    pub steps: u64,
    /// Images per step.
    pub batch: usize,
    /// Peak learning rate, reached after `warm_up` steps.
    pub learning_rate: f64,
    /// Share of it at which the cosine ends; 1 keeps the rate.
    pub least_rate: f64,
    /// Steps of linear warm-up.
    pub warm_up: u64,
    /// Largest norm of the whole gradient.
    pub clip_norm: f64,
    /// Decay of the running average of the weights that is exported; less early on.
    pub average_decay: f64,
    /// Whether left and right may change places.
    pub mirror: bool,
    /// Random shift, px of the network's image, each way.
    pub shift_px: usize,
}

impl Training {
    /// The training of a preset, or `None` for an unknown name.
    pub fn preset(name: &str) -> Option<Self> {
        // Of Ho et al. 2020: the rate is that for images of 256 px, since larger ones diverged.
        let paper = Self {
            steps: 500_000,
            batch: 64,
            learning_rate: 2e-5,
            least_rate: 1.0,
            warm_up: 5_000,
            clip_norm: 1.0,
            average_decay: 0.9999,
            mirror: true,
            shift_px: 4,
        };
        // Higher rates and their decay: minutes of two cores, not days of eight accelerators. After five times as many steps on 76 slices
        // its samples were nearer to those than slices that it never saw: more images bear more steps.
        let ct64 =
            Self { steps: 800, batch: 16, learning_rate: 1.5e-3, least_rate: 0.02, warm_up: 50, ..paper.clone() };
        match name {
            "tiny" => Some(Self { steps: 60, batch: 4, learning_rate: 3e-3, warm_up: 5, shift_px: 1, ..ct64 }),
            "ct64" => Some(ct64),
            "paper" => Some(paper),
            _ => None,
        }
    }

    /// Learning rate of a step (counted from 0).
    pub fn rate_at(&self, step: u64) -> f64 {
        self.learning_rate * rise_then_cosine(step, self.warm_up, self.steps, self.least_rate)
    }

    /// Share of the running average that a step (counted from 0) keeps: early on a long average would remember the initialisation.
    pub fn average_at(&self, step: u64) -> f64 {
        self.average_decay.min((1.0 + step as f64) / (10.0 + step as f64))
    }

    /// Every fault of this training for `config`, each naming its field, the value and what is allowed.
    pub fn faults(&self, config: &Config) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |good: bool, fault: String| {
            if !good {
                faults.push(fault);
            }
        };
        check(self.steps > 0, "steps is 0, allowed is 1 or more".to_owned());
        check(self.batch > 0, "batch is 0, allowed is 1 or more".to_owned());
        check(
            self.learning_rate > 0.0 && self.learning_rate < 1.0,
            format!("learning_rate is {}, allowed is above 0, below 1", self.learning_rate),
        );
        check((0.0..=1.0).contains(&self.least_rate), format!("least_rate is {}, allowed is 0 to 1", self.least_rate));
        check(
            self.clip_norm > 0.0 && self.clip_norm.is_finite(),
            format!("clip_norm is {}, allowed is above 0", self.clip_norm),
        );
        check(
            (0.0..1.0).contains(&self.average_decay),
            format!("average_decay is {}, allowed is 0 to below 1", self.average_decay),
        );
        let most = config.side / 4;
        check(
            self.shift_px <= most,
            format!("shift_px is {}, allowed is 0 to {most}, a quarter of the side", self.shift_px),
        );
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_possible() {
        for name in PRESETS {
            let (config, training) = (Config::preset(name).unwrap(), Training::preset(name).unwrap());
            assert_eq!(config.faults(), Vec::<String>::new(), "{name}");
            assert_eq!(training.faults(&config), Vec::<String>::new(), "{name}");
        }
        assert_eq!((Config::preset("large"), Training::preset("large")), (None, None));
    }

    #[test]
    fn parameters_by_hand() {
        // A block from a to b with 16 features of the time: norms 2 a and 2 b, convolutions 9 a b + b and 9 b² + b, the time 17 b, and
        // a b + b where the widths differ.
        let block = |a: usize, b: usize| {
            2 * a + 2 * b + 9 * a * b + b + 9 * b * b + b + 17 * b + if a == b { 0 } else { a * b + b }
        };
        assert_eq!((block(8, 8), block(8, 16)), (1336, 3952));
        // Norm 32, queries, keys and values 16 · 48 + 48, projection 16 · 16 + 16.
        let attention = 32 + 816 + 272;
        // Four sinusoids to 16 and on to 16; the stem 9 · 8 + 8; 8 channels halved 9 · 64 + 8; 16 to 8 doubled 9 · 128 + 8.
        let time = 4 * 16 + 16 + 16 * 16 + 16;
        let down = 80 + block(8, 8) + 584 + block(8, 16) + attention;
        let middle = 2 * block(16, 16) + attention;
        let up = block(32, 16) + attention + 1160 + block(16, 8);
        let output = 16 + 9 * 8 + 1;
        assert_eq!(Config::preset("tiny").unwrap().parameters(), time + down + middle + up + output);
        // A package that can be shipped: under 8 MB.
        let ct64 = Config::preset("ct64").unwrap().parameters();
        assert!((1_000_000..1_950_000).contains(&ct64), "{ct64}");
        let paper = Config::preset("paper").unwrap().parameters();
        assert!((50_000_000..100_000_000).contains(&paper), "{paper}");
    }

    #[test]
    fn every_fault_is_listed() {
        let config = Config {
            channels: 2,
            side: 63,
            widths: vec![24, 44],
            blocks: 0,
            attention: vec![7],
            time_width: 20,
            times: 1,
            beta: (0.1, 0.01),
            ..Config::preset("ct64").unwrap()
        };
        let text = config.faults().join("\n");
        for part in ["channels", "44", "side", "blocks", "attention has 7", "time_width", "times is 1", "beta"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let training = Training { batch: 0, shift_px: 17, ..Training::preset("ct64").unwrap() };
        let text = training.faults(&Config::preset("ct64").unwrap()).join("\n");
        for part in ["batch is 0", "shift_px is 17, allowed is 0 to 16"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn the_rate_warms_up_and_falls_and_the_average_lengthens() {
        let training = Training { steps: 1000, ..Training::preset("ct64").unwrap() };
        assert!((training.rate_at(24) - 7.5e-4).abs() < 1e-12 && (training.rate_at(50) - 1.5e-3).abs() < 1e-12);
        assert!((training.rate_at(1000) - 3e-5).abs() < 1e-12);
        let paper = Training::preset("paper").unwrap();
        assert!((paper.rate_at(400_000) - 2e-5).abs() < 1e-15);
        assert!((paper.average_at(0) - 0.1).abs() < 1e-12 && (paper.average_at(1 << 20) - 0.9999).abs() < 1e-12);
    }

    #[test]
    fn frequencies_fall_from_one() {
        let frequencies = Config::preset("paper").unwrap().frequencies();
        assert_eq!((frequencies.len(), frequencies[0]), (64, 1.0));
        assert!((frequencies[63] - 1e-4).abs() < 1e-9);
    }
}
