//! `model.json`: what a model is, where it came from, and how good it is.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DESCRIPTION_FILE;

/// Version of `model.json` that this code writes and reads.
pub const VERSION: u32 = 1;

/// Kinds of image that models can be for; the first where a description does not say.
const MODALITIES: [&str; 2] = ["ct", "kub"];

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// HiResMed-VQGAN: backgrounds.
    Vqgan,
    /// VQGAN with residual blocks, the baseline.
    VqganResidual,
    /// SinGAN: one lesion exemplar.
    Singan,
    /// SinGAN of one whole image, a baseline.
    SinganWhole,
    /// U-Net: danger zones.
    Unet,
    /// YOLO detector: lesion candidates.
    Yolo,
    /// Prior over tokens.
    Prior,
    /// Denoising diffusion, a baseline.
    Ddpm,
    /// StyleSwin, a baseline.
    Styleswin,
    /// Spatial density of lesions; it has no graph.
    Density,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Vqgan,
        Self::VqganResidual,
        Self::Singan,
        Self::SinganWhole,
        Self::Unet,
        Self::Yolo,
        Self::Prior,
        Self::Ddpm,
        Self::Styleswin,
        Self::Density,
    ];

    /// The kind's name in files, folders and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vqgan => "vqgan",
            Self::VqganResidual => "vqgan-residual",
            Self::Singan => "singan",
            Self::SinganWhole => "singan-whole",
            Self::Unet => "unet",
            Self::Yolo => "yolo",
            Self::Prior => "prior",
            Self::Ddpm => "ddpm",
            Self::Styleswin => "styleswin",
            Self::Density => "density",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is not a kind of model; the kinds are {names}")
        })
    }
}

/// The range of real-world values that a network sees as [-1, 1].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Value that becomes -1 (Hounsfield units for CT).
    pub low: f32,
    /// Value that becomes +1.
    pub high: f32,
}

/// A data set that a model was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingData {
    /// Name, and the part of it that was used.
    pub name: String,
    /// SHA-256 over the files used, hex; as the training tool of the kind defines it. Empty where it is not known.
    #[serde(default)]
    pub digest: String,
    /// Licence and attribution.
    pub licence: String,
}

/// What a model's maker says about it: all of `model.json` but what is computed from the files.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// What the model is for.
    pub kind: Kind,
    /// Name, by which requests may call it.
    pub name: String,
    /// The architecture's configuration, as its crate serialises it.
    pub configuration: serde_json::Value,
    /// Intensity window of the images it was trained on.
    pub window: Option<Window>,
    /// Kind of image that it is for, as requests name it: `ct` or `kub`; `ct` where it is not said.
    pub modality: Option<String>,
    /// Pixel spacing of the images it was trained on, mm.
    pub spacing_mm: Option<f64>,
    /// What it was trained on.
    pub training_data: Vec<TrainingData>,
    /// Held-out scores by name, such as `psnr_db`.
    pub scores: BTreeMap<String, f64>,
    /// Licence of the weights.
    pub licence: String,
    /// Digest of the package that training started from.
    pub parent: Option<String>,
    /// Number of parameters.
    pub parameters: u64,
    /// ONNX files by their role, such as `encoder`.
    pub graphs: BTreeMap<String, String>,
}

impl Draft {
    /// A draft with a kind, a name and a licence, and nothing else.
    pub fn new(kind: Kind, name: &str, licence: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            configuration: serde_json::Value::Null,
            window: None,
            modality: None,
            spacing_mm: None,
            training_data: Vec::new(),
            scores: BTreeMap::new(),
            licence: licence.to_owned(),
            parent: None,
            parameters: 0,
            graphs: BTreeMap::new(),
        }
    }
}

/// `model.json` itself. Unknown keys are refused: a description of a later version is not half understood.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Version of this form; 1.
    pub version: u32,
    /// What the model is for.
    pub kind: Kind,
    /// Name, by which requests may call it.
    pub name: String,
    /// The architecture's configuration, as its crate serialises it.
    #[serde(default)]
    pub configuration: serde_json::Value,
    /// Intensity window of the images it was trained on.
    #[serde(default)]
    pub window: Option<Window>,
    /// Kind of image that it is for, as requests name it: `ct` or `kub`; `ct` where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modality: Option<String>,
    /// Pixel spacing of the images it was trained on, mm.
    #[serde(default)]
    pub spacing_mm: Option<f64>,
    /// What it was trained on.
    #[serde(default)]
    pub training_data: Vec<TrainingData>,
    /// Held-out scores by name.
    #[serde(default)]
    pub scores: BTreeMap<String, f64>,
    /// Licence of the weights.
    pub licence: String,
    /// Digest of the package that training started from.
    #[serde(default)]
    pub parent: Option<String>,
    /// Number of parameters.
    #[serde(default)]
    pub parameters: u64,
    /// ONNX files by their role.
    #[serde(default)]
    pub graphs: BTreeMap<String, String>,
    /// SHA-256 of every other file of the package by its name, hex.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Program and version that made the package.
    #[serde(default)]
    pub created_by: String,
}

impl Description {
    /// The keys that have no default, each with something that can stand in its place while the others are read.
    pub(super) const REQUIRED: [(&'static str, &'static str); 4] =
        [("version", "1"), ("kind", "\"density\""), ("name", "\"a\""), ("licence", "\"a\"")];

    /// The description of `draft` with these files' digests.
    pub(super) fn from_draft(draft: Draft, files: BTreeMap<String, String>) -> Self {
        Self {
            version: VERSION,
            kind: draft.kind,
            name: draft.name,
            configuration: draft.configuration,
            window: draft.window,
            modality: draft.modality,
            spacing_mm: draft.spacing_mm,
            training_data: draft.training_data,
            scores: draft.scores,
            licence: draft.licence,
            parent: draft.parent,
            parameters: draft.parameters,
            graphs: draft.graphs,
            files,
            created_by: concat!("hiresmed ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// The draft that this description was made of.
    pub fn to_draft(&self) -> Draft {
        let other = self.clone();
        Draft {
            kind: other.kind,
            name: other.name,
            configuration: other.configuration,
            window: other.window,
            modality: other.modality,
            spacing_mm: other.spacing_mm,
            training_data: other.training_data,
            scores: other.scores,
            licence: other.licence,
            parent: other.parent,
            parameters: other.parameters,
            graphs: other.graphs,
        }
    }

    /// The kind of image that this model is for.
    pub fn modality(&self) -> &str {
        self.modality.as_deref().unwrap_or(MODALITIES[0])
    }

    /// Everything that is wrong with the description by itself, each with its path in `model.json`.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.version != VERSION {
            faults.push(format!("version is {}; this program reads version {VERSION}", self.version));
        }
        if self.name.is_empty() || self.name.len() > 100 || !self.name.chars().all(is_name_character) {
            faults.push(format!("name is {:?}; it has 1 to 100 letters, digits, '-', '_', '.'", self.name));
        }
        if self.licence.trim().is_empty() {
            faults.push("licence is empty; name the licence of the weights".into());
        }
        if let Some(window) = self.window
            && !(window.low.is_finite() && window.high.is_finite() && window.low < window.high)
        {
            faults.push(format!("window is {} to {}; low must be below high", window.low, window.high));
        }
        if !MODALITIES.contains(&self.modality()) {
            faults.push(format!("modality is {:?}; known are {}", self.modality(), MODALITIES.join(", ")));
        }
        if let Some(spacing) = self.spacing_mm.filter(|&spacing| !(spacing.is_finite() && spacing > 0.0)) {
            faults.push(format!("spacing_mm is {spacing}; it must be positive"));
        }
        for (name, score) in self.scores.iter().filter(|(_, score)| !score.is_finite()) {
            faults.push(format!("scores.{name} is {score}; it must be finite"));
        }
        for (name, sha256) in &self.files {
            if !is_file_name(name) {
                faults.push(format!("files has {name:?}; a file's name is plain, without folders"));
            }
            if !is_digest(sha256) {
                faults.push(format!("files.{name} is {sha256:?}; a SHA-256 has 64 hexadecimal digits"));
            }
        }
        for (role, file) in self.graphs.iter().filter(|(_, file)| !self.files.contains_key(*file)) {
            faults.push(format!("graphs.{role} names {file:?}, which is not in files"));
        }
        faults
    }
}

/// Whether `text` is a SHA-256 in lower-case hex.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `name` can be a file of a package: no folder, nothing hidden, not the description.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name != DESCRIPTION_FILE
        && name.chars().all(is_name_character)
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_one_name_everywhere() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(kind.name().parse::<Kind>().unwrap(), kind);
        }
        assert!("gan".parse::<Kind>().unwrap_err().contains("singan"));
    }

    #[test]
    fn every_fault_of_a_description_is_named() {
        let mut draft = Draft::new(Kind::Unet, "a/b", " ");
        draft.window = Some(Window { low: 1.0, high: 1.0 });
        draft.spacing_mm = Some(0.0);
        draft.modality = Some("us".into());
        draft.scores.insert("dice".into(), f64::NAN);
        draft.graphs.insert("segment".into(), "segment.onnx".into());
        let files = [("../escape".to_owned(), "abc".to_owned())].into();
        let faults = Description::from_draft(draft, files).faults().join("\n");
        for part in [
            "name",
            "licence",
            "window",
            "modality",
            "spacing_mm",
            "scores.dice",
            "../escape",
            "64 hex",
            "graphs.segment",
        ] {
            assert!(faults.contains(part), "{part} in {faults}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let text = r#"{"version":1,"kind":"unet","name":"a","licence":"MIT","colour":1}"#;
        assert!(serde_json::from_str::<Description>(text).unwrap_err().to_string().contains("colour"));
    }
}
