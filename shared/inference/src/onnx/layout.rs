//! Shapes, slices, gathers and padding.

use super::graph::{Attribute, Graph, Value};

/// How [`Graph::pad`] fills the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// With zeros.
    Zero,
    /// With the nearest pixel.
    Edge,
    /// Mirrored, without repeating the edge.
    Reflect,
}

impl Graph {
    /// The shape of `x` as `i64[rank]`.
    pub fn shape(&mut self, x: &Value) -> Value {
        self.apply("Shape", &[x], Vec::new())
    }

    /// Rows and columns of `x: [N, C, H, W]` as `i64[2]`.
    pub fn spatial_shape(&mut self, x: &Value) -> Value {
        self.apply("Shape", &[x], vec![Attribute::Int("start", 2), Attribute::Int("end", 4)])
    }

    /// `x` with the shape `shape: i64[rank]`; 0 keeps the dimension at its place, one -1 is what remains.
    pub fn reshape(&mut self, x: &Value, shape: &Value) -> Value {
        self.apply("Reshape", &[x, shape], Vec::new())
    }

    /// `x` with its dimensions in the order `order`.
    pub fn transpose(&mut self, x: &Value, order: &[i64]) -> Value {
        self.apply("Transpose", &[x], vec![Attribute::Ints("perm", order.to_vec())])
    }

    /// `parts` one after the other along `axis`.
    pub fn concat(&mut self, parts: &[&Value], axis: i64) -> Value {
        self.apply("Concat", parts, vec![Attribute::Int("axis", axis)])
    }

    /// Elements `[start, end)` along `axis`; negative positions count from the end, a large `end` means "to the end".
    pub fn slice(&mut self, x: &Value, axis: i64, start: i64, end: i64) -> Value {
        let (start, end) = (self.integers(&[start]), self.integers(&[end]));
        self.slice_at(x, &start, &end, &[axis])
    }

    /// Elements `[starts, ends)` along `axes`, with positions that are values of the graph, `i64[axes.len()]`.
    pub fn slice_at(&mut self, x: &Value, starts: &Value, ends: &Value, axes: &[i64]) -> Value {
        let axes = self.integers(axes);
        self.apply("Slice", &[x, starts, ends, &axes], Vec::new())
    }

    /// `x` moved by `by` elements along `axis`; what leaves at one end comes in at the other.
    pub fn roll(&mut self, x: &Value, axis: i64, by: i64) -> Value {
        let (last, first) = (self.slice(x, axis, -by, i64::MAX), self.slice(x, axis, 0, -by));
        self.concat(&[&last, &first], axis)
    }

    /// `x` at `indices: i64` along `axis`; the axis is replaced by the shape of `indices`.
    pub fn gather(&mut self, x: &Value, indices: &Value, axis: i64) -> Value {
        self.apply("Gather", &[x, indices], vec![Attribute::Int("axis", axis)])
    }

    /// `x` repeated along its dimensions of size 1 up to `shape: i64[rank]`.
    pub fn expand(&mut self, x: &Value, shape: &Value) -> Value {
        self.apply("Expand", &[x, shape], Vec::new())
    }

    /// `x` with dimensions of size 1 put in at `axes`.
    pub fn unsqueeze(&mut self, x: &Value, axes: &[i64]) -> Value {
        let axes = self.integers(axes);
        self.apply("Unsqueeze", &[x, &axes], Vec::new())
    }

    /// `x` without its dimensions of size 1 at `axes`.
    pub fn squeeze(&mut self, x: &Value, axes: &[i64]) -> Value {
        let axes = self.integers(axes);
        self.apply("Squeeze", &[x, &axes], Vec::new())
    }

    /// `x: [N, C, H, W]` with `top, left, bottom, right` rows and columns added.
    pub fn pad(&mut self, x: &Value, [top, left, bottom, right]: [i64; 4], mode: Padding) -> Value {
        let pads = self.integers(&[0, 0, top, left, 0, 0, bottom, right]);
        let mode = match mode {
            Padding::Zero => "constant",
            Padding::Edge => "edge",
            Padding::Reflect => "reflect",
        };
        self.apply("Pad", &[x, &pads], vec![Attribute::Text("mode", mode)])
    }
}
