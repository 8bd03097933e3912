//! Layers and blocks of encoder and decoder in libtorch. Tensors are NCHW, f32, or bf16 between convolutions that compute in it.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor, nn};

use super::config::{Block, Config};
use crate::{noise, training::Randomness};

/// A 2-D convolution with a bias. Its weights are f32; it computes, and gives, what it is told to.
#[derive(Debug)]
pub(crate) struct Convolution {
    compute: Kind,
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: i64,
    groups: i64,
}

/// How convolutions are initialised, and in what they compute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Initialisation {
    /// Standard deviation of N(0, σ); Kaiming's uniform without.
    pub deviation: Option<f64>,
    /// Whether a block's last convolution begins at zero.
    pub blocks_from_zero: bool,
    /// [`Kind::Float`] or [`Kind::BFloat16`].
    pub compute: Kind,
    /// Each variable's numbers follow from it and the variable's name.
    pub seed: u64,
}

impl Default for Initialisation {
    fn default() -> Self {
        Self { deviation: None, blocks_from_zero: false, compute: Kind::Float, seed: 0 }
    }
}

impl Initialisation {
    /// The same in f32.
    pub(crate) fn exact(self) -> Self {
        Self { compute: Kind::Float, ..self }
    }

    /// For a block's last convolution.
    fn last(self) -> Self {
        if self.blocks_from_zero { Self { deviation: Some(0.0), ..self } } else { self }
    }

    fn variable(self, path: &nn::Path, name: &str, shape: &[i64], fan_in: i64) -> Tensor {
        let bound = 1.0 / (fan_in.max(1) as f32).sqrt();
        match self.deviation {
            Some(deviation) if name == "weight" => self.normal(path, name, shape, deviation),
            Some(_) => path.zeros(name, shape),
            None => {
                let mut random = self.generator(path, name);
                let count = shape.iter().product::<i64>();
                let values: Vec<f32> = (0..count).map(|_| bound * (2.0 * random.random::<f32>() - 1.0)).collect();
                path.var_copy(name, &Tensor::from_slice(&values).reshape(shape))
            }
        }
    }

    /// A variable of N(0, σ).
    pub(crate) fn normal(self, path: &nn::Path, name: &str, shape: &[i64], deviation: f64) -> Tensor {
        let values = noise::normal(&mut self.generator(path, name), shape.iter().product::<i64>() as usize);
        path.var_copy(name, &(Tensor::from_slice(&values).reshape(shape) * deviation))
    }

    fn generator(self, path: &nn::Path, name: &str) -> ChaCha8Rng {
        Randomness::new(self.seed).generator(0, &format!("initialisation of {}", path.path(name)))
    }
}

impl Convolution {
    /// `[N, from, H, W] -> [N, to, H / stride, W / stride]`.
    pub(crate) fn new(path: &nn::Path, init: Initialisation, shape: ConvolutionShape) -> Self {
        let ConvolutionShape { from, to, kernel, stride, padding, groups } = shape;
        let fan_in = from / groups * kernel * kernel;
        Self {
            compute: init.compute,
            weight: init.variable(path, "weight", &[to, from / groups, kernel, kernel], fan_in),
            bias: init.variable(path, "bias", &[to], fan_in),
            stride,
            padding,
            groups,
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        // Nothing is copied where the kind is this already.
        let [x, weight, bias] = [x, &self.weight, &self.bias].map(|tensor| tensor.to_kind(self.compute));
        x.conv2d(&weight, Some(&bias), [self.stride; 2], [self.padding; 2], [1, 1], self.groups)
    }

    /// Pixels between two places of the kernel.
    pub(crate) fn stride(&self) -> i64 {
        self.stride
    }

    /// The kernel, `[to, from / groups, k, k]`.
    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }
}

/// Shape of a [`Convolution`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvolutionShape {
    pub from: i64,
    pub to: i64,
    pub kernel: i64,
    pub stride: i64,
    pub padding: i64,
    pub groups: i64,
}

impl ConvolutionShape {
    /// An odd kernel that keeps the size.
    pub(crate) fn same(from: i64, to: i64, kernel: i64) -> Self {
        Self { from, to, kernel, stride: 1, padding: kernel / 2, groups: 1 }
    }

    /// A depth-wise kernel that keeps the size.
    pub(crate) fn depthwise(width: i64, kernel: i64) -> Self {
        Self { groups: width, ..Self::same(width, width, kernel) }
    }

    /// Down by `stride` with a kernel of twice the stride.
    pub(crate) fn down(from: i64, to: i64, stride: i64) -> Self {
        Self { from, to, kernel: 2 * stride, stride, padding: stride / 2, groups: 1 }
    }
}

/// Group normalisation, ε 1e-6, affine.
#[derive(Debug)]
pub(crate) struct Normalisation {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
}

impl Normalisation {
    pub(crate) fn new(path: &nn::Path, width: i64) -> Self {
        Self {
            weight: path.ones("weight", &[width]),
            bias: path.zeros("bias", &[width]),
            groups: Config::groups(width as usize) as i64,
        }
    }

    /// f32, whatever comes in.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float);
        x.group_norm(self.groups, Some(&self.weight), Some(&self.bias), 1e-6, true)
    }
}

/// What a block needs to know of the whole network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockOptions {
    pub block: Block,
    pub squeeze_excitation: bool,
    pub drop_path: f64,
    pub init: Initialisation,
}

/// What follows a block's first norm, activation and convolution.
#[derive(Debug)]
enum Rest {
    /// A second norm and activation, then the multi-scale convolutional feature enhancement (equation 12).
    Enhancement {
        norm: Normalisation,
        enhance_norm: Normalisation,
        enhance_conv: Convolution,
        depthwise: Convolution,
        pointwise: Convolution,
    },
    /// The depth-wise separable convolution of the enhancement.
    Separable { depthwise: Convolution, pointwise: Convolution },
    /// The residual block's second norm, activation and convolution.
    Convolution { norm: Normalisation, conv: Convolution },
}

impl Rest {
    /// `kept`: see [`ResidualBlock::kept_paths`].
    fn forward(&self, h: &Tensor, kept: Option<&Tensor>) -> Tensor {
        let weighed = |y: Tensor| match kept {
            Some(kept) => {
                let kept = kept.to_kind(y.kind());
                y * kept
            }
            None => y,
        };
        match self {
            Rest::Convolution { norm, conv } => conv.forward(&norm.forward(h).silu()),
            Rest::Separable { depthwise, pointwise } => weighed(pointwise.forward(&depthwise.forward(&h.gelu("none")))),
            Rest::Enhancement { norm, enhance_norm, enhance_conv, depthwise, pointwise } => {
                let h = norm.forward(h).silu();
                let y = enhance_conv.forward(&enhance_norm.forward(&h)).gelu("none");
                h + weighed(pointwise.forward(&depthwise.forward(&y)))
            }
        }
    }
}

/// Squeeze and excitation: a weight in (0, 1) per channel from the image's mean.
#[derive(Debug)]
struct Excitation {
    reduce: Convolution,
    expand: Convolution,
}

impl Excitation {
    fn forward(&self, x: &Tensor) -> Tensor {
        let mean = x.mean_dim(&[2i64, 3][..], true, Kind::Float);
        x * self.expand.forward(&self.reduce.forward(&mean).relu()).sigmoid().to_kind(x.kind())
    }
}

/// HDFB (equations 2 to 12), its light form or VQGAN's residual block: `[N, from, H, W] -> [N, to, H, W]`.
///
/// `x -> norm -> SiLU -> conv 3x3 -> rest -> (excitation) -> + shortcut(x)`. The HDFB's rest is `norm -> SiLU -> h`, then the
/// enhancement `h -> norm -> conv 3x3 -> GELU -> depth-wise 5x5 -> 1x1 -> drop path -> + h`; the light one's `GELU -> depth-wise 3x3 ->
/// 1x1 -> drop path`; the residual block's `norm -> SiLU -> conv 3x3`.
#[derive(Debug)]
pub(crate) struct ResidualBlock {
    norm: Normalisation,
    conv: Convolution,
    rest: Rest,
    drop_path: f64,
    excitation: Option<Excitation>,
    shortcut: Option<Convolution>,
}

impl ResidualBlock {
    /// A block at `path`; `excite` asks for squeeze and excitation where the options have it.
    pub(crate) fn new(path: &nn::Path, from: i64, to: i64, excite: bool, options: BlockOptions) -> Self {
        let init = options.init;
        let conv = |path: nn::Path, shape| Convolution::new(&path, init, shape);
        let last =
            |path: nn::Path, kernel| Convolution::new(&path, init.last(), ConvolutionShape::same(to, to, kernel));
        let norm = |path: nn::Path, width| Normalisation::new(&path, width);
        let enhance = path / "enhance";
        let rest = match options.block {
            Block::Hdfb => Rest::Enhancement {
                norm: norm(path / "norm2", to),
                enhance_norm: norm(&enhance / "norm", to),
                enhance_conv: conv(&enhance / "conv", ConvolutionShape::same(to, to, 3)),
                depthwise: conv(&enhance / "depthwise", ConvolutionShape::depthwise(to, 5)),
                pointwise: last(&enhance / "pointwise", 1),
            },
            Block::HdfbLight => Rest::Separable {
                depthwise: conv(path / "depthwise", ConvolutionShape::depthwise(to, 3)),
                pointwise: last(path / "pointwise", 1),
            },
            Block::Residual => Rest::Convolution { norm: norm(path / "norm2", to), conv: last(path / "conv2", 3) },
        };
        let inner = (to / 4).max(1);
        let gate = |name: &str, from, to| {
            Convolution::new(&(path / "excite" / name), init.exact(), ConvolutionShape::same(from, to, 1))
        };
        Self {
            norm: norm(path / "norm1", from),
            conv: conv(path / "conv1", ConvolutionShape::same(from, to, 3)),
            rest,
            drop_path: if options.block == Block::Residual { 0.0 } else { options.drop_path },
            excitation: (excite && options.squeeze_excitation)
                .then(|| Excitation { reduce: gate("reduce", to, inner), expand: gate("expand", inner, to) }),
            shortcut: (from != to).then(|| conv(path / "shortcut", ConvolutionShape::same(from, to, 1))),
        }
    }

    /// Drop path for a training batch of `count` images: by image 0 where its enhancement is dropped, else what keeps the mean,
    /// `[count, 1, 1, 1]`; `None` where nothing is ever dropped. Drawn before the block runs, so that a block that runs twice drops
    /// the same.
    pub(crate) fn kept_paths(&self, count: i64, device: Device, random: &mut ChaCha8Rng) -> Option<Tensor> {
        (self.drop_path > 0.0).then(|| {
            let kept = 1.0 / (1.0 - self.drop_path as f32);
            let draw = |_| if random.random_bool(self.drop_path) { 0.0 } else { kept };
            let values: Vec<f32> = (0..count).map(draw).collect();
            Tensor::from_slice(&values).reshape([-1, 1, 1, 1]).to_device(device)
        })
    }

    /// `kept` is of a training batch: see [`kept_paths`](Self::kept_paths).
    pub(crate) fn forward(&self, x: &Tensor, kept: Option<&Tensor>) -> Tensor {
        let h = self.rest.forward(&self.conv.forward(&self.norm.forward(x).silu()), kept);
        let h = match &self.excitation {
            Some(excitation) => excitation.forward(&h),
            None => h,
        };
        match &self.shortcut {
            Some(shortcut) => h + shortcut.forward(x),
            None => h + x,
        }
    }
}

/// Up-sampling by deconvolution with a resized shortcut: `[N, from, H, W] -> [N, to, H * stride, W * stride]`.
///
/// The kernel is twice the stride, so that every output pixel sees the same number of taps and no chessboard pattern
/// appears by construction.
#[derive(Debug)]
pub(crate) struct Up {
    compute: Kind,
    weight: Tensor,
    bias: Tensor,
    shortcut: Convolution,
    stride: i64,
}

impl Up {
    pub(crate) fn new(path: &nn::Path, from: i64, to: i64, stride: i64, init: Initialisation) -> Self {
        let deconvolution = path / "deconvolution";
        let (kernel, fan_in) = (2 * stride, to * 4 * stride * stride);
        Self {
            compute: init.compute,
            weight: init.variable(&deconvolution, "weight", &[from, to, kernel, kernel], fan_in),
            bias: init.variable(&deconvolution, "bias", &[to], fan_in),
            shortcut: Convolution::new(&(path / "shortcut"), init, ConvolutionShape::same(from, to, 1)),
            stride,
        }
    }

    /// Pixels of the output for one of the input, along a side.
    pub(crate) fn stride(&self) -> i64 {
        self.stride
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let [x, weight, bias] = [x, &self.weight, &self.bias].map(|tensor| tensor.to_kind(self.compute));
        let up = x.conv_transpose2d(&weight, Some(&bias), [self.stride; 2], [self.stride / 2; 2], [0, 0], 1, [1, 1]);
        let size = up.size();
        up + self.shortcut.forward(&x).upsample_nearest2d([size[2], size[3]], None, None)
    }
}
