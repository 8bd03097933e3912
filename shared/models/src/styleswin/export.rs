//! The generator as an ONNX graph, written from the weights.

use hiresmed_inference::{
    ElementType,
    onnx::{Dim, Graph, Interpolation, Value},
};

use super::{
    APART, EPSILON, Error, LATENT_EPSILON, SLOPE,
    config::{Config, MEAN_STYLE, Scale},
};
use crate::weights::{self, Weights};

/// The ONNX graph of a generator: `latent` f32 `[N, latent]` and `truncation` f32 `[N, 1]` (1 leaves the styles, 0 draws them to the
/// mean) to `image` f32 `[N, channels, side, side]`, not limited to [-1, 1]. Initialisers carry the training variables' names.
///
/// # Errors
/// [`Error::Configuration`] with every fault, [`Error::Weights`], [`Error::Graph`].
pub fn export(config: &Config, weights: &Weights) -> Result<Vec<u8>, Error> {
    let faults = config.faults();
    if !faults.is_empty() {
        return Err(Error::Configuration { faults });
    }
    let mut writer = Writer { graph: Graph::new("styleswin"), config, weights, faults: Vec::new() };
    let n = || Dim::from("N");
    let latent = writer.graph.input("latent", ElementType::F32, &[n(), (config.latent as i64).into()]);
    let truncation = writer.graph.input("truncation", ElementType::F32, &[n(), 1.into()]);
    let styles = writer.styles(&latent, &truncation);
    let image = writer.synthesise(&styles);
    let Writer { mut graph, faults, .. } = writer;
    if !faults.is_empty() {
        return Err(weights::Error::Mismatch { faults }.into());
    }
    let side = config.side() as i64;
    let dims = [n(), (config.channels as i64).into(), side.into(), side.into()];
    graph.output(&image, "image", ElementType::F32, &dims);
    Ok(graph.finish()?)
}

struct Writer<'a> {
    graph: Graph,
    config: &'a Config,
    weights: &'a Weights,
    faults: Vec<String>,
}

impl Writer<'_> {
    fn styles(&mut self, latent: &Value, truncation: &Value) -> Value {
        self.graph.set_scope("mapping");
        let square = self.graph.mul(latent, latent);
        let square = self.graph.reduce_mean(&square, &[1], true);
        let mut w = self.normalised(latent, &square, LATENT_EPSILON);
        for layer in 0..self.config.mapping_layers {
            let from = if layer == 0 { self.config.latent } else { self.config.style };
            w = self.linear(&w, &format!("mapping{layer}"), from, self.config.style);
            w = self.graph.leaky_relu(&w, SLOPE);
        }
        let mean = self.constant(MEAN_STYLE, &[self.config.style]);
        let apart = self.graph.sub(&w, &mean);
        let apart = self.graph.mul(&apart, truncation);
        self.graph.add(&mean, &apart)
    }

    fn synthesise(&mut self, styles: &Value) -> Value {
        let start = self.config.start;
        let scales = self.config.scales();
        let x = self.constant("constant", &[start, start, scales[0].width]);
        let mut x = self.graph.unsqueeze(&x, &[0]);
        let mut image: Option<Value> = None;
        for (at, scale) in scales.iter().enumerate() {
            self.graph.set_scope(&format!("scale{at}"));
            if at > 0 {
                x = self.grow(&x, at, scales[at - 1].width, scale.width);
            }
            let position = self.position(at, scale);
            x = self.graph.add(&x, &position);
            let windows = self.windows(at, scale);
            for block in 0..self.config.blocks {
                x = self.block(&x, styles, scale, &windows, &format!("scale{at}.block{block}"));
            }
            self.graph.set_scope(&format!("scale{at}"));
            let part = self.linear(&x, &format!("scale{at}.image"), scale.width, self.config.channels);
            let part = self.graph.transpose(&part, &[0, 3, 1, 2]);
            image = Some(match image {
                None => part,
                Some(before) => {
                    let before = self.graph.resize_by(&before, 2, Interpolation::Linear);
                    self.graph.add(&before, &part)
                }
            });
        }
        image.unwrap_or(x)
    }

    /// Norm, matrix and bilinear up-sampling.
    fn grow(&mut self, x: &Value, at: usize, from: usize, to: usize) -> Value {
        let weight = self.constant(&format!("scale{at}.norm.weight"), &[from]);
        let bias = self.constant(&format!("scale{at}.norm.bias"), &[from]);
        let normal = self.graph.layer_norm(x, &weight, &bias, EPSILON);
        let matrix = self.constant(&format!("scale{at}.project.weight"), &[from, to]);
        let projected = self.graph.matmul(&normal, &matrix);
        let planes = self.graph.transpose(&projected, &[0, 3, 1, 2]);
        let planes = self.graph.resize_by(&planes, 2, Interpolation::Linear);
        self.graph.transpose(&planes, &[0, 2, 3, 1])
    }

    /// Sinusoids of rows and columns, `[side, side, width]`; a line of each is stored.
    fn position(&mut self, at: usize, scale: &Scale) -> Value {
        let (side, half) = (scale.side, scale.width / 2);
        let line = self.graph.constant_f32(&format!("scale{at}.sinusoids"), &[side, half], &scale.sinusoids());
        let shape = self.graph.integers(&[side as i64, side as i64, half as i64]);
        let [rows, columns] = [1, 0].map(|axis| {
            let line = self.graph.unsqueeze(&line, &[axis]);
            self.graph.expand(&line, &shape)
        });
        self.graph.concat(&[&rows, &columns], 2)
    }

    /// What the attention of one scale needs and does not learn: rows of the table of relative positions `[places²]`, and the
    /// shifted windows' mask `[1, windows², 1, places, places]`.
    fn windows(&mut self, at: usize, scale: &Scale) -> (Value, Option<Value>) {
        let (places, count) = (scale.places(), scale.windows() * scale.windows());
        let relative = self.graph.constant_i64(&format!("scale{at}.offsets"), &[places * places], &scale.relative());
        let mask = (scale.shift > 0).then(|| {
            let regions =
                self.graph.constant_f32(&format!("scale{at}.regions"), &[1, count, 1, places], &scale.regions());
            let (a, b) = (self.graph.unsqueeze(&regions, &[4]), self.graph.unsqueeze(&regions, &[3]));
            let same = self.graph.equal(&a, &b);
            let (none, apart) = (self.graph.scalar(0.0), self.graph.scalar(APART));
            self.graph.r#where(&same, &none, &apart)
        });
        (relative, mask)
    }

    fn block(
        &mut self,
        x: &Value,
        styles: &Value,
        scale: &Scale,
        windows: &(Value, Option<Value>),
        name: &str,
    ) -> Value {
        self.graph.set_scope(name);
        let (width, inner) = (scale.width, self.config.expansion * scale.width);
        let part = |part: &str| format!("{name}.{part}");
        let y = self.modulate(x, styles, &part("style0"), width);
        let y = self.linear(&y, &part("attention"), width, 3 * width);
        let y = self.attend(&y, scale, windows, &part("relative"));
        let y = self.linear(&y, &part("projection"), width, width);
        let x = self.graph.add(x, &y);
        let y = self.modulate(&x, styles, &part("style1"), width);
        let y = self.linear(&y, &part("expand"), width, inner);
        let y = self.graph.gelu(&y);
        let y = self.linear(&y, &part("contract"), inner, width);
        self.graph.add(&x, &y)
    }

    /// AdaIN.
    fn modulate(&mut self, x: &Value, styles: &Value, name: &str, width: usize) -> Value {
        let style = self.linear(styles, name, self.config.style, 2 * width);
        let style = self.graph.unsqueeze(&style, &[1, 2]);
        let gain = self.graph.slice(&style, 3, 0, width as i64);
        let shift = self.graph.slice(&style, 3, width as i64, i64::MAX);
        let mean = self.graph.reduce_mean(x, &[1, 2], true);
        let centred = self.graph.sub(x, &mean);
        let square = self.graph.mul(&centred, &centred);
        let variance = self.graph.reduce_mean(&square, &[1, 2], true);
        let normal = self.normalised(&centred, &variance, EPSILON);
        let scaled = self.graph.mul(&normal, &gain);
        self.graph.add(&scaled, &shift)
    }

    /// `x` over the root of `square` plus `epsilon`.
    fn normalised(&mut self, x: &Value, square: &Value, epsilon: f32) -> Value {
        let epsilon = self.graph.scalar(epsilon);
        let sum = self.graph.add(square, &epsilon);
        let root = self.graph.sqrt(&sum);
        self.graph.div(x, &root)
    }

    /// Double attention: `[N, side, side, 3 width]` to `[N, side, side, width]`.
    fn attend(
        &mut self,
        features: &Value,
        scale: &Scale,
        (offsets, mask): &(Value, Option<Value>),
        relative: &str,
    ) -> Value {
        let (places, heads, half) = (scale.places() as i64, scale.heads as i64, 3 * scale.width as i64 / 2);
        let table = self.constant(relative, &[scale.offsets(), scale.heads]);
        let bias = self.graph.gather(&table, offsets, 0);
        let bias = self.reshape(&bias, &[places, places, heads]);
        let bias = self.graph.transpose(&bias, &[2, 0, 1]);
        let of = |graph: &mut Graph, first: i64, last: i64| graph.slice(&bias, 0, first, last);
        let plain_bias = of(&mut self.graph, 0, heads / 2);
        let moved_bias = of(&mut self.graph, heads / 2, heads);
        let plain = self.graph.slice(features, 3, 0, half);
        let plain = self.windowed(&plain, &plain_bias, None, scale);
        let shift = scale.shift as i64;
        let moved = self.graph.slice(features, 3, half, 2 * half);
        let moved = self.roll(&moved, -shift);
        let moved = self.windowed(&moved, &moved_bias, mask.as_ref(), scale);
        let moved = self.roll(&moved, shift);
        self.graph.concat(&[&plain, &moved], 3)
    }

    fn roll(&mut self, x: &Value, by: i64) -> Value {
        if by == 0 {
            return x.clone();
        }
        let rolled = self.graph.roll(x, 1, by);
        self.graph.roll(&rolled, 2, by)
    }

    /// Attention within windows: `[N, side, side, 3 c]` to `[N, side, side, c]`.
    fn windowed(&mut self, features: &Value, bias: &Value, mask: Option<&Value>, scale: &Scale) -> Value {
        let [side, window, windows, places] =
            [scale.side, scale.window, scale.windows(), scale.places()].map(|size| size as i64);
        let (heads, c) = (scale.heads as i64 / 2, scale.width as i64 / 2);
        let width = c / heads;
        let parts = self.reshape(features, &[-1, windows, window, windows, window, 3, heads * width]);
        let parts = self.graph.transpose(&parts, &[5, 0, 1, 3, 2, 4, 6]);
        let parts = self.reshape(&parts, &[3, -1, places, heads, width]);
        let [query, key, value] = [0, 1, 2].map(|part| {
            let part = self.graph.slice(&parts, 0, part, part + 1);
            self.graph.squeeze(&part, &[0])
        });
        let root = self.graph.scalar(1.0 / (width as f32).sqrt());
        let query = self.graph.mul(&query, &root);
        let query = self.graph.transpose(&query, &[0, 2, 1, 3]);
        let key = self.graph.transpose(&key, &[0, 2, 3, 1]);
        let value = self.graph.transpose(&value, &[0, 2, 1, 3]);
        let scores = self.graph.matmul(&query, &key);
        let mut scores = self.graph.add(&scores, bias);
        if let Some(mask) = mask {
            let each = self.reshape(&scores, &[-1, windows * windows, heads, places, places]);
            let masked = self.graph.add(&each, mask);
            scores = self.reshape(&masked, &[-1, heads, places, places]);
        }
        let shares = self.graph.softmax(&scores, -1);
        let mixed = self.graph.matmul(&shares, &value);
        let mixed = self.graph.transpose(&mixed, &[0, 2, 1, 3]);
        let mixed = self.reshape(&mixed, &[-1, windows, windows, window, window, c]);
        let mixed = self.graph.transpose(&mixed, &[0, 1, 3, 2, 4, 5]);
        self.reshape(&mixed, &[-1, side, side, c])
    }

    fn linear(&mut self, x: &Value, name: &str, from: usize, to: usize) -> Value {
        let weight = self.constant(&format!("{name}.weight"), &[from, to]);
        let bias = self.constant(&format!("{name}.bias"), &[to]);
        let product = self.graph.matmul(x, &weight);
        self.graph.add(&product, &bias)
    }

    fn reshape(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.graph.integers(shape);
        self.graph.reshape(x, &shape)
    }

    fn constant(&mut self, name: &str, shape: &[usize]) -> Value {
        self.weights.initialiser(&mut self.graph, name, shape, &mut self.faults)
    }
}
