//! Pixels in and out: [`Plane`] and [`Mask`], intensity windows, resampling, DICOM, PNG, NIfTI, COCO and YOLO labels.
//!
//! This crate owns what an image *is*; it knows nothing of models, jobs or the fleet.

pub mod body;
pub mod burned_in;
pub mod dicom;
pub mod error;
pub mod files;
pub mod inspect;
pub mod labels;
pub mod measures;
pub mod morphology;
pub mod nifti;
pub mod plane;
pub mod polygons;
pub mod raster;
mod regions;
pub mod resample;
pub mod series;
pub mod sheet;
pub mod window;

pub use error::{Error, Fault};
pub use plane::{Mask, Plane, Spacing};
pub use window::Window;
