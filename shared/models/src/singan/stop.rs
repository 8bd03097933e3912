//! When a scale has learned enough: the measured criterion of an early stop.

use serde::{Deserialize, Serialize};

/// Ends a scale before its last iteration.
///
/// Two figures are watched, as means over windows of iterations: the reconstruction's squared error and the critic's gap, that is the
/// Wasserstein term. When neither has changed for the better by more than `tolerance` from one window to the next, the learning rate
/// falls to a tenth as it otherwise does at `decay_at`, and the scale ends after as many iterations at that rate as it otherwise has.
///
/// Why these two: on four exemplars the error at a scale above the first fell by less than a tenth from 50 iterations to the next 50
/// after 100 to 250 of them, and then by half within 25 to 50 iterations at a tenth of the rate, whenever that came. At scale 0,
/// where noise becomes shape, the error says little while the critic's gap still widens: that scale goes on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Iterations of a window.
    pub window: u64,
    /// Largest relative change between two windows that counts as none.
    pub tolerance: f64,
    /// Fewest iterations of a scale at the full rate; `iterations` of the training is the most, those at a tenth included.
    pub least: u64,
}

impl Stop {
    /// Every fault, for a training with so many `iterations` a scale.
    pub(super) fn faults(&self, iterations: u64) -> Vec<String> {
        let checks = [
            (self.window >= 1, "stop.window must be at least 1".to_owned()),
            (self.tolerance > 0.0 && self.tolerance < 1.0, "stop.tolerance must lie between 0 and 1".to_owned()),
            (self.least <= iterations, format!("stop.least must not be above iterations, {iterations}")),
        ];
        checks.into_iter().filter(|(good, _)| !good).map(|(_, fault)| fault).collect()
    }
}

/// What a scale's iterations said so far. Part of a checkpoint.
#[cfg(any(test, feature = "training"))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Watch {
    /// Sums of the window under way.
    sums: [f64; 2],
    /// Iterations in it.
    count: u64,
    /// Means of the window before.
    before: Option<[f64; 2]>,
    /// Iteration of the scale from which the rate is a tenth, once that is decided.
    pub(super) late_from: Option<u64>,
}

#[cfg(any(test, feature = "training"))]
impl Watch {
    /// Takes the figures of a scale's iteration, the `made`th of it.
    pub(super) fn add(&mut self, stop: &Stop, made: u64, reconstruction: f64, gap: f64) {
        if self.late_from.is_some() {
            return;
        }
        self.sums[0] += reconstruction;
        self.sums[1] += gap.abs();
        self.count += 1;
        if self.count < stop.window {
            return;
        }
        let means = self.sums.map(|sum| sum / self.count as f64);
        let settled = self.before.is_some_and(|before| {
            // An error that rises has stopped falling, and a gap that closes has stopped widening.
            means[0] > before[0] * (1.0 - stop.tolerance) && means[1] < before[1] * (1.0 + stop.tolerance)
        });
        if settled && made >= stop.least {
            self.late_from = Some(made);
        }
        (self.sums, self.count, self.before) = ([0.0; 2], 0, Some(means));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOP: Stop = Stop { window: 10, tolerance: 0.1, least: 30 };

    /// The iteration at which the rate falls.
    fn late(stop: &Stop, figures: impl Fn(u64) -> (f64, f64)) -> Option<u64> {
        let mut watch = Watch::default();
        for made in 1..=1_000 {
            let (reconstruction, gap) = figures(made);
            watch.add(stop, made, reconstruction, gap);
        }
        watch.late_from
    }

    #[test]
    fn a_scale_stops_where_neither_figure_gets_better() {
        let falling = |made: u64| 0.5f64.powf(made as f64 / 20.0);
        assert_eq!(late(&STOP, |made| (falling(made), -1.0)), None, "the error falls");
        assert_eq!(late(&STOP, |made| (1.0, -1.0 / falling(made))), None, "the gap widens");
        assert_eq!(late(&STOP, |_| (1.0, -1.0)), Some(30), "not before the fewest iterations");
        assert_eq!(late(&Stop { least: 0, ..STOP }, |_| (1.0, -1.0)), Some(20), "two windows are compared");
        assert_eq!(late(&STOP, |made| (falling(made.min(100)), -1.0)), Some(120));
        assert_eq!(late(&STOP, |made| (made as f64, -falling(made))), Some(30), "both get worse");
    }

    #[test]
    fn the_watch_goes_on_from_its_text() {
        let figures = |made: u64| (1.0 / made as f64 + (made % 7) as f64 / 3.0, -0.1 * (made % 3) as f64);
        let (mut whole, mut parts) = (Watch::default(), Watch::default());
        for made in 1..=60 {
            let (reconstruction, gap) = figures(made);
            whole.add(&STOP, made, reconstruction, gap);
            parts = serde_json::from_str(&serde_json::to_string(&parts).unwrap()).unwrap();
            parts.add(&STOP, made, reconstruction, gap);
            assert_eq!(whole, parts);
        }
    }
}
