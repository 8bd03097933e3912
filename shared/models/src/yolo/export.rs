//! The detector as an ONNX graph, in the layout that YOLO11 exports have.

use std::collections::BTreeMap;

use hiresmed_inference::ElementType;
use hiresmed_inference::onnx::{self, Dim, Graph, Interpolation, Pool, Value};

use super::Error;
use super::architecture::{Convolution, Heads, Layer, Layers, Level, layers, network};
use super::config::{Config, EPSILON};
use crate::weights::{self, Array, Weights};

/// The ONNX graph of a trained detector: `images` `f32 [N, channels, side, side]` in [0, 1] to `output0` `f32 [N, 4 + classes, cells]`:
/// centre x, centre y, width and height in pixels, then each class's probability. Batch norms are folded into the convolutions.
///
/// # Errors
/// [`Error::Configuration`] with every fault, [`Error::Weights`], [`Error::Graph`].
pub fn export(config: &Config, weights: &Weights) -> Result<Vec<u8>, Error> {
    let faults = config.faults();
    if !faults.is_empty() {
        return Err(Error::Configuration { faults });
    }
    let folded = folded(config, weights)?;
    let mut writer = Writer { graph: Graph::new("yolo"), folded: &folded };
    let side = Dim::Fixed(config.side as i64);
    let dims = [Dim::from("n"), Dim::Fixed(config.channels as i64), side.clone(), side];
    let image = writer.graph.input("images", ElementType::F32, &dims);
    let levels = network(&mut writer, config, &image);
    let mut graph = writer.graph;
    let output = decode(&mut graph, config, &levels);
    let cells = config.cells(config.side).len() as i64;
    let dims = [Dim::from("n"), Dim::Fixed(4 + config.classes as i64), Dim::Fixed(cells)];
    graph.output(&output, "output0", ElementType::F32, &dims);
    Ok(graph.finish()?)
}

/// Weight and bias of every layer by name, its batch norm multiplied into them.
fn folded(config: &Config, weights: &Weights) -> Result<BTreeMap<String, (Array, Array)>, Error> {
    let mut faults = Vec::new();
    let mut folded = BTreeMap::new();
    for (name, layer) in layers(config) {
        let mut take = |part: &str, shape: &[usize]| {
            let found = weights.checked(&format!("{name}.{part}"), shape);
            found.cloned().map_err(|fault| faults.push(fault)).ok()
        };
        let pair = match layer {
            Layer::Output { from, to } => take("weight", &[to, from, 1, 1]).zip(take("bias", &[to])),
            Layer::Normed(shape) => {
                let weight = take("weight", &[shape.to, shape.from / shape.groups, shape.kernel, shape.kernel]);
                let norm =
                    ["weight", "bias", "mean", "variance"].map(|part| take(&format!("norm.{part}"), &[shape.to]));
                match (weight, norm) {
                    (Some(weight), [Some(gain), Some(shift), Some(mean), Some(variance)]) => {
                        Some(fold(weight, &gain, &shift, &mean, &variance))
                    }
                    _ => None,
                }
            }
        };
        folded.extend(pair.map(|pair| (name, pair)));
    }
    if faults.is_empty() { Ok(folded) } else { Err(weights::Error::Mismatch { faults }.into()) }
}

/// A convolution that does what the one with `weight` and the norm behind it do.
fn fold(mut weight: Array, gain: &Array, shift: &Array, mean: &Array, variance: &Array) -> (Array, Array) {
    let each = weight.data.len() / gain.data.len().max(1);
    let mut bias = shift.clone();
    for (at, kernel) in weight.data.chunks_exact_mut(each.max(1)).enumerate() {
        let scale = f64::from(gain.data[at]) / (f64::from(variance.data[at]).max(0.0) + EPSILON).sqrt();
        kernel.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
        bias.data[at] = (f64::from(shift.data[at]) - f64::from(mean.data[at]) * scale) as f32;
    }
    (weight, bias)
}

/// Boxes and scores from the levels' logits.
fn decode(graph: &mut Graph, config: &Config, levels: &[Level<Value>]) -> Value {
    graph.set_scope("decode");
    let flat = |graph: &mut Graph, x: &Value, channels: usize| {
        let shape = graph.integers(&[0, channels as i64, -1]);
        graph.reshape(x, &shape)
    };
    let (mut distances, mut classes) = (Vec::new(), Vec::new());
    for level in levels {
        distances.push(flat(graph, &level.distances, 4 * config.bins));
        classes.push(flat(graph, &level.classes, config.classes));
    }
    let distances = graph.concat(&distances.iter().collect::<Vec<_>>(), 2);
    let classes = graph.concat(&classes.iter().collect::<Vec<_>>(), 2);
    // Each distance is the mean of its bins' numbers under their softmax.
    let shape = graph.integers(&[0, 4, config.bins as i64, -1]);
    let distances = graph.reshape(&distances, &shape);
    let shares = graph.softmax(&distances, 2);
    let numbers: Vec<f32> = (0..config.bins).map(|bin| bin as f32).collect();
    let numbers = graph.constant_f32("bins", &[1, 1, config.bins, 1], &numbers);
    let weighted = graph.mul(&shares, &numbers);
    let distances = graph.reduce_sum(&weighted, &[2], false);

    let cells = config.cells(config.side);
    let centres: Vec<f32> =
        cells.iter().map(|cell| cell.centre.0).chain(cells.iter().map(|cell| cell.centre.1)).collect();
    let strides: Vec<f32> = cells.iter().map(|cell| cell.stride).collect();
    let centres = graph.constant_f32("centres", &[1, 2, cells.len()], &centres);
    let strides = graph.constant_f32("strides", &[1, 1, cells.len()], &strides);
    let distances = graph.mul(&distances, &strides);
    let before = graph.slice(&distances, 1, 0, 2);
    let behind = graph.slice(&distances, 1, 2, 4);
    let size = graph.add(&before, &behind);
    let half = graph.scalar(0.5);
    let off = graph.sub(&behind, &before);
    let off = graph.mul(&off, &half);
    let centre = graph.add(&centres, &off);
    let scores = graph.sigmoid(&classes);
    graph.concat(&[&centre, &size, &scores], 1)
}

struct Writer<'a> {
    graph: Graph,
    folded: &'a BTreeMap<String, (Array, Array)>,
}

impl Writer<'_> {
    fn layer(&mut self, name: &str, x: &Value, geometry: onnx::Convolution) -> Value {
        self.graph.set_scope(name);
        // `folded` has every layer or there is no writer.
        let Some((weight, bias)) = self.folded.get(name) else { return x.clone() };
        let weight = self.graph.constant_f32(&format!("{name}.weight"), &weight.shape, &weight.data);
        let bias = self.graph.constant_f32(&format!("{name}.bias"), &bias.shape, &bias.data);
        self.graph.conv(x, &weight, Some(&bias), geometry)
    }
}

impl Layers for Writer<'_> {
    type Value = Value;

    fn convolution(&mut self, name: &str, x: &Value, shape: Convolution) -> Value {
        let Convolution { kernel, stride, groups, .. } = shape;
        let x = self.layer(name, x, onnx::Convolution { stride, padding: kernel / 2, dilation: 1, groups });
        if shape.silu { self.graph.silu(&x) } else { x }
    }

    fn output(&mut self, name: &str, x: &Value, _: usize, _: usize) -> Value {
        self.layer(name, x, onnx::Convolution::default())
    }

    fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.graph.add(a, b)
    }

    fn concat(&mut self, parts: &[Value]) -> Value {
        self.graph.concat(&parts.iter().collect::<Vec<_>>(), 1)
    }

    fn halves(&mut self, x: &Value, channels: usize) -> (Value, Value) {
        let channels = channels as i64;
        (self.graph.slice(x, 1, 0, channels), self.graph.slice(x, 1, channels, 2 * channels))
    }

    fn pool(&mut self, x: &Value) -> Value {
        self.graph.max_pool(x, Pool { kernel: 5, stride: 1, padding: 2 })
    }

    fn double(&mut self, x: &Value) -> Value {
        self.graph.resize_by(x, 2, Interpolation::Nearest)
    }

    fn attend(&mut self, mixed: &Value, like: &Value, heads: Heads) -> (Value, Value) {
        let Heads { count, key, value } = heads;
        let (count, key, value) = (count as i64, key as i64, value as i64);
        let graph = &mut self.graph;
        let shape = graph.integers(&[0, count, 2 * key + value, -1]);
        let mixed = graph.reshape(mixed, &shape);
        let queries = graph.slice(&mixed, 2, 0, key);
        let keys = graph.slice(&mixed, 2, key, 2 * key);
        let values = graph.slice(&mixed, 2, 2 * key, 2 * key + value);
        let queries = graph.transpose(&queries, &[0, 1, 3, 2]);
        let scale = graph.scalar((key as f32).powf(-0.5));
        let products = graph.matmul(&queries, &keys);
        let products = graph.mul(&products, &scale);
        let shares = graph.softmax(&products, -1);
        let shares = graph.transpose(&shares, &[0, 1, 3, 2]);
        let attended = graph.matmul(&values, &shares);
        let shape = graph.shape(like);
        (graph.reshape(&attended, &shape), graph.reshape(&values, &shape))
    }
}
