//! From feature maps to a distance.

use hiresmed_inference::Tensor;

/// Added to every norm, as the published implementation does.
const EPSILON: f64 = 1e-10;

/// Sum over layers of the spatial mean of `Σ_c w_c (a_c / |a| - b_c / |b|)²`, each map f32[1, C, h, w] with its vector of C
/// weights (equation 19). Computed in f64.
///
/// # Errors
/// What does not fit, in words: maps of different number or shape, weights of another length.
pub fn distance(a: &[Tensor], b: &[Tensor], weights: &[Vec<f32>]) -> Result<f64, String> {
    if a.len() != b.len() || a.len() != weights.len() {
        return Err(format!("{} and {} feature maps for {} weights", a.len(), b.len(), weights.len()));
    }
    let layers = a.iter().zip(b).zip(weights).enumerate();
    layers
        .map(|(index, ((a, b), weights))| layer(a, b, weights).map_err(|cause| format!("layer {index}: {cause}")))
        .sum()
}

fn layer(a: &Tensor, b: &Tensor, weights: &[f32]) -> Result<f64, String> {
    let [1, channels, height, width] = *a.shape() else { return Err(format!("features of shape {:?}", a.shape())) };
    if a.shape() != b.shape() {
        return Err(format!("features of shape {:?} and {:?}", a.shape(), b.shape()));
    }
    if channels != weights.len() {
        return Err(format!("{channels} channels and {} weights", weights.len()));
    }
    let pixels = height * width;
    if pixels == 0 {
        return Err(format!("features of shape {:?}: the images are too small", a.shape()));
    }
    let (a, b) = (a.as_f32().map_err(|error| error.to_string())?, b.as_f32().map_err(|error| error.to_string())?);
    let (norms_a, norms_b) = (norms(a, pixels), norms(b, pixels));
    let mut sum = 0.0;
    for ((a, b), &weight) in a.chunks_exact(pixels).zip(b.chunks_exact(pixels)).zip(weights) {
        let pixels = a.iter().zip(&norms_a).zip(b.iter().zip(&norms_b));
        let square = |((&a, norm_a), (&b, norm_b)): ((&f32, &f64), (&f32, &f64))| {
            (f64::from(a) / norm_a - f64::from(b) / norm_b).powi(2)
        };
        sum += f64::from(weight) * pixels.map(square).sum::<f64>();
    }
    Ok(sum / pixels as f64)
}

/// Length of each pixel's vector over the channels.
fn norms(features: &[f32], pixels: usize) -> Vec<f64> {
    let mut norms = vec![0.0; pixels];
    for channel in features.chunks_exact(pixels) {
        norms.iter_mut().zip(channel).for_each(|(norm, &value)| *norm += f64::from(value).powi(2));
    }
    norms.iter_mut().for_each(|norm| *norm = norm.sqrt() + EPSILON);
    norms
}
