//! Transposed convolutions whose windows overlap, written as convolutions: cuDNN runs a transposed convolution as the gradient of one, and
//! its heuristics take a kernel for it that adds where windows overlap in any order, so that two runs differ in their last bits (seen on
//! an H100 with cuDNN 9; every other graph of the project repeats bit by bit).

use prost::Message;

use super::{
    Error,
    graph::Attribute,
    messages::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto},
    read::decode,
};
use crate::tensor::ElementType;

const TRANSPOSED: &str = "ConvTranspose";

/// `bytes` with every transposed convolution of stride s, kernel 2 s and padding s / 2 as a convolution of 3 x 3 to s² channels for each,
/// which are laid out as s x s pixels: the same products, added in an order that is fixed. Only models that this crate wrote are
/// changed, since of others it does not read everything.
///
/// # Errors
/// [`Error::Unreadable`] for what is no model.
pub fn with_subpixel_convolutions(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut model = read(bytes)?;
    let own = model.producer_name.as_deref() == Some(super::PRODUCER);
    let Some(graph) = model.graph.as_mut().filter(|_| own) else { return Ok(bytes.to_vec()) };
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        match subpixel(graph, &node)? {
            Some(instead) => nodes.extend(instead),
            None => nodes.push(node),
        }
    }
    graph.node = nodes;
    let read: std::collections::HashSet<&str> =
        graph.node.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    graph.initializer.retain(|tensor| tensor.name.as_deref().is_some_and(|name| read.contains(name)));
    Ok(model.encode_to_vec())
}

/// Whether windows of one of the model's transposed convolutions overlap, or may.
///
/// # Errors
/// [`Error::Unreadable`] for what is no model.
pub fn has_overlapping_windows(bytes: &[u8]) -> Result<bool, Error> {
    let graph = read(bytes)?.graph.unwrap_or_default();
    let kernel = |node: &NodeProto| {
        let weight = node.input.get(1).and_then(|name| constant(&graph, name));
        weight.map_or_else(
            || integers(node, "kernel_shape").to_vec(),
            |tensor| tensor.dims.iter().skip(2).copied().collect(),
        )
    };
    let overlaps = |node: &NodeProto| {
        let (kernel, strides) = (kernel(node), integers(node, "strides"));
        kernel.is_empty()
            || kernel.iter().enumerate().any(|(axis, &size)| size > strides.get(axis).copied().unwrap_or(1))
    };
    Ok(graph.node.iter().any(|node| node.op_type.as_deref() == Some(TRANSPOSED) && overlaps(node)))
}

fn read(bytes: &[u8]) -> Result<ModelProto, Error> {
    ModelProto::decode(bytes).map_err(|error| Error::Unreadable { cause: error.to_string() })
}

/// The constant called `name`, in whichever precision it is stored.
fn constant<'a>(graph: &'a GraphProto, name: &str) -> Option<&'a TensorProto> {
    let half = format!("{name}{}", super::half::SUFFIX);
    graph.initializer.iter().find(|tensor| tensor.name.as_deref().is_some_and(|found| found == name || found == half))
}

fn integers<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
    attribute(node, name).map_or(&[], |attribute| &attribute.ints)
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
}

/// What stands in `node`'s place, its constants added to the graph; `None` where it stays.
fn subpixel(graph: &mut GraphProto, node: &NodeProto) -> Result<Option<[NodeProto; 2]>, Error> {
    let (&[stride, other], &[top, left, bottom, right]) = (integers(node, "strides"), integers(node, "pads")) else {
        return Ok(None);
    };
    let plain = attribute(node, "group").is_none_or(|group| group.i == Some(1))
        && integers(node, "dilations").iter().all(|&dilation| dilation == 1)
        && attribute(node, "output_padding").is_none();
    let halves = stride == other && stride % 2 == 0 && [top, left, bottom, right] == [stride / 2; 4];
    let ([x, weight, rest @ ..], [y]) = (&node.input[..], &node.output[..]) else { return Ok(None) };
    if node.op_type.as_deref() != Some(TRANSPOSED) || !plain || !halves {
        return Ok(None);
    }
    let value = |name: &str| {
        let found = constant(graph, name).map(|tensor| decode(name, tensor)).transpose()?;
        // What is no f32 is no weight of ours.
        Ok::<_, Error>(found.and_then(|tensor| tensor.into_f32().ok()))
    };
    let Some((shape, weights)) = value(weight)? else { return Ok(None) };
    let bias = rest.first().map(|name| value(name)).transpose()?.flatten();
    let side = stride as usize;
    let &[from, to, rows, columns] = &shape[..] else { return Ok(None) };
    if [rows, columns] != [2 * side; 2] || bias.is_none() != rest.is_empty() {
        return Ok(None);
    }
    // Pixel q of the s that replace pixel i sees pixel i + t, t of -1, 0, 1, through the kernel's place q + s / 2 - s t, where it has one.
    let place = |q: usize, tap: usize| (q + side / 2 + side).checked_sub(side * tap).filter(|&place| place < 2 * side);
    let mut taps = vec![0.0; to * side * side * from * 9];
    for (at, tap) in taps.iter_mut().enumerate() {
        let (column, row, c, channel) = (at % 3, at / 3 % 3, at / 9 % from, at / 9 / from);
        let (right, down, o) = (channel % side, channel / side % side, channel / side / side);
        if let (Some(row), Some(column)) = (place(down, row), place(right, column)) {
            *tap = weights[((c * to + o) * rows + row) * columns + column];
        }
    }
    let inner = format!("{y}.subpixel");
    let names = [format!("{inner}.weight"), format!("{inner}.bias")];
    let mut inputs = vec![x.clone(), names[0].clone()];
    graph.initializer.push(stored(&names[0], &[to * side * side, from, 3, 3], &taps));
    if let Some((_, bias)) = bias {
        let repeated: Vec<f32> = bias.iter().flat_map(|&value| std::iter::repeat_n(value, side * side)).collect();
        graph.initializer.push(stored(&names[1], &[to * side * side], &repeated));
        inputs.push(names[1].clone());
    }
    let made = |operator: &str, input: Vec<String>, output: &str, attributes: Vec<Attribute>| NodeProto {
        input,
        output: vec![output.to_owned()],
        name: Some(format!("node:{output}")),
        op_type: Some(operator.to_owned()),
        attribute: attributes.into_iter().map(Attribute::into_message).collect(),
    };
    Ok(Some([
        made("Conv", inputs, &inner, vec![Attribute::Ints("pads", vec![1; 4])]),
        made(
            "DepthToSpace",
            vec![inner.clone()],
            y,
            vec![Attribute::Int("blocksize", stride), Attribute::Text("mode", "CRD")],
        ),
    ]))
}

fn stored(name: &str, shape: &[usize], values: &[f32]) -> TensorProto {
    TensorProto {
        dims: shape.iter().map(|&size| size as i64).collect(),
        data_type: Some(ElementType::F32.code()),
        name: Some(name.to_owned()),
        raw_data: Some(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        ..TensorProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        onnx::{Convolution, Graph, with_half_weights},
        runtime::Runtime,
        session::{Session, SessionOptions},
        tensor::Tensor,
    };

    fn wave(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|at| (at as f32 * step).sin()).collect()
    }

    /// Three channels to two, each pixel to `stride` x `stride`.
    fn enlarging(stride: usize, kernel: usize, padding: usize, biased: bool) -> Vec<u8> {
        let mut graph = Graph::new("enlarging");
        let x = graph.input("x", ElementType::F32, &["n".into(), 3.into(), "h".into(), "w".into()]);
        let weight = graph.constant_f32("weight", &[3, 2, kernel, kernel], &wave(6 * kernel * kernel, 0.37));
        let bias = biased.then(|| graph.constant_f32("bias", &[2], &[0.5, -0.25]));
        let geometry = Convolution { stride, padding, ..Convolution::default() };
        let y = graph.conv_transpose(&x, &weight, bias.as_ref(), geometry, 0);
        graph.output(&y, "y", ElementType::F32, &["n".into(), 2.into(), "h".into(), "w".into()]);
        graph.finish().unwrap()
    }

    fn run(bytes: &[u8]) -> Tensor {
        let session = Session::open(&Runtime::load().unwrap(), bytes, &SessionOptions::default()).unwrap();
        let x = Tensor::f32([2, 3, 4, 5], wave(120, 0.61)).unwrap();
        session.run_single(&[("x", x)]).unwrap()
    }

    fn operators(bytes: &[u8]) -> Vec<String> {
        read(bytes).unwrap().graph.unwrap().node.into_iter().filter_map(|node| node.op_type).collect()
    }

    #[test]
    fn the_same_picture_comes_out() {
        for (stride, biased) in [(2, true), (4, true), (4, false), (8, true)] {
            let whole = enlarging(stride, 2 * stride, stride / 2, biased);
            for bytes in [whole.clone(), with_half_weights(&whole, 1).unwrap()] {
                let written = with_subpixel_convolutions(&bytes).unwrap();
                assert!(!operators(&written).iter().any(|operator| operator == TRANSPOSED));
                assert!(has_overlapping_windows(&bytes).unwrap() && !has_overlapping_windows(&written).unwrap());
                let (expected, found) = (run(&bytes), run(&written));
                assert_eq!(
                    (found.shape(), expected.shape()[2..].to_vec()),
                    (expected.shape(), vec![4 * stride, 5 * stride])
                );
                let pairs = expected.as_f32().unwrap().iter().zip(found.as_f32().unwrap());
                let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "{stride} {biased}: {worst}");
            }
        }
    }

    #[test]
    fn other_windows_and_other_peoples_models_stay() {
        // Blocks side by side need no other order.
        let blocks = enlarging(2, 2, 0, true);
        assert_eq!(operators(&with_subpixel_convolutions(&blocks).unwrap()), operators(&blocks));
        assert!(!has_overlapping_windows(&blocks).unwrap());
        // Windows that overlap by something else.
        let odd = enlarging(2, 3, 1, true);
        assert_eq!(operators(&with_subpixel_convolutions(&odd).unwrap()), operators(&odd));
        assert!(has_overlapping_windows(&odd).unwrap());
        let mut foreign = read(&enlarging(2, 4, 1, true)).unwrap();
        foreign.producer_name = Some("pytorch".into());
        let foreign = foreign.encode_to_vec();
        assert_eq!(with_subpixel_convolutions(&foreign).unwrap(), foreign);
        assert!(has_overlapping_windows(&foreign).unwrap());
        assert!(with_subpixel_convolutions(b"no model").is_err() && has_overlapping_windows(b"no model").is_err());
    }
}
