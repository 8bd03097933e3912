//! Learning rates over a training, as shares of the largest; steps are counted from 0.

use std::f64::consts::PI;

/// From 1 down to `least` as `done` goes from 0 to 1, along half a cosine; `least` afterwards.
fn cosine(done: f64, least: f64) -> f64 {
    least + (1.0 - least) * 0.5 * (1.0 + (PI * done.min(1.0)).cos())
}

/// A linear rise over `warm_up` steps, then a cosine over the rest of `steps`.
pub(crate) fn rise_then_cosine(step: u64, warm_up: u64, steps: u64, least: f64) -> f64 {
    if step < warm_up {
        return (step + 1) as f64 / warm_up as f64;
    }
    cosine((step - warm_up) as f64 / steps.saturating_sub(warm_up).max(1) as f64, least)
}

/// A cosine over all of `steps`, under a linear rise over the first `warm_up`.
pub(crate) fn cosine_under_rise(step: u64, warm_up: u64, steps: u64, least: f64) -> f64 {
    let rise = ((step + 1) as f64 / warm_up.max(1) as f64).min(1.0);
    rise * cosine(step as f64 / steps.max(1) as f64, least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_and_fall_to_the_least() {
        let rising = |step| rise_then_cosine(step, 4, 14, 0.1);
        assert_eq!(
            [0, 3, 4, 9, 14, 99].map(rising).map(|share| (share * 1e9).round() / 1e9),
            [0.25, 1.0, 1.0, 0.55, 0.1, 0.1]
        );
        let under = |step| cosine_under_rise(step, 2, 10, 0.0);
        assert_eq!([5, 10, 99].map(under).map(|share| (share * 1e9).round() / 1e9), [0.5, 0.0, 0.0]);
        assert!((under(0) - 0.5).abs() < 1e-9 && under(1) < 1.0 && under(1) > under(2));
        // Neither a warm-up nor a step.
        assert!(rise_then_cosine(0, 0, 0, 0.5).is_finite() && cosine_under_rise(0, 0, 0, 0.5).is_finite());
    }
}
