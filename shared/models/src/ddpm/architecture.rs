//! What the denoising U-Net is, said once: a sequence of layers that libtorch runs, the ONNX writer writes, and the counter counts.
//!
//! Residual blocks of norm, SiLU and convolution into which the time is added, self-attention where a level's side is small, strided
//! convolutions down, nearest pixels and a convolution up (Ho et al. 2020, appendix B). A level has as many blocks up as down, each
//! with the output of its own block as a skip; Ho et al. also skip from the stem and the strided convolutions.

use super::config::Config;

/// A convolution with bias, padded so that only its stride changes the size:
/// `f32 [N, from, h, w] -> f32 [N, to, h / stride, w / stride]`, weight `[to, from, kernel, kernel]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Convolution {
    pub from: usize,
    pub to: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Whether it starts at zero: a branch that ends so changes nothing at first.
    pub zero: bool,
}

impl Convolution {
    fn new(from: usize, to: usize, kernel: usize) -> Self {
        Self { from, to, kernel, stride: 1, zero: false }
    }

    fn zero(self) -> Self {
        Self { zero: true, ..self }
    }
}

/// Something that layers can be laid on.
pub(super) trait Layers {
    /// A feature map `f32 [N, C, h, w]`, or features `f32 [N, C]`.
    type Value: Clone;

    /// A [`Convolution`] called `name`.
    fn convolution(&mut self, name: &str, x: &Self::Value, shape: Convolution) -> Self::Value;

    /// A matrix `[from, to]` and a bias: `[N, from] -> [N, to]`.
    fn linear(&mut self, name: &str, x: &Self::Value, from: usize, to: usize) -> Self::Value;

    /// Group normalisation of a map of `width` channels.
    fn norm(&mut self, name: &str, x: &Self::Value, width: usize) -> Self::Value;

    /// `x · sigmoid(x)`.
    fn silu(&mut self, x: &Self::Value) -> Self::Value;

    /// The sum of two maps of one shape.
    fn add(&mut self, a: &Self::Value, b: &Self::Value) -> Self::Value;

    /// Features `[N, C]` added to every pixel of a map `[N, C, h, w]`.
    fn shift(&mut self, x: &Self::Value, by: &Self::Value) -> Self::Value;

    /// Channels one after the other.
    fn concat(&mut self, a: &Self::Value, b: &Self::Value) -> Self::Value;

    /// Each pixel four times: `[N, C, h, w] -> [N, C, 2 h, 2 w]`.
    fn double(&mut self, x: &Self::Value) -> Self::Value;

    /// Attention of one head over all places: `mixed` `[N, 3 width, h, w]` holds queries, keys and values; the answer is
    /// `[N, width, h, w]`, the shape of `like`.
    fn attend(&mut self, mixed: &Self::Value, like: &Self::Value, width: usize) -> Self::Value;
}

/// The network: `image` `f32 [N, channels, side, side]` with noise in it, and `time` `f32 [N, sinusoids]` as
/// [`Config::frequencies`] makes it, to the noise, of the image's shape.
pub(super) fn network<L: Layers>(layers: &mut L, config: &Config, image: &L::Value, time: &L::Value) -> L::Value {
    let wide = config.time_width;
    let time = layers.linear("time.first", time, config.sinusoids(), wide);
    let time = layers.silu(&time);
    let time = layers.linear("time.second", &time, wide, wide);
    // Every block begins with it.
    let time = layers.silu(&time);
    let mut build = Build { layers, time, wide };

    let levels = config.widths.len();
    let mut width = config.widths.first().copied().unwrap_or(0);
    let mut x = build.layers.convolution("stem", image, Convolution::new(config.channels, width, 3));
    let mut skips = Vec::new();
    for (level, &to) in config.widths.iter().enumerate() {
        if level > 0 {
            let halving = Convolution { stride: 2, ..Convolution::new(width, width, 3) };
            x = build.layers.convolution(&format!("down{level}.halve"), &x, halving);
        }
        for block in 0..config.blocks {
            let name = format!("down{level}.block{block}");
            x = build.block(&name, &x, width, to);
            width = to;
            if config.attends(level) {
                x = build.attention(&format!("{name}.attention"), &x, width);
            }
            skips.push((x.clone(), width));
        }
    }
    x = build.block("middle.block0", &x, width, width);
    x = build.attention("middle.attention", &x, width);
    x = build.block("middle.block1", &x, width, width);
    for level in (0..levels).rev() {
        let to = config.widths[level];
        if level + 1 < levels {
            let doubled = build.layers.double(&x);
            let narrowing = Convolution::new(width, to, 3);
            x = build.layers.convolution(&format!("up{level}.double"), &doubled, narrowing);
            width = to;
        }
        for block in 0..config.blocks {
            let name = format!("up{level}.block{block}");
            // As many as were pushed.
            let Some((skip, skipped)) = skips.pop() else { break };
            let joined = build.layers.concat(&x, &skip);
            x = build.block(&name, &joined, width + skipped, to);
            width = to;
            if config.attends(level) {
                x = build.attention(&format!("{name}.attention"), &x, width);
            }
        }
    }
    let x = build.layers.norm("output.norm", &x, width);
    let x = build.layers.silu(&x);
    build.layers.convolution("output", &x, Convolution::new(width, config.channels, 3).zero())
}

struct Build<'a, L: Layers> {
    layers: &'a mut L,
    /// Features of the time.
    time: L::Value,
    /// Their number.
    wide: usize,
}

impl<L: Layers> Build<'_, L> {
    /// Norm, SiLU, convolution; the time; norm, SiLU, convolution; and the input added.
    fn block(&mut self, name: &str, x: &L::Value, from: usize, to: usize) -> L::Value {
        let h = self.layers.norm(&format!("{name}.norm0"), x, from);
        let h = self.layers.silu(&h);
        let h = self.layers.convolution(&format!("{name}.convolution0"), &h, Convolution::new(from, to, 3));
        let time = self.layers.linear(&format!("{name}.time"), &self.time, self.wide, to);
        let h = self.layers.shift(&h, &time);
        let h = self.layers.norm(&format!("{name}.norm1"), &h, to);
        let h = self.layers.silu(&h);
        let h = self.layers.convolution(&format!("{name}.convolution1"), &h, Convolution::new(to, to, 3).zero());
        if from == to {
            return self.layers.add(x, &h);
        }
        let short = self.layers.convolution(&format!("{name}.shortcut"), x, Convolution::new(from, to, 1));
        self.layers.add(&short, &h)
    }

    fn attention(&mut self, name: &str, x: &L::Value, width: usize) -> L::Value {
        let h = self.layers.norm(&format!("{name}.norm"), x, width);
        let mixed = self.layers.convolution(&format!("{name}.mixed"), &h, Convolution::new(width, 3 * width, 1));
        let h = self.layers.attend(&mixed, x, width);
        let h = self.layers.convolution(&format!("{name}.projection"), &h, Convolution::new(width, width, 1).zero());
        self.layers.add(x, &h)
    }
}

/// A layer's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// `NAME.weight` `[to, from, kernel, kernel]` and `NAME.bias` `[to]`.
    Convolution(Convolution),
    /// `NAME.weight` `[from, to]` and `NAME.bias` `[to]`.
    Linear {
        /// Features.
        from: usize,
        /// Features.
        to: usize,
    },
    /// `NAME.weight` and `NAME.bias` `[width]`.
    Norm {
        /// Channels.
        width: usize,
    },
}

impl Layer {
    /// Shapes of weight and bias.
    pub fn shapes(self) -> (Vec<usize>, Vec<usize>) {
        match self {
            Self::Convolution(Convolution { from, to, kernel, .. }) => (vec![to, from, kernel, kernel], vec![to]),
            Self::Linear { from, to } => (vec![from, to], vec![to]),
            Self::Norm { width } => (vec![width], vec![width]),
        }
    }
}

/// All layers with their names, in the order of the forward pass.
pub(super) fn layers(config: &Config) -> Vec<(String, Layer)> {
    struct List(Vec<(String, Layer)>);

    impl Layers for List {
        type Value = ();

        fn convolution(&mut self, name: &str, (): &(), shape: Convolution) {
            self.0.push((name.to_owned(), Layer::Convolution(shape)));
        }
        fn linear(&mut self, name: &str, (): &(), from: usize, to: usize) {
            self.0.push((name.to_owned(), Layer::Linear { from, to }));
        }
        fn norm(&mut self, name: &str, (): &(), width: usize) {
            self.0.push((name.to_owned(), Layer::Norm { width }));
        }
        fn silu(&mut self, (): &()) {}
        fn add(&mut self, (): &(), (): &()) {}
        fn shift(&mut self, (): &(), (): &()) {}
        fn concat(&mut self, (): &(), (): &()) {}
        fn double(&mut self, (): &()) {}
        fn attend(&mut self, (): &(), (): &(), _: usize) {}
    }

    let mut list = List(Vec::new());
    network(&mut list, config, &(), &());
    list.0
}
