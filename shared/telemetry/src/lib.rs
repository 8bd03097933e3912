//! What a running hiresmed tells its operators: logs, metrics and traces.
//!
//! This crate owns the set-up of logging and every metric's name, help text, labels and buckets ([`metrics::DEFINITIONS`]).
//! It must not know what is logged or measured; it depends on no other crate of the project. What is logged or becomes a
//! label never holds a person's DICOM attributes, pixels or file names from a site.

pub mod logging;
pub mod metrics;
pub mod traces;

pub use metrics::Metrics;
