//! Reading what an ONNX file declares.

use std::collections::BTreeMap;

use half::f16;
use prost::Message;

use super::Error;
use super::graph::Dim;
use super::half::SUFFIX as HALF_SUFFIX;
use super::messages::{DimensionValue, ModelProto, TensorProto, ValueInfoProto};
use crate::tensor::{ElementType, Tensor};

/// An input or output as a file or a session declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Element type; `None` where the value is not a tensor.
    pub element: Option<ElementType>,
    /// Dimensions; `None` where even the rank is unknown. An unknown dimension is the symbol "?".
    pub shape: Option<Vec<Dim>>,
}

impl std::fmt::Display for Port {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let element = self.element.map_or_else(|| "not a tensor".to_owned(), |element| element.to_string());
        let shape = match &self.shape {
            Some(shape) => shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            None => "any rank".to_owned(),
        };
        write!(formatter, "{} {element}[{shape}]", self.name)
    }
}

/// What an ONNX file declares: its ports and its constants.
#[derive(Debug, Clone)]
pub struct Model {
    /// Name of the graph.
    pub name: String,
    /// Version of ONNX's own operator set.
    pub opset: i64,
    /// Inputs that a caller must give, in order; initialisers that old files list as inputs are left out.
    pub inputs: Vec<Port>,
    /// Outputs, in order.
    pub outputs: Vec<Port>,
    initialisers: BTreeMap<String, TensorProto>,
}

impl Model {
    /// Reads a model's bytes. Errors when they are no ONNX model, and when its constants lie in other files.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let model = ModelProto::decode(bytes).map_err(|error| Error::Unreadable { cause: error.to_string() })?;
        let graph = model.graph.ok_or_else(|| Error::Unreadable { cause: "it has no graph".into() })?;
        let mut initialisers = BTreeMap::new();
        for tensor in graph.initializer {
            let name = tensor.name.clone().unwrap_or_default();
            if tensor.data_location == Some(1) {
                let cause = format!("initialiser {name:?} lies in another file; save the model as one file");
                return Err(Error::Unsupported { cause });
            }
            initialisers.insert(name, tensor);
        }
        let inputs = graph.input.iter().map(port).filter(|port| !initialisers.contains_key(&port.name)).collect();
        let is_own = |domain: &Option<String>| matches!(domain.as_deref(), None | Some("" | "ai.onnx"));
        Ok(Self {
            name: graph.name.unwrap_or_default(),
            opset: model.opset_import.iter().find(|set| is_own(&set.domain)).and_then(|set| set.version).unwrap_or(1),
            inputs,
            outputs: graph.output.iter().map(port).collect(),
            initialisers,
        })
    }

    /// Names of the initialisers, sorted.
    pub fn initialiser_names(&self) -> impl Iterator<Item = &str> {
        self.initialisers.keys().map(String::as_str)
    }

    /// The initialiser called `name`, as f32 or i64, one that is stored in half precision too; `None` where there is none.
    ///
    /// Errors when its type is another, or its data do not fit its shape.
    pub fn initialiser(&self, name: &str) -> Result<Option<Tensor>, Error> {
        let stored = self.initialisers.get(name);
        let found = stored.or_else(|| self.initialisers.get(&format!("{name}{HALF_SUFFIX}")));
        found.map(|tensor| decode(name, tensor)).transpose()
    }

    /// Number of elements of all f32 and f16 initialisers: the model's parameters.
    pub fn parameter_count(&self) -> u64 {
        let kinds = [ElementType::F32, ElementType::F16].map(|kind| Some(kind.code()));
        let is_weight = |tensor: &&TensorProto| kinds.contains(&tensor.data_type);
        let count = |tensor: &TensorProto| tensor.dims.iter().map(|&size| size.max(0) as u64).product::<u64>();
        self.initialisers.values().filter(is_weight).map(count).sum()
    }
}

fn port(info: &ValueInfoProto) -> Port {
    let tensor = info.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let dim = |value: &Option<DimensionValue>| match value {
        Some(DimensionValue::Fixed(size)) => Dim::Fixed(*size),
        Some(DimensionValue::Symbol(symbol)) => Dim::Symbol(symbol.clone()),
        None => Dim::Symbol("?".into()),
    };
    Port {
        name: info.name.clone().unwrap_or_default(),
        element: tensor.and_then(|tensor| tensor.elem_type).map(ElementType::from_code),
        shape: tensor
            .and_then(|tensor| tensor.shape.as_ref())
            .map(|shape| shape.dim.iter().map(|size| dim(&size.value)).collect()),
    }
}

fn decode(name: &str, tensor: &TensorProto) -> Result<Tensor, Error> {
    let damaged = |cause: String| Error::Unreadable { cause: format!("initialiser {name:?}: {cause}") };
    let shape = tensor
        .dims
        .iter()
        .map(|&size| usize::try_from(size).map_err(|_| damaged(format!("dimension {size}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let raw = tensor.raw_data.as_deref().filter(|raw| !raw.is_empty());
    let decoded = match ElementType::from_code(tensor.data_type.unwrap_or(0)) {
        ElementType::F32 => {
            let data = raw.map_or_else(
                || tensor.float_data.clone(),
                |raw| raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            );
            Tensor::f32(shape, data)
        }
        // In `raw_data` alone: as integers they are written by nobody.
        ElementType::F16 => {
            let halves = raw.unwrap_or_default().as_chunks().0.iter();
            Tensor::f32(shape, halves.map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect())
        }
        ElementType::I64 => {
            let data = raw.map_or_else(
                || tensor.int64_data.clone(),
                |raw| raw.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
            );
            Tensor::i64(shape, data)
        }
        other => {
            return Err(Error::Unsupported {
                cause: format!("initialiser {name:?} is {other}; only f32, f16 and i64 are read"),
            });
        }
    };
    decoded.map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::graph::Graph;
    use super::*;

    fn sample() -> Vec<u8> {
        let mut graph = Graph::new("sample");
        let x = graph.input("x", ElementType::F32, &["N".into(), 2.into()]);
        let weight = graph.constant_f32("layer.weight", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, -6.5]);
        let y = graph.matmul(&x, &weight);
        graph.constant_i64("sizes", &[2], &[7, -1]);
        graph.output(&y, "y", ElementType::F32, &["N".into(), 3.into()]);
        graph.finish().unwrap()
    }

    #[test]
    fn a_written_graph_reads_back() {
        let model = Model::parse(&sample()).unwrap();
        assert_eq!(model.opset, super::super::OPSET);
        assert_eq!(model.inputs[0].to_string(), "x f32[N, 2]");
        assert_eq!(model.outputs[0].to_string(), "y f32[N, 3]");
        let weight = model.initialiser("layer.weight").unwrap().unwrap();
        assert_eq!(weight, Tensor::f32([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, -6.5]).unwrap());
        assert_eq!(model.initialiser("sizes").unwrap().unwrap(), Tensor::i64([2], vec![7, -1]).unwrap());
        assert!(model.initialiser("absent").unwrap().is_none());
        assert_eq!(model.parameter_count(), 6);
    }

    #[test]
    fn truncated_and_foreign_bytes_are_refused_without_panic() {
        let bytes = sample();
        for length in 0..bytes.len() {
            let _ = Model::parse(&bytes[..length]);
        }
        assert!(Model::parse(b"\x89PNG\r\n\x1a\n").is_err());
        assert!(Model::parse(b"").is_err());
    }

    #[test]
    fn data_that_do_not_fit_their_shape_are_refused() {
        let mut model = Model::parse(&sample()).unwrap();
        model.initialisers.get_mut("layer.weight").unwrap().dims = vec![2, 4];
        assert!(model.initialiser("layer.weight").unwrap_err().to_string().contains("layer.weight"));
        model.initialisers.get_mut("layer.weight").unwrap().dims = vec![-2, -3];
        assert!(model.initialiser("layer.weight").is_err());
    }
}
