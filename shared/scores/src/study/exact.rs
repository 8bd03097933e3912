//! Exact two-sided tests against one half.

/// Probability, under a fair coin, of a number of heads that is at most as likely as `k` of `n`: the exact two-sided
/// binomial test, as SciPy's `binomtest(k, n, 0.5)`. 1 for `n` = 0.
///
/// `k` above `n` counts as `n`.
pub fn binomial_half(k: u64, n: u64) -> f64 {
    // Under one half the distribution is symmetric: the other tail is a mirror image.
    let tail = k.min(n).min(n - k.min(n));
    if 2 * tail == n {
        return 1.0;
    }
    // Weights relative to the middle, by the ratio of neighbours: no factorial that could overflow or lose digits.
    let middle = n / 2;
    let (mut weight, mut all, mut within) = (1.0f64, 0.0f64, 0.0f64);
    for i in (0..=middle).rev() {
        // The middle of an even n has no mirror image.
        all += if 2 * i == n { weight } else { 2.0 * weight };
        if i <= tail {
            within += 2.0 * weight;
        }
        if weight == 0.0 {
            break;
        }
        weight *= i as f64 / (n - i + 1) as f64;
    }
    (within / all).min(1.0)
}

/// Exact McNemar test (1947): of the `b + c` discordant cases, are `b` and `c` as good as equal? 1 where there is none.
pub fn mcnemar(b: u64, c: u64) -> f64 {
    binomial_half(b, b.saturating_add(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_can_be_counted_by_hand() {
        assert_eq!(binomial_half(0, 0), 1.0);
        assert_eq!(binomial_half(5, 10), 1.0);
        assert!((binomial_half(0, 1) - 1.0).abs() < 1e-15);
        // 2 (1 + 10) / 1024.
        assert!((binomial_half(1, 10) - 22.0 / 1024.0).abs() < 1e-15);
        assert_eq!(binomial_half(9, 10), binomial_half(1, 10));
        assert_eq!(binomial_half(3, 2), binomial_half(2, 2));
    }

    #[test]
    fn large_numbers_neither_overflow_nor_vanish() {
        assert!((binomial_half(500_000_000, 1_000_000_000) - 1.0).abs() < 1e-12);
        assert_eq!(binomial_half(0, 1_000_000), 0.0);
        assert_eq!(mcnemar(0, 0), 1.0);
    }
}
