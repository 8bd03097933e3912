//! What a site asks for: synthetic images, a trained model, or the places where a lesion may go.
//!
//! The smallest request, in TOML:
//!
//! ```
//! let request = hiresmed_protocol::parse::toml(r#"
//! version = 1
//! kind = "synthesise"
//! count = 12
//! "#).unwrap();
//! assert!(request.validate().is_ok());
//! ```

mod candidates;
mod image_count;
mod synthesise;
mod train;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    candidates::{Candidates, LocatorNames},
    image_count::{ImageCount, MOST_UNBOUNDED},
    synthesise::{
        Background, BackgroundMode, Blend, Count, EXEMPLAR_RECIPE, EXEMPLARS, Geometry, Lesions, Location, Millimetres,
        Modality, ModelNames, OnFailure, Outputs, Placement, Rule, Size, Synthesise, TransferSyntax,
    },
    train::{Train, TrainedModel},
};

/// A request as a person or a program writes it, in TOML or JSON; `kind` chooses the variant.
///
/// [`crate::parse`] reads it from text, with places in its errors, and checks it; where it is deserialised by itself, as a
/// part of another document, [`Request::validate`] checks the values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "few are held at a time; a box would stand in every match")]
pub enum Request {
    /// Synthetic, labelled images.
    Synthesise(Synthesise),
    /// A model, trained in rounds on a site's data.
    Train(Train),
    /// Where a lesion may go in one image.
    Candidates(Candidates),
}

impl Request {
    /// The text by which the request is identified: JSON with every default filled in and the keys in declared order.
    pub fn to_canonical_json(&self) -> String {
        // Serialising plain data with string keys into memory has no way to fail; an empty text would still be refused
        // on reading.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The name that the site gave the request, if any.
    pub fn name(&self) -> Option<&str> {
        match self {
            Request::Synthesise(synthesise) => synthesise.name.as_deref(),
            Request::Train(train) => Some(&train.name),
            Request::Candidates(_) => None,
        }
    }

    /// The seed from which all the request's randomness is derived; 0 where nothing is drawn.
    pub fn seed(&self) -> u64 {
        match self {
            Request::Synthesise(synthesise) => synthesise.seed,
            Request::Train(train) => train.seed,
            Request::Candidates(_) => 0,
        }
    }
}

fn is_ct(modality: &Modality) -> bool {
    *modality == Modality::Ct
}

/// The alias of a model that a request does not name.
fn default_alias() -> String {
    "default".to_owned()
}
