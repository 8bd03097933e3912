//! The figures of a whole training, kept with its checkpoints: what a model card draws its curves from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Error, Figure, Learner};
use crate::weights::Weights;

/// Points that are kept of each figure; beyond it two neighbours become one.
const MOST: u64 = 256;

const KEY: &str = "history";

/// Means of a training's figures over intervals of equal length, of all its rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Steps of an interval.
    every: u64,
    figures: BTreeMap<String, Vec<Point>>,
}

/// A figure in one interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Point {
    interval: u64,
    sum: f64,
    count: u64,
}

impl Default for History {
    fn default() -> Self {
        Self { every: 1, figures: BTreeMap::new() }
    }
}

impl History {
    /// The history in a checkpoint; `None` where it has none.
    ///
    /// # Errors
    /// [`Error::Parent`] for one that cannot be read.
    pub fn of(checkpoint: &Weights) -> Result<Option<Self>, Error> {
        let read = |text: &String| serde_json::from_str(text);
        let history: Result<Option<Self>, _> = checkpoint.metadata.get(KEY).map(read).transpose();
        history.map_err(|error| Error::Parent(format!("its history of losses: {error}")))
    }

    /// Puts it into a checkpoint.
    ///
    /// # Errors
    /// [`Error::Export`] where it cannot be written as JSON.
    pub fn keep(&self, checkpoint: &mut Weights) -> Result<(), Error> {
        let text = serde_json::to_string(self);
        let text = text.map_err(|error| Error::Export(format!("the history of losses: {error}")))?;
        checkpoint.metadata.insert(KEY.to_owned(), text);
        Ok(())
    }

    /// Adds the figures of `step`, counted from 0.
    pub fn add(&mut self, step: u64, figures: &[Figure]) {
        while step / self.every >= MOST {
            self.every *= 2;
            for points in self.figures.values_mut() {
                let mut halved: Vec<Point> = Vec::with_capacity(points.len());
                for point in points.iter() {
                    add(&mut halved, Point { interval: point.interval / 2, ..*point });
                }
                *points = halved;
            }
        }
        for (name, value) in figures.iter().filter(|(_, value)| value.is_finite()) {
            let point = Point { interval: step / self.every, sum: *value, count: 1 };
            add(self.figures.entry((*name).to_owned()).or_default(), point);
        }
    }

    /// The figures' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.figures.keys().map(String::as_str)
    }

    /// A figure's means, each with the step at its interval's end; none for an unknown one.
    pub fn curve(&self, name: &str) -> Vec<(f64, f64)> {
        let points = self.figures.get(name).map(Vec::as_slice).unwrap_or_default();
        let at = |point: &Point| (((point.interval + 1) * self.every) as f64, point.sum / point.count as f64);
        points.iter().map(at).collect()
    }
}

/// Adds to the last point, where it is the same interval's.
fn add(points: &mut Vec<Point>, new: Point) {
    match points.last_mut() {
        Some(last) if last.interval == new.interval => {
            last.sum += new.sum;
            last.count += new.count;
        }
        _ => points.push(new),
    }
}

/// A learner whose figures are kept in its checkpoints.
pub(super) struct Recorded {
    learner: Box<dyn Learner>,
    history: History,
}

impl Recorded {
    /// Goes on with the parent's history.
    ///
    /// # Errors
    /// Those of [`History::of`].
    pub(super) fn new(learner: Box<dyn Learner>, parent: Option<&Weights>) -> Result<Self, Error> {
        let history = parent.map(History::of).transpose()?.flatten().unwrap_or_default();
        Ok(Self { learner, history })
    }
}

impl Learner for Recorded {
    fn step(&mut self) -> Result<Vec<Figure>, Error> {
        let step = self.learner.steps_done();
        let figures = self.learner.step()?;
        self.history.add(step, &figures);
        Ok(figures)
    }

    fn steps_done(&self) -> u64 {
        self.learner.steps_done()
    }

    fn steps_planned(&self) -> u64 {
        self.learner.steps_planned()
    }

    fn checkpoint(&self) -> Result<Weights, Error> {
        let mut checkpoint = self.learner.checkpoint()?;
        self.history.keep(&mut checkpoint)?;
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(steps: std::ops::Range<u64>, mut history: History) -> History {
        for step in steps {
            let value = step as f64;
            let late = [("loss", value), ("late", value)];
            history.add(step, if step < 100 { &late[..1] } else { &late });
        }
        history
    }

    #[test]
    fn intervals_hold_the_means_of_their_steps() {
        let history = history(0..1_000, History::default());
        assert_eq!(history.names().collect::<Vec<_>>(), ["late", "loss"]);
        let curve = history.curve("loss");
        // 1,000 steps are 250 intervals of 4.
        assert_eq!((curve.len(), curve[0], curve[249]), (250, (4.0, 1.5), (1_000.0, 997.5)));
        assert_eq!(history.curve("late")[0], (104.0, 101.5));
        assert!(history.curve("other").is_empty());
    }

    #[test]
    fn a_training_in_rounds_has_the_history_of_one_in_one_go() {
        let parts = [0..3, 3..257, 257..301, 301..2_049];
        let mut resumed = History::default();
        for part in parts {
            let text = serde_json::to_string(&history(part, resumed)).unwrap();
            resumed = serde_json::from_str(&text).unwrap();
        }
        assert_eq!(resumed, history(0..2_049, History::default()));
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let mut history = History::default();
        history.add(0, &[("loss", f64::NAN), ("other", 1.0)]);
        assert_eq!(history.names().collect::<Vec<_>>(), ["other"]);
    }
}
