//! Double attention in libtorch: in one layer half of the heads see plain windows and half see shifted ones.

use tch::{Kind, Tensor};

use super::{APART, config::Scale};
use crate::training::on_device;

/// What the attention of one scale needs and does not learn.
#[derive(Debug)]
pub(super) struct Windows {
    scale: Scale,
    /// i64 `[places²]`: rows of the table of relative positions.
    relative: Tensor,
    /// f32 `[windows², 1, places, places]`: 0 where two pixels of a shifted window may see each other; none without a shift.
    mask: Option<Tensor>,
}

impl Windows {
    pub(super) fn new(scale: Scale) -> Self {
        let places = scale.places() as i64;
        let mask = (scale.shift > 0).then(|| {
            let regions = on_device(&scale.regions()).reshape([-1, places]);
            let apart = regions.unsqueeze(2).ne_tensor(&regions.unsqueeze(1));
            (apart.to_kind(Kind::Float) * f64::from(APART)).unsqueeze(1)
        });
        Self { scale, relative: on_device(&scale.relative()), mask }
    }

    /// Attention over queries, keys and values: f32 `[N, side, side, 3 C]` to `[N, side, side, C]`. Features are those of the plain
    /// heads, then those of the shifted ones, each first all queries, then keys, then values. `relative` `[offsets, heads]`.
    pub(super) fn attend(&self, features: &Tensor, relative: &Tensor) -> Tensor {
        let half = features.size()[3] / 2;
        let heads = self.scale.heads as i64 / 2;
        let places = self.scale.places() as i64;
        let bias = relative.index_select(0, &self.relative).reshape([places, places, 2 * heads]).permute([2, 0, 1]);
        let plain = self.windowed(&features.narrow(3, 0, half), &bias.narrow(0, 0, heads));
        let (moved, bias) = (features.narrow(3, half, half), bias.narrow(0, heads, heads));
        let Some(mask) = &self.mask else {
            return Tensor::cat(&[plain, self.windowed(&moved, &bias)], 3);
        };
        let shift = self.scale.shift as i64;
        // Small beside the scores, to which it is then added at once.
        let bias = (bias + mask).flatten(0, 1);
        let moved = self.windowed(&moved.roll([-shift, -shift], [1, 2]), &bias);
        Tensor::cat(&[plain, moved.roll([shift, shift], [1, 2])], 3)
    }

    /// Attention within windows: `[N, side, side, 3 c]` to `[N, side, side, c]`. `bias` is `[heads, places, places]`, or one for each window
    /// too: `[windows² heads, places, places]`.
    fn windowed(&self, features: &Tensor, bias: &Tensor) -> Tensor {
        let (window, windows) = (self.scale.window as i64, self.scale.windows() as i64);
        let (heads, places) = (self.scale.heads as i64 / 2, self.scale.places() as i64);
        let (n, side, c) = (features.size()[0], self.scale.side as i64, features.size()[3] / 3);
        let width = c / heads;
        let parts = features
            .reshape([n, windows, window, windows, window, 3, heads, width])
            .permute([5, 0, 1, 3, 6, 2, 4, 7])
            .reshape([3, -1, bias.size()[0], places, width]);
        let (query, key, value) = (parts.select(0, 0), parts.select(0, 1), parts.select(0, 2));
        let scores = (query * (1.0 / (width as f64).sqrt())).matmul(&key.transpose(2, 3)) + bias;
        scores
            .softmax(-1, Kind::Float)
            .matmul(&value)
            .reshape([n, windows, windows, heads, window, window, width])
            .permute([0, 1, 4, 2, 5, 3, 6])
            .reshape([n, side, side, c])
    }
}
