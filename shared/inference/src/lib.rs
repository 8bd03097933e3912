//! ONNX graphs: writing them, running them (ONNX Runtime), and model packages addressed by digest.
//!
//! This crate owns how a network is stored and run; it knows nothing of what a network is for (`models`), of images or of
//! jobs. Nothing here is asynchronous: a caller that is runs it on a thread of its own.

mod arena;
pub mod contract;
pub mod onnx;
pub mod package;
pub mod runtime;
pub mod session;
pub mod tensor;

pub use package::{Catalogue, Package};
pub use runtime::Runtime;
pub use session::{DeviceTensor, Provider, Session, SessionOptions};
pub use tensor::{ElementType, Tensor};
