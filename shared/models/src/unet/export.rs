//! The U-Net as an ONNX graph, written from the weights.

use super::Error;
use super::config::{Config, groups};
use crate::weights::{self, Weights};
use hiresmed_inference::ElementType;
use hiresmed_inference::onnx::{Convolution, Dim, Graph, Pool, Value};

/// Added to GroupNorm's variance.
pub(super) const EPSILON: f32 = 1e-5;

/// The ONNX graph of a trained U-Net: `x` `f32 [n, 1, h, w]` in [-1, 1] to `logits` `f32 [n, 1, h, w]`, positive where a lesion
/// may be; h and w are multiples of 2^(levels - 1). Initialisers carry the training variables' names.
///
/// # Errors
/// [`Error::Configuration`] with every fault, [`Error::Weights`], [`Error::Graph`].
pub fn export(config: &Config, weights: &Weights) -> Result<Vec<u8>, Error> {
    let faults = config.faults();
    if !faults.is_empty() {
        return Err(Error::Configuration { faults });
    }
    let mut writer = Writer { graph: Graph::new("unet"), weights, faults: Vec::new() };
    let dims = [Dim::from("n"), Dim::Fixed(1), Dim::from("h"), Dim::from("w")];
    let x = writer.graph.input("x", ElementType::F32, &dims);
    let logits = writer.network(config, &x);
    let Writer { mut graph, faults, .. } = writer;
    if !faults.is_empty() {
        return Err(weights::Error::Mismatch { faults }.into());
    }
    graph.output(&logits, "logits", ElementType::F32, &dims);
    Ok(graph.finish()?)
}

struct Writer<'a> {
    graph: Graph,
    weights: &'a Weights,
    faults: Vec<String>,
}

impl Writer<'_> {
    fn network(&mut self, config: &Config, x: &Value) -> Value {
        let mut skips: Vec<Value> = Vec::new();
        let mut from = 1;
        let mut x = x.clone();
        for (level, &width) in config.widths.iter().enumerate() {
            if level > 0 {
                x = self.graph.max_pool(&x, Pool { kernel: 2, stride: 2, padding: 0 });
            }
            x = self.pair(&format!("down{level}"), &x, from, width);
            skips.push(x.clone());
            from = width;
        }
        skips.pop();
        for (level, &width) in config.widths.iter().enumerate().rev().skip(1) {
            let scope = format!("up{level}");
            self.graph.set_scope(&scope);
            let weight = self.constant(&format!("{scope}.transposed.weight"), &[from, width, 2, 2]);
            let bias = self.constant(&format!("{scope}.transposed.bias"), &[width]);
            let geometry = Convolution { stride: 2, ..Convolution::default() };
            let up = self.graph.conv_transpose(&x, &weight, Some(&bias), geometry, 0);
            let both = match skips.pop() {
                Some(skip) => self.graph.concat(&[&up, &skip], 1),
                None => up,
            };
            x = self.pair(&scope, &both, 2 * width, width);
            from = width;
        }
        let weight = self.constant("output.weight", &[1, from, 1, 1]);
        let bias = self.constant("output.bias", &[1]);
        self.graph.conv(&x, &weight, Some(&bias), Convolution::default())
    }

    /// Convolution, GroupNorm, ReLU; twice.
    fn pair(&mut self, scope: &str, x: &Value, from: usize, to: usize) -> Value {
        self.graph.set_scope(scope);
        let mut x = x.clone();
        for (at, from) in [from, to].into_iter().enumerate() {
            let weight = self.constant(&format!("{scope}.convolution{at}.weight"), &[to, from, 3, 3]);
            let gain = self.constant(&format!("{scope}.norm{at}.weight"), &[to]);
            let shift = self.constant(&format!("{scope}.norm{at}.bias"), &[to]);
            x = self.graph.conv(&x, &weight, None, Convolution { padding: 1, ..Convolution::default() });
            x = self.graph.group_norm(&x, groups(to), &gain, &shift, EPSILON);
            x = self.graph.relu(&x);
        }
        x
    }

    fn constant(&mut self, name: &str, shape: &[usize]) -> Value {
        self.weights.initialiser(&mut self.graph, name, shape, &mut self.faults)
    }
}
