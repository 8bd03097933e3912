//! Agreement beyond chance.

/// Cohen's κ (1960) of two raters over two classes: `table[i][j]` counts what the first calls i and the second j. `None`
/// without ratings, and where both name one and the same class throughout: chance alone would agree always.
pub fn kappa(table: [[u64; 2]; 2]) -> Option<f64> {
    let counts = table.map(|row| row.map(|count| count as f64));
    let [[a, b], [c, d]] = counts;
    let n = a + b + c + d;
    // n² (p_o - p_e) over n² (1 - p_e), which is exact for counts and 0 only where it should be.
    let by_chance = (a + b) * (a + c) + (c + d) * (b + d);
    let beyond_chance = (a + b) * (b + d) + (c + d) * (a + c);
    (beyond_chance > 0.0).then(|| ((a + d) * n - by_chance) / beyond_chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_none_and_inverse_agreement() {
        assert_eq!(kappa([[5, 0], [0, 5]]), Some(1.0));
        assert_eq!(kappa([[5, 5], [5, 5]]), Some(0.0));
        assert_eq!(kappa([[0, 5], [5, 0]]), Some(-1.0));
        // One rater names one class only: agreement is what chance gives.
        assert_eq!(kappa([[5, 5], [0, 0]]), Some(0.0));
    }

    #[test]
    fn undefined_where_chance_alone_agrees_always() {
        assert_eq!(kappa([[5, 0], [0, 0]]), None);
        assert_eq!(kappa([[0, 0], [0, 0]]), None);
    }
}
