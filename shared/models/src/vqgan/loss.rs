//! Equation 1: reconstruction, quantisation, perceptual and adversarial terms.

use tch::{Kind, Reduction, Tensor};

use super::{config::LossWeights, perceptual::Features, quantiser::Quantised};

/// The terms of equation 1 before the adversarial one.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Weighted reconstruction terms: what the adaptive weight balances against.
    pub reconstruction: Tensor,
    /// Mean absolute error, unweighted.
    pub absolute: Tensor,
    /// Perceptual distance, unweighted, where there is one.
    pub perceptual: Option<Tensor>,
    /// Quantisation terms, weighted.
    pub quantisation: Tensor,
}

/// Computes the terms for reconstructions `y` of `x`, `[N, C, H, W]`.
pub(crate) fn terms(
    x: &Tensor,
    y: &Tensor,
    quantised: &Quantised,
    weights: &LossWeights,
    perceptual: Option<&Features>,
) -> Terms {
    let absolute = y.l1_loss(x, Reduction::Mean);
    let mut reconstruction = &absolute * weights.absolute + y.mse_loss(x, Reduction::Mean) * weights.squared;
    let perceptual = perceptual.map(|features| features.distance(y, x));
    if let Some(distance) = &perceptual {
        reconstruction += distance * weights.perceptual;
    }
    let perceptual = perceptual.map(|distance| distance.detach());
    Terms {
        reconstruction,
        absolute: absolute.detach(),
        perceptual,
        quantisation: &quantised.loss * weights.quantisation,
    }
}

/// VQGAN's adaptive weight: the ratio of the two losses' gradients on the decoder's last layer, in [0, 1e4], constant
/// in the backward pass.
pub(crate) fn adaptive_weight(reconstruction: &Tensor, adversarial: &Tensor, last_layer: &Tensor) -> f64 {
    let norm = |loss: &Tensor| {
        let gradients = Tensor::run_backward(&[loss], &[last_layer], true, false);
        gradients.iter().map(|gradient| gradient.square().sum(Kind::Double).double_value(&[])).sum::<f64>().sqrt()
    };
    (norm(reconstruction) / (norm(adversarial) + 1e-4)).clamp(0.0, 1e4)
}
