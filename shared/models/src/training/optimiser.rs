//! Adam with its moments in the open: they are part of the checkpoint, and re-seeded codes clear theirs.

use tch::{Kind, Tensor, no_grad};

use super::{Error, state};
use crate::weights::Weights;

/// Adam (Kingma and Ba 2015) over named parameters, with bias correction.
#[derive(Debug)]
pub struct Adam {
    names: Vec<String>,
    parameters: Vec<Tensor>,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
    steps: u64,
    beta: (f64, f64),
    epsilon: f64,
}

impl Adam {
    /// Over `parameters`, in that order, with moments at zero.
    pub fn new(parameters: Vec<(String, Tensor)>, beta: (f64, f64), epsilon: f64) -> Self {
        let (names, parameters): (Vec<_>, Vec<_>) = parameters.into_iter().unzip();
        let zeros = |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.zeros_like().detach()).collect::<Vec<_>>();
        Self { names, first: zeros(&parameters), second: zeros(&parameters), parameters, steps: 0, beta, epsilon }
    }

    /// The parameters, in order.
    pub fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// One step along `gradients` (in the parameters' order) at `rate`, after clipping the whole gradient's norm.
    /// Returns the norm before clipping.
    pub fn step(&mut self, gradients: &[Tensor], rate: f64, clip_norm: Option<f64>) -> f64 {
        no_grad(|| {
            let norms: Vec<Tensor> = gradients.iter().map(|gradient| gradient.square().sum(Kind::Float)).collect();
            let norm = Tensor::stack(&norms, 0).sum(Kind::Double).sqrt().double_value(&[]);
            let scale = clip_norm.map_or(1.0, |limit| (limit / (norm + 1e-12)).min(1.0));
            self.steps += 1;
            let exponent = self.steps.min(i32::MAX as u64) as i32;
            let (b1, b2) = self.beta;
            let (c1, c2) = (1.0 - b1.powi(exponent), 1.0 - b2.powi(exponent));
            for (index, gradient) in gradients.iter().enumerate() {
                let gradient = gradient * scale;
                let first = &mut self.first[index];
                let _ = first.lerp_(&gradient, 1.0 - b1);
                let second = &mut self.second[index];
                let _ = second.lerp_(&gradient.square(), 1.0 - b2);
                let change = &*first * (rate / c1) / ((&*second / c2).sqrt() + self.epsilon);
                let _ = self.parameters[index].g_sub_(&change);
            }
            norm
        })
    }

    /// Sets the moments of `rows` (indices along the first axis) of the parameter called `name` to zero.
    pub fn clear_rows(&mut self, name: &str, rows: &Tensor) {
        for (index, candidate) in self.names.iter().enumerate() {
            if candidate == name {
                let _ = self.first[index].index_fill_(0, rows, 0.0);
                let _ = self.second[index].index_fill_(0, rows, 0.0);
            }
        }
    }

    /// Puts the state into `weights` under `prefix`.
    ///
    /// # Errors
    /// When a tensor cannot be read back.
    pub fn keep(&self, weights: &mut Weights, prefix: &str) -> Result<(), Error> {
        for (index, name) in self.names.iter().enumerate() {
            weights.tensors.insert(format!("{prefix}.first.{name}"), state::array(&self.first[index])?);
            weights.tensors.insert(format!("{prefix}.second.{name}"), state::array(&self.second[index])?);
        }
        weights.metadata.insert(format!("{prefix}.steps"), self.steps.to_string());
        Ok(())
    }

    /// Takes the state back from `weights`.
    ///
    /// # Errors
    /// [`Error::Weights`] or [`Error::Parent`] where it is missing or does not fit.
    pub fn restore(&mut self, weights: &Weights, prefix: &str) -> Result<(), Error> {
        let named = |tensors: &[Tensor]| {
            self.names.iter().cloned().zip(tensors.iter().map(Tensor::shallow_clone)).collect::<Vec<_>>()
        };
        state::load_named(named(&self.first), weights, &format!("{prefix}.first."))?;
        state::load_named(named(&self.second), weights, &format!("{prefix}.second."))?;
        let steps = weights.metadata.get(&format!("{prefix}.steps")).and_then(|text| text.parse().ok());
        self.steps = steps.ok_or_else(|| Error::Parent(format!("it has no {prefix}.steps")))?;
        Ok(())
    }
}
