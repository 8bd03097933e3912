//! A HiResMed-VQGAN as ONNX graphs, written from its weights; libtorch is not needed.

use hiresmed_inference::{
    ElementType,
    onnx::{self, Convolution, Dim, Graph, Interpolation, Value},
};

use super::config::{Block, Config};
use crate::weights::{self, Weights};

/// The graphs of a package. N, H and W are free; H and W are multiples of the configuration's stride.
#[derive(Debug, Clone)]
pub struct Graphs {
    /// `x` f32 `[N, C, H, W]` in [-1, 1] to `tokens` i64 `[N, H / stride, W / stride]`.
    pub encoder: Vec<u8>,
    /// `tokens` to `y` f32 `[N, C, H, W]`, clamped to [-1, 1].
    pub decoder: Vec<u8>,
    /// `x` to `y` and `tokens`, in one graph.
    pub reconstruct: Vec<u8>,
}

/// Why a graph could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The weights do not fit the configuration.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// The graph has faults; an error in this module.
    #[error(transparent)]
    Graph(#[from] onnx::Error),
}

/// Writes the graphs of `config` with `weights` (names as in training, without a prefix). Initialisers carry the
/// training variables' names.
///
/// # Errors
/// [`weights::Error::Mismatch`] listing every tensor that is missing or has another shape.
pub fn export(config: &Config, weights: &Weights) -> Result<Graphs, Error> {
    let write = |name: &str, network: &dyn Fn(&mut Writer)| {
        let mut writer = Writer { graph: Graph::new(name), config, weights, faults: Vec::new(), codes: None };
        network(&mut writer);
        if writer.faults.is_empty() {
            Ok(writer.graph.finish()?)
        } else {
            Err(Error::Weights(weights::Error::Mismatch { faults: writer.faults }))
        }
    };
    let encoder = write("vqgan-encoder", &|writer| {
        let x = writer.image_input();
        let tokens = writer.encoder(&x);
        writer.tokens_output(&tokens);
    })?;
    let decoder = write("vqgan-decoder", &|writer| {
        let tokens = writer.graph.input("tokens", ElementType::I64, &["N".into(), "h".into(), "w".into()]);
        let y = writer.decoder(&tokens);
        writer.image_output(&y);
    })?;
    let reconstruct = write("vqgan-reconstruct", &|writer| {
        let x = writer.image_input();
        let tokens = writer.encoder(&x);
        let y = writer.decoder(&tokens);
        writer.image_output(&y);
        writer.tokens_output(&tokens);
    })?;
    Ok(Graphs { encoder, decoder, reconstruct })
}

/// The nearest code is looked for in so many strips of rows one after the other: the scores of all tokens with all codes at once
/// would be the largest tensor of all, 64 MiB for an image of 512 x 512 at stride 4.
const SEARCH_PARTS: i64 = 16;

/// Writes layers with the weights at a path, mirroring the networks of training.
struct Writer<'a> {
    graph: Graph,
    config: &'a Config,
    weights: &'a Weights,
    faults: Vec<String>,
    codes: Option<Value>,
}

impl Writer<'_> {
    fn image(&self) -> [Dim; 4] {
        ["N".into(), Dim::Fixed(self.config.channels as i64), "H".into(), "W".into()]
    }

    fn image_input(&mut self) -> Value {
        let shape = self.image();
        self.graph.input("x", ElementType::F32, &shape)
    }

    fn image_output(&mut self, y: &Value) {
        let shape = self.image();
        let y = self.graph.clip(y, -1.0, 1.0);
        self.graph.output(&y, "y", ElementType::F32, &shape);
    }

    fn tokens_output(&mut self, tokens: &Value) {
        self.graph.output(tokens, "tokens", ElementType::I64, &["N".into(), "h".into(), "w".into()]);
    }

    /// The tensor called `name`, which must have this shape.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Value {
        match self.weights.tensors.get(name) {
            Some(array) if array.shape == shape => self.graph.constant_f32(name, shape, &array.data),
            Some(array) => {
                self.faults.push(format!("{name} is {:?}, expected {shape:?}", array.shape));
                Value::absent()
            }
            None => {
                self.faults.push(format!("{name} is missing"));
                Value::absent()
            }
        }
    }

    fn conv(&mut self, x: &Value, path: &str, shape: [usize; 4], geometry: Convolution) -> Value {
        let weight = self.tensor(&format!("{path}.weight"), &shape);
        let bias = self.tensor(&format!("{path}.bias"), &shape[..1]);
        self.graph.conv(x, &weight, Some(&bias), geometry)
    }

    /// A convolution that keeps the size.
    fn same(&mut self, x: &Value, path: &str, from: usize, to: usize, kernel: usize) -> Value {
        let geometry = Convolution { padding: kernel / 2, ..Convolution::default() };
        self.conv(x, path, [to, from, kernel, kernel], geometry)
    }

    fn norm(&mut self, x: &Value, path: &str, width: usize) -> Value {
        let scale = self.tensor(&format!("{path}.weight"), &[width]);
        let bias = self.tensor(&format!("{path}.bias"), &[width]);
        self.graph.group_norm(x, Config::groups(width), &scale, &bias, 1e-6)
    }

    fn norm_silu(&mut self, x: &Value, path: &str, width: usize) -> Value {
        let h = self.norm(x, path, width);
        self.graph.silu(&h)
    }

    /// A block of unchanged width (all blocks of encoder and decoder are).
    fn block(&mut self, x: &Value, path: &str, width: usize, excite: bool) -> Value {
        self.graph.set_scope(path);
        let h = self.norm_silu(x, &format!("{path}.norm1"), width);
        let h = self.same(&h, &format!("{path}.conv1"), width, width, 3);
        let second = |writer: &mut Self| writer.norm_silu(&h, &format!("{path}.norm2"), width);
        let h = match self.config.block {
            Block::Hdfb => {
                let h = second(self);
                self.enhancement(&h, &format!("{path}.enhance"), width)
            }
            Block::HdfbLight => {
                let h = self.graph.gelu(&h);
                self.separable(&h, path, width, 3)
            }
            Block::Residual => {
                let h = second(self);
                self.same(&h, &format!("{path}.conv2"), width, width, 3)
            }
        };
        let h = if excite && self.config.squeeze_excitation { self.excitation(&h, path, width) } else { h };
        self.graph.add(&h, x)
    }

    fn enhancement(&mut self, h: &Value, path: &str, width: usize) -> Value {
        let y = self.norm(h, &format!("{path}.norm"), width);
        let y = self.same(&y, &format!("{path}.conv"), width, width, 3);
        let y = self.graph.gelu(&y);
        let y = self.separable(&y, path, width, 5);
        self.graph.add(h, &y)
    }

    /// A depth-wise convolution and a 1x1 one.
    fn separable(&mut self, x: &Value, path: &str, width: usize, kernel: usize) -> Value {
        let geometry = Convolution { padding: kernel / 2, groups: width, ..Convolution::default() };
        let y = self.conv(x, &format!("{path}.depthwise"), [width, 1, kernel, kernel], geometry);
        self.same(&y, &format!("{path}.pointwise"), width, width, 1)
    }

    fn excitation(&mut self, h: &Value, path: &str, width: usize) -> Value {
        let inner = (width / 4).max(1);
        let mean = self.graph.global_average_pool(h);
        let mean = self.same(&mean, &format!("{path}.excite.reduce"), width, inner, 1);
        let mean = self.graph.relu(&mean);
        let gate = self.same(&mean, &format!("{path}.excite.expand"), inner, width, 1);
        let gate = self.graph.sigmoid(&gate);
        self.graph.mul(h, &gate)
    }

    fn up(&mut self, x: &Value, path: &str, from: usize, to: usize, stride: usize) -> Value {
        self.graph.set_scope(path);
        let weight = self.tensor(&format!("{path}.deconvolution.weight"), &[from, to, 2 * stride, 2 * stride]);
        let bias = self.tensor(&format!("{path}.deconvolution.bias"), &[to]);
        let geometry = Convolution { stride, padding: stride / 2, ..Convolution::default() };
        let up = self.graph.conv_transpose(x, &weight, Some(&bias), geometry, 0);
        let shortcut = self.same(x, &format!("{path}.shortcut"), from, to, 1);
        let shortcut = self.graph.resize_by(&shortcut, stride, Interpolation::Nearest);
        self.graph.add(&up, &shortcut)
    }

    fn encoder(&mut self, x: &Value) -> Value {
        let config = self.config;
        let (mut h, mut from) = (x.clone(), config.channels);
        for (index, (&width, &stride)) in config.widths.iter().zip(&config.strides).enumerate() {
            let path = format!("encoder.stages.{index}");
            self.graph.set_scope(&path);
            let geometry = Convolution { stride, padding: stride / 2, ..Convolution::default() };
            h = self.conv(&h, &format!("{path}.down"), [width, from, 2 * stride, 2 * stride], geometry);
            h = self.block(&h, &format!("{path}.block"), width, false);
            from = width;
        }
        for index in 0..config.middle_blocks {
            h = self.block(&h, &format!("encoder.middle.{index}"), from, false);
        }
        self.graph.set_scope("encoder");
        h = self.norm_silu(&h, "encoder.norm", from);
        h = self.same(&h, "encoder.out", from, config.latent, 1);
        self.graph.set_scope("quantiser");
        // The nearest code by cosine: an output's own length changes no order, so it is not normalised here.
        let codes = self.codes();
        let codes = self.graph.transpose(&codes, &[1, 0]);
        let h = self.graph.transpose(&h, &[0, 2, 3, 1]);
        let rows = self.graph.shape(&h);
        let rows = self.graph.slice(&rows, 0, 1, 2);
        let parts: Vec<Value> = (0..SEARCH_PARTS)
            .map(|part| {
                // Rows r * part / parts and on: as equal as can be, some empty where there are fewer rows than parts.
                let [start, end] = [part, part + 1].map(|bound| {
                    let (bound, parts) = (self.graph.integers(&[bound]), self.graph.integers(&[SEARCH_PARTS]));
                    let scaled = self.graph.mul(&rows, &bound);
                    self.graph.div(&scaled, &parts)
                });
                let h = self.graph.slice_at(&h, &start, &end, &[1]);
                let scores = self.graph.matmul(&h, &codes);
                self.graph.argmax(&scores, -1, false)
            })
            .collect();
        self.graph.concat(&parts.iter().collect::<Vec<_>>(), 1)
    }

    /// Unit codes, `[codes, latent]`; encoder and decoder of one graph share them.
    fn codes(&mut self) -> Value {
        if let Some(codes) = &self.codes {
            return codes.clone();
        }
        let codes = self.tensor("quantiser.codes", &[self.config.codes, self.config.latent]);
        let codes = self.graph.normalise_l2(&codes, 1);
        self.codes = Some(codes.clone());
        codes
    }

    fn decoder(&mut self, tokens: &Value) -> Value {
        let config = self.config;
        self.graph.set_scope("quantiser");
        let codes = self.codes();
        let length = self.graph.scalar((config.latent as f32).sqrt());
        let codes = self.graph.mul(&codes, &length);
        let h = self.graph.gather(&codes, tokens, 0);
        let h = self.graph.transpose(&h, &[0, 3, 1, 2]);
        self.graph.set_scope("decoder");
        let mut from = config.widths.last().copied().unwrap_or(config.output_width);
        let mut h = self.same(&h, "decoder.in", config.latent, from, 1);
        for index in 0..config.middle_blocks {
            h = self.block(&h, &format!("decoder.middle.{index}"), from, false);
        }
        for (index, (width, &stride)) in
            config.decoder_widths().into_iter().zip(config.strides.iter().rev()).enumerate()
        {
            h = self.up(&h, &format!("decoder.stages.{index}.up"), from, width, stride);
            h = self.block(&h, &format!("decoder.stages.{index}.block"), width, true);
            from = width;
        }
        self.graph.set_scope("decoder");
        h = self.norm_silu(&h, "decoder.norm", from);
        self.same(&h, "decoder.out", from, config.channels, 3)
    }
}
