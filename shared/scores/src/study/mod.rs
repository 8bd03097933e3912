//! Reader studies (visual Turing tests, paper 3.4): readers say of each image whether it is real or synthetic.
//!
//! Real is the positive class. Every test is exact and two-sided. What a κ or a p compares is in its name: a reader's κ is
//! against the truth, a pair's κ is between the readers. (The paper's table 4 gives the first and calls it agreement.)

mod agreement;
mod exact;
mod readings;

use std::collections::BTreeMap;

use serde::Serialize;

pub use agreement::kappa;
pub use exact::{binomial_half, mcnemar};
pub use readings::{Class, Error, Reading, read};

/// Counts of one reader's answers against the truth; real is positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Real images called real.
    pub tp: u64,
    /// Real images called synthetic.
    #[serde(rename = "fn")]
    pub fn_: u64,
    /// Synthetic images called real.
    pub fp: u64,
    /// Synthetic images called synthetic.
    pub tn: u64,
}

/// How one reader did. A ratio without a denominator is `None`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reader {
    /// The reader's name.
    pub reader: String,
    /// Readings.
    pub n: u64,
    /// Against the truth.
    #[serde(flatten)]
    pub counts: Counts,
    /// Real images called real, of all real ones.
    pub sensitivity: Option<f64>,
    /// Synthetic images called synthetic, of all synthetic ones.
    pub specificity: Option<f64>,
    /// Right answers, of all.
    pub accuracy: Option<f64>,
    /// Cohen's κ between the answers and the truth.
    pub kappa_truth: Option<f64>,
    /// Exact binomial test of the number of right answers against guessing (one half).
    pub p_accuracy_binomial: f64,
    /// Exact McNemar test of fn against fp: does the reader lean to one of the answers?
    pub p_mcnemar: f64,
}

/// How two readers compare, over the images that both have read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// One reader.
    pub a: String,
    /// The other.
    pub b: String,
    /// Cohen's κ between their answers; `None` where chance alone would agree always, or no image is shared.
    pub kappa: Option<f64>,
    /// Exact McNemar test of the images that only one of them got right.
    pub p_mcnemar: f64,
}

/// All readers, in the order of their first reading, and all pairs of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Study {
    /// Each reader.
    pub readers: Vec<Reader>,
    /// Each pair, the earlier reader first.
    pub between: Vec<Pair>,
}

impl Reader {
    /// The measures of these counts.
    pub fn new(reader: impl Into<String>, counts: Counts) -> Self {
        let Counts { tp, fn_, fp, tn } = counts;
        let (n, right) = (tp + fn_ + fp + tn, tp + tn);
        Self {
            reader: reader.into(),
            n,
            counts,
            sensitivity: ratio(tp, tp + fn_),
            specificity: ratio(tn, fp + tn),
            accuracy: ratio(right, n),
            kappa_truth: kappa([[tp, fn_], [fp, tn]]),
            p_accuracy_binomial: binomial_half(right, n),
            p_mcnemar: mcnemar(fn_, fp),
        }
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Scores a study. Readings are as [`read`] gives them: one a reader and image, one truth an image.
pub fn score(readings: &[Reading]) -> Study {
    let mut names: Vec<&str> = Vec::new();
    let mut by_reader: BTreeMap<&str, BTreeMap<&str, &Reading>> = BTreeMap::new();
    for reading in readings {
        let own = by_reader.entry(&reading.reader).or_insert_with(|| {
            names.push(&reading.reader);
            BTreeMap::new()
        });
        own.insert(&reading.image, reading);
    }
    let readers = names.iter().map(|&name| Reader::new(name, counts(by_reader[name].values().copied()))).collect();
    let pairs = names.iter().enumerate().flat_map(|(index, &a)| names[index + 1..].iter().map(move |&b| (a, b)));
    let between = pairs.map(|(a, b)| pair(a, &by_reader[a], b, &by_reader[b])).collect();
    Study { readers, between }
}

fn counts<'a>(readings: impl Iterator<Item = &'a Reading>) -> Counts {
    let mut counts = Counts::default();
    for reading in readings {
        let count = match (reading.truth, reading.answer) {
            (Class::Real, Class::Real) => &mut counts.tp,
            (Class::Real, Class::Synthetic) => &mut counts.fn_,
            (Class::Synthetic, Class::Real) => &mut counts.fp,
            (Class::Synthetic, Class::Synthetic) => &mut counts.tn,
        };
        *count += 1;
    }
    counts
}

fn pair(a: &str, of_a: &BTreeMap<&str, &Reading>, b: &str, of_b: &BTreeMap<&str, &Reading>) -> Pair {
    let mut answers = [[0u64; 2]; 2];
    let (mut only_a, mut only_b) = (0, 0);
    for (image, of_a) in of_a {
        let Some(of_b) = of_b.get(image) else { continue };
        answers[of_a.answer as usize][of_b.answer as usize] += 1;
        match (of_a.answer == of_a.truth, of_b.answer == of_b.truth) {
            (true, false) => only_a += 1,
            (false, true) => only_b += 1,
            _ => {}
        }
    }
    Pair { a: a.to_owned(), b: b.to_owned(), kappa: kappa(answers), p_mcnemar: mcnemar(only_a, only_b) }
}

#[cfg(test)]
mod tests;
