//! Transposed convolutions whose windows overlap: the one thing that graphs have whose runs cuDNN did not repeat bit by bit.

use prost::Message;

use super::{
    Error,
    messages::{GraphProto, ModelProto, NodeProto},
};

/// Whether windows of one of the model's transposed convolutions overlap, or may.
///
/// # Errors
/// [`Error::Unreadable`] for what is no model.
pub fn has_overlapping_windows(bytes: &[u8]) -> Result<bool, Error> {
    let model = ModelProto::decode(bytes).map_err(|error| Error::Unreadable { cause: error.to_string() })?;
    let graph = model.graph.unwrap_or_default();
    Ok(graph.node.iter().any(|node| node.op_type.as_deref() == Some("ConvTranspose") && overlaps(&graph, node)))
}

fn overlaps(graph: &GraphProto, node: &NodeProto) -> bool {
    let (kernel, strides) = (kernel(graph, node), integers(node, "strides"));
    let wider = |(axis, &size): (usize, &i64)| size > strides.get(axis).copied().unwrap_or(1);
    kernel.is_empty() || kernel.iter().enumerate().any(wider)
}

/// The window's sides; none where they are not known.
fn kernel(graph: &GraphProto, node: &NodeProto) -> Vec<i64> {
    let weight = node.input.get(1).and_then(|name| {
        let half = format!("{name}{}", super::half::SUFFIX);
        graph
            .initializer
            .iter()
            .find(|tensor| tensor.name.as_ref().is_some_and(|found| found == name || *found == half))
    });
    match weight {
        Some(tensor) => tensor.dims.iter().skip(2).copied().collect(),
        None => integers(node, "kernel_shape").to_vec(),
    }
}

fn integers<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
    let found = node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name));
    found.map_or(&[], |attribute| &attribute.ints)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        onnx::{Convolution, Graph, with_half_weights},
        tensor::ElementType,
    };

    /// Each pixel to `stride` x `stride`.
    fn enlarging(stride: usize, kernel: usize) -> Vec<u8> {
        let mut graph = Graph::new("enlarging");
        let x = graph.input("x", ElementType::F32, &["n".into(), 3.into(), "h".into(), "w".into()]);
        let weight = graph.constant_f32("weight", &[3, 2, kernel, kernel], &vec![0.5; 6 * kernel * kernel]);
        let geometry = Convolution { stride, padding: (kernel - stride) / 2, ..Convolution::default() };
        let y = graph.conv_transpose(&x, &weight, None, geometry, 0);
        graph.output(&y, "y", ElementType::F32, &["n".into(), 2.into(), "h".into(), "w".into()]);
        graph.finish().unwrap()
    }

    #[test]
    fn windows_wider_than_their_stride_overlap() {
        for (stride, kernel, expected) in [(4, 8, true), (2, 3, true), (2, 2, false), (1, 1, false)] {
            let bytes = enlarging(stride, kernel);
            assert_eq!(has_overlapping_windows(&bytes).unwrap(), expected, "{stride} {kernel}");
            assert_eq!(has_overlapping_windows(&with_half_weights(&bytes, 1).unwrap()).unwrap(), expected);
        }
        assert!(has_overlapping_windows(b"no model").is_err());
    }
}
