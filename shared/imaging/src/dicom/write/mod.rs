//! 16-bit grey image objects: synthetic ones that say so, with what is known of their lesions, and de-identified slices of a real
//! series.

pub(super) mod encoding;
mod labels;
mod modules;
mod patient_slice;
mod report;
mod segmentation;
mod synthetic;
pub(super) mod uid;

pub use encoding::Syntax;
pub use labels::{Finding, Labels, Lesion};
pub use patient_slice::PatientSlice;
pub use synthetic::{Identity, MANUFACTURER, Synthetic};
pub use uid::derived_uid;

/// Why an object cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Sides that DICOM cannot express.
    #[error("an image of {width} x {height} pixels cannot be written as DICOM; both sides must be 1 to 65,535")]
    Size {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// A pixel that is no number.
    #[error("pixel ({x}, {y}) is not a number; the model that made it is broken, import or train it again")]
    NotANumber {
        /// Column.
        x: usize,
        /// Row.
        y: usize,
    },
    /// A value that 16 bits or the declared range do not hold.
    #[error("value {value} lies outside {low} to {high}; clip the image first")]
    Range {
        /// The value.
        value: f32,
        /// Least that can be stored.
        low: f32,
        /// Most that can be stored.
        high: f32,
    },
    /// A window that holds nothing.
    #[error("an intensity window from {low} to {high}; low must be below high")]
    Window {
        /// Lower end.
        low: f32,
        /// Upper end.
        high: f32,
    },
    /// Segments that DICOM cannot express.
    #[error(
        "a segmentation of {count} lesions in an image of {width} x {height} pixels cannot be written as DICOM; it must have one \
         lesion or more, and 65,535 and 4 GiB of masks at most"
    )]
    Segments {
        /// Lesions.
        count: usize,
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// No size in millimetres is known.
    #[error(
        "the image does not say how far its pixels lie apart, so that sizes in mm are unknown; give its spacing, or want no measurements"
    )]
    Spacing,
    /// A size that is none.
    #[error("a size of lesion {lesion} is {value}, which is no length and no area; check the spacing of the image")]
    Measurement {
        /// Its number, from 1.
        lesion: usize,
        /// In mm or mm².
        value: f64,
    },
    /// The encoder refused.
    #[error("the DICOM data set could not be encoded: {0}; this is a defect, please report it")]
    Encoding(String),
}
