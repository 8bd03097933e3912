//! Mean and standard deviation.

/// Arithmetic mean; NaN for no values. An undefined or infinite value makes it undefined or infinite.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation with n - 1; NaN for fewer than two values, and where one is undefined or infinite.
pub fn standard_deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if values.len() < 2 { f64::NAN } else { (squares / (values.len() - 1) as f64).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follow_their_definitions() {
        assert_eq!(mean(&[1.0, 2.0, 6.0]), 3.0);
        assert_eq!(standard_deviation(&[1.0, 2.0, 6.0]), 7f64.sqrt());
    }

    #[test]
    fn undefined_where_there_is_nothing_to_average() {
        assert!(mean(&[]).is_nan() && standard_deviation(&[]).is_nan() && standard_deviation(&[1.0]).is_nan());
        assert_eq!(mean(&[1.0, f64::INFINITY]), f64::INFINITY);
        assert!(standard_deviation(&[1.0, f64::INFINITY]).is_nan() && mean(&[1.0, f64::NAN]).is_nan());
    }
}
