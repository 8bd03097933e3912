//! Weights in half precision: a file of half the size, for models that travel. They are cast back when a session opens, so that the
//! arithmetic stays single precision.

use half::f16;
use prost::Message;

use super::{
    Error,
    messages::{AttributeProto, ModelProto, NodeProto, TensorProto},
};
use crate::tensor::ElementType;

/// What is added to a weight's name where it is stored.
pub(super) const SUFFIX: &str = ".f16";
/// Kind of an attribute that is an integer (`AttributeType` of the specification).
const INT: i32 = 2;

/// `bytes`, a model as this crate writes it, with its f32 constants of `least` elements or more as f16 (rounded to nearest, ties to even), and
/// a Cast before their first use. Smaller ones, norms and biases among them, stay as they are.
///
/// # Errors
/// [`Error::Unreadable`] for what is no model, [`Error::Unsupported`] for a weight beyond 65,504, which f16 cannot hold.
pub fn with_half_weights(bytes: &[u8], least: usize) -> Result<Vec<u8>, Error> {
    let mut model = ModelProto::decode(bytes).map_err(|error| Error::Unreadable { cause: error.to_string() })?;
    let graph = model.graph.as_mut().ok_or_else(|| Error::Unreadable { cause: "it has no graph".into() })?;
    let mut casts = Vec::new();
    for tensor in &mut graph.initializer {
        if tensor.data_type == Some(ElementType::F32.code())
            && let Some(raw) = tensor.raw_data.as_deref().filter(|raw| raw.len() >= 4 * least)
        {
            let name = tensor.name.clone().unwrap_or_default();
            let halves = halves(raw, &name)?;
            casts.push(cast(&name));
            *tensor = TensorProto {
                data_type: Some(ElementType::F16.code()),
                name: Some(format!("{name}{SUFFIX}")),
                raw_data: Some(halves),
                ..std::mem::take(tensor)
            };
        }
    }
    graph.node.splice(0..0, casts);
    Ok(model.encode_to_vec())
}

fn halves(raw: &[u8], name: &str) -> Result<Vec<u8>, Error> {
    let mut halves = Vec::with_capacity(raw.len() / 2);
    for bytes in raw.chunks_exact(4) {
        let value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let half = f16::from_f32(value);
        if value.is_finite() && !half.is_finite() {
            let cause =
                format!("initialiser {name:?} has {value}, beyond what half precision holds; keep its weights single");
            return Err(Error::Unsupported { cause });
        }
        halves.extend(half.to_le_bytes());
    }
    Ok(halves)
}

/// From the stored weight to the one of that name.
fn cast(name: &str) -> NodeProto {
    let to = AttributeProto {
        name: Some("to".to_owned()),
        i: Some(ElementType::F32.code().into()),
        kind: Some(INT),
        ..AttributeProto::default()
    };
    NodeProto {
        input: vec![format!("{name}{SUFFIX}")],
        output: vec![name.to_owned()],
        name: Some(format!("{name}.cast")),
        op_type: Some("Cast".to_owned()),
        attribute: vec![to],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        onnx::{Dim, Graph, Model},
        runtime::Runtime,
        session::{Session, SessionOptions},
        tensor::Tensor,
    };

    /// `x [1, 64] -> x w + b` with weights of about 0.1.
    fn linear(scale: f32) -> Vec<u8> {
        let mut graph = Graph::new("linear");
        let x = graph.input("x", ElementType::F32, &[Dim::Fixed(1), Dim::Fixed(64)]);
        let weights: Vec<f32> = (0..64 * 32).map(|at| scale * ((at as f32 * 0.7).sin())).collect();
        let w = graph.constant_f32("weight", &[64, 32], &weights);
        let b = graph.constant_f32("bias", &[32], &[0.123_456_79; 32]);
        let y = graph.matmul(&x, &w);
        let y = graph.add(&y, &b);
        graph.output(&y, "y", ElementType::F32, &[Dim::Fixed(1), Dim::Fixed(32)]);
        graph.finish().unwrap()
    }

    #[test]
    fn half_the_bytes_and_nearly_the_same_numbers() {
        let whole = linear(0.1);
        let half = with_half_weights(&whole, 1024).unwrap();
        assert!(half.len() < whole.len() * 6 / 10, "{} of {}", half.len(), whole.len());
        let run = |bytes: &[u8]| {
            let session = Session::open(&Runtime::load().unwrap(), bytes, &SessionOptions::default()).unwrap();
            let x = Tensor::f32([1, 64], (0..64).map(|at| (at as f32 * 0.3).cos()).collect()).unwrap();
            session.run_single(&[("x", x)]).unwrap().into_f32().unwrap().1
        };
        let worst = run(&whole).iter().zip(run(&half)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst > 0.0 && worst < 1e-3, "{worst}");
        let model = Model::parse(&half).unwrap();
        assert_eq!(model.parameter_count(), 64 * 32 + 32);
        assert_eq!(model.initialiser_names().collect::<Vec<_>>(), ["bias", "weight.f16"]);
        // By its name it is found whichever way it is stored.
        let (_, found) = model.initialiser("weight").unwrap().unwrap().into_f32().unwrap();
        let (_, kept) = Model::parse(&whole).unwrap().initialiser("weight").unwrap().unwrap().into_f32().unwrap();
        let worst = found.iter().zip(&kept).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst > 0.0 && worst < 1e-3, "{worst}");
    }

    #[test]
    fn a_weight_that_does_not_fit_is_refused() {
        let text = with_half_weights(&linear(1e6), 1024).unwrap_err().to_string();
        assert!(text.contains("\"weight\"") && text.contains("half precision"), "{text}");
        assert!(with_half_weights(b"no model", 1).is_err());
    }
}
