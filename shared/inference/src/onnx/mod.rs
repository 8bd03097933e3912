//! Writing and reading ONNX files, without any runtime.
//!
//! [`Graph`] builds a model node by node from weights that the caller holds; [`Model`] reads what a file declares: its
//! inputs, outputs and initialisers. Operator set 21, IR version 10 (ONNX 1.16), which ONNX Runtime 1.18 and later run.

mod activations;
mod arithmetic;
mod convolutions;
mod graph;
mod half;
mod layout;
mod messages;
#[cfg(test)]
mod operator_tests;
mod overlaps;
mod read;
mod resizing;

pub use convolutions::{Convolution, Pool};
pub use graph::{Attribute, Dim, Graph, Value};
pub use half::with_half_weights;
pub use layout::Padding;
pub use overlaps::has_overlapping_windows;
pub use read::{Model, Port};
pub use resizing::Interpolation;

/// ONNX operator set of the graphs that are written here.
pub const OPSET: i64 = 21;
/// Version of the intermediate representation of the graphs that are written here.
pub const IR_VERSION: i64 = 10;

/// Why a graph cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The graph under construction has faults; all are listed.
    #[error("the ONNX graph {graph:?} cannot be written:\n  {}", .faults.join("\n  "))]
    Faults {
        /// Name of the graph.
        graph: String,
        /// Every fault, in the order in which it was made.
        faults: Vec<String>,
    },
    /// The bytes are not an ONNX model.
    #[error("not an ONNX model ({cause}): the file is damaged or of another format; export it again")]
    Unreadable {
        /// What the decoder said.
        cause: String,
    },
    /// The model uses something that is not supported here.
    #[error("the ONNX model is not supported: {cause}")]
    Unsupported {
        /// What is not supported, and what to do.
        cause: String,
    },
}
