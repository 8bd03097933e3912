//! Element-wise arithmetic, comparison, reduction and products.

use super::graph::{Attribute, Graph, Value};
use crate::tensor::ElementType;

macro_rules! operators {
    ($($(#[$doc:meta])* $name:ident($($input:ident),+) = $operator:literal;)+) => {
        impl Graph {
            $(
                $(#[$doc])*
                pub fn $name(&mut self, $($input: &Value),+) -> Value {
                    self.apply($operator, &[$($input),+], Vec::new())
                }
            )+
        }
    };
}

operators! {
    /// `a + b`, broadcast.
    add(a, b) = "Add";
    /// `a - b`, broadcast.
    sub(a, b) = "Sub";
    /// `a * b`, broadcast.
    mul(a, b) = "Mul";
    /// `a / b`, broadcast; integers truncate towards zero.
    div(a, b) = "Div";
    /// The smaller of `a` and `b`, broadcast.
    min(a, b) = "Min";
    /// The larger of `a` and `b`, broadcast.
    max(a, b) = "Max";
    /// `a` to the power `b`, broadcast.
    pow(a, b) = "Pow";
    /// `-x`.
    neg(x) = "Neg";
    /// `|x|`.
    abs(x) = "Abs";
    /// The square root.
    sqrt(x) = "Sqrt";
    /// `e` to the power `x`.
    exp(x) = "Exp";
    /// The natural logarithm.
    log(x) = "Log";
    /// The next integer below.
    floor(x) = "Floor";
    /// `a == b`, broadcast; a truth value.
    equal(a, b) = "Equal";
    /// `a > b`, broadcast; a truth value.
    greater(a, b) = "Greater";
    /// `a < b`, broadcast; a truth value.
    less(a, b) = "Less";
    /// Both, broadcast; truth values.
    and(a, b) = "And";
    /// Either, broadcast; truth values.
    or(a, b) = "Or";
    /// Not; truth values.
    not(x) = "Not";
    /// `yes` where `condition` holds, `no` elsewhere, broadcast; the chosen elements are copied bit for bit.
    r#where(condition, yes, no) = "Where";
    /// The matrix product of the last two dimensions, earlier ones broadcast: `[.., m, k]` by `[.., k, n]`.
    matmul(a, b) = "MatMul";
    /// The same value under another name.
    identity(x) = "Identity";
}

impl Graph {
    /// `x` limited to `[low, high]`.
    pub fn clip(&mut self, x: &Value, low: f32, high: f32) -> Value {
        let (low, high) = (self.scalar(low), self.scalar(high));
        self.apply("Clip", &[x, &low, &high], Vec::new())
    }

    /// `x` with its elements converted to `element`.
    pub fn cast(&mut self, x: &Value, element: ElementType) -> Value {
        self.apply("Cast", &[x], vec![Attribute::Int("to", i64::from(element.code()))])
    }

    /// The index of the largest element along `axis`; the first one of equals; `i64`.
    pub fn argmax(&mut self, x: &Value, axis: i64, keep_axis: bool) -> Value {
        let attributes = vec![Attribute::Int("axis", axis), Attribute::Int("keepdims", i64::from(keep_axis))];
        self.apply("ArgMax", &[x], attributes)
    }

    /// The mean over `axes`.
    pub fn reduce_mean(&mut self, x: &Value, axes: &[i64], keep_axes: bool) -> Value {
        self.reduce("ReduceMean", x, axes, keep_axes)
    }

    /// The sum over `axes`.
    pub fn reduce_sum(&mut self, x: &Value, axes: &[i64], keep_axes: bool) -> Value {
        self.reduce("ReduceSum", x, axes, keep_axes)
    }

    /// `x` scaled to unit Euclidean length along `axis`: `x / max(‖x‖, 1e-12)`, as PyTorch's `normalize` does it.
    pub fn normalise_l2(&mut self, x: &Value, axis: i64) -> Value {
        let norm = self.reduce("ReduceL2", x, &[axis], true);
        let floor = self.scalar(1e-12);
        let norm = self.max(&norm, &floor);
        self.div(x, &norm)
    }

    fn reduce(&mut self, operator: &str, x: &Value, axes: &[i64], keep_axes: bool) -> Value {
        let axes = self.integers(axes);
        self.apply(operator, &[x, &axes], vec![Attribute::Int("keepdims", i64::from(keep_axes))])
    }
}
