//! Fréchet inception distance (equation 18; Heusel et al. 2017) between two sets of features.

use faer::{Mat, Par, Side};

use crate::features::Error;
use crate::moments::Moments;

/// `|μ₁ - μ₂|² + tr Σ₁ + tr Σ₂ - 2 tr (Σ₁ Σ₂)^½`; 0 for equal sets. `None` where a set has fewer than two vectors and so no
/// covariance.
///
/// The trace of the square root is the sum of the singular values of Σ₁^½ Σ₂^½, with the square roots by symmetric
/// eigendecomposition: that is defined for singular covariances too, so that nothing is added to the diagonal.
///
/// # Errors
/// Sets of different dimensions; values too large to be squared.
pub fn fid(first: &Moments, second: &Moments) -> Result<Option<f64>, Error> {
    if first.dimension() != second.dimension() {
        return Err(Error::Dimension { first: first.dimension(), second: second.dimension() });
    }
    let (Some(a), Some(b)) = (first.covariance(), second.covariance()) else { return Ok(None) };
    let means: f64 = first.mean().iter().zip(second.mean()).map(|(a, b)| (a - b).powi(2)).sum();
    let traces = trace(&a) + trace(&b);
    if !(means + traces).is_finite() {
        return Err(Error::Decomposition { cause: "its values are too large" });
    }
    let (a, b) = (root(a, first.count())?, root(b, second.count())?);
    let cross = product(&a, &b);
    let singular = cross.singular_values().map_err(|_| Error::Decomposition { cause: "no convergence" })?;
    // Rounding alone can bring the distance of nearly equal sets below 0.
    Ok(Some((means + traces - 2.0 * singular.iter().sum::<f64>()).max(0.0)))
}

fn trace(matrix: &Mat<f64>) -> f64 {
    (0..matrix.nrows()).map(|i| matrix[(i, i)]).sum()
}

/// A factor R of a covariance of `count` vectors, `R Rᵀ = Σ`: its eigenvectors scaled by the roots of their eigenvalues. It
/// differs from Σ^½ by a rotation from the right, which singular values do not see.
///
/// Only directions that the vectors can span are kept. What rounding leaves in the others is as large as 1e-16 of the
/// largest eigenvalue, and its root, 1e-8, would count a thousand times over.
fn root(covariance: Mat<f64>, count: usize) -> Result<Mat<f64>, Error> {
    let dimension = covariance.nrows();
    let eigen =
        covariance.self_adjoint_eigen(Side::Lower).map_err(|_| Error::Decomposition { cause: "no convergence" })?;
    drop(covariance);
    let values: Vec<f64> = eigen.S().column_vector().iter().copied().collect();
    let largest = values.last().copied().unwrap_or(0.0).max(0.0);
    let noise = largest * dimension as f64 * f64::EPSILON;
    // Eigenvalues rise.
    let spanned = values.iter().rev().take(count - 1).take_while(|&&value| value > noise).count();
    let first = dimension - spanned;
    let vectors = eigen.U();
    Ok(Mat::from_fn(dimension, spanned, |row, column| vectors[(row, first + column)] * values[first + column].sqrt()))
}

/// `aᵀ b`
fn product(a: &Mat<f64>, b: &Mat<f64>) -> Mat<f64> {
    let mut product = Mat::zeros(a.ncols(), b.ncols());
    faer::linalg::matmul::matmul(product.as_mut(), faer::Accum::Replace, a.transpose(), b.as_ref(), 1.0, Par::rayon(0));
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(dimension: usize, data: &[f64]) -> Moments {
        let mut moments = Moments::new(dimension);
        moments.add(&mut data.to_vec());
        moments
    }

    #[test]
    fn one_dimension_has_a_closed_form() {
        // Means 2 and 7, variances 4 and 25: (2 - 7)² + (2 - 5)².
        let (a, b) = (moments(1, &[0.0, 2.0, 4.0]), moments(1, &[2.0, 7.0, 12.0]));
        assert!((fid(&a, &b).unwrap().unwrap() - 34.0).abs() < 1e-12);
        assert!(fid(&a, &a).unwrap().unwrap() < 1e-12);
    }

    #[test]
    fn constant_sets_are_as_far_apart_as_their_means() {
        let (a, b) = (moments(2, &[1.0, 2.0, 1.0, 2.0, 1.0, 2.0]), moments(2, &[4.0, 6.0, 4.0, 6.0]));
        assert_eq!(fid(&a, &b).unwrap(), Some(25.0));
        let spread = moments(2, &[1.0, 0.0, 1.0, 4.0]);
        assert!((fid(&a, &spread).unwrap().unwrap() - 8.0).abs() < 1e-12);
    }

    #[test]
    fn undefined_and_impossible_sets_are_told_apart() {
        let (one, two) = (moments(2, &[1.0, 2.0]), moments(2, &[1.0, 2.0, 3.0, 4.0]));
        assert_eq!(fid(&one, &two).unwrap(), None);
        assert_eq!(fid(&two, &Moments::new(2)).unwrap(), None);
        let error = fid(&two, &moments(1, &[1.0, 2.0])).unwrap_err();
        assert!(matches!(error, Error::Dimension { first: 2, second: 1 }), "{error}");
        let error = fid(&two, &moments(2, &[1e300, 2.0, -1e300, 4.0])).unwrap_err();
        assert!(matches!(error, Error::Decomposition { .. }), "{error}");
    }
}
