//! A request for synthetic images.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ImageCount, default_alias};
use crate::job::Class;

/// Synthetic images with lesions, their masks and labels.
///
/// Only `version` and `count` have no default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Synthesise {
    /// The protocol's version: 1.
    pub version: u32,
    /// A name for people, in listings and reports; 1 to 100 characters. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many images: 1 to 1,000,000, or `unbounded`: as many as somebody reads from the request's stream, until it is
    /// cancelled.
    pub count: ImageCount,
    /// From which all randomness is derived: 0 to 2^53 - 1. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// What kind of image: `ct`, an axial slice with nodules of the lung, or `kub`, a radiograph of kidneys, ureters and bladder
    /// with stones. Default `ct`.
    #[serde(default)]
    pub modality: Modality,
    /// The images' size. Default 512 x 512.
    #[serde(default)]
    pub size: Size,
    /// Where background images come from: `sample` (the series that comes with the project), a folder alias of the
    /// site, or a prefix of the store below `sites/{site}/inputs/`. Default `sample`.
    #[serde(default = "sample")]
    pub inputs: String,
    /// Which models, each by alias or digest; all of the request's modality. Default: the aliases `default`, which for `kub` stand for
    /// `default-kub`.
    #[serde(default)]
    pub models: ModelNames,
    /// How many lesions an image has, and how large they are.
    #[serde(default)]
    pub lesions: Lesions,
    /// How backgrounds are made.
    #[serde(default)]
    pub background: Background,
    /// How a lesion's seam is treated. Default `feather`.
    #[serde(default)]
    pub blend: Blend,
    /// Where lesions go.
    #[serde(default)]
    pub placement: Placement,
    /// What is delivered.
    #[serde(default)]
    pub output: Outputs,
    /// What happens to the request when an image fails. Default `continue`.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Whether somebody waits for it. Default `interactive`.
    #[serde(default)]
    pub class: Class,
    /// How many images a job makes: 1 to 1,000. Default: the planner's choice. The images do not depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<u64>,
}

fn sample() -> String {
    "sample".to_owned()
}

/// Kind of image: modality and part of the body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// Computed tomography.
    #[default]
    Ct,
    /// A radiograph of kidneys, ureters and bladder: modality DX in DICOM.
    Kub,
}

impl Modality {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Ct, Self::Kub];

    /// The name in requests, packages and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ct => "ct",
            Self::Kub => "kub",
        }
    }

    /// DICOM's term for (0008,0060).
    pub fn dicom_term(self) -> &'static str {
        match self {
            Self::Ct => "CT",
            Self::Kub => "DX",
        }
    }

    /// The alias that `default` stands for in a request for this kind of image.
    pub fn default_alias(self) -> &'static str {
        match self {
            Self::Ct => "default",
            Self::Kub => "default-kub",
        }
    }
}

/// An image's size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Columns in pixels: a multiple of 8, 64 to 4,096. Default 512.
    #[serde(default = "side")]
    pub width: u32,
    /// Rows in pixels: a multiple of 8, 64 to 4,096. Default 512.
    #[serde(default = "side")]
    pub height: u32,
    /// Distance of pixel centres in millimetres, 0.05 to 5. Default: the input image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spacing_mm: Option<f64>,
}

const fn side() -> u32 {
    512
}

impl Default for Size {
    fn default() -> Self {
        Self { width: side(), height: side(), spacing_mm: None }
    }
}

/// How a lesion model is named that is to be trained on an exemplar of the site's: before the exemplar's digest.
pub const EXEMPLARS: &str = "exemplars/";

/// Version of the recipe by which a lesion model is trained on an exemplar: part of the name of what was trained, so that a changed
/// recipe trains anew. It is that of `hiresmed_models::singan::RECIPE`, which says when to raise both; the trainer does not build
/// where they differ.
pub const EXEMPLAR_RECIPE: u32 = 2;

/// Models by alias (`default`, or a registered name), digest, or a unique prefix of a digest of 8 digits or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelNames {
    /// The autoencoder of backgrounds.
    #[serde(default = "default_alias")]
    pub vqgan: String,
    /// The lesion models to draw from; an empty list means all that are registered. Default: all. `exemplars/{digest}` is the model
    /// of an exemplar that the site has uploaded, trained first where there is none yet.
    #[serde(default)]
    pub singan: Vec<String>,
    /// The model of permissible regions.
    #[serde(default = "default_alias")]
    pub unet: String,
    /// The spatial prior of lesions. Default: alias `default`, where `placement.location` wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub density: Option<String>,
    /// The lesion detector. Default: alias `default`, where `placement.location` wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yolo: Option<String>,
    /// The prior over the autoencoder's tokens. Default: alias `default`, where `background.mode` is `sample`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<String>,
}

impl Default for ModelNames {
    fn default() -> Self {
        Self {
            vqgan: default_alias(),
            singan: Vec::new(),
            unet: default_alias(),
            density: None,
            yolo: None,
            prior: None,
        }
    }
}

/// Lesions of each image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lesions {
    /// How many, drawn uniformly. Default 1 to 3.
    #[serde(default)]
    pub count: Count,
    /// Longest in-plane diameter, drawn uniformly. Default 4 to 12 mm.
    #[serde(default)]
    pub diameter_mm: Millimetres,
}

/// An inclusive range of numbers of lesions: 1 to 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// The least number.
    pub min: u32,
    /// The greatest number.
    pub max: u32,
}

impl Default for Count {
    fn default() -> Self {
        Self { min: 1, max: 3 }
    }
}

/// An inclusive range of lengths in millimetres: 1 to 200.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Millimetres {
    /// The least length in millimetres.
    pub min: f64,
    /// The greatest length in millimetres.
    pub max: f64,
}

impl Default for Millimetres {
    fn default() -> Self {
        Self { min: 4.0, max: 12.0 }
    }
}

/// How backgrounds are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Background {
    /// Default `reconstruct`.
    #[serde(default)]
    pub mode: BackgroundMode,
    /// How many images in a row are made from one background, each with lesions of its own: 1 to 64. A background takes most of
    /// an image's time. Default: as many as each input has to be used anyway for `count` images, at most 8;
    /// 8 for an unbounded request. A sampled background is one image's: 1, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draws: Option<u32>,
    /// Where backgrounds are sampled, what divides the logits of their tokens: 0.1 to 2; under 1 keeps to what is likely. Default:
    /// the prior's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Where backgrounds are sampled, how many of the likeliest codes a token is drawn from: 1 to 65,536. Default: the prior's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
}

/// Where a background's tokens come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackgroundMode {
    /// Encode a real image, quantise, decode.
    #[default]
    Reconstruct,
    /// Draw the tokens from a learned prior: a patient who never existed.
    Sample,
}

/// How a lesion is joined with its background (paper, equation 17).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Blend {
    /// The paper's: replace, then smooth the contour with a 3 x 3 Gaussian.
    Paper,
    /// A soft edge.
    #[default]
    Feather,
    /// Gradient domain.
    Poisson,
    /// For radiographs: what the lesion attenuates is added, and what lies behind it shows through.
    Attenuation,
}

/// Where lesions go (paper, equations 14 to 16).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// What must lie in the permissible region. Default `footprint`.
    #[serde(default)]
    pub rule: Rule,
    /// Centres [x, y] in pixels of the delivered image from its top left corner, for the first lesions of every image; the further
    /// ones are drawn. With `output.geometry` "source" they are pixels of the source image. Default: all are drawn.
    #[serde(default)]
    pub positions: Vec<[f64; 2]>,
    /// Least distance between two lesions' masks in millimetres: 0 to 100. Default 2.
    #[serde(default = "gap_mm")]
    pub gap_mm: f64,
    /// Whether a given position may lie in a danger zone. Default false.
    #[serde(default)]
    pub override_danger: bool,
    /// What proposes candidates. Default `density`.
    #[serde(default)]
    pub location: Location,
}

const fn gap_mm() -> f64 {
    2.0
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            rule: Rule::default(),
            positions: Vec::new(),
            gap_mm: gap_mm(),
            override_danger: false,
            location: Location::default(),
        }
    }
}

/// What must lie in the permissible region (paper, equation 16).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The whole lesion.
    #[default]
    Footprint,
    /// The lesion's centre, as in the paper.
    Centre,
}

/// What proposes candidates C_loc (paper, equation 14).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// The density that was fitted to annotations.
    #[default]
    Density,
    /// A lesion detector.
    Detector,
    /// The product of both.
    Both,
}

/// What is delivered beside the images and the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outputs {
    /// In which rows, columns and spacing everything is delivered. Default `request`.
    #[serde(default, skip_serializing_if = "Geometry::is_request")]
    pub geometry: Geometry,
    /// How DICOM objects are stored. Default `explicit`. JPEG-LS compresses the images; it is not for masks of one bit and for reports, which
    /// are then `explicit`.
    #[serde(default)]
    pub transfer_syntax: TransferSyntax,
    /// Masks as PNG, 0 and 255. Default true.
    #[serde(default = "yes")]
    pub masks: bool,
    /// `annotations.coco.json`. Default true.
    #[serde(default = "yes")]
    pub coco: bool,
    /// A text file of boxes for each image. Default true.
    #[serde(default = "yes")]
    pub yolo: bool,
    /// A DICOM Segmentation for each image: a segment for each lesion, in the image's study. Default false.
    #[serde(default, skip_serializing_if = "is_no")]
    pub seg: bool,
    /// A DICOM Measurement Report (TID 1500) for each image: long axis in mm and area in mm² of each lesion, with references to the
    /// segments of `seg`, without which there is none. Default false.
    #[serde(default, skip_serializing_if = "is_no")]
    pub sr: bool,
    /// Each image as it was before its lesions. Default true.
    #[serde(default = "yes")]
    pub backgrounds: bool,
    /// Danger zones and candidates of each image as PNG. Default true.
    #[serde(default = "yes")]
    pub evidence: bool,
}

const fn yes() -> bool {
    true
}

/// What is not asked for is not written, so that requests keep the ids that they had before it could be.
const fn is_no(value: &bool) -> bool {
    !*value
}

impl Default for Outputs {
    fn default() -> Self {
        Self {
            geometry: Geometry::default(),
            transfer_syntax: TransferSyntax::default(),
            masks: true,
            coco: true,
            yolo: true,
            seg: false,
            sr: false,
            backgrounds: true,
            evidence: true,
        }
    }
}

/// Whose rows, columns and pixel spacing an image and all its labels have. (Not called frame: in DICOM that is an image of a
/// multi-frame object, and a frame of reference is something else again.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Geometry {
    /// Those of `size`.
    #[default]
    Request,
    /// Those of the source image. It is fitted as a whole into `size`, whatever its proportions; lesions are placed and blended there,
    /// and the result is resampled to the source's own pixels. What is finer than a pixel of `size` is not in it: the image is as
    /// sharp as the networks made it at that size. Needs a source, so that `background.mode` cannot be `sample`; with
    /// `size.spacing_mm` the whole source must fit into `size`.
    Source,
}

impl Geometry {
    pub(super) fn is_request(&self) -> bool {
        *self == Self::Request
    }
}

/// DICOM transfer syntax of the images; all are lossless.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TransferSyntax {
    /// Explicit VR little endian, 1.2.840.10008.1.2.1.
    #[default]
    Explicit,
    /// Deflated explicit VR little endian, 1.2.840.10008.1.2.1.99.
    Deflated,
    /// JPEG-LS lossless, 1.2.840.10008.1.2.4.80.
    JpegLs,
}

/// What happens to a request when one of its images fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The others are made; the manifest lists what failed, and why.
    #[default]
    Continue,
    /// The request fails as a whole.
    Stop,
}
