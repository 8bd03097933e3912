//! How tokens are drawn from logits.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The most steps of masked parallel decoding.
pub(super) const MOST_STEPS: usize = 12;

/// Which of the tokens that were drawn in a step of masked decoding are kept first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The likeliest, up to chance (Chang et al. 2022, MaskGIT). In a slice that is the air around the patient, and the air that
    /// is kept makes more air likely.
    Likeliest,
    /// Those that lie evenly over the map, along a Halton sequence (Besnier et al. 2025): neighbours, which depend on each other
    /// most, are drawn in different steps, and the whole outline is decided early.
    #[default]
    Even,
}

/// How to sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Steps of masked parallel decoding, 1 to 12; an autoregressive prior makes one a token.
    pub steps: usize,
    /// Divides the logits: under 1 keeps to what is likely, over 1 strays.
    pub temperature: f32,
    /// Only the likeliest so many codes are drawn from; all without.
    pub top_k: Option<usize>,
    /// Which tokens masked decoding keeps first.
    pub order: Order,
    /// How much chance has a say where the likeliest are kept first (MaskGIT's choice temperature); without meaning otherwise.
    pub spread: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { steps: MOST_STEPS, temperature: 1.0, top_k: None, order: Order::default(), spread: 4.5 }
    }
}

impl Sampling {
    /// Every fault, empty where there is none.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !(1..=MOST_STEPS).contains(&self.steps) {
            faults.push(format!("sampling.steps is {}, allowed is 1 to {MOST_STEPS}", self.steps));
        }
        if !(self.temperature > 0.0 && self.temperature <= 10.0) {
            faults.push(format!("sampling.temperature is {}, allowed is above 0, to 10", self.temperature));
        }
        if self.top_k == Some(0) {
            faults.push("sampling.top_k is 0, allowed is 1 or more".to_owned());
        }
        if !(0.0..=1000.0).contains(&self.spread) {
            faults.push(format!("sampling.spread is {}, allowed is 0 to 1000", self.spread));
        }
        faults
    }

    /// Tokens that are still hidden after step `step` (counted from 0) of a map of `tokens`: a cosine, none after the last.
    pub(super) fn hidden_after(&self, step: usize, tokens: usize) -> usize {
        if step + 1 >= self.steps {
            return 0;
        }
        let share = (step + 1) as f64 / self.steps as f64;
        (tokens as f64 * (std::f64::consts::FRAC_PI_2 * share).cos()).floor() as usize
    }

    /// A code drawn from `logits` (one for each code, finite), and the logarithm of its probability.
    pub(super) fn draw(&self, logits: &[f32], rng: &mut ChaCha8Rng) -> (i64, f32) {
        let least = self.top_k.filter(|&k| k < logits.len()).map_or(f32::NEG_INFINITY, |k| {
            let mut sorted = logits.to_vec();
            // Descending: the k-th largest is the least that is drawn from.
            *sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
        });
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight =
            |logit: f32| if logit < least { 0.0 } else { f64::from((logit - largest) / self.temperature).exp() };
        let sum: f64 = logits.iter().map(|&logit| weight(logit)).sum();
        let mut left = rng.random::<f64>() * sum;
        let (mut chosen, mut of_chosen) = (0, 0.0);
        for (code, &logit) in logits.iter().enumerate() {
            let weight = weight(logit);
            if weight == 0.0 {
                continue;
            }
            // Rounding can leave a rest behind the last code: then the last one is it.
            (chosen, of_chosen) = (code, weight);
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        (chosen as i64, (of_chosen / sum).ln() as f32)
    }
}

/// Every place of a map of `rows` x `columns` once, those that follow each other far apart: the two-dimensional Halton sequence of
/// bases 2 and 3 (Halton 1960), rolled by `roll` (rows, columns) around the map's edges, so that not all maps begin alike.
pub(super) fn even_order((rows, columns): (usize, usize), roll: (usize, usize)) -> Vec<usize> {
    let mut seen = vec![false; rows * columns];
    let mut order = Vec::with_capacity(seen.len());
    for index in 1u64.. {
        if order.len() == seen.len() {
            break;
        }
        let cell = |base, length: usize| ((radical_inverse(index, base) * length as f64) as usize).min(length - 1);
        let row = (cell(2, rows) + roll.0) % rows;
        let place = row * columns + (cell(3, columns) + roll.1) % columns;
        if !std::mem::replace(&mut seen[place], true) {
            order.push(place);
        }
    }
    order
}

/// The digits of `index` in `base` behind the point, the last one first: in [0, 1).
fn radical_inverse(mut index: u64, base: u64) -> f64 {
    let (mut value, mut digit) = (0.0, 1.0);
    while index > 0 {
        digit /= base as f64;
        value += (index % base) as f64 * digit;
        index /= base;
    }
    value
}

/// A standard Gumbel variable.
pub(super) fn gumbel(rng: &mut ChaCha8Rng) -> f32 {
    let uniform = rng.random::<f64>().max(1e-12);
    -(-uniform.ln()).max(1e-12).ln() as f32
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn codes_are_drawn_as_often_as_they_are_likely() {
        let mut rng = ChaCha8Rng::from_seed([1; 32]);
        let logits = [0.0f32, 2f32.ln(), f32::MIN, 3f32.ln()];
        let shares = |sampling: Sampling, rng: &mut ChaCha8Rng| {
            let mut counts = [0; 4];
            (0..20_000).for_each(|_| counts[sampling.draw(&logits, rng).0 as usize] += 1);
            counts.map(|count| f64::from(count) / 20_000.0)
        };
        let close = |found: [f64; 4], expected: [f64; 4]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.015), "{found:?} {expected:?}");
        };
        let plain = Sampling::default();
        close(shares(plain, &mut rng), [1.0 / 6.0, 2.0 / 6.0, 0.0, 3.0 / 6.0]);
        close(shares(Sampling { top_k: Some(2), ..plain }, &mut rng), [0.0, 0.4, 0.0, 0.6]);
        close(shares(Sampling { top_k: Some(1), ..plain }, &mut rng), [0.0, 0.0, 0.0, 1.0]);
        // Temperature one half squares the odds: 1 : 4 : 9.
        let cold = Sampling { temperature: 0.5, ..plain };
        close(shares(cold, &mut rng), [1.0 / 14.0, 4.0 / 14.0, 0.0, 9.0 / 14.0]);
        let (_, likelihood) = Sampling { top_k: Some(1), ..plain }.draw(&logits, &mut rng);
        assert!(likelihood.abs() < 1e-6, "{likelihood}");
    }

    #[test]
    fn fewer_tokens_are_hidden_after_every_step_and_none_at_last() {
        for steps in [1, 5, 12] {
            let sampling = Sampling { steps, ..Sampling::default() };
            let hidden: Vec<usize> = (0..steps).map(|step| sampling.hidden_after(step, 16_384)).collect();
            assert!(hidden.is_sorted_by(|a, b| a > b) && hidden.last() == Some(&0), "{hidden:?}");
        }
    }

    #[test]
    fn an_even_order_has_every_place_once_and_leaves_no_quarter_for_last() {
        for (rows, columns) in [(1, 1), (5, 7), (32, 32), (64, 48)] {
            let order = even_order((rows, columns), (3 % rows, 2 % columns));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..rows * columns));
        }
        let order = even_order((32, 32), (0, 0));
        assert_ne!(order, even_order((32, 32), (0, 1)));
        let mut quarters = [0; 4];
        order[..64].iter().for_each(|place| quarters[place / 512 * 2 + place % 32 / 16] += 1);
        assert!(quarters.iter().all(|&count| (15..=17).contains(&count)), "{quarters:?}");
    }

    #[test]
    fn faults_are_listed_together() {
        let sampling =
            Sampling { steps: 13, temperature: f32::NAN, top_k: Some(0), spread: -1.0, ..Sampling::default() };
        assert_eq!(sampling.faults().len(), 4);
        assert!(Sampling::default().faults().is_empty());
    }
}
