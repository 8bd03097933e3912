//! A request for a trained model.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Modality, is_ct};
use crate::job::Class;

/// A model, trained in rounds on a site's data and registered under a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// The protocol's version: 1.
    pub version: u32,
    /// The alias under which the finished package is registered: lower-case letters, digits and hyphens, 1 to 64.
    pub name: String,
    /// Which network.
    pub model: TrainedModel,
    /// The network's and the training's configuration by name, for example `ct512`.
    pub preset: String,
    /// What kind of image it is for. Default `ct`.
    #[serde(default, skip_serializing_if = "is_ct")]
    pub modality: Modality,
    /// Where the data lie: folder aliases of the site, or prefixes of the store below `sites/{site}/inputs/`.
    pub data: Vec<String>,
    /// Optimiser steps in all: 1 to 10,000,000.
    pub steps: u64,
    /// From which data order, initial weights and noise are derived: 0 to 2^53 - 1. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// An autoencoder by alias, digest, or a unique prefix of one: for a prior, that whose tokens it learns (default: the alias
    /// `default`); for a vqgan, that with whose encoder its perceptual term is measured (default: no such term).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoencoder: Option<String>,
    /// For a vqgan, a source as in `data` with the weights of AlexNet or VGG16 and LPIPS' linear ones (safetensors or ONNX), with
    /// which its perceptual term is measured instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perceptual: Option<String>,
    /// What is kept out of training: a series by its folder, an image by its name, or `prefix*`. Default: none.
    #[serde(default)]
    pub hold_out: Vec<String>,
    /// Where images lie on which the finished model is scored and never trained: sources as in `data`. For a vqgan (fidelity), a unet
    /// (overlap of the permissible region) and a yolo (precision and recall); for a prior, a ddpm and a styleswin, whose samples are held
    /// against the training images, how near to these an image is that is no copy. Default: none, and the model's card says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub score_on: Vec<String>,
    /// Whether somebody waits for it. Default `batch`.
    #[serde(default = "batch")]
    pub class: Class,
}

const fn batch() -> Class {
    Class::Batch
}

/// The networks that the fleet trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrainedModel {
    /// The autoencoder of backgrounds (METHOD 2).
    Vqgan,
    /// The lesion of one exemplar (METHOD 3).
    Singan,
    /// The permissible region (equation 15).
    Unet,
    /// The prior over an autoencoder's tokens (METHOD 2).
    Prior,
    /// The lesion detector (equation 14).
    Yolo,
    /// Denoising diffusion, a baseline (table 2).
    Ddpm,
    /// StyleSwin, a baseline of table 2.
    Styleswin,
}

impl TrainedModel {
    /// The name in object keys, metrics and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            TrainedModel::Vqgan => "vqgan",
            TrainedModel::Singan => "singan",
            TrainedModel::Unet => "unet",
            TrainedModel::Prior => "prior",
            TrainedModel::Yolo => "yolo",
            TrainedModel::Ddpm => "ddpm",
            TrainedModel::Styleswin => "styleswin",
        }
    }

    /// Whether held-out images say something of a finished one: the lesion of one exemplar is judged by what it makes alone.
    pub const fn is_scored(self) -> bool {
        !matches!(self, TrainedModel::Singan)
    }

    /// The kinds of package in which its trainings end, by preset.
    pub const fn kinds(self) -> &'static [&'static str] {
        match self {
            TrainedModel::Vqgan => &["vqgan", "vqgan-residual"],
            TrainedModel::Singan => &["singan", "singan-whole"],
            TrainedModel::Unet => &["unet"],
            TrainedModel::Prior => &["prior"],
            TrainedModel::Yolo => &["yolo"],
            TrainedModel::Ddpm => &["ddpm"],
            TrainedModel::Styleswin => &["styleswin"],
        }
    }
}

impl fmt::Display for TrainedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
