//! Adam with its moments in the open: they are part of the checkpoint, and re-seeded codes clear theirs.

use tch::{Device, Kind, Tensor, no_grad};

use super::{Error, state};
use crate::weights::Weights;

/// Adam (Kingma and Ba 2015) over named parameters, with bias correction.
///
/// The moments of all parameters are one tensor each, one parameter's elements after the other's: a step takes a handful of operations
/// for all of them, where the many small ones of a network would each take as many.
#[derive(Debug)]
pub struct Adam {
    names: Vec<String>,
    parameters: Vec<Tensor>,
    first: Tensor,
    second: Tensor,
    steps: u64,
    beta: (f64, f64),
    epsilon: f64,
}

impl Adam {
    /// Over `parameters` (f32, on one device), in that order, with moments at zero.
    pub fn new(parameters: Vec<(String, Tensor)>, beta: (f64, f64), epsilon: f64) -> Self {
        let (names, parameters): (Vec<_>, Vec<Tensor>) = parameters.into_iter().unzip();
        let device = parameters.first().map_or(Device::Cpu, Tensor::device);
        let count = parameters.iter().map(Tensor::numel).sum::<usize>() as i64;
        let zeros = || Tensor::zeros([count], (Kind::Float, device));
        Self { names, parameters, first: zeros(), second: zeros(), steps: 0, beta, epsilon }
    }

    /// The parameters, in order.
    pub fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// One step along `gradients` (in the parameters' order) at `rate`, after clipping the whole gradient's norm.
    /// Returns the norm before clipping.
    pub fn step(&mut self, gradients: &[Tensor], rate: f64, clip_norm: Option<f64>) -> f64 {
        let sizes = self.sizes();
        no_grad(|| {
            let rows: Vec<Tensor> = gradients.iter().map(|gradient| gradient.reshape([-1])).collect();
            let mut gradient = Tensor::cat(&rows, 0);
            let norm = gradient.square().sum(Kind::Double).sqrt().double_value(&[]);
            let scale = clip_norm.map_or(1.0, |limit| (limit / (norm + 1e-12)).min(1.0));
            if scale < 1.0 {
                let _ = gradient.g_mul_scalar_(scale);
            }
            self.steps += 1;
            let exponent = self.steps.min(i32::MAX as u64) as i32;
            let (b1, b2) = self.beta;
            let (c1, c2) = (1.0 - b1.powi(exponent), 1.0 - b2.powi(exponent));
            let _ = self.first.lerp_(&gradient, 1.0 - b1);
            let _ = self.second.lerp_(&gradient.square(), 1.0 - b2);
            let mut divisor = (&self.second / c2).sqrt_();
            let _ = divisor.g_add_scalar_(self.epsilon);
            let mut change = &self.first * (rate / c1);
            let _ = change.g_div_(&divisor);
            for (parameter, change) in self.parameters.iter_mut().zip(parts(&change, &sizes)) {
                let _ = parameter.g_sub_(&change);
            }
            norm
        })
    }

    fn sizes(&self) -> Vec<Vec<i64>> {
        self.parameters.iter().map(Tensor::size).collect()
    }

    /// The parameters' parts of `moments`, which they share, by name.
    fn named(&self, moments: &Tensor) -> Vec<(String, Tensor)> {
        self.names.iter().cloned().zip(parts(moments, &self.sizes())).collect()
    }

    /// Sets the moments of `rows` (indices along the first axis) of the parameter called `name` to zero.
    pub fn clear_rows(&mut self, name: &str, rows: &Tensor) {
        for moments in [&self.first, &self.second] {
            for (candidate, mut moment) in self.named(moments) {
                if candidate == name {
                    let _ = moment.index_fill_(0, rows, 0.0);
                }
            }
        }
    }

    /// Puts the state into `weights` under `prefix`.
    ///
    /// # Errors
    /// When a tensor cannot be read back.
    pub fn keep(&self, weights: &mut Weights, prefix: &str) -> Result<(), Error> {
        state::keep_named(&self.named(&self.first), weights, &format!("{prefix}.first."))?;
        state::keep_named(&self.named(&self.second), weights, &format!("{prefix}.second."))?;
        weights.metadata.insert(format!("{prefix}.steps"), self.steps.to_string());
        Ok(())
    }

    /// Takes the state back from `weights`.
    ///
    /// # Errors
    /// [`Error::Weights`] or [`Error::Parent`] where it is missing or does not fit.
    pub fn restore(&mut self, weights: &Weights, prefix: &str) -> Result<(), Error> {
        state::load_named(self.named(&self.first), weights, &format!("{prefix}.first."))?;
        state::load_named(self.named(&self.second), weights, &format!("{prefix}.second."))?;
        let steps = weights.metadata.get(&format!("{prefix}.steps")).and_then(|text| text.parse().ok());
        self.steps = steps.ok_or_else(|| Error::Parent(format!("it has no {prefix}.steps")))?;
        Ok(())
    }
}

/// `flat`, one element after the other, as tensors of these sizes, which share its memory.
fn parts(flat: &Tensor, sizes: &[Vec<i64>]) -> Vec<Tensor> {
    let counts: Vec<i64> = sizes.iter().map(|size| size.iter().product()).collect();
    flat.split_with_sizes(&counts[..], 0).iter().zip(sizes).map(|(part, size)| part.view(&size[..])).collect()
}
