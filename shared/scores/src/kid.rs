//! Kernel inception distance (Bińkowski et al. 2018) between two sets of features.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

use crate::features::{Error, FeatureFile};

/// The unbiased estimate of the squared maximum mean discrepancy with the kernel `(x·y / d + 1)³`, over the full sets, in
/// f64; it can be negative for sets that are alike. `None` where a set has fewer than two vectors.
///
/// Two blocks of vectors are held at a time; a file is read once for each of its partner's blocks.
///
/// # Errors
/// Sets of different dimensions; a file that cannot be read; a value that is not a finite number.
pub fn kid(first: &mut FeatureFile, second: &mut FeatureFile) -> Result<Option<f64>, Error> {
    if first.dimension() != second.dimension() {
        return Err(Error::Dimension { first: first.dimension(), second: second.dimension() });
    }
    if first.rows() < 2 || second.rows() < 2 {
        return Ok(None);
    }
    let (m, n) = (first.rows() as f64, second.rows() as f64);
    let mean_within_first = within(first)? / (m * (m - 1.0));
    let mean_within_second = within(second)? / (n * (n - 1.0));
    Ok(Some(mean_within_first + mean_within_second - 2.0 * between(first, second)? / (m * n)))
}

/// Sum of the kernel over all ordered pairs of different vectors of one set.
fn within(set: &mut FeatureFile) -> Result<f64, Error> {
    let dimension = set.dimension();
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    let mut sum = 0.0;
    for (index, block) in set.blocks().enumerate() {
        set.read(block, &mut rows)?;
        // Each vector with itself is not counted; the pairs of one block stand on both sides of the diagonal.
        let own: f64 = rows.chunks_exact(dimension).map(|x| kernel(x.iter().map(|v| v * v).sum(), dimension)).sum();
        sum += block_sum(&rows, &rows, dimension) - own;
        for other in set.blocks().skip(index + 1) {
            set.read(other, &mut columns)?;
            sum += 2.0 * block_sum(&rows, &columns, dimension);
        }
    }
    Ok(sum)
}

/// Sum of the kernel over all pairs of vectors from two sets.
fn between(first: &mut FeatureFile, second: &mut FeatureFile) -> Result<f64, Error> {
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    let mut sum = 0.0;
    for block in first.blocks() {
        first.read(block, &mut rows)?;
        for other in second.blocks() {
            second.read(other, &mut columns)?;
            sum += block_sum(&rows, &columns, first.dimension());
        }
    }
    Ok(sum)
}

/// Sum of the kernel over all pairs of a vector of `rows` and one of `columns`, both row-major.
fn block_sum(rows: &[f64], columns: &[f64], dimension: usize) -> f64 {
    // Row-major vectors are the columns of a column-major matrix.
    let x = MatRef::from_column_major_slice(rows, dimension, rows.len() / dimension);
    let y = MatRef::from_column_major_slice(columns, dimension, columns.len() / dimension);
    let mut products = Mat::<f64>::zeros(x.ncols(), y.ncols());
    matmul(products.as_mut(), Accum::Replace, x.transpose(), y, 1.0, Par::rayon(0));
    let column_sum = |column: usize| products.col(column).iter().map(|&dot| kernel(dot, dimension)).sum::<f64>();
    // Collected first: the order of the sum does not depend on the number of threads.
    let sums: Vec<f64> = (0..products.ncols()).into_par_iter().map(column_sum).collect();
    sums.iter().sum()
}

fn kernel(dot: f64, dimension: usize) -> f64 {
    (dot / dimension as f64 + 1.0).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Spool;

    fn file(dimension: usize, data: &[f32]) -> FeatureFile {
        let mut spool = Spool::new("set").unwrap();
        data.chunks_exact(dimension).for_each(|row| spool.push(row).unwrap());
        spool.finish().unwrap().unwrap()
    }

    #[test]
    fn blocks_add_up_to_the_sum_over_all_pairs() {
        let data = |rows: usize, step: usize| -> Vec<f32> {
            (0..rows * 2).map(|at| ((at * step) % 101) as f32 / 50.0 - 1.0).collect()
        };
        // More rows than a block has, on both sides.
        let (x, y) = (data(1500, 37), data(1100, 53));
        let (mut a, mut b) = (file(2, &x), file(2, &y));
        assert!(a.blocks().count() == 2 && b.blocks().count() == 2);
        let mean = |x: &[f32], y: &[f32], but_itself: bool| {
            let (mut sum, mut count) = (0.0, 0.0);
            for (i, x) in x.chunks_exact(2).enumerate() {
                for (_, y) in y.chunks_exact(2).enumerate().filter(|(j, _)| !but_itself || *j != i) {
                    sum += kernel(f64::from(x[0]) * f64::from(y[0]) + f64::from(x[1]) * f64::from(y[1]), 2);
                    count += 1.0;
                }
            }
            sum / count
        };
        let expected = mean(&x, &x, true) + mean(&y, &y, true) - 2.0 * mean(&x, &y, false);
        let distance = kid(&mut a, &mut b).unwrap().unwrap();
        // The expectation adds two million numbers one by one, which costs it the last digits.
        assert!((distance - expected).abs() < 1e-10, "{distance}, expected {expected}");
    }

    #[test]
    fn undefined_for_one_vector_and_impossible_between_dimensions() {
        let (mut one, mut two) = (file(2, &[1.0, 2.0]), file(2, &[1.0, 2.0, 3.0, 4.0]));
        assert_eq!(kid(&mut one, &mut two).unwrap(), None);
        let error = kid(&mut two, &mut file(1, &[1.0, 2.0])).unwrap_err();
        assert!(matches!(error, Error::Dimension { first: 2, second: 1 }), "{error}");
        // Constant sets differ by their kernels alone: (5/2 + 1)³, (25/2 + 1)³ and (11/2 + 1)³.
        let (mut a, mut b) = (file(2, &[1.0, 2.0, 1.0, 2.0]), file(2, &[3.0, 4.0, 3.0, 4.0]));
        let expected = 3.5f64.powi(3) + 13.5f64.powi(3) - 2.0 * 6.5f64.powi(3);
        assert!((kid(&mut a, &mut b).unwrap().unwrap() - expected).abs() < 1e-9);
    }
}
