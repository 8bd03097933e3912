//! What a detector is, and how it is trained.

use hiresmed_imaging::Window;
use serde::{Deserialize, Serialize};

use super::architecture::{Layer, layers};
use crate::rates::cosine_under_rise;

/// Added to a batch norm's variance.
pub(super) const EPSILON: f64 = 1e-3;

/// The grey that fills what an image does not cover, in [0, 1].
pub(super) const PADDING: f32 = 114.0 / 255.0;

/// Architecture of a YOLO11-shaped detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Kinds of lesion.
    pub classes: usize,
    /// Channels of the image; 1 for grey.
    pub channels: usize,
    /// Channels of the stem, of which all others are multiples: 16 in YOLO11n.
    pub width: usize,
    /// Inner blocks of each C3k2 and C2PSA: 1 in YOLO11n.
    pub repeats: usize,
    /// Bins of each of a box's four distances; the farthest is `bins - 1` strides away.
    pub bins: usize,
    /// Stride of the finest level, px: 8, or 4 for lesions of few pixels. The coarsest is 32.
    pub finest_stride: usize,
    /// Side of the square that an image is letterboxed into, px; a multiple of 32.
    pub side: usize,
}

impl Config {
    /// YOLO11n on one grey channel, with one class.
    pub const N: Self = Self { classes: 1, channels: 1, width: 16, repeats: 1, bins: 16, finest_stride: 8, side: 640 };

    /// Every fault that would keep this network from being built, empty when there is none.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |good: bool, fault: &str| {
            if !good {
                faults.push(fault.to_owned());
            }
        };
        check((1..=1000).contains(&self.classes), "classes must lie in 1..1000");
        check(matches!(self.channels, 1 | 3), "channels must be 1 or 3");
        check((4..=96).contains(&self.width) && self.width.is_multiple_of(4), "width must be a multiple of 4 in 4..96");
        check((1..=4).contains(&self.repeats), "repeats must lie in 1..4");
        check((2..=64).contains(&self.bins), "bins must lie in 2..64");
        check(matches!(self.finest_stride, 4 | 8), "finest_stride must be 4 or 8");
        check(
            (32..=4096).contains(&self.side) && self.side.is_multiple_of(32),
            "side must be a multiple of 32 px in 32..4096",
        );
        faults
    }

    /// Strides of the levels, px, finest first.
    pub fn strides(&self) -> impl Iterator<Item = usize> + use<> {
        [4, 8, 16, 32].into_iter().skip(usize::from(self.finest_stride != 4))
    }

    /// Channels of a head's box branch: a quarter of the finest level's, at least the bins' and 16.
    pub(super) fn box_width(&self) -> usize {
        (self.finest_width() / 4).max(4 * self.bins).max(16)
    }

    /// Channels of a head's class branch.
    pub(super) fn class_width(&self) -> usize {
        self.finest_width().max(self.classes.min(100))
    }

    fn finest_width(&self) -> usize {
        if self.finest_stride == 4 { 2 * self.width } else { 4 * self.width }
    }

    /// Centres `(x, y)` of the cells in pixels, each with its level's stride: row by row, level after level, as the graph's last
    /// axis has them. `side` is the image's.
    pub(super) fn cells(&self, side: usize) -> Vec<Cell> {
        let level = |stride: usize| {
            let count = side / stride;
            let centre = move |at: usize| (at as f32 + 0.5) * stride as f32;
            (0..count * count)
                .map(move |at| Cell { centre: (centre(at % count), centre(at / count)), stride: stride as f32 })
        };
        self.strides().flat_map(level).collect()
    }

    /// Trainable parameters: convolutions, the batch norms' scales and shifts, the outputs' biases.
    pub fn parameters(&self) -> usize {
        let count = |layer: &Layer| match layer {
            Layer::Normed(shape) => shape.to * (shape.from / shape.groups) * shape.kernel * shape.kernel + 2 * shape.to,
            Layer::Output { from, to } => from * to + to,
        };
        layers(self).iter().map(|(_, layer)| count(layer)).sum()
    }
}

/// A place at which the network may say that there is a lesion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cell {
    /// Its middle, px.
    pub centre: (f32, f32),
    /// Its side, px.
    pub stride: f32,
}

/// How a detector is trained: task-aligned assignment; binary cross-entropy, CIoU and distribution focal loss; AdamW; an
/// exponential mean of the weights, which is what is exported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// The network.
    pub config: Config,
    /// Range of real-world values that the network sees as [0, 1]; display values are taken as windowed.
    pub window: Window,
    /// Optimiser steps in all.
    pub steps: u64,
    /// Images per step.
    pub batch: usize,
    /// Side of the square that is cut out of each letterboxed image, px; a multiple of 32, at most the network's side.
    pub crop: usize,
    /// Highest learning rate; reached after `warm_up` steps, then a cosine to a hundredth.
    pub learning_rate: f64,
    /// Steps of warm-up.
    pub warm_up: u64,
    /// Share of the convolutions' weights that decays with each step of rate 1 (AdamW).
    pub weight_decay: f64,
    /// Decay of the mean of the weights; it comes up from 0 over about `mean_warm_up` steps.
    pub mean_decay: f64,
    /// Steps over which the mean's decay comes up.
    pub mean_warm_up: f64,
    /// Weight of the boxes' overlap (CIoU).
    pub overlap_weight: f64,
    /// Weight of the classes' cross-entropy.
    pub class_weight: f64,
    /// Weight of the distances' distribution focal loss.
    pub distance_weight: f64,
    /// Cells that answer for one lesion at most.
    pub cells_per_lesion: usize,
    /// Whether half of the images are mirrored left to right. Only for data whose sides mean nothing: elsewhere the heart has
    /// a side.
    pub mirror: bool,
    /// Random zoom: from 1 / this to this.
    pub zoom: f64,
    /// Random rotation, degrees, each way.
    pub rotation_degrees: f64,
    /// Random contrast (factor from 1 - this to 1 + this) and brightness (half of this either way), in units of [0, 1].
    pub intensity: f64,
    /// Largest standard deviation of added noise, in units of [0, 1].
    pub noise: f64,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            config: Config::N,
            window: Window::LUNG_CT,
            steps: 20_000,
            batch: 16,
            crop: 640,
            learning_rate: 1e-3,
            warm_up: 300,
            weight_decay: 0.05,
            mean_decay: 0.999,
            mean_warm_up: 500.0,
            overlap_weight: 7.5,
            class_weight: 0.5,
            distance_weight: 1.5,
            cells_per_lesion: 10,
            mirror: false,
            zoom: 1.4,
            rotation_degrees: 8.0,
            intensity: 0.2,
            noise: 0.03,
        }
    }
}

impl Training {
    /// Names that [`preset`](Self::preset) knows.
    pub const PRESETS: [&'static str; 3] = ["tiny", "stone", "n"];

    /// `tiny` (seconds, for tests), `stone` (what ships: small lesions, half an hour on two cores) or `n` (YOLO11n).
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "tiny" => Some(Self {
                config: Config { width: 4, bins: 8, finest_stride: 4, side: 64, ..Config::N },
                steps: 60,
                batch: 2,
                crop: 64,
                learning_rate: 5e-3,
                warm_up: 5,
                mean_decay: 0.95,
                mean_warm_up: 20.0,
                zoom: 1.1,
                rotation_degrees: 2.0,
                ..Self::default()
            }),
            "stone" => Some(Self {
                config: Config { width: 8, bins: 8, finest_stride: 4, side: 416, ..Config::N },
                steps: 1700,
                batch: 8,
                crop: 256,
                learning_rate: 2e-3,
                warm_up: 100,
                mean_decay: 0.998,
                mean_warm_up: 300.0,
                mirror: true,
                ..Self::default()
            }),
            "n" => Some(Self::default()),
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
        let window = self.window;
        check(
            window.low.is_finite() && window.high.is_finite() && window.low < window.high,
            "window.low must be below window.high",
        );
        check(self.steps >= 1 && self.batch >= 1, "steps and batch must be at least 1");
        check(
            self.crop >= 32 && self.crop.is_multiple_of(32) && self.crop <= self.config.side,
            "crop must be a multiple of 32 px and at most side",
        );
        check(self.learning_rate > 0.0 && self.learning_rate.is_finite(), "learning_rate must be above 0");
        check((0.0..=1.0).contains(&self.weight_decay), "weight_decay must lie in 0..1");
        check((0.0..1.0).contains(&self.mean_decay), "mean_decay must lie in 0..1");
        check(self.mean_warm_up > 0.0 && self.mean_warm_up.is_finite(), "mean_warm_up must be above 0");
        let weights = [self.overlap_weight, self.class_weight, self.distance_weight];
        check(weights.iter().all(|weight| (0.0..1e6).contains(weight)), "the losses' weights must not be negative");
        check(self.cells_per_lesion >= 1, "cells_per_lesion must be at least 1");
        check(self.zoom >= 1.0 && self.zoom <= 4.0, "zoom must lie in 1..4");
        check((0.0..=45.0).contains(&self.rotation_degrees), "rotation_degrees must lie in 0..45");
        check(
            (0.0..=1.0).contains(&self.intensity) && (0.0..=1.0).contains(&self.noise),
            "intensity and noise must lie in 0..1",
        );
        faults
    }

    /// Learning rate of `step`.
    pub fn rate(&self, step: u64) -> f64 {
        self.learning_rate * cosine_under_rise(step, self.warm_up, self.steps, 0.01)
    }

    /// Share of the mean of the weights that stays at the update after `step`.
    pub fn mean_share(&self, step: u64) -> f64 {
        self.mean_decay * (1.0 - (-((step + 1) as f64) / self.mean_warm_up).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yolo11n_has_the_published_number_of_parameters() {
        // 2,624,080 with 80 classes on colour, of which 16 are the fixed numbers of the bins.
        assert_eq!(Config { classes: 80, channels: 3, ..Config::N }.parameters(), 2_624_064);
    }

    #[test]
    fn parameter_count_by_hand() {
        // Convolution and norm: from x to x k² + 2 to. Widths 4, 8, 16, 32, 64 at strides 2 to 32.
        let conv = |from: usize, to: usize, kernel: usize| from * to * kernel * kernel + 2 * to;
        let depthwise = |width: usize| 9 * width + 2 * width;
        let bottleneck = |width: usize, hidden: usize| conv(width, hidden, 3) + conv(hidden, width, 3);
        let block = |from: usize, to: usize, width: usize| {
            conv(from, 2 * width, 1) + bottleneck(width, width / 2) + conv(3 * width, to, 1)
        };
        let nested = |from: usize, to: usize| {
            let (width, half) = (to / 2, to / 4);
            let inner = 2 * conv(width, half, 1) + 2 * bottleneck(half, half) + conv(2 * half, width, 1);
            conv(from, 2 * width, 1) + inner + conv(3 * width, to, 1)
        };
        let backbone = conv(1, 4, 3)
            + conv(4, 8, 3)
            + block(8, 16, 4)
            + conv(16, 16, 3)
            + block(16, 32, 8)
            + conv(32, 32, 3)
            + nested(32, 32)
            + conv(32, 64, 3)
            + nested(64, 64);
        let sppf = conv(64, 32, 1) + conv(128, 64, 1);
        // One head: 16 + 16 channels of queries and keys beside 32 of values.
        let attention = conv(32, 64, 1) + depthwise(32) + conv(32, 32, 1) + conv(32, 64, 1) + conv(64, 32, 1);
        let c2psa = conv(64, 64, 1) + attention + conv(64, 64, 1);
        let up = block(96, 32, 16) + block(64, 16, 8) + block(32, 8, 4);
        let down =
            conv(8, 8, 3) + block(24, 16, 8) + conv(16, 16, 3) + block(48, 32, 16) + conv(32, 32, 3) + nested(96, 64);
        // Eight bins: 32 channels of boxes; 8 of classes.
        let head = |width: usize| {
            conv(width, 32, 3)
                + conv(32, 32, 3)
                + (32 * 32 + 32)
                + depthwise(width)
                + conv(width, 8, 1)
                + depthwise(8)
                + conv(8, 8, 1)
                + (8 + 1)
        };
        let expected = backbone + sppf + c2psa + up + down + head(8) + head(16) + head(32) + head(64);
        assert_eq!(Training::preset("tiny").unwrap().config.parameters(), expected);
    }

    #[test]
    fn cells_go_row_by_row_from_the_finest_level() {
        let config = Config { side: 64, ..Config::N };
        let cells = config.cells(64);
        assert_eq!(cells.len(), 64 + 16 + 4);
        assert_eq!(Config::N.cells(640).len(), 8400, "as every YOLO11 export at 640");
        assert_eq!((cells[1].centre, cells[8].centre), ((12.0, 4.0), (4.0, 12.0)));
        assert_eq!((cells[64].centre, cells[83].centre), ((8.0, 8.0), (48.0, 48.0)));
    }

    #[test]
    fn faults_are_listed_together() {
        let config = Config { width: 6, side: 100, classes: 0, ..Config::N };
        let faults = Training { config, batch: 0, zoom: 0.5, ..Training::default() }.faults();
        assert_eq!(faults.len(), 6, "{faults:?}");
        for preset in Training::PRESETS {
            assert!(Training::preset(preset).is_some_and(|training| training.faults().is_empty()));
        }
    }

    #[test]
    fn the_rate_warms_up_and_falls_and_the_mean_comes_up() {
        let training = Training::default();
        assert!(training.rate(0) < training.rate(299));
        assert!(training.rate(19_999) < 0.02 * training.learning_rate);
        assert!(training.mean_share(0) < 0.01 && training.mean_share(10_000) > 0.9989);
    }
}
