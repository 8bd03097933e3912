//! Held-out scores of a background model.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use hiresmed_imaging::{Plane, series};
use hiresmed_models::vqgan::Autoencoder;
use hiresmed_scores::{psnr, ssim};

/// Images have a range of two: they are normalised to [-1, 1].
const DATA_RANGE: f64 = 2.0;

/// One held-out image with what the model made of it.
#[derive(Debug)]
pub(super) struct Held {
    /// Series and name.
    pub(super) name: String,
    pub(super) real: Plane,
    pub(super) reconstruction: Plane,
    /// Distinct codes in the image.
    pub(super) codes: usize,
    pub(super) psnr_db: f64,
    pub(super) ssim: f64,
}

/// Reconstructs every image of the folders.
pub(super) fn evaluate(model: &Autoencoder, folders: &[PathBuf]) -> anyhow::Result<Vec<Held>> {
    let mut held = Vec::new();
    for folder in folders {
        let found = series::read_folder(folder)?;
        if let Some(fault) = found.faults.first() {
            bail!("a held-out image cannot be read: {fault}");
        }
        for slice in found.slices {
            let real = slice.normalised(model.window());
            let images = std::slice::from_ref(&real);
            let tokens = model.encode(images)?;
            let reconstruction = model.decode(&tokens)?.pop().context("the model returned no image")?;
            let codes = tokens.iter().flat_map(|tokens| &tokens.data).collect::<std::collections::BTreeSet<_>>().len();
            held.push(Held {
                name: format!("{}/{}", slice.series, slice.name),
                psnr_db: psnr(&real, &reconstruction, DATA_RANGE)?,
                ssim: ssim(&real, &reconstruction, DATA_RANGE)?,
                codes,
                real,
                reconstruction,
            });
        }
    }
    if held.is_empty() {
        bail!("the held-out folders have no image");
    }
    Ok(held)
}

/// Mean and standard deviation (n - 1; 0 for one value).
pub(super) fn mean_and_deviation(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let squares = values.map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, if count > 1.0 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::mean_and_deviation;

    #[test]
    fn deviation_is_of_a_sample() {
        assert_eq!(mean_and_deviation([1.0, 3.0].into_iter()), (2.0, 2f64.sqrt()));
        assert_eq!(mean_and_deviation([5.0].into_iter()), (5.0, 0.0));
    }
}
