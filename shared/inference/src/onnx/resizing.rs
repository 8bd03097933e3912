//! Resizing images inside a graph.

use super::graph::{Attribute, Graph, Value};

/// How pixels between pixels are made; each is PyTorch's `interpolate` of the same name with `align_corners=False` and
/// without antialiasing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// Bicubic with a = -0.75.
    Cubic,
    /// Bilinear.
    Linear,
    /// The pixel at `floor(i · scale)`.
    Nearest,
}

impl Graph {
    /// `x: [N, C, H, W]` resized to `size: i64[2]`, rows then columns.
    pub fn resize_to(&mut self, x: &Value, size: &Value, interpolation: Interpolation) -> Value {
        let batch = self.apply("Shape", &[x], vec![Attribute::Int("start", 0), Attribute::Int("end", 2)]);
        let sizes = self.concat(&[&batch, size], 0);
        let absent = Value::absent();
        self.apply("Resize", &[x, &absent, &absent, &sizes], interpolation.attributes())
    }

    /// `x: [N, C, H, W]` enlarged by a whole factor along both axes.
    pub fn resize_by(&mut self, x: &Value, factor: usize, interpolation: Interpolation) -> Value {
        let name = format!("resize_scales_{factor}");
        let scales = self.shared_f32(&name, &[4], || vec![1.0, 1.0, factor as f32, factor as f32]);
        let absent = Value::absent();
        self.apply("Resize", &[x, &absent, &scales], interpolation.attributes())
    }
}

impl Interpolation {
    fn attributes(self) -> Vec<Attribute> {
        match self {
            Self::Cubic => vec![
                Attribute::Text("mode", "cubic"),
                Attribute::Float("cubic_coeff_a", -0.75),
                Attribute::Text("coordinate_transformation_mode", "half_pixel"),
            ],
            Self::Linear => {
                vec![Attribute::Text("mode", "linear"), Attribute::Text("coordinate_transformation_mode", "half_pixel")]
            }
            Self::Nearest => vec![
                Attribute::Text("mode", "nearest"),
                Attribute::Text("coordinate_transformation_mode", "asymmetric"),
                Attribute::Text("nearest_mode", "floor"),
            ],
        }
    }
}
