//! Scores of pairs, one pair a thread in memory.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use hiresmed_imaging::Mask;

use super::Error;
use super::survey::Pair;
use crate::{Intensity, Lpips, psnr, psnr_paper, ssim, ssim_map, summary};

/// Scores of a pair, or a statistic of them over pairs. What is undefined is NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// dB; infinite for equal images.
    pub psnr: f64,
    /// dB, on the scale of the paper's tables.
    pub psnr_paper: f64,
    /// Undefined for images under 11 x 11.
    pub ssim: f64,
    /// Undefined without a mask, and where it leaves nothing.
    pub ssim_outside_mask: f64,
    /// Where it was asked for.
    pub lpips: Option<f64>,
}

/// Scores of one pair.
#[derive(Debug, Clone, PartialEq)]
pub struct PairScores {
    /// The common stem.
    pub name: String,
    /// Its scores.
    pub scores: Scores,
}

/// Scores every pair, in the pairs' order, on all cores; each holds one pair.
///
/// # Errors
/// Files that cannot be decoded, pixels that are not finite, a perceptual distance that fails: all pairs that failed, once
/// the others are done.
pub fn score_pairs(pairs: &[Pair], intensity: Intensity, lpips: Option<&Lpips>) -> Result<Vec<PairScores>, Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(pairs.len());
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(pairs.len()));
    // Threads of our own: a task of rayon's pool that waits for its filter would begin another pair meanwhile.
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(pair) = pairs.get(index) else { break };
                    let result = score(pair, intensity, lpips);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    let mut scores = Vec::with_capacity(done.len());
    let mut faults = Vec::new();
    for (index, result) in done {
        match result {
            Ok(of_pair) => scores.push(PairScores { name: pairs[index].name.clone(), scores: of_pair }),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(scores) } else { Err(Error::Pairs { faults }) }
}

fn score(pair: &Pair, intensity: Intensity, lpips: Option<&Lpips>) -> Result<Scores, String> {
    let said = |error: hiresmed_imaging::Error| error.to_string();
    let named = |error: crate::Error| format!("{}: {error}", pair.name);
    let (real, synthetic) = (pair.real.read().map_err(said)?, pair.synthetic.read().map_err(said)?);
    let decibel = psnr(&real, &synthetic, intensity.range).map_err(named)?;
    let undefined_if_small = |result: Result<f64, crate::Error>| match result {
        Err(crate::Error::Small { .. }) => Ok(f64::NAN),
        result => result.map_err(named),
    };
    let (whole, outside) = match &pair.mask {
        None => (undefined_if_small(ssim(&real, &synthetic, intensity.range))?, f64::NAN),
        Some(mask) => {
            let mask = mask.read().map_err(said)?;
            let lesion = Mask::from_fn(mask.width(), mask.height(), |x, y| mask.at(x, y) != 0.0);
            match ssim_map(&real, &synthetic, intensity.range) {
                Err(crate::Error::Small { .. }) => (f64::NAN, f64::NAN),
                map => {
                    let map = map.map_err(named)?;
                    (map.mean(), map.mean_outside(&lesion).map_err(named)?.unwrap_or(f64::NAN))
                }
            }
        }
    };
    let distance = |lpips: &Lpips| lpips.distance(&real, &synthetic, intensity);
    let lpips = lpips.map(distance).transpose().map_err(|error| format!("{}: {error}", pair.name))?;
    Ok(Scores { psnr: decibel, psnr_paper: psnr_paper(decibel), ssim: whole, ssim_outside_mask: outside, lpips })
}

/// Mean of each score; a score that is undefined or infinite for a pair makes it so for the mean.
pub fn mean(pairs: &[PairScores]) -> Scores {
    over(pairs, summary::mean)
}

/// Standard deviation (n - 1) of each score; undefined for fewer than two pairs.
pub fn standard_deviation(pairs: &[PairScores]) -> Scores {
    over(pairs, summary::standard_deviation)
}

fn over(pairs: &[PairScores], statistic: impl Fn(&[f64]) -> f64) -> Scores {
    let of = |score: fn(&Scores) -> f64| statistic(&pairs.iter().map(|pair| score(&pair.scores)).collect::<Vec<_>>());
    let measured = pairs.iter().any(|pair| pair.scores.lpips.is_some());
    Scores {
        psnr: of(|scores| scores.psnr),
        psnr_paper: of(|scores| scores.psnr_paper),
        ssim: of(|scores| scores.ssim),
        ssim_outside_mask: of(|scores| scores.ssim_outside_mask),
        lpips: measured.then(|| of(|scores| scores.lpips.unwrap_or(f64::NAN))),
    }
}
