//! Mean and covariance of a stream of feature vectors.

use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatRef, Par};

use crate::features::{Error, FeatureFile};

/// Mean and scatter of feature vectors seen so far, in f64; what is held does not grow with their number.
///
/// Blocks are centred on their own mean and merged by Chan, Golub and LeVeque's update (1979), so that a large common
/// offset costs no precision.
#[derive(Debug, Clone)]
pub struct Moments {
    count: usize,
    mean: Vec<f64>,
    /// Sum of the outer products of deviations from the mean; the lower triangle.
    scatter: Mat<f64>,
}

impl Moments {
    /// No vectors yet, of `dimension` numbers each.
    pub fn new(dimension: usize) -> Self {
        Self { count: 0, mean: vec![0.0; dimension], scatter: Mat::zeros(dimension, dimension) }
    }

    /// The moments of a whole file, read in blocks.
    ///
    /// # Errors
    /// The file cannot be read, or a value is not a finite number.
    pub fn of(features: &mut FeatureFile) -> Result<Self, Error> {
        let mut moments = Self::new(features.dimension());
        let mut block = Vec::new();
        for rows in features.blocks() {
            features.read(rows, &mut block)?;
            moments.add(&mut block);
        }
        Ok(moments)
    }

    /// Adds vectors, row-major, shape `[n, dimension]`, and leaves them centred on their mean.
    ///
    /// # Panics
    /// When the length of `block` is no multiple of the dimension.
    pub fn add(&mut self, block: &mut [f64]) {
        let dimension = self.mean.len();
        if block.is_empty() {
            return;
        }
        assert_eq!(block.len() % dimension, 0, "a block holds whole vectors");
        let rows = block.len() / dimension;
        let mut mean = vec![0.0; dimension];
        for row in block.chunks_exact(dimension) {
            mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value);
        }
        mean.iter_mut().for_each(|mean| *mean /= rows as f64);
        for row in block.chunks_exact_mut(dimension) {
            row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= mean);
        }
        // Row-major vectors are the columns of a column-major matrix.
        let deviations = MatRef::from_column_major_slice(block, dimension, rows);
        self.add_product(deviations);
        let (before, after) = (self.count as f64, (self.count + rows) as f64);
        let shift: Vec<f64> = mean.iter().zip(&self.mean).map(|(new, old)| new - old).collect();
        let weighted: Vec<f64> = shift.iter().map(|value| value * (before * rows as f64 / after).sqrt()).collect();
        self.add_product(MatRef::from_column_major_slice(&weighted, dimension, 1));
        self.mean.iter_mut().zip(&shift).for_each(|(mean, shift)| *mean += shift * (rows as f64 / after));
        self.count += rows;
    }

    /// Adds `columns * columnsᵀ` to the scatter.
    fn add_product(&mut self, columns: MatRef<'_, f64>) {
        triangular::matmul(
            self.scatter.as_mut(),
            BlockStructure::TriangularLower,
            Accum::Add,
            columns,
            BlockStructure::Rectangular,
            columns.transpose(),
            BlockStructure::Rectangular,
            1.0,
            Par::rayon(0),
        );
    }

    /// Vectors seen.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Length of a vector.
    pub fn dimension(&self) -> usize {
        self.mean.len()
    }

    /// Mean of the vectors.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Whether the covariance must be singular: fewer than `dimension + 1` vectors cannot span all directions.
    pub fn is_rank_deficient(&self) -> bool {
        self.count <= self.dimension()
    }

    /// The covariance with n - 1, shape `[dimension, dimension]`, its lower triangle. `None` for fewer than two vectors.
    pub(crate) fn covariance(&self) -> Option<Mat<f64>> {
        (self.count > 1).then(|| &self.scatter * faer::Scale(1.0 / (self.count - 1) as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_give_the_moments_of_the_whole() {
        // A large offset, that a sum of raw squares would lose the deviations in.
        let value = |at: usize| 1e8 + ((at * 2_654_435_761) % 1009) as f64 / 1009.0;
        let whole: Vec<f64> = (0..60).map(value).collect();
        let mut moments = Moments::new(3);
        for rows in [0..7, 7..7, 7..8, 8..20] {
            moments.add(&mut whole[rows.start * 3..rows.end * 3].to_vec());
        }
        let mean = |column: usize| whole.iter().skip(column).step_by(3).map(|v| v - 1e8).sum::<f64>() / 20.0;
        let covariance = moments.covariance().unwrap();
        for i in 0..3 {
            assert!((moments.mean()[i] - 1e8 - mean(i)).abs() < 1e-7);
            for j in 0..=i {
                let products =
                    (0..20).map(|row| (whole[row * 3 + i] - 1e8 - mean(i)) * (whole[row * 3 + j] - 1e8 - mean(j)));
                assert!((covariance[(i, j)] - products.sum::<f64>() / 19.0).abs() < 1e-8, "{i} {j}");
            }
        }
    }

    #[test]
    fn one_vector_has_no_covariance() {
        let mut moments = Moments::new(2);
        assert!(moments.covariance().is_none());
        moments.add(&mut [1.0, 2.0]);
        assert!(moments.covariance().is_none() && moments.is_rank_deficient());
        moments.add(&mut [1.0, 3.0, 2.0, 5.0]);
        assert!(moments.covariance().is_some() && !moments.is_rank_deficient());
    }
}
