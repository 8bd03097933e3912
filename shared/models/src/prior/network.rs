//! The token prior in libtorch.

use std::collections::BTreeMap;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use super::config::{Config, Objective};
use crate::{
    noise,
    training::{Error, load_named, on_device},
    weights::{Array, Weights},
};

/// Added to the variance of layer normalisation.
pub(super) const EPSILON: f64 = 1e-5;

/// A transformer over a token map, with convolutions among the tokens where it is not autoregressive.
///
/// Of each token its code is embedded (e features); squares of `patch` x `patch` tokens become positions (w features), with an
/// embedding of their place and of modality and view; pre-norm transformer blocks; back to the tokens, added to their own
/// features; a norm and the logits over the codes. Hidden tokens, and the one before the first, have the code K.
#[derive(Debug)]
pub struct Network {
    config: Config,
    tensors: BTreeMap<String, Tensor>,
}

/// Drops features of the transformer's branches in training. Drawn from a generator of the step's own and not from libtorch's,
/// which all threads of a process share: a training that resumes must draw the same.
#[derive(Debug, Default)]
pub struct Dropout(Option<(f64, ChaCha8Rng)>);

impl Dropout {
    /// Drops this share of the features, in steps of 1 / 256.
    pub fn new(share: f64, rng: ChaCha8Rng) -> Self {
        Self((share > 0.0).then_some((share, rng)))
    }

    fn apply(&mut self, x: Tensor) -> Tensor {
        let Some((share, rng)) = &mut self.0 else { return x };
        let least = (256.0 * *share).round().min(255.0);
        let mut bytes = vec![0u8; x.numel()];
        rng.fill_bytes(&mut bytes);
        let kept = on_device(&bytes).reshape(x.size()).ge(least).to_kind(Kind::Float);
        x * kept * (256.0 / (256.0 - least))
    }
}

/// Names and shapes of all tensors. Matrices are `[from, to]`.
pub(super) fn layout(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (e, w, patch) = (config.embedding, config.width, config.patch * config.patch * config.embedding);
    let mut layout: Vec<(String, Vec<usize>)> = Vec::new();
    let mut tensor = |name: String, shape: &[usize]| layout.push((name, shape.to_vec()));
    tensor("codes".into(), &[config.codes + 1, e]);
    tensor("modality".into(), &[config.modalities.len() + 1, w]);
    tensor("view".into(), &[config.views.len() + 1, w]);
    tensor("position".into(), &[config.positions(), w]);
    let mut linear = |name: String, from: usize, to: usize| {
        tensor(format!("{name}.weight"), &[from, to]);
        tensor(format!("{name}.bias"), &[to]);
    };
    linear("inward".into(), patch, w);
    linear("outward".into(), w, patch);
    linear("head".into(), e, config.codes);
    for side in ["before", "after"] {
        for block in 0..config.local_blocks {
            linear(format!("{side}{block}.expand"), e, 2 * e);
            linear(format!("{side}{block}.contract"), 2 * e, e);
        }
    }
    for block in 0..config.layers {
        linear(format!("block{block}.attention"), w, 3 * w);
        linear(format!("block{block}.projection"), w, w);
        linear(format!("block{block}.expand"), w, 4 * w);
        linear(format!("block{block}.contract"), 4 * w, w);
    }
    let mut norm = |name: String, width: usize| {
        tensor(format!("{name}.weight"), &[width]);
        tensor(format!("{name}.bias"), &[width]);
    };
    norm("norm".into(), w);
    norm("head.norm".into(), e);
    for side in ["before", "after"] {
        (0..config.local_blocks).for_each(|block| norm(format!("{side}{block}.norm"), e));
    }
    for block in 0..config.layers {
        norm(format!("block{block}.norm0"), w);
        norm(format!("block{block}.norm1"), w);
    }
    for side in ["before", "after"] {
        for block in 0..config.local_blocks {
            tensor(format!("{side}{block}.depthwise.weight"), &[e, 1, 5, 5]);
            tensor(format!("{side}{block}.depthwise.bias"), &[e]);
        }
    }
    layout
}

impl Network {
    /// New weights: N(0, 0.02), norms 1 and 0. Where the autoencoder's `codebook` `[K, d]` is known, codes begin as its random
    /// projection, so that what is learned of one code is learned of those that look like it.
    pub fn new(config: &Config, codebook: Option<&Array>, rng: &mut ChaCha8Rng) -> Self {
        let initial = |(name, shape): (String, Vec<usize>)| {
            let count = shape.iter().product::<usize>();
            let normal = name.contains("norm");
            let values: Vec<f32> = match shape.len() {
                1 => vec![if normal && name.ends_with("weight") { 1.0 } else { 0.0 }; count],
                // As large as the mean of 25 pixels.
                4 => noise::normal(rng, count).iter().map(|value| value * 0.2).collect(),
                _ => noise::normal(rng, count).iter().map(|value| value * 0.02).collect(),
            };
            let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
            (name, on_device(&values).reshape(shape).set_requires_grad(true))
        };
        let tensors = layout(config).into_iter().map(initial).collect();
        let network = Self { config: config.clone(), tensors };
        if let Some(codebook) = codebook.filter(|codes| codes.shape.len() == 2 && codes.shape[0] == config.codes) {
            network.project(codebook, rng);
        }
        network
    }

    fn project(&self, codebook: &Array, rng: &mut ChaCha8Rng) {
        let (count, length, e) = (codebook.shape[0] as i64, codebook.shape[1] as i64, self.config.embedding as i64);
        let codes = on_device(&codebook.data).reshape([count, length]);
        let norm = codes.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float).sqrt().clamp_min(1e-12);
        let matrix = on_device(&noise::normal(rng, (length * e) as usize)).reshape([length, e]);
        // Unit codes through N(0, 1) have unit variance; a fifth of it, so that the other parts are heard.
        let projected = (codes / norm).matmul(&matrix) * 0.2;
        tch::no_grad(|| {
            self.tensor("codes").narrow(0, 0, count).copy_(&projected);
            self.tensor("head.weight").shallow_clone().copy_(&projected.tr());
        });
    }

    /// With the weights of a checkpoint or a package, their names without a prefix.
    ///
    /// # Errors
    /// A mismatch listing every tensor that is missing or has another shape.
    pub fn load(config: &Config, weights: &Weights) -> Result<Self, Error> {
        use rand_chacha::rand_core::SeedableRng;
        let network = Self::new(config, None, &mut ChaCha8Rng::from_seed([0; 32]));
        load_named(network.named(), weights, "")?;
        Ok(network)
    }

    /// A copy that shares nothing and needs no gradient: for the running average.
    pub(super) fn detached(&self) -> Self {
        let copy = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach().copy());
        Self { config: self.config.clone(), tensors: self.tensors.iter().map(copy).collect() }
    }

    /// All parameters with their names, sorted, sharing storage.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    fn tensor(&self, name: &str) -> &Tensor {
        // Every name that is asked for here is in the layout of the same configuration.
        &self.tensors[name]
    }

    /// Features of every token before the head.
    ///
    /// `tokens` i64 `[N, h, w]`, hidden ones K (autoregressive: token i is the one before place i); `conditions` i64 `[N, 2]`,
    /// modality and view counted from 1, 0 where not stated; to f32 `[N, h * w, e]`.
    pub fn features(&self, tokens: &Tensor, conditions: &Tensor, dropout: &mut Dropout) -> Tensor {
        let config = &self.config;
        let (n, e, w) = (tokens.size()[0], config.embedding as i64, config.width as i64);
        let (rows, columns, patch) = (config.rows as i64, config.columns as i64, config.patch as i64);
        let mut local = Tensor::embedding(self.tensor("codes"), tokens, -1, false, false);
        for block in 0..config.local_blocks {
            local = self.local(&local, &format!("before{block}"));
        }
        let squares = local
            .reshape([n, rows / patch, patch, columns / patch, patch, e])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([n, -1, patch * patch * e]);
        let condition = |name: &str, column: i64| {
            let index = conditions.select(1, column);
            Tensor::embedding(self.tensor(name), &index, -1, false, false).reshape([n, 1, w])
        };
        let mut x = self.linear(&squares, "inward") + self.tensor("position");
        x = x + condition("modality", 0) + condition("view", 1);
        for block in 0..config.layers {
            x = self.block(&x, block, dropout);
        }
        let squares = self.linear(&self.norm(&x, "norm"), "outward");
        let back = squares
            .reshape([n, rows / patch, columns / patch, patch, patch, e])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([n, rows, columns, e]);
        // Not in place: what went into the transformer is needed for the gradient.
        let mut local = &local + back;
        for block in 0..config.local_blocks {
            local = self.local(&local, &format!("after{block}"));
        }
        self.norm(&local, "head.norm").reshape([n, rows * columns, e])
    }

    /// Logits over the codes of features: f32 `[.., e] -> [.., K]`.
    pub fn logits(&self, features: &Tensor) -> Tensor {
        self.linear(features, "head")
    }

    /// Depth-wise 5 x 5, norm, GELU between two matrices, and the way around: `[N, h, w, e]` to the same.
    fn local(&self, x: &Tensor, name: &str) -> Tensor {
        let e = self.config.embedding as i64;
        let weight = self.tensor(&format!("{name}.depthwise.weight"));
        let bias = self.tensor(&format!("{name}.depthwise.bias"));
        let y = x.permute([0, 3, 1, 2]).conv2d(weight, Some(bias), [1, 1], [2, 2], [1, 1], e).permute([0, 2, 3, 1]);
        let y = self.linear(&self.norm(&y, &format!("{name}.norm")), &format!("{name}.expand")).gelu("none");
        x + self.linear(&y, &format!("{name}.contract"))
    }

    /// Attention and two matrices, each behind a norm and with a way around: `[N, T, w]` to the same.
    fn block(&self, x: &Tensor, block: usize, dropout: &mut Dropout) -> Tensor {
        let (heads, width) = (self.config.heads as i64, self.config.head_width() as i64);
        let (n, t) = (x.size()[0], x.size()[1]);
        let name = |part: &str| format!("block{block}.{part}");
        let all = self.linear(&self.norm(x, &name("norm0")), &name("attention"));
        // [3, N, heads, T, d]
        let all = all.reshape([n, t, 3, heads, width]).permute([2, 0, 3, 1, 4]);
        let (query, key, value) = (all.select(0, 0), all.select(0, 1), all.select(0, 2));
        let mut scores = query.matmul(&key.transpose(2, 3)) / (width as f64).sqrt();
        if self.config.objective == Objective::Autoregressive {
            let later = Tensor::ones([t, t], (Kind::Bool, x.device())).triu(1);
            scores = scores.masked_fill(&later, f64::NEG_INFINITY);
        }
        let mixed = scores.softmax(-1, Kind::Float).matmul(&value).permute([0, 2, 1, 3]).reshape([n, t, heads * width]);
        let x = x + dropout.apply(self.linear(&mixed, &name("projection")));
        let y = self.linear(&self.norm(&x, &name("norm1")), &name("expand")).gelu("none");
        x + dropout.apply(self.linear(&y, &name("contract")))
    }

    fn linear(&self, x: &Tensor, name: &str) -> Tensor {
        x.linear(&self.tensor(&format!("{name}.weight")).tr(), Some(self.tensor(&format!("{name}.bias"))))
    }

    fn norm(&self, x: &Tensor, name: &str) -> Tensor {
        let (weight, bias) = (self.tensor(&format!("{name}.weight")), self.tensor(&format!("{name}.bias")));
        x.layer_norm(weight.size(), Some(weight), Some(bias), EPSILON, false)
    }
}
