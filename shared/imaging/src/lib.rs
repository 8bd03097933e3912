//! Pixels in and out: [`Plane`] and [`Mask`], intensity windows, resampling, DICOM, PNG, NIfTI, COCO and YOLO labels.
//!
//! This crate owns what an image *is*; it knows nothing of models, jobs or the fleet.

pub mod plane;
pub mod window;

pub use plane::{Mask, Plane, Spacing};
pub use window::Window;
