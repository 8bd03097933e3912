//! What a SinGAN is (saved beside its weights) and how it is trained.

use super::stop::Stop;
use serde::{Deserialize, Serialize};

/// Version of the recipe of lesion models, preset `lesion` and everything that trains by it: to be raised whenever the same exemplar
/// and seed would give a model worth having anew. Models of a site's own exemplars are named by it, and are trained again when they are
/// next asked for. `hiresmed_protocol::request::EXEMPLAR_RECIPE` is raised with it, since the coordinator does not see this crate.
///
/// 1: three critic and three generator steps an iteration, 250 iterations a scale. 2: one and one, reconstruction weight 30, at most 500
/// iterations a scale and a measured early stop.
pub const RECIPE: u32 = 2;

/// Kernel side of every convolution; five of them see 11 x 11 pixels.
pub const KERNEL: usize = 3;
/// Convolutions of a generator or a critic.
pub const LAYERS: usize = 5;
/// Padding, put once on a scale's input: five valid 3 x 3 convolutions take it away again.
pub const PADDING: usize = LAYERS * (KERNEL - 1) / 2;
/// Image and lesion mask: what a lesion's model learns.
pub const CHANNELS: usize = 2;
/// The image alone: what a whole image's model learns.
pub const WHOLE_CHANNELS: usize = 1;

const fn image_and_mask() -> usize {
    CHANNELS
}

const fn is_image_and_mask(channels: &usize) -> bool {
    *channels == CHANNELS
}

/// Architecture of one SinGAN: its pyramid and its widths. One scale has one generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[height, width]` of every scale in pixels, coarse to fine; the last is the exemplar's own.
    pub sizes: Vec<[usize; 2]>,
    /// Width (channels between convolutions) of every scale.
    pub widths: Vec<usize>,
    /// Weight of a scale's noise against its input; 1 at scale 0, learned from the residual above. Empty before training.
    pub noise_amplitudes: Vec<f32>,
    /// [`CHANNELS`], or [`WHOLE_CHANNELS`] where a whole image was learned, which has no lesion: what follows is then 0.
    #[serde(default = "image_and_mask", skip_serializing_if = "is_image_and_mask")]
    pub channels: usize,
    /// Longest in-plane diameter of the exemplar's lesion mask at the finest scale, px.
    pub lesion_diameter_px: f32,
    /// Area of the exemplar's lesion mask at the finest scale, px.
    pub lesion_area_px: f32,
    /// Value of the mask channel above which a pixel belongs to the lesion, in [-1, 1].
    pub mask_threshold: f32,
}

/// How the pyramid is laid out and trained; the defaults are the published ones (preset `paper`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// Shorter side of the coarsest scale, px. A smaller exemplar is up-sampled to it first.
    pub coarsest_side: usize,
    /// Longer sides above this are reduced to it, px.
    pub longest_side: usize,
    /// Wanted factor between scales; recomputed so that the coarsest side is hit exactly.
    pub factor: f64,
    /// Width of the first four scales; doubles every four scales.
    pub width: usize,
    /// Largest width.
    pub width_max: usize,
    /// Iterations per scale, each of `critic_steps` and then `generator_steps`; the most of them where there is a `stop`.
    pub iterations: u64,
    /// When a scale ends before its last iteration; `null` for never, as published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Critic steps per iteration.
    pub critic_steps: u32,
    /// Generator steps per iteration.
    pub generator_steps: u32,
    /// Adam's learning rate, both networks.
    pub learning_rate: f64,
    /// Share of a scale's iterations after which the learning rate falls to a tenth.
    pub decay_at: f64,
    /// Weight of the gradient penalty (lambda of WGAN-GP).
    pub penalty: f64,
    /// Weight of the reconstruction loss (alpha of equation 13).
    pub reconstruction: f64,
    /// noise_amp = this x RMSE(real, up-sampled reconstruction).
    pub noise: f64,
    /// Whether scale 0 reconstructs the exemplar from a new noise map in every iteration instead of one fixed map. With few
    /// iterations a fixed map is memorised, and other noise then gives no lesion.
    pub fresh_reconstruction: bool,
    /// Name of the exemplar in a data folder that holds several.
    pub exemplar: Option<String>,
    /// Whether a whole image is learned, without a mask: the baseline of table 2, which draws no lesions.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            coarsest_side: 25,
            longest_side: 250,
            factor: 0.75,
            width: 32,
            width_max: 128,
            iterations: 2000,
            stop: None,
            critic_steps: 3,
            generator_steps: 3,
            learning_rate: 5e-4,
            decay_at: 0.8,
            penalty: 0.1,
            reconstruction: 10.0,
            noise: 0.1,
            fresh_reconstruction: false,
            exemplar: None,
            whole: false,
        }
    }
}

impl Training {
    /// Names that [`preset`](Self::preset) knows.
    pub const PRESETS: [&'static str; 5] = ["tiny", "lesion", "paper", "whole", "whole-paper"];

    /// `tiny` (seconds, for tests), `lesion` (a minute or some on two CPU cores; see [`RECIPE`]) or `paper` (2,000 iterations a scale);
    /// of a whole image `whole` (128 px, for two CPU cores) or `whole-paper` (250 px, as published).
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "tiny" => Some(Self { width: 4, width_max: 8, iterations: 2, ..Self::default() }),
            "lesion" => Some(Self {
                iterations: 500,
                stop: Some(Stop { window: 50, tolerance: 0.1, least: 100 }),
                critic_steps: 1,
                generator_steps: 1,
                decay_at: 0.9,
                reconstruction: 30.0,
                fresh_reconstruction: true,
                ..Self::default()
            }),
            "paper" => Some(Self::default()),
            "whole" => Some(Self {
                longest_side: 128,
                iterations: 500,
                stop: Some(Stop { window: 50, tolerance: 0.1, least: 200 }),
                critic_steps: 1,
                generator_steps: 1,
                decay_at: 0.9,
                whole: true,
                ..Self::default()
            }),
            "whole-paper" => Some(Self { whole: true, ..Self::default() }),
            _ => None,
        }
    }

    /// Size that an exemplar of `height` x `width` px is brought to: its shorter side at least the coarsest side, its longer
    /// side at most the longest side where both can be had.
    pub fn working_size(&self, [height, width]: [usize; 2]) -> [usize; 2] {
        let (shorter, longer) = (height.min(width) as f64, height.max(width) as f64);
        let scale = (self.longest_side as f64 / longer).min(1.0).max(self.coarsest_side as f64 / shorter);
        [height, width].map(|side| ((side as f64 * scale).round() as usize).max(self.coarsest_side))
    }

    /// `[height, width]` of every scale for an exemplar of `size`, coarse to fine; the last is [`working_size`](Self::working_size).
    ///
    /// The factor is recomputed as (coarsest / shorter)^(1 / last scale), so the coarsest shorter side is met exactly.
    pub fn pyramid(&self, size: [usize; 2]) -> Vec<[usize; 2]> {
        let size = self.working_size(size);
        let shorter = size[0].min(size[1]) as f64;
        let ratio = self.coarsest_side as f64 / shorter;
        if ratio >= 1.0 {
            return vec![size];
        }
        // As in the published recipe: one scale more than the wanted factor needs.
        let last = (ratio.ln() / self.factor.ln()).ceil() as i32 + 1;
        let factor = ratio.powf(1.0 / f64::from(last));
        (0..=last)
            .map(|scale| {
                let shrink = factor.powi(last - scale);
                // The subtraction keeps 25.000000001 from becoming 26.
                size.map(|side| (side as f64 * shrink - 1e-6).ceil() as usize)
            })
            .collect()
    }

    /// Width of `scale`: min(width x 2^(scale / 4), width_max).
    pub fn width_of(&self, scale: usize) -> usize {
        (self.width << (scale / 4).min(16)).min(self.width_max)
    }

    /// Iteration of a scale from which the rate is a tenth where nothing stopped it before.
    pub fn late_from(&self) -> u64 {
        (self.decay_at * self.iterations as f64).ceil() as u64
    }

    /// Every fault of these settings, empty when they can be trained.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |good: bool, fault: &str| {
            if !good {
                faults.push(fault.to_owned());
            }
        };
        check(self.coarsest_side > PADDING * 2, "coarsest_side must be at least 11 (the networks see 11 pixels)");
        check(self.longest_side >= self.coarsest_side, "longest_side must not be under coarsest_side");
        check(self.factor > 0.0 && self.factor < 1.0, "factor must lie between 0 and 1");
        check(self.width >= 1 && self.width_max >= self.width, "width must be at least 1 and at most width_max");
        check(self.iterations >= 1, "iterations must be at least 1");
        check(
            self.critic_steps >= 1 && self.generator_steps >= 1,
            "critic_steps and generator_steps must be at least 1",
        );
        check(self.learning_rate > 0.0 && self.learning_rate.is_finite(), "learning_rate must be above 0");
        check((0.0..=1.0).contains(&self.decay_at), "decay_at must lie in 0..1");
        faults.extend(self.stop.iter().flat_map(|stop| stop.faults(self.iterations)));
        faults
    }
}

impl Config {
    /// Number of scales.
    pub fn scales(&self) -> usize {
        self.sizes.len()
    }

    /// `[height, width]` of the finest scale.
    pub fn finest(&self) -> [usize; 2] {
        self.sizes.last().copied().unwrap_or([0, 0])
    }

    /// Every fault that would keep this configuration from being sampled, empty when there is none.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.sizes.is_empty() {
            faults.push("sizes is empty: a SinGAN has at least one scale".to_owned());
        }
        for (name, length) in [("widths", self.widths.len()), ("noise_amplitudes", self.noise_amplitudes.len())] {
            if length != self.sizes.len() {
                faults.push(format!("{name} has {length} entries for {} scales", self.sizes.len()));
            }
        }
        if self.noise_amplitudes.iter().any(|value| !value.is_finite() || *value < 0.0) {
            faults.push("noise_amplitudes must be finite and not negative".to_owned());
        }
        if ![WHOLE_CHANNELS, CHANNELS].contains(&self.channels) {
            faults.push(format!("channels is {}: 2 are image and mask, 1 is a whole image", self.channels));
        }
        if self.channels == CHANNELS && !(self.lesion_diameter_px > 0.0 && self.lesion_area_px > 0.0) {
            faults.push("lesion_diameter_px and lesion_area_px must be above 0".to_owned());
        }
        if !(-1.0..=1.0).contains(&self.mask_threshold) {
            faults.push("mask_threshold must lie in -1..1".to_owned());
        }
        faults
    }

    /// Trainable parameters of all generators.
    pub fn parameters(&self) -> usize {
        self.widths.iter().map(|&width| generator_parameters(width, self.channels)).sum()
    }
}

/// Trainable parameters of one generator: convolutions with bias, the norms' scale and shift.
pub fn generator_parameters(width: usize, channels: usize) -> usize {
    let area = KERNEL * KERNEL;
    let convolution = |from: usize, to: usize| from * to * area + to;
    convolution(channels, width)
        + (LAYERS - 2) * convolution(width, width)
        + (LAYERS - 1) * 2 * width
        + convolution(width, channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(side: usize) -> Vec<usize> {
        Training::default().pyramid([side, side]).iter().map(|size| size[0]).collect()
    }

    #[test]
    fn pyramids_start_at_25_and_end_at_the_exemplar() {
        assert_eq!(sides(64), [25, 31, 37, 44, 54, 64]);
        assert_eq!(sides(44), [25, 31, 37, 44]);
        assert_eq!(sides(250).len(), 11);
        assert_eq!(sides(400).last(), Some(&250));
        assert_eq!(sides(25), [25]);
    }

    #[test]
    fn a_crop_under_25_pixels_is_upsampled_first() {
        let pyramid = Training::default().pyramid([12, 24]);
        assert_eq!(pyramid, [[25, 50]]);
    }

    #[test]
    fn widths_double_every_four_scales_up_to_the_largest() {
        let training = Training::default();
        assert_eq!(
            (0..13).map(|n| training.width_of(n)).collect::<Vec<_>>(),
            [32, 32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 128, 128]
        );
    }

    #[test]
    fn parameter_count_by_hand() {
        // 2 -> 32: 576 + 32; three of 32 -> 32: 9,216 + 32; four norms of 64; 32 -> 2: 576 + 2.
        assert_eq!(generator_parameters(32, 2), 608 + 3 * 9_248 + 4 * 64 + 578);
        assert_eq!(generator_parameters(64, 2), 1_216 + 3 * 36_928 + 4 * 128 + 1_154);
        // 1 -> 32: 288 + 32; 32 -> 1: 288 + 1.
        assert_eq!(generator_parameters(32, 1), 320 + 3 * 9_248 + 4 * 64 + 289);
    }

    #[test]
    fn a_changed_recipe_has_another_version() {
        // Where this fails, raise RECIPE, and EXEMPLAR_RECIPE of the protocol: models of exemplars are trained anew.
        let recipe = serde_json::to_value(Training::preset("lesion").unwrap()).unwrap();
        let expected = serde_json::json!({
            "coarsest_side": 25, "longest_side": 250, "factor": 0.75, "width": 32, "width_max": 128, "iterations": 500,
            "stop": { "window": 50, "tolerance": 0.1, "least": 100 }, "critic_steps": 1, "generator_steps": 1,
            "learning_rate": 5e-4, "decay_at": 0.9, "penalty": 0.1, "reconstruction": 30.0, "noise": 0.1,
            "fresh_reconstruction": true, "exemplar": null,
        });
        assert_eq!((RECIPE, recipe), (2, expected));
    }

    #[test]
    fn an_unknown_key_of_the_stop_is_refused() {
        let read = |text: &str| serde_json::from_str::<Training>(text).map_err(|error| error.to_string());
        let stop = read(r#"{ "stop": { "window": 5, "tolerance": 0.2, "least": 9 } }"#).unwrap().stop;
        assert_eq!(stop, Some(Stop { window: 5, tolerance: 0.2, least: 9 }));
        assert!(
            read(r#"{ "stop": { "window": 5, "tolerance": 0.2, "least": 9, "most": 3 } }"#)
                .unwrap_err()
                .contains("most")
        );
        let bad = Stop { window: 0, tolerance: 1.0, least: 2_001 };
        assert_eq!(Training { stop: Some(bad), ..Training::default() }.faults().len(), 3);
    }

    #[test]
    fn faults_are_listed_together() {
        let training = Training { coarsest_side: 5, factor: 1.5, iterations: 0, ..Training::default() };
        assert_eq!(training.faults().len(), 3);
        for preset in Training::PRESETS {
            assert!(Training::preset(preset).is_some_and(|training| training.faults().is_empty()));
        }
    }
}
