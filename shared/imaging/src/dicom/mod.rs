//! DICOM image objects in and out (PS3.3, PS3.5, PS3.10).
//!
//! Reading goes dataset (lengths checked against the bytes) → attributes → frames → codec → stored values → plane. A file
//! that cannot be decoded *correctly* is refused with the reason; no guess is ever delivered as an image.

mod attributes;
mod codec;
mod dataset;
pub mod deidentify;
mod envelope;
mod frames;
mod identification;
mod image;
mod lut;
pub mod write;

pub use attributes::{Attributes, View};
pub use identification::{Identification, identify};
pub use image::{DicomImage, Frame, ReadOptions, from_bytes, read, read_with};
pub(crate) use image::{describe, read_bounded};
