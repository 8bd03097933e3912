//! Equation 1: reconstruction, perceptual and adversarial terms, and their gradients towards the reconstructions.

use tch::{Kind, Reduction, Tensor, no_grad};

use super::{chain::Part, perceptual::Features, training::LossWeights};
use crate::training::Error;

/// The reconstruction terms of a batch: what the adaptive weight balances against.
#[derive(Debug)]
pub(crate) struct Reconstruction {
    /// The terms, weighted.
    pub loss: f64,
    /// Mean absolute error, unweighted.
    pub absolute: f64,
    /// Perceptual distance, unweighted, where there is one.
    pub perceptual: Option<f64>,
    /// Of `loss` towards the reconstructions, `[N, C, H, W]`.
    pub gradient: Tensor,
}

/// Computes the terms for reconstructions `y` of `x`, both `[N, C, H, W]`, a few images at a time: all are means over images.
///
/// # Errors
/// libtorch's.
pub(crate) fn reconstruction(
    x: &Tensor,
    y: &Tensor,
    weights: &LossWeights,
    perceptual: Option<&Features>,
    parts: &[Part],
) -> Result<Reconstruction, Error> {
    let count: i64 = parts.iter().map(|part| part.count).sum();
    let gradient = y.detach().empty_like();
    let mut sum = Reconstruction { loss: 0.0, absolute: 0.0, perceptual: perceptual.map(|_| 0.0), gradient };
    for &part in parts {
        let (x, y) = (part.of(x), part.of(y).detach().set_requires_grad(true));
        let share = part.count as f64 / count as f64;
        let absolute = y.l1_loss(&x, Reduction::Mean);
        let mut loss = &absolute * weights.absolute + y.mse_loss(&x, Reduction::Mean) * weights.squared;
        if let (Some(features), Some(sum)) = (perceptual, &mut sum.perceptual) {
            let distance = features.distance(&y, &x);
            *sum += share * distance.double_value(&[]);
            loss += distance * weights.perceptual;
        }
        sum.absolute += share * absolute.double_value(&[]);
        sum.loss += share * loss.double_value(&[]);
        for found in Tensor::f_run_backward(&[loss * share], &[&y], false, false)? {
            no_grad(|| part.of(&sum.gradient).copy_(&found));
        }
    }
    Ok(sum)
}

/// VQGAN's adaptive weight: the ratio of the two losses' gradients on the decoder's last layer, in [0, 1e4], constant
/// in the backward pass.
pub(crate) fn adaptive_weight(reconstruction: &Tensor, adversarial: &Tensor) -> f64 {
    let norm = |gradient: &Tensor| gradient.square().sum(Kind::Double).double_value(&[]).sqrt();
    (norm(reconstruction) / (norm(adversarial) + 1e-4)).clamp(0.0, 1e4)
}
