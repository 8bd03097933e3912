//! Dense tensors on the host, and the element types of graphs.

/// Element type of a tensor, with ONNX's code (`TensorProto.DataType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// IEEE 754 single precision.
    F32,
    /// Unsigned 8 bit.
    U8,
    /// Signed 32 bit.
    I32,
    /// Signed 64 bit.
    I64,
    /// Truth value.
    Bool,
    /// IEEE 754 half precision.
    F16,
    /// IEEE 754 double precision.
    F64,
    /// Any other type, by its ONNX code; it can be read from a file, not run.
    Other(i32),
}

impl ElementType {
    /// ONNX's code.
    pub fn code(self) -> i32 {
        match self {
            Self::F32 => 1,
            Self::U8 => 2,
            Self::I32 => 6,
            Self::I64 => 7,
            Self::Bool => 9,
            Self::F16 => 10,
            Self::F64 => 11,
            Self::Other(code) => code,
        }
    }

    /// The type with this ONNX code.
    pub fn from_code(code: i32) -> Self {
        match code {
            1 => Self::F32,
            2 => Self::U8,
            6 => Self::I32,
            7 => Self::I64,
            9 => Self::Bool,
            10 => Self::F16,
            11 => Self::F64,
            other => Self::Other(other),
        }
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::F32 => formatter.write_str("f32"),
            Self::U8 => formatter.write_str("u8"),
            Self::I32 => formatter.write_str("i32"),
            Self::I64 => formatter.write_str("i64"),
            Self::Bool => formatter.write_str("bool"),
            Self::F16 => formatter.write_str("f16"),
            Self::F64 => formatter.write_str("f64"),
            Self::Other(code) => write!(formatter, "ONNX element type {code}"),
        }
    }
}

/// What can be wrong with a tensor that a caller made or expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The number of elements is not the shape's product.
    #[error("a tensor of shape {shape:?} has {expected} elements, but {found} were given")]
    Length {
        /// Declared shape.
        shape: Vec<usize>,
        /// Product of the shape.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// The tensor holds another element type than the one asked for.
    #[error("expected a tensor of {expected}, found {found} with shape {shape:?}")]
    Type {
        /// Type asked for.
        expected: ElementType,
        /// Type held.
        found: ElementType,
        /// Shape held.
        shape: Vec<usize>,
    },
}

/// A dense tensor in host memory, row-major (the last dimension runs fastest).
#[derive(Debug, Clone, PartialEq)]
pub enum Tensor {
    /// Single precision.
    F32 {
        /// Dimensions, outermost first; empty for a scalar.
        shape: Vec<usize>,
        /// Elements.
        data: Vec<f32>,
    },
    /// Signed 64 bit: tokens, sizes, indices.
    I64 {
        /// Dimensions, outermost first; empty for a scalar.
        shape: Vec<usize>,
        /// Elements.
        data: Vec<i64>,
    },
}

impl Tensor {
    /// An `f32` tensor. Errors when `data` is not as long as the shape's product.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Result<Self, Error> {
        let shape = shape.into();
        check_length(&shape, data.len())?;
        Ok(Self::F32 { shape, data })
    }

    /// An `i64` tensor. Errors when `data` is not as long as the shape's product.
    pub fn i64(shape: impl Into<Vec<usize>>, data: Vec<i64>) -> Result<Self, Error> {
        let shape = shape.into();
        check_length(&shape, data.len())?;
        Ok(Self::I64 { shape, data })
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32 { shape, .. } | Self::I64 { shape, .. } => shape,
        }
    }

    /// Element type.
    pub fn element_type(&self) -> ElementType {
        match self {
            Self::F32 { .. } => ElementType::F32,
            Self::I64 { .. } => ElementType::I64,
        }
    }

    /// The elements of an `f32` tensor.
    pub fn as_f32(&self) -> Result<&[f32], Error> {
        match self {
            Self::F32 { data, .. } => Ok(data),
            Self::I64 { .. } => Err(self.wrong_type(ElementType::F32)),
        }
    }

    /// The elements of an `i64` tensor.
    pub fn as_i64(&self) -> Result<&[i64], Error> {
        match self {
            Self::I64 { data, .. } => Ok(data),
            Self::F32 { .. } => Err(self.wrong_type(ElementType::I64)),
        }
    }

    /// Shape and elements of an `f32` tensor.
    pub fn into_f32(self) -> Result<(Vec<usize>, Vec<f32>), Error> {
        match self {
            Self::F32 { shape, data } => Ok((shape, data)),
            Self::I64 { .. } => Err(self.wrong_type(ElementType::F32)),
        }
    }

    /// Shape and elements of an `i64` tensor.
    pub fn into_i64(self) -> Result<(Vec<usize>, Vec<i64>), Error> {
        match self {
            Self::I64 { shape, data } => Ok((shape, data)),
            Self::F32 { .. } => Err(self.wrong_type(ElementType::I64)),
        }
    }

    fn wrong_type(&self, expected: ElementType) -> Error {
        Error::Type { expected, found: self.element_type(), shape: self.shape().to_vec() }
    }
}

fn check_length(shape: &[usize], found: usize) -> Result<(), Error> {
    let expected = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size)).unwrap_or(usize::MAX);
    if expected == found { Ok(()) } else { Err(Error::Length { shape: shape.to_vec(), expected, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_must_equal_the_shape() {
        assert!(Tensor::f32([2, 3], vec![0.0; 6]).is_ok());
        assert_eq!(Tensor::f32([2, 3], vec![0.0; 5]), Err(Error::Length { shape: vec![2, 3], expected: 6, found: 5 }));
        assert!(Tensor::i64([usize::MAX, 2], vec![]).is_err());
    }

    #[test]
    fn wrong_type_is_an_error_that_names_both() {
        let error = Tensor::i64([1], vec![1]).unwrap().into_f32().unwrap_err();
        assert_eq!(error.to_string(), "expected a tensor of f32, found i64 with shape [1]");
    }

    #[test]
    fn codes_round_trip() {
        for code in 0..30 {
            assert_eq!(ElementType::from_code(code).code(), code);
        }
    }
}
