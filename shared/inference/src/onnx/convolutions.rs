//! Convolutions and pooling over `[N, C, H, W]`.

use super::graph::{Attribute, Graph, Value};

/// Geometry of a convolution, the same along both axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// Step between two windows.
    pub stride: usize,
    /// Zero rows and columns added at each border.
    pub padding: usize,
    /// Distance between two taps.
    pub dilation: usize,
    /// Groups of channels that do not see each other; the number of channels makes it depth-wise.
    pub groups: usize,
}

impl Default for Convolution {
    /// Stride 1, no padding, no dilation, one group.
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

/// Geometry of a pooling window, the same along both axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Side of the window.
    pub kernel: usize,
    /// Step between two windows.
    pub stride: usize,
    /// Rows and columns added at each border; they never win, and averages do not count them.
    pub padding: usize,
}

impl Graph {
    /// Convolution of `x: [N, C, H, W]` with `weight: [O, C / groups, kh, kw]` and `bias: [O]` if any.
    pub fn conv(&mut self, x: &Value, weight: &Value, bias: Option<&Value>, geometry: Convolution) -> Value {
        let attributes = geometry.attributes();
        self.with_bias("Conv", x, weight, bias, attributes)
    }

    /// Transposed convolution of `x: [N, C, H, W]` with `weight: [C, O / groups, kh, kw]`; the result has
    /// `(H - 1) · stride - 2 · padding + dilation · (kh - 1) + output_padding + 1` rows.
    pub fn conv_transpose(
        &mut self,
        x: &Value,
        weight: &Value,
        bias: Option<&Value>,
        geometry: Convolution,
        output_padding: usize,
    ) -> Value {
        let mut attributes = geometry.attributes();
        if output_padding > 0 {
            attributes.push(Attribute::Ints("output_padding", vec![output_padding as i64; 2]));
        }
        self.with_bias("ConvTranspose", x, weight, bias, attributes)
    }

    /// The largest element of each window.
    pub fn max_pool(&mut self, x: &Value, pool: Pool) -> Value {
        self.apply("MaxPool", &[x], pool.attributes())
    }

    /// The mean of each window, over the elements inside the image.
    pub fn average_pool(&mut self, x: &Value, pool: Pool) -> Value {
        self.apply("AveragePool", &[x], pool.attributes())
    }

    /// The mean of each channel: `[N, C, H, W]` to `[N, C, 1, 1]`.
    pub fn global_average_pool(&mut self, x: &Value) -> Value {
        self.apply("GlobalAveragePool", &[x], Vec::new())
    }

    fn with_bias(
        &mut self,
        operator: &str,
        x: &Value,
        weight: &Value,
        bias: Option<&Value>,
        attributes: Vec<Attribute>,
    ) -> Value {
        match bias {
            Some(bias) => self.apply(operator, &[x, weight, bias], attributes),
            None => self.apply(operator, &[x, weight], attributes),
        }
    }
}

impl Convolution {
    fn attributes(self) -> Vec<Attribute> {
        vec![
            Attribute::Ints("strides", vec![self.stride as i64; 2]),
            Attribute::Ints("pads", vec![self.padding as i64; 4]),
            Attribute::Ints("dilations", vec![self.dilation as i64; 2]),
            Attribute::Int("group", self.groups as i64),
        ]
    }
}

impl Pool {
    fn attributes(self) -> Vec<Attribute> {
        vec![
            Attribute::Ints("kernel_shape", vec![self.kernel as i64; 2]),
            Attribute::Ints("strides", vec![self.stride as i64; 2]),
            Attribute::Ints("pads", vec![self.padding as i64; 4]),
        ]
    }
}
