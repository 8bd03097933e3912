//! All scales as one ONNX graph, written from the weights.

use super::Error;
use super::config::{Config, KERNEL, LAYERS, PADDING};
use crate::weights::{self, Weights};
use hiresmed_inference::ElementType;
use hiresmed_inference::onnx::{Convolution, Dim, Graph, Interpolation, Padding, Value};

/// Slope of LeakyReLU for negative values.
pub(super) const SLOPE: f32 = 0.2;
/// Added to the norm's variance.
pub(super) const EPSILON: f32 = 1e-5;

/// The ONNX graph of a trained SinGAN called `name`.
///
/// Inputs `z0` `f32 [n, 1, h0, w0]` and `zk` `f32 [n, c, hk, wk]`, N(0, 1), one per scale; output `y` `f32 [n, c, h, w]` of the last
/// noise's size: image and mask (c = 2), or a whole image (c = 1), in about [-1, 1]. Every scale resizes the output below (bicubic, a = -0.75) to the size of its own
/// noise, so the caller chooses the sizes. Initialisers carry the training variables' names.
///
/// # Errors
/// [`Error::Configuration`] with every fault, [`Error::Weights`], [`Error::Graph`].
pub fn export(name: &str, config: &Config, weights: &Weights) -> Result<Vec<u8>, Error> {
    let faults = config.faults();
    if !faults.is_empty() {
        return Err(Error::Configuration { name: name.to_owned(), faults });
    }
    let mut writer = Writer { graph: Graph::new("singan"), weights, faults: Vec::new() };
    let mut below: Option<Value> = None;
    for scale in 0..config.scales() {
        below = Some(writer.scale(config, scale, below.as_ref()));
    }
    let Writer { mut graph, faults, .. } = writer;
    if !faults.is_empty() {
        return Err(weights::Error::Mismatch { faults }.into());
    }
    if let Some(y) = below {
        let last = config.scales() - 1;
        graph.output(&y, "y", ElementType::F32, &shape(last, config.channels));
    }
    Ok(graph.finish()?)
}

fn shape(scale: usize, channels: usize) -> [Dim; 4] {
    [Dim::from("n"), Dim::Fixed(channels as i64), Dim::Symbol(format!("h{scale}")), Dim::Symbol(format!("w{scale}"))]
}

/// The graph under construction and the weights that go into it.
struct Writer<'a> {
    graph: Graph,
    weights: &'a Weights,
    faults: Vec<String>,
}

impl Writer<'_> {
    /// One scale over the output of the scale below; returns its own output.
    fn scale(&mut self, config: &Config, scale: usize, below: Option<&Value>) -> Value {
        self.graph.set_scope(&format!("scale{scale}"));
        let channels = if scale == 0 { 1 } else { config.channels };
        let noise = self.graph.input(&format!("z{scale}"), ElementType::F32, &shape(scale, channels));
        let amplitude = format!("scale{scale}.noise_amplitude");
        let amplitude = self.graph.constant_f32(&amplitude, &[], &[config.noise_amplitudes[scale]]);
        let scaled = self.graph.mul(&noise, &amplitude);
        let Some(below) = below else {
            let all = match config.channels {
                1 => scaled,
                channels => self.graph.concat(&vec![&scaled; channels], 1),
            };
            let input = self.graph.pad(&all, [PADDING as i64; 4], Padding::Zero);
            let x = self.stack(config, scale, &input);
            return self.graph.tanh(&x);
        };
        let size = self.graph.spatial_shape(&noise);
        let previous = self.graph.resize_to(below, &size, Interpolation::Cubic);
        let around = [PADDING as i64; 4];
        let (scaled, framed) =
            (self.graph.pad(&scaled, around, Padding::Zero), self.graph.pad(&previous, around, Padding::Edge));
        let input = self.graph.add(&scaled, &framed);
        let x = self.stack(config, scale, &input);
        let residual = self.graph.tanh(&x);
        self.graph.add(&residual, &previous)
    }

    /// The five convolutions: `[n, c, h + 10, w + 10] -> [n, c, h, w]`.
    fn stack(&mut self, config: &Config, scale: usize, input: &Value) -> Value {
        let (width, channels) = (config.widths[scale], config.channels);
        let mut x = input.clone();
        for layer in 0..LAYERS {
            let from = if layer == 0 { channels } else { width };
            let to = if layer + 1 == LAYERS { channels } else { width };
            let prefix = format!("scale{scale}.layer{layer}");
            let weight = self.constant(&format!("{prefix}.convolution.weight"), &[to, from, KERNEL, KERNEL]);
            let bias = self.constant(&format!("{prefix}.convolution.bias"), &[to]);
            x = self.graph.conv(&x, &weight, Some(&bias), Convolution::default());
            if layer + 1 < LAYERS {
                let [gain, shift] =
                    ["weight", "bias"].map(|name| self.constant(&format!("{prefix}.norm.{name}"), &[width]));
                x = self.graph.instance_norm(&x, &gain, &shift, EPSILON);
                x = self.graph.leaky_relu(&x, SLOPE);
            }
        }
        x
    }

    fn constant(&mut self, name: &str, shape: &[usize]) -> Value {
        self.weights.initialiser(&mut self.graph, name, shape, &mut self.faults)
    }
}
