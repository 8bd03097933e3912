//! The generator in libtorch.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor, no_grad};

use super::{
    EPSILON, LATENT_EPSILON, SLOPE,
    attention::Windows,
    config::{Config, MEAN_STYLE, Scale},
};
use crate::{noise, training::on_device};

/// StyleSwin's generator: f32 `[N, latent]` to f32 `[N, channels, side, side]`. Features between are `[N, side, side, width]`.
#[derive(Debug)]
pub struct Network {
    config: Config,
    tensors: BTreeMap<String, Tensor>,
    scales: Vec<(Scale, Windows, Tensor)>,
}

impl Network {
    /// New weights: matrices N(0, 1 / fan-in), those of the mapping N(0, 2 / fan-in) for the rectifier behind them, those of the image N(0, 0.01 / fan-in); the constant
    /// N(0, 1); gains of styles and norms 1, all else 0.
    pub fn new(config: &Config, rng: &mut ChaCha8Rng) -> Self {
        let initial = |(name, shape): (String, Vec<usize>)| {
            let count = shape.iter().product::<usize>();
            let mut scaled = |deviation: f64| -> Vec<f32> {
                noise::normal(rng, count).iter().map(|value| value * deviation as f32).collect()
            };
            let values = if name == "constant" {
                scaled(1.0)
            } else if name.ends_with(".relative") {
                scaled(0.02)
            } else if shape.len() == 2 {
                let gain = match &name {
                    name if name.starts_with("mapping") => 2.0,
                    // Five scales of features that have grown block by block: the first images would be far out of range, and
                    // the discriminator would learn that alone.
                    name if name.ends_with(".image.weight") => 0.01,
                    _ => 1.0,
                };
                scaled((gain / shape[0] as f64).sqrt())
            } else if name.ends_with(".norm.weight") {
                vec![1.0; count]
            } else if name.contains(".style") {
                // Gain and shift of AdaIN, one after the other.
                (0..count).map(|at| if at < count / 2 { 1.0 } else { 0.0 }).collect()
            } else {
                vec![0.0; count]
            };
            let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
            let trained = name != MEAN_STYLE;
            (name, on_device(&values).reshape(shape).set_requires_grad(trained))
        };
        Self::over(config, config.layout().into_iter().map(initial).collect())
    }

    fn over(config: &Config, tensors: BTreeMap<String, Tensor>) -> Self {
        let prepared = |scale: Scale| {
            let (side, half) = (scale.side as i64, scale.width as i64 / 2);
            let places = on_device(&scale.sinusoids()).reshape([side, half]);
            let rows = places.unsqueeze(1).expand([side, side, half], false);
            let columns = places.unsqueeze(0).expand([side, side, half], false);
            (scale, Windows::new(scale), Tensor::cat(&[rows, columns], 2))
        };
        let scales = config.scales().into_iter().map(prepared).collect();
        Self { config: config.clone(), tensors, scales }
    }

    /// A copy that shares nothing and needs no gradient: for the running average.
    pub(super) fn detached(&self) -> Self {
        let copy = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach().copy());
        Self::over(&self.config, self.tensors.iter().map(copy).collect())
    }

    /// All tensors with their names, sorted, sharing storage.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// Those that are trained.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        self.named().into_iter().filter(|(name, _)| name != MEAN_STYLE).collect()
    }

    /// Draws these weights towards `other`'s, of which `share` is taken; the mean style is each network's own.
    pub(super) fn follow(&self, other: &Self, share: f64) {
        no_grad(|| {
            for ((_, mut own), (_, other)) in self.trainable().into_iter().zip(other.trainable()) {
                let _ = own.lerp_(&other, share);
            }
        });
    }

    /// Draws the mean style towards the mean of the styles of `latents` `[N, latent]`, of which `share` is taken.
    pub(super) fn follow_styles(&self, latents: &Tensor, share: f64) {
        no_grad(|| {
            let mean = self.map(latents).mean_dim(&[0i64][..], false, Kind::Float);
            let _ = self.tensor(MEAN_STYLE).shallow_clone().lerp_(&mean, share);
        });
    }

    fn tensor(&self, name: &str) -> &Tensor {
        // Every name that is asked for here is in the layout of the same configuration.
        &self.tensors[name]
    }

    fn linear(&self, x: &Tensor, name: &str) -> Tensor {
        x.linear(&self.tensor(&format!("{name}.weight")).tr(), Some(self.tensor(&format!("{name}.bias"))))
    }

    /// Styles w of latent vectors z: `[N, latent]` to `[N, style]`. Only the direction of z counts.
    pub fn map(&self, latents: &Tensor) -> Tensor {
        let square = latents.square().mean_dim(&[1i64][..], true, Kind::Float);
        let mut w = latents * (square + f64::from(LATENT_EPSILON)).rsqrt();
        for layer in 0..self.config.mapping_layers {
            w = leaky(&self.linear(&w, &format!("mapping{layer}")));
        }
        w
    }

    /// Images of latent vectors, `[N, latent]` to `[N, channels, side, side]`, not limited to [-1, 1].
    pub fn generate(&self, latents: &Tensor) -> Tensor {
        self.synthesise(&self.map(latents))
    }

    /// As [`generate`](Self::generate), with styles drawn towards the mean: `truncation` 1 leaves them, 0 is the mean itself.
    #[cfg(test)]
    pub fn truncated(&self, latents: &Tensor, truncation: f64) -> Tensor {
        let mean = self.tensor(MEAN_STYLE);
        self.synthesise(&(mean + (self.map(latents) - mean) * truncation))
    }

    /// Images of styles, `[N, style]` to `[N, channels, side, side]`.
    fn synthesise(&self, styles: &Tensor) -> Tensor {
        let mut x = self.tensor("constant").unsqueeze(0);
        let mut image: Option<Tensor> = None;
        for (at, (scale, windows, position)) in self.scales.iter().enumerate() {
            if at > 0 {
                x = self.grow(&x, at, scale.side as i64);
            }
            // Not in place: the first scale is the constant itself.
            x = &x + position;
            for block in 0..self.config.blocks {
                x = self.block(&x, styles, windows, &format!("scale{at}.block{block}"));
            }
            let part = self.linear(&x, &format!("scale{at}.image")).permute([0, 3, 1, 2]);
            image = Some(match image {
                None => part,
                Some(before) => double(&before, scale.side as i64) + part,
            });
        }
        image.unwrap_or(x)
    }

    /// Norm, matrix and bilinear up-sampling to the side of scale `at`.
    fn grow(&self, x: &Tensor, at: usize, side: i64) -> Tensor {
        let (weight, bias) =
            (self.tensor(&format!("scale{at}.norm.weight")), self.tensor(&format!("scale{at}.norm.bias")));
        let normal = x.layer_norm(weight.size(), Some(weight), Some(bias), f64::from(EPSILON), false);
        let projected = normal.matmul(self.tensor(&format!("scale{at}.project.weight")));
        double(&projected.permute([0, 3, 1, 2]), side).permute([0, 2, 3, 1]).contiguous()
    }

    /// Double attention and two matrices, each behind AdaIN and with a way around: `[N, side, side, C]` to the same.
    fn block(&self, x: &Tensor, styles: &Tensor, windows: &Windows, name: &str) -> Tensor {
        let part = |part: &str| format!("{name}.{part}");
        let features = self.linear(&self.modulate(x, styles, &part("style0")), &part("attention"));
        let mixed = windows.attend(&features, self.tensor(&part("relative")));
        let x = x + self.linear(&mixed, &part("projection"));
        let y = self.linear(&self.modulate(&x, styles, &part("style1")), &part("expand")).gelu("none");
        &x + self.linear(&y, &part("contract"))
    }

    /// AdaIN: each feature of each image to mean 0 and variance 1 over its pixels, then the style's gain and shift.
    fn modulate(&self, x: &Tensor, styles: &Tensor, name: &str) -> Tensor {
        let style = self.linear(styles, name).unsqueeze(1).unsqueeze(1);
        let parts = style.chunk(2, 3);
        // Not by the function for both: on the CPU it goes value by value, in double precision.
        let pixels = &[1i64, 2][..];
        let centred = x - x.mean_dim(pixels, true, x.kind());
        let variance = centred.square().mean_dim(pixels, true, x.kind());
        let gain = &parts[0] * (variance + f64::from(EPSILON)).rsqrt();
        parts[1].addcmul(&centred, &gain)
    }
}

/// The leaky rectifier, of slope [`SLOPE`].
///
/// Its own function has a fixed slope here, and a PReLU's gradient computes the slope's as well. Its gradient's function is the rectifier
/// itself where what it is given is what it is taken at, and has derivatives of every order.
pub(super) fn leaky(x: &Tensor) -> Tensor {
    x.detach().leaky_relu_backward(x, f64::from(SLOPE), false)
}

/// `[N, C, h, w]` to `[N, C, side, side]`, bilinear.
fn double(x: &Tensor, side: i64) -> Tensor {
    x.upsample_bilinear2d([side, side], false, None, None)
}
