//! The spatial prior: where lesions were annotated in other patients (equation 14 without a detector; METHOD 4).
//!
//! A density over a reference body, in millimetres from its centre. Annotations carry no body outline, so that they are
//! fitted about the image's centre; at synthesis the reference body is laid over the body that is found in the image.

mod fit;
mod prior;

pub use fit::{Annotation, Fit, fit};
pub use prior::{Density, Prior};

use hiresmed_inference::package::{self, Kind};

/// Why a prior cannot be fitted or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The package is of another kind.
    #[error("the package {name:?} is a {kind}; a spatial prior needs a density package")]
    Kind {
        /// Its name.
        name: String,
        /// Its kind.
        kind: Kind,
    },
    /// The package's density is not one.
    #[error("the package {name:?} cannot be used: {cause}; fetch or fit it again")]
    Content {
        /// Its name.
        name: String,
        /// What is wrong.
        cause: String,
    },
    /// There is no body in the image to lay the prior over.
    #[error("no body was found in the image; a spatial prior has nothing to be laid over")]
    NoBody,
    /// Pixels cannot lie so far apart.
    #[error("pixels that lie {row_mm} x {column_mm} mm apart: both must be above 0; give the image's own spacing")]
    Spacing {
        /// Distance of rows, mm.
        row_mm: f64,
        /// Distance of columns, mm.
        column_mm: f64,
    },
    /// Nothing to fit.
    #[error("no annotation can be used: {cause}; check the columns and units of the table")]
    NoAnnotations {
        /// What is wrong.
        cause: String,
    },
    /// The package or one of its files.
    #[error(transparent)]
    Package(#[from] package::Error),
}
