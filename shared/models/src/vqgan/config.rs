//! What a HiResMed-VQGAN is ([`Config`]) and how one is trained ([`Training`]); both travel with the weights.

use serde::{Deserialize, Serialize};

/// The presets' names, smallest first.
pub const PRESETS: [&str; 10] = [
    "tiny",
    "ct256",
    "ct512",
    "ct512-wide",
    "ct512-residual",
    "ct512-coarse",
    "kub1024",
    "hires",
    "paper",
    "paper-residual",
];

/// The building block of encoder and decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Block {
    /// Hierarchical dynamic feature block (equations 2 to 12): two norm-activation pairs around a 3x3 convolution, then the
    /// multi-scale convolutional feature enhancement.
    Hdfb,
    /// VQGAN's residual block, the baseline of table 2 and figure 8.
    Residual,
}

/// The architecture. Everything that determines the parameters' names and shapes is here, and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Image channels (1 for grey; the paper replicates grey to 3).
    pub channels: usize,
    /// Down-sampling factor of each encoder stage, all even; their product is the side of a token in pixels.
    pub strides: Vec<usize>,
    /// Width of each encoder stage, as many as strides; multiples of 4.
    pub widths: Vec<usize>,
    /// Width of the decoder at full resolution, where most of its time goes; a multiple of 4.
    pub output_width: usize,
    /// Blocks at the token resolution, in each of encoder and decoder, beside the stage's own.
    pub middle_blocks: usize,
    /// Length of a code.
    pub latent: usize,
    /// Number of codes.
    pub codes: usize,
    /// The block in encoder and decoder.
    pub block: Block,
    /// Whether a decoder block after an up-sampling weighs its channels (squeeze and excitation).
    pub squeeze_excitation: bool,
    /// Probability of dropping a sample's enhancement branch in training (stochastic depth), `0 <= p < 1`.
    pub drop_path: f64,
}

impl Config {
    /// The architecture of a preset, or `None` for an unknown name (see [`PRESETS`]).
    ///
    /// `ct512` has a total stride of 4 (128 x 128 tokens at 512 x 512) rather than 8, since the tokens decide what can come
    /// back: on held-out CT at stride 8, 22 dB was reached with the fine vessels missing whatever else was tried; at stride
    /// 4 the same effort gave 35 dB with the vessels in place. It goes to the tokens' resolution in one step and comes back in
    /// one: a layer at full resolution costs sixteen times what it costs among the tokens, so that there it is 8 wide and
    /// among the tokens 64. `ct512-wide` goes in two steps, with 32 channels in between and 16 at full resolution: 1.8 times
    /// the time for the same fidelity. The presets that end in `-residual` are the baseline: VQGAN's blocks in the same places.
    ///
    /// `ct512-coarse` and `kub1024` are for a prior over their tokens: with a stride of 16 a slice has 1,024 tokens, and an image of
    /// 1024 x 1024 has 4,096, few enough to learn how they hang together from tens of images. What comes back has the anatomy and the
    /// larger vessels, and no noise.
    pub fn preset(name: &str) -> Option<Self> {
        if let Some(plain) = name.strip_suffix("-residual").filter(|_| PRESETS.contains(&name)) {
            return Some(Self { block: Block::Residual, ..Self::preset(plain)? });
        }
        let base = |strides: &[usize], widths: &[usize], output_width, latent, codes| Self {
            channels: 1,
            strides: strides.to_vec(),
            widths: widths.to_vec(),
            output_width,
            middle_blocks: 1,
            latent,
            codes,
            block: Block::Hdfb,
            squeeze_excitation: true,
            drop_path: 0.0,
        };
        Some(match name {
            "tiny" => base(&[2, 2], &[8, 16], 8, 8, 32),
            "ct256" => base(&[2, 2], &[32, 64], 16, 32, 512),
            "ct512" => base(&[4], &[64], 8, 16, 1024),
            "ct512-wide" => base(&[2, 2], &[32, 64], 16, 32, 1024),
            "ct512-coarse" => base(&[4, 4], &[48, 96], 12, 16, 1024),
            "kub1024" => base(&[4, 4], &[32, 64], 8, 16, 1024),
            "hires" => base(&[4, 2, 2], &[64, 128, 256], 32, 64, 1024),
            "paper" => Self { channels: 3, ..base(&[4, 4, 4], &[128, 256, 512], 64, 256, 1024) },
            _ => return None,
        })
    }

    /// Pixels along one side of a token: image sides must be multiples of it (callers pad).
    pub fn stride(&self) -> usize {
        self.strides.iter().product()
    }

    /// Width of each decoder stage, in the decoder's order (from the tokens to the image).
    pub fn decoder_widths(&self) -> Vec<usize> {
        let coarse = self.widths.iter().rev().skip(1).copied();
        coarse.chain(std::iter::once(self.output_width)).collect()
    }

    /// Number of groups of a normalisation over `width` channels: four channels a group, 32 groups at most.
    pub fn groups(width: usize) -> usize {
        (width / 4).clamp(1, 32)
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
        check(
            !self.strides.is_empty() && self.strides.len() <= 6,
            format!("strides has {} stages, allowed are 1 to 6", self.strides.len()),
        );
        check(
            self.strides.len() == self.widths.len(),
            format!("strides has {} stages and widths {}", self.strides.len(), self.widths.len()),
        );
        for stride in &self.strides {
            check(matches!(stride, 2 | 4 | 8), format!("strides has {stride}, allowed are 2, 4 and 8"));
        }
        for &width in self.widths.iter().chain([&self.output_width]) {
            check(
                width % 4 == 0 && (4..=1024).contains(&width) && width % Self::groups(width) == 0,
                format!("a width is {width}, allowed are multiples of 4 up to 128 and of 32 up to 1024"),
            );
        }
        check((1..=1024).contains(&self.latent), format!("latent is {}, allowed is 1 to 1024", self.latent));
        check((2..=65_536).contains(&self.codes), format!("codes is {}, allowed is 2 to 65536", self.codes));
        check(self.middle_blocks <= 8, format!("middle_blocks is {}, allowed is 0 to 8", self.middle_blocks));
        check(
            (0.0..1.0).contains(&self.drop_path),
            format!("drop_path is {}, allowed is 0 to below 1", self.drop_path),
        );
        faults
    }
}

/// Weights of the terms of equation 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossWeights {
    /// Mean absolute error.
    pub absolute: f64,
    /// Mean squared error.
    pub squared: f64,
    /// Both quantisation terms together.
    pub quantisation: f64,
    /// α: encoder outputs towards their codes.
    pub commitment: f64,
    /// γ: codes towards encoder outputs.
    pub codebook: f64,
    /// Perceptual term, where a network for it is configured.
    pub perceptual: f64,
    /// Adversarial term, times VQGAN's adaptive weight.
    pub adversarial: f64,
}

/// From step `from_step` on, batches of `batch` random crops of `size` x `size` pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crops {
    /// First step with these crops.
    pub from_step: u64,
    /// Side in pixels; a multiple of the configuration's stride.
    pub size: usize,
    /// Crops per step.
    pub batch: usize,
}

/// How a HiResMed-VQGAN is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Weights of the loss terms.
    pub loss: LossWeights,
    /// Optimisation steps in all; the learning rate's cosine ends here.
    pub steps: u64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warm_up: u64,
    /// Whether the learning rate decays to a fiftieth along a cosine after the warm-up (else it is constant).
    pub cosine: bool,
    /// Adam's β.
    pub beta: (f64, f64),
    /// Adam's ε.
    pub epsilon: f64,
    /// Largest norm of the whole gradient, where it is clipped.
    pub clip_norm: Option<f64>,
    /// Standard deviation of a N(0, σ) initialisation of the convolutions (the paper's 0.02); Kaiming's uniform without.
    pub initial_deviation: Option<f64>,
    /// Decay of the running average of the weights that is exported.
    pub average_decay: f64,
    /// Crop sizes by step, ascending `from_step`, the first 0.
    pub crops: Vec<Crops>,
    /// Step at which the adversarial term starts, if ever.
    pub discriminator_start: Option<u64>,
    /// The discriminator's learning rate.
    pub discriminator_rate: f64,
    /// The discriminator's width.
    pub discriminator_width: usize,
    /// Steps without use after which a code is seeded anew.
    pub dead_after: u64,
    /// Whether crops are mirrored and turned by quarter turns at random.
    pub augment: bool,
}

impl Training {
    /// The training of a preset, or `None` for an unknown name (see [`PRESETS`]). `paper` has the paper's values; its
    /// 3,500 epochs are steps for a set of one thousand images at batch 8.
    pub fn preset(name: &str) -> Option<Self> {
        let base = |steps, size, batch| Self {
            loss: LossWeights {
                absolute: 1.0,
                squared: 1.0,
                quantisation: 0.1,
                commitment: 1.0,
                codebook: 0.33,
                perceptual: 0.0,
                adversarial: 0.0,
            },
            steps,
            learning_rate: 1e-3,
            warm_up: 50,
            cosine: true,
            beta: (0.9, 0.99),
            epsilon: 1e-8,
            clip_norm: Some(1.0),
            initial_deviation: None,
            average_decay: 0.995,
            crops: vec![Crops { from_step: 0, size, batch }],
            discriminator_start: None,
            discriminator_rate: 2e-4,
            discriminator_width: 32,
            dead_after: 20,
            augment: true,
        };
        Some(match name {
            "tiny" => Self { warm_up: 5, ..base(100, 32, 2) },
            "ct256" => base(4_000, 128, 8),
            "ct512" | "ct512-residual" => Self { crops: crops(11_600, 384), ..base(12_000, 192, 2) },
            "ct512-wide" => Self { crops: crops(4_400, 384), ..base(5_000, 192, 2) },
            "ct512-coarse" => {
                let base = base(3_000, 192, 2);
                Self {
                    loss: LossWeights { adversarial: 0.3, ..base.loss },
                    crops: crops(2_800, 384),
                    discriminator_start: Some(1_500),
                    discriminator_width: 16,
                    ..base
                }
            }
            "kub1024" => Self { crops: crops(1_700, 512), ..base(1_800, 192, 2) },
            "hires" => base(40_000, 512, 4),
            "paper" | "paper-residual" => Self {
                loss: LossWeights {
                    absolute: 1.0,
                    squared: 0.0,
                    quantisation: 1.0,
                    commitment: 1.0,
                    codebook: 0.33,
                    perceptual: 1.0,
                    adversarial: 0.8,
                },
                learning_rate: 2.25e-5,
                warm_up: 0,
                cosine: false,
                beta: (0.5, 0.9),
                clip_norm: None,
                initial_deviation: Some(0.02),
                discriminator_start: Some(10_000),
                discriminator_rate: 2.25e-5,
                discriminator_width: 64,
                dead_after: 100,
                augment: false,
                ..base(437_500, 1024, 8)
            },
            _ => return None,
        })
    }

    /// Crops of a step.
    pub fn crops_at(&self, step: u64) -> Option<Crops> {
        self.crops.iter().rev().find(|crops| crops.from_step <= step).copied()
    }

    /// Learning rate of a step (counted from 0).
    pub fn rate_at(&self, step: u64) -> f64 {
        if step < self.warm_up {
            return self.learning_rate * (step + 1) as f64 / self.warm_up as f64;
        }
        if !self.cosine {
            return self.learning_rate;
        }
        let share = (step - self.warm_up) as f64 / self.steps.saturating_sub(self.warm_up).max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * share.min(1.0)).cos());
        self.learning_rate * (0.02 + 0.98 * cosine)
    }

    /// Every fault of this training for `config`, each naming its field, the value and what is allowed.
    pub fn faults(&self, config: &Config) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        check(self.steps > 0, "steps is 0, allowed is 1 or more".into());
        check(
            self.learning_rate > 0.0 && self.learning_rate < 1.0,
            format!("learning_rate is {}, allowed is above 0, below 1", self.learning_rate),
        );
        check(
            (0.0..1.0).contains(&self.average_decay),
            format!("average_decay is {}, allowed is 0 to below 1", self.average_decay),
        );
        check(self.crops_at(0).is_some(), "crops has no entry with from_step 0".into());
        check(self.crops.is_sorted_by_key(|crops| crops.from_step), "crops is not in the order of from_step".into());
        for crops in &self.crops {
            let stride = config.stride().max(1);
            check(
                crops.size > 0 && crops.size % stride == 0,
                format!("a crop's size is {}, allowed are multiples of {stride}", crops.size),
            );
            check(crops.batch > 0, "a batch is 0, allowed is 1 or more".into());
        }
        check(
            self.discriminator_width.is_multiple_of(4) && self.discriminator_width > 0,
            format!("discriminator_width is {}, allowed are multiples of 4", self.discriminator_width),
        );
        faults
    }
}

/// Small crops, and from step `large` on those of `size`, whose statistics are nearer to those of whole slices: normalisations and
/// excitation average over what they are given.
fn crops(large: u64, size: usize) -> Vec<Crops> {
    vec![Crops { from_step: 0, size: 192, batch: 2 }, Crops { from_step: large, size, batch: 1 }]
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
    fn the_paper_s_preset_has_the_paper_s_values() {
        let (config, training) = (Config::preset("paper").unwrap(), Training::preset("paper").unwrap());
        assert_eq!((config.channels, config.stride(), config.codes, config.latent), (3, 64, 1024, 256));
        assert_eq!(config.widths, [128, 256, 512]);
        assert_eq!((training.learning_rate, training.beta, training.epsilon), (2.25e-5, (0.5, 0.9), 1e-8));
        assert_eq!((training.loss.commitment, training.loss.codebook), (1.0, 0.33));
        assert_eq!((training.crops[0].batch, training.initial_deviation), (8, Some(0.02)));
    }

    #[test]
    fn a_baseline_differs_in_its_blocks_alone() {
        for name in ["ct512", "paper"] {
            let residual = format!("{name}-residual");
            let expected = Config { block: Block::Residual, ..Config::preset(name).unwrap() };
            assert_eq!(Config::preset(&residual).unwrap(), expected);
            assert_eq!(Training::preset(&residual), Training::preset(name));
        }
        assert_eq!(Config::preset("tiny-residual"), None);
    }

    #[test]
    fn every_fault_is_listed() {
        let config = Config {
            strides: vec![3],
            widths: vec![6, 8],
            codes: 1,
            drop_path: 1.0,
            ..Config::preset("tiny").unwrap()
        };
        let text = config.faults().join("\n");
        for part in ["strides has 3", "1 stages and widths 2", "a width is 6", "codes is 1", "drop_path is 1"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let training = Training { steps: 0, crops: Vec::new(), ..Training::preset("tiny").unwrap() };
        let text = training.faults(&Config::preset("tiny").unwrap()).join("\n");
        assert!(text.contains("steps is 0") && text.contains("from_step 0"), "{text}");
    }

    #[test]
    fn the_learning_rate_warms_up_and_decays() {
        let training = Training { steps: 1000, warm_up: 10, learning_rate: 1.0, ..Training::preset("tiny").unwrap() };
        assert!((training.rate_at(0) - 0.1).abs() < 1e-12 && (training.rate_at(9) - 1.0).abs() < 1e-12);
        assert!((training.rate_at(10) - 1.0).abs() < 1e-12);
        assert!((training.rate_at(505) - 0.51).abs() < 1e-3);
        assert!((training.rate_at(1000) - 0.02).abs() < 1e-12 && (training.rate_at(2000) - 0.02).abs() < 1e-12);
    }

    #[test]
    fn crops_change_with_the_step() {
        let training = Training::preset("ct512").unwrap();
        assert_eq!(training.crops_at(11_599).unwrap().size, 192);
        assert_eq!(training.crops_at(11_600).unwrap().size, 384);
    }

    #[test]
    fn unknown_keys_are_refused() {
        let mut value = serde_json::to_value(Config::preset("tiny").unwrap()).unwrap();
        value["stride"] = 4.into();
        assert!(serde_json::from_value::<Config>(value).unwrap_err().to_string().contains("stride"));
    }
}
