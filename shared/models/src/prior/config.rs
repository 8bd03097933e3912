//! What a token prior is ([`Config`]), how it is trained ([`Training`]), and what a package of one says of itself ([`Packaged`]).

use serde::{Deserialize, Serialize};

use super::sampling::Sampling;
use crate::rates::rise_then_cosine;

/// The presets' names, smallest first.
pub const PRESETS: [&str; 6] = ["tiny", "tiny-autoregressive", "ct512", "ct512-coarse", "kub1024", "paper"];

/// What the transformer learns to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Each token from those before it in raster order (Esser et al. 2021, VQGAN): one step a token, for maps of some hundreds.
    Autoregressive,
    /// Hidden tokens from the visible ones (Chang et al. 2022, MaskGIT): a dozen steps for a map of any size.
    Masked,
}

/// The architecture. Everything that determines the parameters' names and shapes is here, and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is predicted from what.
    pub objective: Objective,
    /// Rows of the token map.
    pub rows: usize,
    /// Tokens of a row.
    pub columns: usize,
    /// Codes of the autoencoder, K. A training takes over the autoencoder's own where its settings do not say.
    pub codes: usize,
    /// Side of the square of tokens that one position of the transformer stands for; 1 where it is autoregressive.
    pub patch: usize,
    /// Width of a token's own features, e.
    pub embedding: usize,
    /// Convolutional blocks among the tokens, before the transformer and again after it; 0 where it is autoregressive, since
    /// they see tokens that come later.
    pub local_blocks: usize,
    /// Width of the transformer, w; a multiple of `heads`.
    pub width: usize,
    /// Blocks of the transformer.
    pub layers: usize,
    /// Heads of its attention.
    pub heads: usize,
    /// Modalities that can be asked for, in lower case as in DICOM (0008,0060).
    pub modalities: Vec<String>,
    /// Views that can be asked for, such as `axial`.
    pub views: Vec<String>,
}

impl Config {
    /// The architecture of a preset, or `None` for an unknown name (see [`PRESETS`]).
    ///
    /// `ct512` is over the 128 x 128 tokens of the shipped autoencoder: 16 x 16 positions of 8 x 8 tokens each decide the
    /// anatomy, convolutions among the tokens the texture; attention among all 16,384 tokens would cost four thousand times as
    /// much. `ct512-coarse` and `kub1024` are over the 32 x 32 and 64 x 64 tokens of the autoencoders of these names, at as many
    /// positions: what ships, since tens of images are enough for it. `paper` is the large transformer of VQGAN's authors over the 16 x 16 tokens of the paper's autoencoder.
    pub fn preset(name: &str) -> Option<Self> {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let masked = Self {
            objective: Objective::Masked,
            rows: 128,
            columns: 128,
            codes: 1024,
            patch: 8,
            embedding: 40,
            local_blocks: 2,
            width: 160,
            layers: 4,
            heads: 5,
            modalities: texts(&["ct"]),
            views: texts(&["axial", "coronal", "sagittal"]),
        };
        let tiny = Self {
            rows: 8,
            columns: 8,
            codes: 32,
            patch: 2,
            embedding: 8,
            local_blocks: 1,
            width: 16,
            layers: 2,
            heads: 2,
            ..masked.clone()
        };
        let by_one = |config: Self| Self { objective: Objective::Autoregressive, patch: 1, local_blocks: 0, ..config };
        Some(match name {
            "tiny" => tiny,
            "tiny-autoregressive" => by_one(tiny),
            "ct512" => masked,
            "ct512-coarse" => Self { rows: 32, columns: 32, patch: 2, width: 192, layers: 5, heads: 6, ..masked },
            "kub1024" => Self {
                rows: 64,
                columns: 64,
                patch: 4,
                width: 192,
                heads: 6,
                modalities: texts(&["dx"]),
                views: texts(&["ap"]),
                ..masked
            },
            "paper" => by_one(Self {
                rows: 16,
                columns: 16,
                embedding: 1024,
                width: 1024,
                layers: 24,
                heads: 16,
                modalities: texts(&["ct", "dx", "cr"]),
                views: texts(&["axial", "coronal", "sagittal", "ap", "pa", "ll"]),
                ..masked
            }),
            _ => return None,
        })
    }

    /// Tokens of a map.
    pub fn tokens(&self) -> usize {
        self.rows * self.columns
    }

    /// Positions of the transformer.
    pub fn positions(&self) -> usize {
        self.tokens() / (self.patch * self.patch).max(1)
    }

    /// Width of one attention head.
    pub fn head_width(&self) -> usize {
        self.width / self.heads.max(1)
    }

    /// Trainable parameters.
    pub fn parameters(&self) -> usize {
        let (codes, e, w, patch) = (self.codes, self.embedding, self.width, self.patch * self.patch * self.embedding);
        let conditions = (self.modalities.len() + 1 + self.views.len() + 1) * w;
        // Depth-wise 5 x 5 (25 e + e), norm (2 e), to twice the width (2 e² + 2 e) and back (2 e² + e).
        let local = 2 * self.local_blocks * (4 * e * e + 31 * e);
        // Two norms (4 w), query, key and value (3 w² + 3 w), projection (w² + w), to four times the width (4 w² + 4 w) and back.
        let block = 12 * w * w + 13 * w;
        (codes + 1) * e
            + conditions
            + local
            + (patch * w + w)
            + self.positions() * w
            + self.layers * block
            + 2 * w
            + (w * patch + patch)
            + 2 * e
            + (e * codes + codes)
    }

    /// The index of a modality or view in its list, counted from 1; 0 where it is not stated, `None` where it is unknown.
    pub(super) fn index(list: &[String], stated: Option<&str>) -> Option<i64> {
        let Some(stated) = stated else { return Some(0) };
        list.iter().position(|known| known.eq_ignore_ascii_case(stated)).map(|at| at as i64 + 1)
    }

    /// Every fault of this configuration, each naming its field, the value and what is allowed.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        for (name, value, most) in [
            ("rows", self.rows, 1024),
            ("columns", self.columns, 1024),
            ("codes", self.codes, 65_536),
            ("patch", self.patch, 64),
            ("embedding", self.embedding, 4096),
            ("width", self.width, 8192),
            ("layers", self.layers, 128),
            ("heads", self.heads, 128),
        ] {
            check((1..=most).contains(&value), format!("{name} is {value}, allowed is 1 to {most}"));
        }
        check(self.local_blocks <= 16, format!("local_blocks is {}, allowed is 0 to 16", self.local_blocks));
        check(
            self.heads > 0 && self.width.is_multiple_of(self.heads.max(1)),
            format!("width is {}, allowed are multiples of heads, {}", self.width, self.heads),
        );
        let patch = self.patch.max(1);
        check(
            self.rows.is_multiple_of(patch) && self.columns.is_multiple_of(patch),
            format!("patch is {patch}, which does not divide {} x {} tokens", self.rows, self.columns),
        );
        check(
            self.objective == Objective::Masked || (self.patch == 1 && self.local_blocks == 0),
            "patch and local_blocks must be 1 and 0 where the objective is autoregressive".to_owned(),
        );
        check(
            self.positions() <= 16_384,
            format!("there are {} positions, allowed are 16384; give a larger patch", self.positions()),
        );
        faults
    }
}

/// How a token prior is trained: cross-entropy of the predicted tokens, AdamW, a running average of the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Optimisation steps in all; the learning rate's cosine ends here.
    pub steps: u64,
    /// Images per step.
    pub batch: usize,
    /// Times that each of them is learned from in a step, other tokens hidden (or corrupted) each time: encoding an image costs
    /// about as much as a step of a small transformer over its tokens.
    pub repeats: usize,
    /// Random geometries of each image, each encoded once and its tokens kept in memory; with 0 every draw has a new one. The encoder
    /// runs on the CPU: beside a network on a GPU it would take most of a step.
    pub views: usize,
    /// Peak learning rate; reached after `warm_up` steps, then a cosine to a fiftieth.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warm_up: u64,
    /// AdamW's β.
    pub beta: (f64, f64),
    /// AdamW's decay of matrices, per unit of learning rate.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient.
    pub clip_norm: f64,
    /// Decay of the running average of the weights that is exported.
    pub average_decay: f64,
    /// Probability of dropping a feature of the transformer's branches.
    pub dropout: f64,
    /// Share of the target that is spread over all codes.
    pub label_smoothing: f64,
    /// Probability that a training image's modality and view are left unstated.
    pub unstated: f64,
    /// Share of the tokens before a predicted one that are replaced by random ones (VQGAN's 1 - pkeep); autoregressive only.
    pub corrupted: f64,
    /// What an image that does not say its modality is taken for.
    pub modality: Option<String>,
    /// What an image that does not say its view is taken for.
    pub view: Option<String>,
    /// Random zoom: from 1 / this to this.
    pub zoom: f64,
    /// Random shift, share of the side, each way.
    pub shift: f64,
    /// Random rotation, degrees, each way.
    pub rotation_degrees: f64,
    /// Random smooth displacement, share of the side: no two draws of a patient have the same anatomy.
    pub warp: f64,
    /// Series and files, named as those that are held out, on which the loss is watched and nothing is learned; the weights
    /// with the least watched loss are exported.
    pub watch: Vec<String>,
    /// Steps between two looks at the watched images.
    pub watch_every: u64,
    /// How the exported model samples unless it is told otherwise.
    pub sampling: Sampling,
}

impl Training {
    /// The training of a preset, or `None` for an unknown name (see [`PRESETS`]).
    pub fn preset(name: &str) -> Option<Self> {
        let stated = |text: &str| Some(text.to_owned());
        let ct512 = Self {
            steps: 3_000,
            batch: 1,
            repeats: 1,
            views: 0,
            learning_rate: 6e-4,
            warm_up: 100,
            beta: (0.9, 0.96),
            weight_decay: 0.05,
            clip_norm: 1.0,
            average_decay: 0.998,
            dropout: 0.1,
            label_smoothing: 0.05,
            unstated: 0.1,
            corrupted: 0.0,
            modality: stated("ct"),
            view: stated("axial"),
            zoom: 1.15,
            shift: 0.05,
            rotation_degrees: 6.0,
            warp: 0.03,
            watch: Vec::new(),
            watch_every: 100,
            sampling: Sampling::default(),
        };
        let tiny = Self {
            steps: 60,
            batch: 2,
            learning_rate: 3e-3,
            warm_up: 5,
            average_decay: 0.9,
            dropout: 0.0,
            ..ct512.clone()
        };
        Some(match name {
            "tiny" => tiny,
            "tiny-autoregressive" => Self { corrupted: 0.1, ..tiny },
            "ct512" => ct512,
            "ct512-coarse" => Self {
                steps: 8_000,
                batch: 2,
                repeats: 3,
                learning_rate: 1e-3,
                sampling: Sampling { temperature: 0.6, ..Sampling::default() },
                ..ct512
            },
            // One patient: what is not varied by hand does not vary.
            "kub1024" => Self {
                steps: 1_500,
                batch: 2,
                learning_rate: 4e-4,
                modality: stated("dx"),
                view: stated("ap"),
                zoom: 1.2,
                warp: 0.05,
                ..ct512
            },
            // Half of the tokens before a predicted one replaced, top-k 100: as in Esser et al. 2021.
            "paper" => Self {
                steps: 300_000,
                batch: 16,
                learning_rate: 7.2e-5,
                warm_up: 2_000,
                beta: (0.9, 0.95),
                weight_decay: 0.01,
                average_decay: 0.9999,
                label_smoothing: 0.0,
                corrupted: 0.5,
                modality: None,
                view: None,
                sampling: Sampling { top_k: Some(100), ..Sampling::default() },
                ..ct512
            },
            _ => return None,
        })
    }

    /// Learning rate of a step (counted from 0).
    pub fn rate_at(&self, step: u64) -> f64 {
        self.learning_rate * rise_then_cosine(step, self.warm_up, self.steps, 0.02)
    }

    /// Every fault of this training for `config`, each naming its field, the value and what is allowed.
    pub fn faults(&self, config: &Config) -> Vec<String> {
        let mut faults = self.sampling.faults();
        let mut check = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        check(self.steps > 0, "steps is 0, allowed is 1 or more".into());
        check(self.batch > 0, "batch is 0, allowed is 1 or more".into());
        check(self.repeats > 0, "repeats is 0, allowed is 1 or more".into());
        check(
            self.learning_rate > 0.0 && self.learning_rate < 1.0,
            format!("learning_rate is {}, allowed is above 0, below 1", self.learning_rate),
        );
        check(
            self.clip_norm > 0.0 && self.clip_norm.is_finite(),
            format!("clip_norm is {}, allowed is above 0", self.clip_norm),
        );
        for (name, value) in [
            ("average_decay", self.average_decay),
            ("dropout", self.dropout),
            ("label_smoothing", self.label_smoothing),
            ("unstated", self.unstated),
            ("corrupted", self.corrupted),
            ("weight_decay", self.weight_decay),
        ] {
            check((0.0..1.0).contains(&value), format!("{name} is {value}, allowed is 0 to below 1"));
        }
        check((1.0..=4.0).contains(&self.zoom), format!("zoom is {}, allowed is 1 to 4", self.zoom));
        check((0.0..=0.5).contains(&self.shift), format!("shift is {}, allowed is 0 to 0.5", self.shift));
        check((0.0..=0.2).contains(&self.warp), format!("warp is {}, allowed is 0 to 0.2", self.warp));
        check(
            (0.0..=180.0).contains(&self.rotation_degrees),
            format!("rotation_degrees is {}, allowed is 0 to 180", self.rotation_degrees),
        );
        check(self.watch_every > 0, "watch_every is 0, allowed is 1 or more".into());
        for (name, stated, list) in
            [("modality", &self.modality, &config.modalities), ("view", &self.view, &config.views)]
        {
            check(
                Config::index(list, stated.as_deref()).is_some(),
                format!("{name} is {:?}, known are {}", stated.as_deref().unwrap_or_default(), list.join(", ")),
            );
        }
        faults
    }
}

/// The configuration of a package: all that is needed to sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packaged {
    /// The architecture.
    pub config: Config,
    /// Digest of the autoencoder's package whose tokens were learned, and which decodes them.
    pub autoencoder: String,
    /// Side of a token in pixels.
    pub stride: usize,
    /// How to sample unless told otherwise.
    pub sampling: Sampling,
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
        // Masked: 32 + 1 codes of 8; 2 modalities and 4 views, "not stated" among them, of 16; two local blocks of
        // 200 + 8, 16, 128 + 16, 128 + 8; patches of 32 to 16 and back; 16 positions; two blocks of 32, 768 + 48, 256 + 16, 32,
        // 1024 + 64, 1024 + 16; the norm; the head.
        let masked = 33 * 8
            + 6 * 16
            + 2 * (208 + 16 + 144 + 136)
            + (512 + 16)
            + 16 * 16
            + 2 * 3280
            + 32
            + (512 + 32)
            + 16
            + (256 + 32);
        assert_eq!(Config::preset("tiny").unwrap().parameters(), masked);
        let by_one = 33 * 8 + 6 * 16 + (128 + 16) + 64 * 16 + 2 * 3280 + 32 + (128 + 8) + 16 + (256 + 32);
        assert_eq!(Config::preset("tiny-autoregressive").unwrap().parameters(), by_one);
        // A package that can be shipped: under 10 MB.
        assert!(4 * Config::preset("ct512").unwrap().parameters() < 9_500_000);
        // 24 blocks of 12 x 1024² and 13 x 1024, 302.3 million, dominate.
        let paper = Config::preset("paper").unwrap().parameters();
        assert!((300_000_000..312_000_000).contains(&paper), "{paper}");
    }

    #[test]
    fn every_fault_is_listed() {
        let config = Config {
            objective: Objective::Autoregressive,
            heads: 5,
            patch: 3,
            codes: 0,
            ..Config::preset("tiny").unwrap()
        };
        let text = config.faults().join("\n");
        for part in ["codes is 0", "multiples of heads, 5", "patch is 3", "autoregressive"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let training =
            Training { batch: 0, warp: 0.5, view: Some("oblique".into()), ..Training::preset("tiny").unwrap() };
        let text = training.faults(&Config::preset("tiny").unwrap()).join("\n");
        for part in ["batch is 0", "warp is 0.5", "view is \"oblique\", known are axial, coronal, sagittal"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_condition_has_an_index() {
        let list = ["axial".to_owned(), "coronal".to_owned()];
        let index = |stated| Config::index(&list, stated);
        assert_eq!(
            (index(None), index(Some("AXIAL")), index(Some("coronal")), index(Some("x"))),
            (Some(0), Some(1), Some(2), None)
        );
    }
}
