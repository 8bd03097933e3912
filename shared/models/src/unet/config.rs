//! What a danger-zone U-Net is, and how it is trained.

#[cfg(any(test, feature = "training"))]
use hiresmed_imaging::Plane;
use serde::{Deserialize, Serialize};

use crate::rates::cosine_under_rise;

/// Architecture of a U-Net with one output: the logit of "a lesion may be here".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Channels of each level, finest first; every level halves the image.
    pub widths: Vec<usize>,
    /// Side of the square that an image is resampled to, px; a multiple of 2^(levels - 1).
    pub side: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { widths: vec![16, 32, 64, 128], side: 256 }
    }
}

impl Config {
    /// Every fault that would keep this network from being built, empty when there is none.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.widths.is_empty() || self.widths.iter().any(|width| *width < 4 || !width.is_multiple_of(groups(*width)))
        {
            faults.push(
                "widths must be at least 4 each and divisible by their number of groups, min(8, width / 4)".to_owned(),
            );
        }
        let step = 1usize << self.widths.len().saturating_sub(1).min(16);
        if self.side == 0 || !self.side.is_multiple_of(step) {
            faults.push(format!("side must be a multiple of {step} px"));
        }
        faults
    }

    /// Trainable parameters: convolutions without bias, group norms, transposed convolutions and the output with bias.
    pub fn parameters(&self) -> usize {
        let pair = |from: usize, to: usize| 9 * from * to + 2 * to + 9 * to * to + 2 * to;
        let down: usize = self
            .widths
            .iter()
            .enumerate()
            .map(|(at, &width)| pair(if at == 0 { 1 } else { self.widths[at - 1] }, width))
            .sum();
        let up: usize = self
            .widths
            .windows(2)
            .map(|pair_of| 4 * pair_of[1] * pair_of[0] + pair_of[0] + pair(2 * pair_of[0], pair_of[0]))
            .sum();
        down + up + self.widths.first().map_or(0, |width| width + 1)
    }
}

/// Groups of the norm over `width` channels.
pub(super) fn groups(width: usize) -> usize {
    (width / 4).clamp(1, 8)
}

/// How a U-Net is trained: Dice + binary cross-entropy with the permissible class as Dice's foreground, Adam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// The network.
    pub config: Config,
    /// Optimiser steps in all.
    pub steps: u64,
    /// Images per step.
    pub batch: usize,
    /// Highest learning rate; reached after `warm_up` steps, then a cosine to a hundredth.
    pub learning_rate: f64,
    /// Steps of warm-up.
    pub warm_up: u64,
    /// Grey values of an 8-bit mask that are forbidden, where masks hold labels: every other label is permissible, and so is what has
    /// none. Without any a mask is permissible where it is brighter than the middle of its range.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forbidden: Vec<u8>,
    /// Whether images are mirrored at random, along both axes.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub mirror: bool,
    /// Random zoom: from 1 / this to this.
    pub zoom: f64,
    /// Random shift, share of the side, each way.
    pub shift: f64,
    /// Random rotation, degrees, each way.
    pub rotation_degrees: f64,
    /// Random contrast (factor from 1 - this to 1 + this) and brightness (this either way), in units of [-1, 1].
    pub intensity: f64,
    /// Largest standard deviation of added noise, in units of [-1, 1].
    pub noise: f64,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            config: Config::default(),
            steps: 400,
            batch: 4,
            learning_rate: 3e-3,
            warm_up: 20,
            forbidden: Vec::new(),
            mirror: true,
            zoom: 1.5,
            shift: 0.12,
            rotation_degrees: 15.0,
            intensity: 0.2,
            noise: 0.12,
        }
    }
}

impl Training {
    /// Names that [`preset`](Self::preset) knows.
    pub const PRESETS: [&'static str; 3] = ["tiny", "lung", "kub"];

    /// `tiny` (seconds, for tests), `lung` or `kub` (what ships).
    ///
    /// The masks of `kub` hold a sum for each pixel: 1 in a kidney, 2 in the bladder, 4 in bone. Bone is forbidden unless a kidney or
    /// the bladder lies over it in the projection. A radiograph has a top and a left: it is never mirrored.
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "tiny" => Some(Self {
                config: Config { widths: vec![4, 8], side: 32 },
                steps: 60,
                batch: 2,
                learning_rate: 1e-2,
                warm_up: 2,
                ..Self::default()
            }),
            "lung" => Some(Self::default()),
            "kub" => {
                Some(Self { forbidden: vec![4], mirror: false, zoom: 1.25, rotation_degrees: 8.0, ..Self::default() })
            }
            _ => None,
        }
    }

    /// Every fault of these settings, empty when they can be trained.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.config.faults();
        let mut check = |good: bool, fault: &str| {
            if !good {
                faults.push(fault.to_owned());
            }
        };
        check(self.steps >= 1 && self.batch >= 1, "steps and batch must be at least 1");
        check(self.learning_rate > 0.0 && self.learning_rate.is_finite(), "learning_rate must be above 0");
        check(self.zoom >= 1.0 && self.zoom <= 4.0, "zoom must lie in 1..4");
        check((0.0..=0.5).contains(&self.shift), "shift must lie in 0..0.5");
        check(
            (0.0..=1.0).contains(&self.intensity) && (0.0..=1.0).contains(&self.noise),
            "intensity and noise must lie in 0..1",
        );
        faults
    }

    /// `mask`, normalised to [-1, 1], as -1 where a lesion may not be and 1 where it may.
    #[cfg(any(test, feature = "training"))]
    pub fn permissible(&self, mask: &Plane) -> Plane {
        if self.forbidden.is_empty() {
            return mask.clone();
        }
        let label = |value: f32| ((value + 1.0) * 127.5).round() as u8;
        let allowed = |&value: &f32| if self.forbidden.contains(&label(value)) { -1.0 } else { 1.0 };
        Plane::new(mask.width(), mask.height(), mask.data().iter().map(allowed).collect())
    }

    /// Learning rate of `step`.
    pub fn rate(&self, step: u64) -> f64 {
        self.learning_rate * cosine_under_rise(step, self.warm_up, self.steps, 0.01)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_count_by_hand() {
        // Level 0: 1 -> 4 (36 + 8) and 4 -> 4 (144 + 8); level 1: 4 -> 8 (288 + 16) and 8 -> 8 (576 + 16).
        let down = 44 + 152 + 304 + 592;
        // Up: transposed 8 -> 4, 2 x 2 (128 + 4); 8 -> 4 (288 + 8) and 4 -> 4 (144 + 8). Output: 4 + 1.
        let up = 132 + 296 + 152 + 5;
        assert_eq!(Config { widths: vec![4, 8], side: 32 }.parameters(), down + up);
    }

    #[test]
    fn several_labels_become_one_forbidden_region() {
        let labels = [0u8, 1, 2, 4, 5, 6];
        let mask = Plane::new(6, 1, labels.map(|label| f32::from(label) / 127.5 - 1.0).to_vec());
        let permissible = |forbidden: Vec<u8>| Training { forbidden, ..Training::default() }.permissible(&mask);
        assert_eq!(permissible(vec![4]).data(), [1.0, 1.0, 1.0, -1.0, 1.0, 1.0]);
        assert_eq!(permissible(vec![0, 4, 6]).data(), [-1.0, 1.0, 1.0, -1.0, 1.0, -1.0]);
        assert_eq!(permissible(Vec::new()), mask);
        // Checkpoints of trainings that know neither setting go on.
        let text = serde_json::to_string(&Training::default()).unwrap();
        assert!(!text.contains("forbidden") && !text.contains("mirror"), "{text}");
    }

    #[test]
    fn faults_are_listed_together() {
        let config = Config { widths: vec![16, 2], side: 255 };
        assert_eq!(Training { config, batch: 0, zoom: 0.5, ..Training::default() }.faults().len(), 4);
        for preset in Training::PRESETS {
            assert!(Training::preset(preset).is_some_and(|training| training.faults().is_empty()));
        }
    }

    #[test]
    fn the_rate_warms_up_and_falls() {
        let training = Training::default();
        assert!(training.rate(0) < training.rate(19));
        assert!(training.rate(399) < 0.02 * training.learning_rate);
    }
}
