//! The graph under construction: values, constants, nodes.

use std::collections::{HashMap, HashSet};

use prost::Message;

use super::messages::{
    AttributeProto, DimensionProto, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use super::{Error, IR_VERSION, OPSET};
use crate::tensor::ElementType;

/// A handle to a value of a [`Graph`]: an input, a constant or a node's output.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Value(String);

impl Value {
    /// Stands for an optional input that is left out.
    pub fn absent() -> Self {
        Self(String::new())
    }

    /// The value's name in the file.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// One dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A fixed size.
    Fixed(i64),
    /// A size that is known at run time only; the same symbol means the same size.
    Symbol(String),
}

impl From<i64> for Dim {
    fn from(size: i64) -> Self {
        Self::Fixed(size)
    }
}

impl From<&str> for Dim {
    fn from(symbol: &str) -> Self {
        Self::Symbol(symbol.to_owned())
    }
}

impl std::fmt::Display for Dim {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(size) => write!(formatter, "{size}"),
            Self::Symbol(symbol) => formatter.write_str(symbol),
        }
    }
}

/// A node's attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A real number.
    Float(&'static str, f32),
    /// An integer.
    Int(&'static str, i64),
    /// Several integers.
    Ints(&'static str, Vec<i64>),
    /// A keyword.
    Text(&'static str, &'static str),
}

impl Attribute {
    fn into_message(self) -> AttributeProto {
        // Codes of `AttributeProto.AttributeType`.
        match self {
            Self::Float(name, value) => {
                AttributeProto { name: Some(name.into()), kind: Some(1), f: Some(value), ..Default::default() }
            }
            Self::Int(name, value) => {
                AttributeProto { name: Some(name.into()), kind: Some(2), i: Some(value), ..Default::default() }
            }
            Self::Text(name, value) => AttributeProto {
                name: Some(name.into()),
                kind: Some(3),
                s: Some(value.as_bytes().to_vec()),
                ..Default::default()
            },
            Self::Ints(name, ints) => {
                AttributeProto { name: Some(name.into()), kind: Some(7), ints, ..Default::default() }
            }
        }
    }
}

/// An ONNX graph under construction.
///
/// Methods append nodes and return handles to their outputs, so that a network reads like its forward pass. Faults
/// (a name used twice, data that does not fit its shape, a handle of another graph) are collected and reported all at
/// once by [`finish`](Self::finish).
#[derive(Debug)]
pub struct Graph {
    message: GraphProto,
    names: HashSet<String>,
    small_constants: HashMap<(i32, Vec<i64>, Vec<u8>), Value>,
    faults: Vec<String>,
    scope: String,
}

impl Graph {
    /// An empty graph called `name`.
    pub fn new(name: &str) -> Self {
        Self {
            message: GraphProto { name: Some(name.to_owned()), ..Default::default() },
            names: HashSet::new(),
            small_constants: HashMap::new(),
            faults: Vec::new(),
            scope: String::new(),
        }
    }

    /// From here on, nodes are named `scope/Operator_n`: a profile of the model then reads like the network. Empty
    /// ends it.
    pub fn set_scope(&mut self, scope: &str) {
        self.scope = scope.to_owned();
    }

    /// Declares an input.
    pub fn input(&mut self, name: &str, element: ElementType, shape: &[Dim]) -> Value {
        self.claim(name);
        self.message.input.push(port(name, element, shape));
        Value(name.to_owned())
    }

    /// Declares `value` as the output called `name`, with its type and shape.
    pub fn output(&mut self, value: &Value, name: &str, element: ElementType, shape: &[Dim]) {
        if value.name() != name {
            self.claim(name);
            self.check_known(value, "output");
            self.push("Identity", &[value], vec![name.to_owned()], Vec::new());
        }
        self.message.output.push(port(name, element, shape));
    }

    /// An `f32` constant called `name`, as training calls the variable; `data` is row-major.
    pub fn constant_f32(&mut self, name: &str, shape: &[usize], data: &[f32]) -> Value {
        let raw = data.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, ElementType::F32, shape, data.len(), raw)
    }

    /// An `i64` constant called `name`; `data` is row-major.
    pub fn constant_i64(&mut self, name: &str, shape: &[usize], data: &[i64]) -> Value {
        let raw = data.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, ElementType::I64, shape, data.len(), raw)
    }

    /// A scalar `f32`; equal scalars are stored once.
    pub fn scalar(&mut self, value: f32) -> Value {
        self.small(ElementType::F32, &[], value.to_le_bytes().to_vec(), 1)
    }

    /// A list of `i64`, shape `[n]`; equal lists are stored once.
    pub fn integers(&mut self, values: &[i64]) -> Value {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.small(ElementType::I64, &[values.len()], raw, values.len())
    }

    /// An `f32` constant that several nodes of this graph share: made at the first call under `name`, returned after.
    pub(super) fn shared_f32(&mut self, name: &str, shape: &[usize], data: impl FnOnce() -> Vec<f32>) -> Value {
        if self.names.contains(name) { Value(name.to_owned()) } else { self.constant_f32(name, shape, &data()) }
    }

    /// Appends any operator with one output. Methods of the operators in use are in this module's other files; this one
    /// serves those that have none.
    pub fn apply(&mut self, operator: &str, inputs: &[&Value], attributes: Vec<Attribute>) -> Value {
        for input in inputs {
            self.check_known(input, operator);
        }
        let name = self.fresh(operator);
        self.push(operator, inputs, vec![name.clone()], attributes);
        Value(name)
    }

    /// The model's bytes.
    ///
    /// Errors with every fault that was made on the way, and when there is no output.
    pub fn finish(mut self) -> Result<Vec<u8>, Error> {
        if self.message.output.is_empty() {
            self.faults.push("it has no output".into());
        }
        if !self.faults.is_empty() {
            return Err(Error::Faults { graph: self.message.name.unwrap_or_default(), faults: self.faults });
        }
        let model = ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some("hiresmed".into()),
            producer_version: Some(env!("CARGO_PKG_VERSION").into()),
            graph: Some(self.message),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
        };
        Ok(model.encode_to_vec())
    }

    fn constant(&mut self, name: &str, element: ElementType, shape: &[usize], length: usize, raw: Vec<u8>) -> Value {
        self.claim(name);
        if shape.iter().product::<usize>() != length {
            self.faults.push(format!("constant {name:?} has shape {shape:?} but {length} elements"));
        }
        self.message.initializer.push(TensorProto {
            dims: shape.iter().map(|&size| size as i64).collect(),
            data_type: Some(element.code()),
            name: Some(name.to_owned()),
            raw_data: Some(raw),
            ..Default::default()
        });
        Value(name.to_owned())
    }

    fn small(&mut self, element: ElementType, shape: &[usize], raw: Vec<u8>, length: usize) -> Value {
        let key = (element.code(), shape.iter().map(|&size| size as i64).collect(), raw.clone());
        if let Some(value) = self.small_constants.get(&key) {
            return value.clone();
        }
        let name = format!("constant_{}", self.small_constants.len());
        let value = self.constant(&name, element, shape, length, raw);
        self.small_constants.insert(key, value.clone());
        value
    }

    fn push(&mut self, operator: &str, inputs: &[&Value], output: Vec<String>, attributes: Vec<Attribute>) {
        self.message.node.push(NodeProto {
            input: inputs.iter().map(|input| input.0.clone()).collect(),
            name: output.first().map(|name| format!("node:{name}")),
            output,
            op_type: Some(operator.to_owned()),
            attribute: attributes.into_iter().map(Attribute::into_message).collect(),
        });
    }

    fn fresh(&mut self, operator: &str) -> String {
        let separator = if self.scope.is_empty() { "" } else { "/" };
        let mut number = self.message.node.len();
        loop {
            let name = format!("{}{separator}{operator}_{number}", self.scope);
            if self.names.insert(name.clone()) {
                return name;
            }
            number += 1;
        }
    }

    fn claim(&mut self, name: &str) {
        if name.is_empty() {
            self.faults.push("a value has an empty name".into());
        } else if !self.names.insert(name.to_owned()) {
            self.faults.push(format!("the name {name:?} is used twice"));
        }
    }

    fn check_known(&mut self, value: &Value, operator: &str) {
        if !value.0.is_empty() && !self.names.contains(&value.0) {
            self.faults.push(format!("{operator} reads {:?}, which is not a value of this graph", value.0));
        }
    }
}

fn port(name: &str, element: ElementType, shape: &[Dim]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|dim| DimensionProto {
            value: Some(match dim {
                Dim::Fixed(size) => DimensionValue::Fixed(*size),
                Dim::Symbol(symbol) => DimensionValue::Symbol(symbol.clone()),
            }),
        })
        .collect();
    let tensor = TensorTypeProto { elem_type: Some(element.code()), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_listed() {
        let mut graph = Graph::new("faulty");
        graph.input("x", ElementType::F32, &["N".into()]);
        graph.constant_f32("x", &[2], &[1.0]);
        graph.apply("Relu", &[&Value("nowhere".into())], Vec::new());
        let text = graph.finish().unwrap_err().to_string();
        for part in ["\"x\" is used twice", "shape [2] but 1 elements", "\"nowhere\"", "no output"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn equal_small_constants_are_stored_once() {
        let mut graph = Graph::new("constants");
        let first = graph.integers(&[0, 1]);
        assert_eq!(graph.integers(&[0, 1]), first);
        assert_ne!(graph.integers(&[0, 2]), first);
        assert_ne!(graph.scalar(0.0), graph.scalar(-0.0));
        assert_eq!(graph.message.initializer.len(), 4);
    }
}
