//! The manifest that is delivered with a request's images: what each is made of, enough to make it again.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{Digest, ImageIndex, RequestId, SiteId},
    outcome::{ImageFailure, StageTiming},
    request::{BackgroundMode, Blend, Modality, Size},
};

/// `manifest.json`. With seed, model digests, positions and [`Execution`] equal, bytes are equal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The protocol's version: 1.
    pub version: u32,
    /// The request.
    pub request: RequestId,
    /// The site that asked.
    pub site: SiteId,
    /// The request's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Program and version that wrote it, for example `hiresmed 0.1.0`.
    pub generator: String,
    /// The request's seed.
    pub seed: u64,
    /// Kind of image.
    pub modality: Modality,
    /// Size in pixels of every image that does not give its own.
    pub size: Size,
    /// Always true: nothing here shows a patient.
    pub synthetic: bool,
    /// The images in order of their index.
    pub images: Vec<Image>,
    /// The images that could not be made.
    #[serde(default)]
    pub failures: Vec<ImageFailure>,
    /// Time by stage, summed over all jobs.
    #[serde(default)]
    pub stages: Vec<StageTiming>,
}

impl Manifest {
    /// Columns and rows of an image of this manifest.
    pub fn dimensions(&self, image: &Image) -> [u32; 2] {
        image.dimensions.unwrap_or([self.size.width, self.size.height])
    }
}

/// One image of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Path of the DICOM file within the delivery.
    pub file: String,
    /// SHA-256 of that file.
    pub sha256: Digest,
    /// Number within the request.
    pub index: ImageIndex,
    /// The request's seed: together with `index` it gives all of the image's noise.
    pub seed: u64,
    /// [columns, rows] of the image and of all that is delivered with it, where they are its source's; else they are the manifest's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<[u32; 2]>,
    /// Digests of the model packages by kind; `singan` is in the lesions.
    pub models: BTreeMap<String, Digest>,
    /// The lesions, in the order in which they were placed.
    pub lesions: Vec<Lesion>,
    /// The mask, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<File>,
    /// The image before its lesions, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<File>,
    /// M_danger (paper, equation 15) as PNG, 255 where a lesion may not be, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub danger_zones: Option<File>,
    /// C_final (paper, equation 16) as PNG, brighter where a lesion's centre is likelier, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidates: Option<File>,
    /// The boxes for a detector, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yolo: Option<File>,
    /// The lesions' masks as a DICOM Segmentation: segment n, from 1, is the n-th of `lesions`; where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seg: Option<File>,
    /// The lesions' sizes as a DICOM Measurement Report, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sr: Option<File>,
    /// Digest of the source image's file; none where the background was sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_sha256: Option<Digest>,
    /// How the background was made.
    pub mode: BackgroundMode,
    /// How the lesions were blended in.
    pub blend: Blend,
    /// Distance of pixel centres in millimetres: [row spacing, column spacing] as in DICOM (0028,0030).
    pub spacing_mm: [f64; 2],
    /// On what it was computed.
    pub execution: Execution,
}

/// A delivered file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Path within the delivery.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: Digest,
}

/// A lesion of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lesion {
    /// Centroid of the mask, [x, y] in pixels from the centre of the image's top left pixel.
    pub centre: [f64; 2],
    /// Longest in-plane diameter of the mask in pixels.
    pub size_px: f64,
    /// Digest of the lesion model, and so of its exemplar.
    pub exemplar: Digest,
    /// Longest in-plane diameter in millimetres.
    pub diameter_mm: f64,
    /// Diameter that was asked for, in millimetres.
    pub requested_diameter_mm: f64,
    /// Smallest box around the mask: [left, top, width, height] in pixels.
    pub bbox: [u32; 4],
    /// Pixels of the mask.
    pub area_px: u64,
    /// Whether the request gave the position.
    pub pinned: bool,
}

/// What the computation ran on: together with seed and models it determines the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Execution {
    /// ONNX Runtime's execution provider, for example `CPUExecutionProvider`.
    pub provider: String,
    /// ONNX Runtime's version.
    pub runtime_version: String,
    /// Images that went through the networks together.
    pub batch_size: u32,
}
