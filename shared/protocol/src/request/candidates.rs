//! A request for the places where a lesion may go in one image.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Geometry, Location, Modality, Size, default_alias, is_ct};
use crate::ids::Digest;

/// The likeliest positions of a lesion in an image of the site (paper, equation 16), to pin positions to.
///
/// Positions are those of a synthesis request of the same `size` and `output.geometry`. Somebody waits for them: the class is always
/// `interactive`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Candidates {
    /// The protocol's version: 1.
    pub version: u32,
    /// The image: its key below `sites/{site}/inputs/`, for example `study-7/0123456789abcdef.dcm`.
    pub input: String,
    /// What kind of image it is. Default `ct`.
    #[serde(default, skip_serializing_if = "is_ct")]
    pub modality: Modality,
    /// SHA-256 that the image must have, in hexadecimal. Default: whatever it has when the request is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = "^[0-9a-fA-F]{64}$"))]
    pub sha256: Option<Digest>,
    /// The size to which the image is brought. Default 512 x 512.
    #[serde(default)]
    pub size: Size,
    /// In whose pixels positions are: those of `size`, or the image's own, which is then fitted into `size` as a whole. Default `request`.
    #[serde(default, skip_serializing_if = "Geometry::is_request")]
    pub geometry: Geometry,
    /// Longest in-plane diameter of the lesion in millimetres, 1 to 200: its whole footprint must be allowed. Default 8.
    #[serde(default = "diameter_mm")]
    pub diameter_mm: f64,
    /// How many positions at most: 1 to 200. Default 20.
    #[serde(default = "count")]
    pub count: u32,
    /// What proposes candidates. Default `density`.
    #[serde(default)]
    pub location: Location,
    /// Which models, each by alias or digest. Default: the aliases `default`, which for `kub` stand for
    /// `default-kub`.
    #[serde(default)]
    pub models: LocatorNames,
}

const fn diameter_mm() -> f64 {
    8.0
}

const fn count() -> u32 {
    20
}

/// The models that say where a lesion may be, by alias, digest, or a unique prefix of a digest of 8 digits or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocatorNames {
    /// The model of permissible regions.
    #[serde(default = "default_alias")]
    pub unet: String,
    /// The spatial prior of lesions. Default: alias `default`, where `location` wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub density: Option<String>,
    /// The lesion detector. Default: alias `default`, where `location` wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yolo: Option<String>,
}

impl Default for LocatorNames {
    fn default() -> Self {
        Self { unet: default_alias(), density: None, yolo: None }
    }
}
