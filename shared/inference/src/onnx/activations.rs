//! Activations and normalisation.

use super::graph::{Attribute, Graph, Value};

impl Graph {
    /// `max(x, 0)`.
    pub fn relu(&mut self, x: &Value) -> Value {
        self.apply("Relu", &[x], Vec::new())
    }

    /// `x` where positive, `slope · x` elsewhere.
    pub fn leaky_relu(&mut self, x: &Value, slope: f32) -> Value {
        self.apply("LeakyRelu", &[x], vec![Attribute::Float("alpha", slope)])
    }

    /// The hyperbolic tangent.
    pub fn tanh(&mut self, x: &Value) -> Value {
        self.apply("Tanh", &[x], Vec::new())
    }

    /// The logistic function.
    pub fn sigmoid(&mut self, x: &Value) -> Value {
        self.apply("Sigmoid", &[x], Vec::new())
    }

    /// `x · sigmoid(x)`.
    pub fn silu(&mut self, x: &Value) -> Value {
        let gate = self.sigmoid(x);
        self.mul(x, &gate)
    }

    /// `x · Φ(x)` with the exact normal distribution function (by `erf`, not the tanh approximation).
    pub fn gelu(&mut self, x: &Value) -> Value {
        self.apply("Gelu", &[x], vec![Attribute::Text("approximate", "none")])
    }

    /// The softmax along `axis`.
    pub fn softmax(&mut self, x: &Value, axis: i64) -> Value {
        self.apply("Softmax", &[x], vec![Attribute::Int("axis", axis)])
    }

    /// Group normalisation of `x: [N, C, ...]` (any spatial size) with `scale: [C]` and `bias: [C]`, constants.
    ///
    /// Written as Reshape, InstanceNormalization, Reshape, Mul, Add: ONNX Runtime's GroupNormalization operator is
    /// slower on the CPU. Image tensors only: the affine part is laid out for `[N, C, H, W]`.
    pub fn group_norm(&mut self, x: &Value, groups: usize, scale: &Value, bias: &Value, epsilon: f32) -> Value {
        let grouped_shape = self.integers(&[0, groups as i64, -1]);
        let grouped = self.reshape(x, &grouped_shape);
        let ones_name = format!("group_norm_ones_{groups}");
        let zeros_name = format!("group_norm_zeros_{groups}");
        let ones = self.shared_f32(&ones_name, &[groups], || vec![1.0; groups]);
        let zeros = self.shared_f32(&zeros_name, &[groups], || vec![0.0; groups]);
        let normal = self.instance_norm(&grouped, &ones, &zeros, epsilon);
        let shape = self.shape(x);
        let normal = self.reshape(&normal, &shape);
        self.affine(&normal, scale, bias)
    }

    /// Instance normalisation of `x: [N, C, ...]` with `scale: [C]` and `bias: [C]`.
    pub fn instance_norm(&mut self, x: &Value, scale: &Value, bias: &Value, epsilon: f32) -> Value {
        self.apply("InstanceNormalization", &[x, scale, bias], vec![Attribute::Float("epsilon", epsilon)])
    }

    /// Layer normalisation over the last axis of `x: [.., C]` with `scale: [C]` and `bias: [C]`.
    pub fn layer_norm(&mut self, x: &Value, scale: &Value, bias: &Value, epsilon: f32) -> Value {
        let attributes = vec![Attribute::Int("axis", -1), Attribute::Float("epsilon", epsilon)];
        self.apply("LayerNormalization", &[x, scale, bias], attributes)
    }

    /// Batch normalisation of `x: [N, C, ...]` with running statistics, as at evaluation; all four are `[C]`.
    pub fn batch_norm(
        &mut self,
        x: &Value,
        (scale, bias): (&Value, &Value),
        (mean, variance): (&Value, &Value),
        epsilon: f32,
    ) -> Value {
        self.apply("BatchNormalization", &[x, scale, bias, mean, variance], vec![Attribute::Float("epsilon", epsilon)])
    }

    /// `x · scale + bias` by channel: `x: [N, C, H, W]`, `scale` and `bias: [C]`, constants.
    pub fn affine(&mut self, x: &Value, scale: &Value, bias: &Value) -> Value {
        // Folded into constants when the session opens; the initialisers keep the training variables' shapes.
        let per_channel = self.integers(&[1, -1, 1, 1]);
        let scale = self.reshape(scale, &per_channel);
        let bias = self.reshape(bias, &per_channel);
        let scaled = self.mul(x, &scale);
        self.add(&scaled, &bias)
    }
}
