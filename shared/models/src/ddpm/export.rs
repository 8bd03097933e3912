//! The denoising U-Net as an ONNX graph, written from the weights.

use hiresmed_inference::{
    ElementType,
    onnx::{self, Dim, Graph, Interpolation, Value},
};

use super::{
    Error,
    architecture::{Convolution, Layers, network},
    config::{Config, EPSILON},
};
use crate::weights::{self, Weights};

/// The ONNX graph of a trained diffusion model: `x` `f32 [N, channels, side, side]`, an image with noise in it, and `time` `i64 [N]`,
/// its noise level from 0 to T - 1, to `noise`, of the image's shape. Initialisers carry the training variables' names.
///
/// # Errors
/// [`Error::Configuration`] with every fault, [`Error::Weights`], [`Error::Graph`].
pub fn export(config: &Config, weights: &Weights) -> Result<Vec<u8>, Error> {
    let faults = config.faults();
    if !faults.is_empty() {
        return Err(Error::Configuration { faults });
    }
    let mut writer = Writer { graph: Graph::new("ddpm"), config, weights, faults: Vec::new() };
    let side = Dim::Fixed(config.side as i64);
    let dims = [Dim::from("N"), Dim::Fixed(config.channels as i64), side.clone(), side];
    let x = writer.graph.input("x", ElementType::F32, &dims);
    let time = writer.graph.input("time", ElementType::I64, &["N".into()]);
    let time = writer.sinusoids(&time);
    let noise = network(&mut writer, config, &x, &time);
    let Writer { mut graph, faults, .. } = writer;
    if !faults.is_empty() {
        return Err(weights::Error::Mismatch { faults }.into());
    }
    graph.output(&noise, "noise", ElementType::F32, &dims);
    Ok(graph.finish()?)
}

struct Writer<'a> {
    graph: Graph,
    config: &'a Config,
    weights: &'a Weights,
    faults: Vec<String>,
}

impl Writer<'_> {
    /// Sines and cosines of `time` `i64 [N]`: `f32 [N, sinusoids]`.
    fn sinusoids(&mut self, time: &Value) -> Value {
        self.graph.set_scope("time");
        let frequencies = self.config.frequencies();
        let time = self.graph.cast(time, ElementType::F32);
        let time = self.graph.unsqueeze(&time, &[1]);
        let frequencies = self.graph.constant_f32("time.frequencies", &[1, frequencies.len()], &frequencies);
        let angles = self.graph.mul(&time, &frequencies);
        let sines = self.graph.apply("Sin", &[&angles], Vec::new());
        let cosines = self.graph.apply("Cos", &[&angles], Vec::new());
        self.graph.concat(&[&sines, &cosines], 1)
    }

    /// Weight and bias of the layer `name`.
    fn layer(&mut self, name: &str, weight: &[usize], bias: usize) -> [Value; 2] {
        self.graph.set_scope(name);
        let (graph, faults) = (&mut self.graph, &mut self.faults);
        let weight = self.weights.initialiser(graph, &format!("{name}.weight"), weight, faults);
        [weight, self.weights.initialiser(graph, &format!("{name}.bias"), &[bias], faults)]
    }
}

impl Layers for Writer<'_> {
    type Value = Value;

    fn convolution(&mut self, name: &str, x: &Value, shape: Convolution) -> Value {
        let Convolution { from, to, kernel, stride, .. } = shape;
        let [weight, bias] = self.layer(name, &[to, from, kernel, kernel], to);
        let geometry = onnx::Convolution { stride, padding: kernel / 2, ..onnx::Convolution::default() };
        self.graph.conv(x, &weight, Some(&bias), geometry)
    }

    fn linear(&mut self, name: &str, x: &Value, from: usize, to: usize) -> Value {
        let [weight, bias] = self.layer(name, &[from, to], to);
        let product = self.graph.matmul(x, &weight);
        self.graph.add(&product, &bias)
    }

    fn norm(&mut self, name: &str, x: &Value, width: usize) -> Value {
        let [weight, bias] = self.layer(name, &[width], width);
        self.graph.group_norm(x, self.config.groups, &weight, &bias, EPSILON)
    }

    fn silu(&mut self, x: &Value) -> Value {
        self.graph.silu(x)
    }

    fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.graph.add(a, b)
    }

    fn shift(&mut self, x: &Value, by: &Value) -> Value {
        let by = self.graph.unsqueeze(by, &[2, 3]);
        self.graph.add(x, &by)
    }

    fn concat(&mut self, a: &Value, b: &Value) -> Value {
        self.graph.concat(&[a, b], 1)
    }

    fn double(&mut self, x: &Value) -> Value {
        self.graph.resize_by(x, 2, Interpolation::Nearest)
    }

    fn attend(&mut self, mixed: &Value, like: &Value, width: usize) -> Value {
        let graph = &mut self.graph;
        let width = width as i64;
        let shape = graph.integers(&[0, 3 * width, -1]);
        let mixed = graph.reshape(mixed, &shape);
        let [queries, keys, values] = [0, 1, 2].map(|part| graph.slice(&mixed, 1, part * width, (part + 1) * width));
        let queries = graph.transpose(&queries, &[0, 2, 1]);
        let scores = graph.matmul(&queries, &keys);
        let scale = graph.scalar((width as f32).powf(-0.5));
        let scores = graph.mul(&scores, &scale);
        let shares = graph.softmax(&scores, -1);
        let shares = graph.transpose(&shares, &[0, 2, 1]);
        let mixed = graph.matmul(&values, &shares);
        let shape = graph.shape(like);
        graph.reshape(&mixed, &shape)
    }
}
