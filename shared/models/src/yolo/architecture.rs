//! What YOLO11 is, said once: a sequence of layers that libtorch runs, the ONNX writer writes, and the counter counts.
//!
//! Backbone of strided convolutions and C3k2 blocks, SPPF and C2PSA at its end; a neck that goes up to the finest level and
//! down again (path aggregation); at every level a head of its own, without anchors' shapes and without an objectness score.
//! Widths are those of the published configuration in units of its stem's width, 16 for YOLO11n.

use super::config::Config;

/// A convolution without bias, its batch norm and, where `silu`, the activation:
/// `f32 [N, from, h, w] -> f32 [N, to, h / stride, w / stride]`, weight `[to, from / groups, kernel, kernel]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Convolution {
    pub from: usize,
    pub to: usize,
    pub kernel: usize,
    pub stride: usize,
    pub groups: usize,
    pub silu: bool,
}

impl Convolution {
    fn new(from: usize, to: usize, kernel: usize) -> Self {
        Self { from, to, kernel, stride: 1, groups: 1, silu: true }
    }

    /// A 3 x 3 convolution that halves the image.
    fn down(from: usize, to: usize) -> Self {
        Self { stride: 2, ..Self::new(from, to, 3) }
    }

    /// A 3 x 3 convolution of each channel by itself.
    fn depthwise(width: usize) -> Self {
        Self { groups: width, ..Self::new(width, width, 3) }
    }

    fn linear(self) -> Self {
        Self { silu: false, ..self }
    }
}

/// Heads of self-attention: each has queries and keys of `key` channels and values of `value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heads {
    pub count: usize,
    pub key: usize,
    pub value: usize,
}

/// Something that layers can be laid on.
pub(super) trait Layers {
    /// A feature map `f32 [N, C, h, w]`.
    type Value: Clone;

    /// A [`Convolution`] called `name`.
    fn convolution(&mut self, name: &str, x: &Self::Value, shape: Convolution) -> Self::Value;

    /// A 1 x 1 convolution with bias and nothing behind it.
    fn output(&mut self, name: &str, x: &Self::Value, from: usize, to: usize) -> Self::Value;

    /// The sum of two maps of one shape.
    fn add(&mut self, a: &Self::Value, b: &Self::Value) -> Self::Value;

    /// Channels one after the other.
    fn concat(&mut self, parts: &[Self::Value]) -> Self::Value;

    /// The first `channels` channels, and as many behind them.
    fn halves(&mut self, x: &Self::Value, channels: usize) -> (Self::Value, Self::Value);

    /// The largest element of each 5 x 5 window, at the same size.
    fn pool(&mut self, x: &Self::Value) -> Self::Value;

    /// Each pixel four times: `[N, C, h, w] -> [N, C, 2 h, 2 w]`.
    fn double(&mut self, x: &Self::Value) -> Self::Value;

    /// Self-attention over all places. `mixed` `[N, count (2 key + value), h, w]` holds queries, keys and values of each head; the
    /// answer and the values themselves are `[N, count value, h, w]`, the shape of `like`.
    fn attend(&mut self, mixed: &Self::Value, like: &Self::Value, heads: Heads) -> (Self::Value, Self::Value);
}

/// One level's answer: logits of the four distances' bins `[N, 4 bins, h, w]` (left, top, right, bottom) and of the classes
/// `[N, classes, h, w]`.
#[derive(Debug, Clone)]
pub(super) struct Level<V> {
    pub distances: V,
    pub classes: V,
}

/// The network on `image` `f32 [N, channels, side, side]` in [0, 1]; levels finest first.
pub(super) fn network<L: Layers>(layers: &mut L, config: &Config, image: &L::Value) -> Vec<Level<L::Value>> {
    let mut build = Build { layers, repeats: config.repeats };
    let w = config.width;
    let stem = build.convolution("stem", image, Convolution::down(config.channels, w));
    let x = build.convolution("p2.down", &stem, Convolution::down(w, 2 * w));
    let p2 = build.c3k2("p2", &x, 2 * w, 4 * w, Inner::Quarter);
    let x = build.convolution("p3.down", &p2, Convolution::down(4 * w, 4 * w));
    let p3 = build.c3k2("p3", &x, 4 * w, 8 * w, Inner::Quarter);
    let x = build.convolution("p4.down", &p3, Convolution::down(8 * w, 8 * w));
    let p4 = build.c3k2("p4", &x, 8 * w, 8 * w, Inner::Nested);
    let x = build.convolution("p5.down", &p4, Convolution::down(8 * w, 16 * w));
    let x = build.c3k2("p5", &x, 16 * w, 16 * w, Inner::Nested);
    let x = build.sppf("sppf", &x, 16 * w);
    let p5 = build.c2psa("c2psa", &x, 16 * w);

    let up4 = build.up("up4", &p5, &p4, 24 * w, 8 * w);
    let up3 = build.up("up3", &up4, &p3, 16 * w, 4 * w);
    let mut levels = Vec::new();
    let level3 = if config.finest_stride == 4 {
        let up2 = build.up("up2", &up3, &p2, 8 * w, 2 * w);
        let level3 = build.down("down3", &up2, 2 * w, &up3, 4 * w, Inner::Half);
        levels.push((up2, 2 * w));
        level3
    } else {
        up3
    };
    let level4 = build.down("down4", &level3, 4 * w, &up4, 8 * w, Inner::Half);
    let level5 = build.down("down5", &level4, 8 * w, &p5, 16 * w, Inner::Nested);
    levels.extend([(level3, 4 * w), (level4, 8 * w), (level5, 16 * w)]);
    let heads = levels.iter().zip(config.strides());
    heads.map(|((x, width), stride)| build.head(&format!("head{stride}"), x, *width, config)).collect()
}

/// What a C3k2 block has inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inner {
    /// Bottlenecks on a quarter of the output's channels.
    Quarter,
    /// Bottlenecks on half of them.
    Half,
    /// C3k blocks on half of them.
    Nested,
}

struct Build<'a, L> {
    layers: &'a mut L,
    repeats: usize,
}

impl<L: Layers> Build<'_, L> {
    fn convolution(&mut self, name: &str, x: &L::Value, shape: Convolution) -> L::Value {
        self.layers.convolution(name, x, shape)
    }

    /// C3k2: half of the channels pass by, the others go through the inner blocks in turn; all steps are joined.
    fn c3k2(&mut self, name: &str, x: &L::Value, from: usize, to: usize, inner: Inner) -> L::Value {
        let width = to / if inner == Inner::Quarter { 4 } else { 2 };
        let x = self.convolution(&format!("{name}.split"), x, Convolution::new(from, 2 * width, 1));
        let (first, second) = self.layers.halves(&x, width);
        let mut steps = vec![first, second.clone()];
        let mut last = second;
        for at in 0..self.repeats {
            let name = format!("{name}.inner{at}");
            last = match inner {
                Inner::Nested => self.c3k(&name, &last, width),
                Inner::Quarter | Inner::Half => self.bottleneck(&name, &last, width, width / 2),
            };
            steps.push(last.clone());
        }
        let joined = self.layers.concat(&steps);
        self.convolution(&format!("{name}.join"), &joined, Convolution::new((2 + self.repeats) * width, to, 1))
    }

    /// C3 with two bottlenecks of 3 x 3 kernels on half of the channels.
    fn c3k(&mut self, name: &str, x: &L::Value, width: usize) -> L::Value {
        let half = width / 2;
        let mut deep = self.convolution(&format!("{name}.deep"), x, Convolution::new(width, half, 1));
        for at in 0..2 {
            deep = self.bottleneck(&format!("{name}.bottleneck{at}"), &deep, half, half);
        }
        let short = self.convolution(&format!("{name}.short"), x, Convolution::new(width, half, 1));
        let joined = self.layers.concat(&[deep, short]);
        self.convolution(&format!("{name}.join"), &joined, Convolution::new(2 * half, width, 1))
    }

    /// Two 3 x 3 convolutions, and the input added.
    fn bottleneck(&mut self, name: &str, x: &L::Value, width: usize, hidden: usize) -> L::Value {
        let y = self.convolution(&format!("{name}.first"), x, Convolution::new(width, hidden, 3));
        let y = self.convolution(&format!("{name}.second"), &y, Convolution::new(hidden, width, 3));
        self.layers.add(x, &y)
    }

    /// Spatial pyramid pooling: 5 x 5 maxima once, twice and three times over.
    fn sppf(&mut self, name: &str, x: &L::Value, width: usize) -> L::Value {
        let half = width / 2;
        let mut steps = vec![self.convolution(&format!("{name}.split"), x, Convolution::new(width, half, 1))];
        for at in 0..3 {
            let pooled = self.layers.pool(&steps[at]);
            steps.push(pooled);
        }
        let joined = self.layers.concat(&steps);
        self.convolution(&format!("{name}.join"), &joined, Convolution::new(4 * half, width, 1))
    }

    /// C2PSA: half of the channels pass by, the others attend to all places.
    fn c2psa(&mut self, name: &str, x: &L::Value, width: usize) -> L::Value {
        let half = width / 2;
        let x = self.convolution(&format!("{name}.split"), x, Convolution::new(width, 2 * half, 1));
        let (first, mut second) = self.layers.halves(&x, half);
        for at in 0..self.repeats {
            second = self.attention(&format!("{name}.attention{at}"), &second, half);
        }
        let joined = self.layers.concat(&[first, second]);
        self.convolution(&format!("{name}.join"), &joined, Convolution::new(2 * half, width, 1))
    }

    /// Self-attention with a depth-wise convolution of the values for position, then a feed-forward pair; both residual.
    fn attention(&mut self, name: &str, x: &L::Value, width: usize) -> L::Value {
        let heads = heads(width);
        let mixed = width + 2 * heads.key * heads.count;
        let mixed = self.convolution(&format!("{name}.mixed"), x, Convolution::new(width, mixed, 1).linear());
        let (attended, values) = self.layers.attend(&mixed, x, heads);
        let position = Convolution::depthwise(width).linear();
        let position = self.convolution(&format!("{name}.position"), &values, position);
        let y = self.layers.add(&attended, &position);
        let y = self.convolution(&format!("{name}.projection"), &y, Convolution::new(width, width, 1).linear());
        let x = self.layers.add(x, &y);
        let y = self.convolution(&format!("{name}.grow"), &x, Convolution::new(width, 2 * width, 1));
        let y = self.convolution(&format!("{name}.shrink"), &y, Convolution::new(2 * width, width, 1).linear());
        self.layers.add(&x, &y)
    }

    /// One level up: `x` doubled, joined with the backbone's `skip`.
    fn up(&mut self, name: &str, x: &L::Value, skip: &L::Value, from: usize, to: usize) -> L::Value {
        let doubled = self.layers.double(x);
        let joined = self.layers.concat(&[doubled, skip.clone()]);
        self.c3k2(name, &joined, from, to, Inner::Half)
    }

    /// One level down: `x` of `width` channels halved, joined with the `to` channels that the level had on the way up.
    fn down(&mut self, name: &str, x: &L::Value, width: usize, skip: &L::Value, to: usize, inner: Inner) -> L::Value {
        let halved = self.convolution(&format!("{name}.down"), x, Convolution::down(width, width));
        let joined = self.layers.concat(&[halved, skip.clone()]);
        self.c3k2(name, &joined, width + to, to, inner)
    }

    fn head(&mut self, name: &str, x: &L::Value, width: usize, config: &Config) -> Level<L::Value> {
        let (boxes, classes) = (config.box_width(), config.class_width());
        let y = self.convolution(&format!("{name}.box0"), x, Convolution::new(width, boxes, 3));
        let y = self.convolution(&format!("{name}.box1"), &y, Convolution::new(boxes, boxes, 3));
        let distances = self.layers.output(&format!("{name}.distances"), &y, boxes, 4 * config.bins);
        let y = self.convolution(&format!("{name}.class0"), x, Convolution::depthwise(width));
        let y = self.convolution(&format!("{name}.class1"), &y, Convolution::new(width, classes, 1));
        let y = self.convolution(&format!("{name}.class2"), &y, Convolution::depthwise(classes));
        let y = self.convolution(&format!("{name}.class3"), &y, Convolution::new(classes, classes, 1));
        let classes = self.layers.output(&format!("{name}.classes"), &y, classes, config.classes);
        Level { distances, classes }
    }
}

/// Heads of 64 channels, at least one; keys are half as wide as values.
fn heads(width: usize) -> Heads {
    let count = (width / 64).max(1);
    Heads { count, key: width / count / 2, value: width / count }
}

/// A layer's parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layer {
    /// With batch norm: `NAME.weight`, and `NAME.norm.{weight, bias, mean, variance}` of `[to]`.
    Normed(Convolution),
    /// With bias: `NAME.weight` `[to, from, 1, 1]` and `NAME.bias` `[to]`.
    Output {
        /// Channels.
        from: usize,
        /// Channels.
        to: usize,
    },
}

/// The layers that have parameters, with their names, in the order of the forward pass.
pub(super) fn layers(config: &Config) -> Vec<(String, Layer)> {
    struct List(Vec<(String, Layer)>);

    impl Layers for List {
        type Value = ();

        fn convolution(&mut self, name: &str, (): &(), shape: Convolution) {
            self.0.push((name.to_owned(), Layer::Normed(shape)));
        }
        fn output(&mut self, name: &str, (): &(), from: usize, to: usize) {
            self.0.push((name.to_owned(), Layer::Output { from, to }));
        }
        fn add(&mut self, (): &(), (): &()) {}
        fn concat(&mut self, _: &[()]) {}
        fn halves(&mut self, (): &(), _: usize) -> ((), ()) {
            ((), ())
        }
        fn pool(&mut self, (): &()) {}
        fn double(&mut self, (): &()) {}
        fn attend(&mut self, (): &(), (): &(), _: Heads) -> ((), ()) {
            ((), ())
        }
    }

    let mut list = List(Vec::new());
    network(&mut list, config, &());
    list.0
}
