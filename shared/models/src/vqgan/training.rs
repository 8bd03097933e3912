//! How a VQGAN is trained ([`Training`]); it travels with the weights.

use serde::{Deserialize, Serialize};

use super::{
    augmentation::{Anatomy, Augmentation},
    config::Config,
};
use crate::rates::rise_then_cosine;

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

/// Precision of the convolutions, the linear algebra of a training. Weights, gradients, moments, normalisations, quantiser, losses and
/// the layers that end encoder and decoder are f32 always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// bfloat16, on a CUDA device; on the CPU the same as [`F32`](Self::F32).
    Bf16,
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
    /// Whether each block's last convolution begins at zero, so that the network begins without its blocks and lets in what they learn
    /// (as the last γ of each block in Goyal et al. 2017, arXiv:1706.02677).
    #[serde(default)]
    pub blocks_from_zero: bool,
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
    /// Variants of what is drawn.
    pub augment: Augmentation,
    /// Whether the backward pass makes activations again instead of keeping them: a third more time, a fraction of the memory.
    #[serde(default)]
    pub checkpointing: bool,
    /// Precision of the convolutions on a CUDA device.
    #[serde(default)]
    pub precision: Precision,
}

impl Training {
    /// The training of a preset, or `None` for an unknown name (see [`PRESETS`](super::PRESETS)). `paper` has the paper's values; its
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
            blocks_from_zero: false,
            average_decay: 0.995,
            crops: vec![Crops { from_step: 0, size, batch }],
            discriminator_start: None,
            discriminator_rate: 2e-4,
            discriminator_width: 32,
            dead_after: 20,
            augment: Augmentation::Square,
            checkpointing: false,
            precision: Precision::F32,
        };
        Some(match name {
            "tiny" => Self { warm_up: 5, ..base(100, 32, 2) },
            "ct256" => base(4_000, 128, 8),
            "ct512" | "ct512-residual" => Self { crops: crops(11_600, 384), ..base(12_000, 192, 2) },
            "ct512-light" => Self { blocks_from_zero: true, crops: crops(11_600, 384), ..base(12_000, 192, 2) },
            "ct512-wide" => Self { crops: crops(4_400, 384), ..base(5_000, 192, 2) },
            "ct512-coarse" => Self { crops: crops(1_400, 384), discriminator_width: 16, ..base(1_500, 192, 2) },
            "kub1024" => Self { crops: crops(1_700, 512), ..base(1_800, 192, 2) },
            "hires" => {
                Self { augment: Augmentation::Anatomy(Anatomy::default()), checkpointing: true, ..base(40_000, 512, 4) }
            }
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
                augment: Augmentation::None,
                checkpointing: true,
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
        let least = if self.cosine { 0.02 } else { 1.0 };
        self.learning_rate * rise_then_cosine(step, self.warm_up, self.steps, least)
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
        if let Augmentation::Anatomy(anatomy) = &self.augment {
            faults.extend(anatomy.faults());
        }
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
}
