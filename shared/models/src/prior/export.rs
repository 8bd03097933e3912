//! The token prior as an ONNX graph, written from the weights.

use hiresmed_inference::{
    ElementType,
    onnx::{Convolution, Dim, Graph, Value},
};

use super::{
    Error,
    config::{Config, Objective},
};
use crate::weights::{self, Weights};

/// Added to the variance of layer normalisation, as in training.
const EPSILON: f32 = 1e-5;

/// The graph's role in a package, and its ONNX bytes. Initialisers carry the training variables' names.
///
/// Masked, `predict`: `tokens` i64 `[N, h, w]`, hidden ones K, and `conditions` i64 `[N, 2]` to `logits` f32 `[N, h * w, K]`.
///
/// Autoregressive, `step`: `token` i64 `[N, 1]`, the one before this place (K before the first), `place` i64 `[1]`, `conditions` i64
/// `[N, 2]`, and the keys and values of the T places before, `keys` and `values` f32 `[layers, N, heads, T, d]`, to `logits` f32
/// `[N, 1, K]` with `keys` and `values` of T + 1 places: a step costs what one token costs.
///
/// # Errors
/// [`Error::Configuration`] with every fault, [`Error::Weights`], [`Error::Graph`].
pub fn export(config: &Config, weights: &Weights) -> Result<(&'static str, Vec<u8>), Error> {
    let faults = config.faults();
    if !faults.is_empty() {
        return Err(Error::Configuration { faults });
    }
    let mut writer = Writer { graph: Graph::new("prior"), config, weights, faults: Vec::new() };
    let role = match config.objective {
        Objective::Masked => writer.predict(),
        Objective::Autoregressive => writer.step(),
    };
    let Writer { graph, faults, .. } = writer;
    if !faults.is_empty() {
        return Err(weights::Error::Mismatch { faults }.into());
    }
    Ok((role, graph.finish()?))
}

struct Writer<'a> {
    graph: Graph,
    config: &'a Config,
    weights: &'a Weights,
    faults: Vec<String>,
}

impl Writer<'_> {
    fn predict(&mut self) -> &'static str {
        let config = self.config;
        let [rows, columns, patch, e] =
            [config.rows, config.columns, config.patch, config.embedding].map(|size| size as i64);
        let dims = [Dim::from("N"), rows.into(), columns.into()];
        let tokens = self.graph.input("tokens", ElementType::I64, &dims);
        let conditions = self.conditions();
        let codes = self.constant("codes", &[config.codes + 1, config.embedding]);
        let mut local = self.graph.gather(&codes, &tokens, 0);
        for block in 0..config.local_blocks {
            local = self.local(&local, &format!("before{block}"));
        }
        let squares = self.reshape(&local, &[-1, rows / patch, patch, columns / patch, patch, e]);
        let squares = self.graph.transpose(&squares, &[0, 1, 3, 2, 4, 5]);
        let squares = self.reshape(&squares, &[-1, config.positions() as i64, patch * patch * e]);
        let place = self.constant("position", &[config.positions(), config.width]);
        let mut x = self.positions(&squares, &place, &conditions);
        for block in 0..config.layers {
            x = self.block(&x, block, None).0;
        }
        let squares = self.outward(&x);
        let squares = self.reshape(&squares, &[-1, rows / patch, columns / patch, patch, patch, e]);
        let squares = self.graph.transpose(&squares, &[0, 1, 3, 2, 4, 5]);
        let back = self.reshape(&squares, &[-1, rows, columns, e]);
        local = self.graph.add(&local, &back);
        for block in 0..config.local_blocks {
            local = self.local(&local, &format!("after{block}"));
        }
        let features = self.reshape(&local, &[-1, rows * columns, e]);
        let logits = self.head(&features);
        let dims = [Dim::from("N"), (rows * columns).into(), (config.codes as i64).into()];
        self.graph.output(&logits, "logits", ElementType::F32, &dims);
        "predict"
    }

    fn step(&mut self) -> &'static str {
        let config = self.config;
        let token = self.graph.input("token", ElementType::I64, &["N".into(), 1.into()]);
        let place = self.graph.input("place", ElementType::I64, &[1.into()]);
        let conditions = self.conditions();
        let [layers, heads, width] = [config.layers, config.heads, config.head_width()].map(|size| size as i64);
        let dims = |places: &str| [layers.into(), "N".into(), heads.into(), Dim::from(places), width.into()];
        let keys = self.graph.input("keys", ElementType::F32, &dims("T"));
        let values = self.graph.input("values", ElementType::F32, &dims("T"));
        let codes = self.constant("codes", &[config.codes + 1, config.embedding]);
        let local = self.graph.gather(&codes, &token, 0);
        let position = self.constant("position", &[config.positions(), config.width]);
        let position = self.graph.gather(&position, &place, 0);
        let mut x = self.positions(&local, &position, &conditions);
        let (mut next_keys, mut next_values) = (Vec::new(), Vec::new());
        for block in 0..config.layers {
            let index = block as i64;
            let past = [&keys, &values].map(|all| {
                let layer = self.graph.slice(all, 0, index, index + 1);
                self.graph.squeeze(&layer, &[0])
            });
            let (y, [key, value]) = self.block(&x, block, Some(past));
            x = y;
            next_keys.push(self.graph.unsqueeze(&key, &[0]));
            next_values.push(self.graph.unsqueeze(&value, &[0]));
        }
        let back = self.outward(&x);
        let features = self.graph.add(&local, &back);
        let logits = self.head(&features);
        let keys = self.graph.concat(&next_keys.iter().collect::<Vec<_>>(), 0);
        let values = self.graph.concat(&next_values.iter().collect::<Vec<_>>(), 0);
        let of_logits = [Dim::from("N"), 1.into(), (config.codes as i64).into()];
        self.graph.output(&logits, "logits", ElementType::F32, &of_logits);
        self.graph.output(&keys, "next_keys", ElementType::F32, &dims("T_next"));
        self.graph.output(&values, "next_values", ElementType::F32, &dims("T_next"));
        "step"
    }

    fn conditions(&mut self) -> Value {
        self.graph.input("conditions", ElementType::I64, &["N".into(), 2.into()])
    }

    /// `[N, T, p² e]` into the transformer, with the embeddings of place `[T, w]`, modality and view.
    fn positions(&mut self, squares: &Value, place: &Value, conditions: &Value) -> Value {
        self.graph.set_scope("inward");
        let config = self.config;
        let patch = config.patch * config.patch * config.embedding;
        let x = self.linear(squares, "inward", patch, config.width);
        let mut x = self.graph.add(&x, place);
        for (column, (name, known)) in (0..).zip([("modality", &config.modalities), ("view", &config.views)]) {
            let table = self.constant(name, &[known.len() + 1, config.width]);
            // [N, 1], so that what is gathered is [N, 1, w].
            let index = self.graph.slice(conditions, 1, column, column + 1);
            let embedded = self.graph.gather(&table, &index, 0);
            x = self.graph.add(&x, &embedded);
        }
        x
    }

    fn outward(&mut self, x: &Value) -> Value {
        self.graph.set_scope("outward");
        let config = self.config;
        let x = self.norm(x, "norm", config.width);
        self.linear(&x, "outward", config.width, config.patch * config.patch * config.embedding)
    }

    fn head(&mut self, features: &Value) -> Value {
        self.graph.set_scope("head");
        let features = self.norm(features, "head.norm", self.config.embedding);
        self.linear(&features, "head", self.config.embedding, self.config.codes)
    }

    /// As the network's own: `[N, h, w, e]` to the same.
    fn local(&mut self, x: &Value, name: &str) -> Value {
        self.graph.set_scope(name);
        let e = self.config.embedding;
        let weight = self.constant(&format!("{name}.depthwise.weight"), &[e, 1, 5, 5]);
        let bias = self.constant(&format!("{name}.depthwise.bias"), &[e]);
        let y = self.graph.transpose(x, &[0, 3, 1, 2]);
        let geometry = Convolution { padding: 2, groups: e, ..Convolution::default() };
        let y = self.graph.conv(&y, &weight, Some(&bias), geometry);
        let y = self.graph.transpose(&y, &[0, 2, 3, 1]);
        let y = self.norm(&y, &format!("{name}.norm"), e);
        let y = self.linear(&y, &format!("{name}.expand"), e, 2 * e);
        let y = self.graph.gelu(&y);
        let y = self.linear(&y, &format!("{name}.contract"), 2 * e, e);
        self.graph.add(x, &y)
    }

    /// As the network's own: `[N, T, w]` to the same. With keys and values of earlier places `[N, heads, T, d]`, which those of this
    /// one are put behind; returns what it attended to as well.
    fn block(&mut self, x: &Value, block: usize, past: Option<[Value; 2]>) -> (Value, [Value; 2]) {
        self.graph.set_scope(&format!("block{block}"));
        let (w, heads, width) = (self.config.width, self.config.heads as i64, self.config.head_width() as i64);
        let name = |part: &str| format!("block{block}.{part}");
        let y = self.norm(x, &name("norm0"), w);
        let all = self.linear(&y, &name("attention"), w, 3 * w);
        // 0 keeps N; T is what remains.
        let all = self.reshape(&all, &[0, -1, 3, heads, width]);
        let all = self.graph.transpose(&all, &[2, 0, 3, 1, 4]);
        let [query, mut key, mut value] = [0, 1, 2].map(|part| {
            let one = self.graph.slice(&all, 0, part, part + 1);
            self.graph.squeeze(&one, &[0])
        });
        if let Some([keys, values]) = past {
            key = self.graph.concat(&[&keys, &key], 2);
            value = self.graph.concat(&[&values, &value], 2);
        }
        let turned = self.graph.transpose(&key, &[0, 1, 3, 2]);
        let scores = self.graph.matmul(&query, &turned);
        let scale = self.graph.scalar(1.0 / (width as f32).sqrt());
        let scores = self.graph.mul(&scores, &scale);
        let shares = self.graph.softmax(&scores, -1);
        let mixed = self.graph.matmul(&shares, &value);
        let mixed = self.graph.transpose(&mixed, &[0, 2, 1, 3]);
        let mixed = self.reshape(&mixed, &[0, -1, w as i64]);
        let projected = self.linear(&mixed, &name("projection"), w, w);
        let x = self.graph.add(x, &projected);
        let y = self.norm(&x, &name("norm1"), w);
        let y = self.linear(&y, &name("expand"), w, 4 * w);
        let y = self.graph.gelu(&y);
        let y = self.linear(&y, &name("contract"), 4 * w, w);
        (self.graph.add(&x, &y), [key, value])
    }

    fn linear(&mut self, x: &Value, name: &str, from: usize, to: usize) -> Value {
        let weight = self.constant(&format!("{name}.weight"), &[from, to]);
        let bias = self.constant(&format!("{name}.bias"), &[to]);
        let product = self.graph.matmul(x, &weight);
        self.graph.add(&product, &bias)
    }

    fn norm(&mut self, x: &Value, name: &str, width: usize) -> Value {
        let weight = self.constant(&format!("{name}.weight"), &[width]);
        let bias = self.constant(&format!("{name}.bias"), &[width]);
        self.graph.layer_norm(x, &weight, &bias, EPSILON)
    }

    fn reshape(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.graph.integers(shape);
        self.graph.reshape(x, &shape)
    }

    fn constant(&mut self, name: &str, shape: &[usize]) -> Value {
        self.weights.initialiser(&mut self.graph, name, shape, &mut self.faults)
    }
}
