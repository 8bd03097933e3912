//! How busy networks keep what they run on, measured over the last minute.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use hiresmed_inference::{Provider, session::time_in_all_runs};
use hiresmed_telemetry::Metrics;

/// Time between two readings.
const EVERY: Duration = Duration::from_secs(5);

/// The stretch that is measured.
const OVER: Duration = Duration::from_secs(60);

/// Nanoseconds that the steps of trainings took in this process.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// Counts a step of a training.
#[cfg(feature = "training")]
pub(crate) fn step_took(time: Duration) {
    STEPS.fetch_add(time.as_nanos().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// What is kept busy.
#[derive(Debug, Clone, Copy)]
pub enum Busy {
    /// So many trainings at a time, by their steps.
    Trainings(usize),
    /// The CPU's threads, or a GPU, by the runs of networks; what runs beside a GPU does not count.
    Networks {
        /// Where they run.
        provider: Provider,
        /// Threads of this process.
        threads: usize,
    },
}

impl Busy {
    /// Time so far that anything was busy, of all together.
    fn time(self) -> Duration {
        match self {
            Self::Trainings(_) => Duration::from_nanos(STEPS.load(Ordering::Relaxed)),
            Self::Networks { provider, .. } => time_in_all_runs(provider),
        }
    }

    /// How many there are.
    fn count(self) -> usize {
        match self {
            Self::Trainings(count) => count,
            Self::Networks { provider: Provider::Cuda { .. }, .. } => 1,
            Self::Networks { provider: Provider::Cpu, threads } => threads,
        }
    }
}

/// Keeps `hiresmed_accelerator_busy_ratio` up to date; ends when the task is dropped.
pub async fn measure(metrics: Metrics, what: Busy) {
    let mut readings = VecDeque::from([(Instant::now(), what.time())]);
    loop {
        tokio::time::sleep(EVERY).await;
        let (now, busy) = (Instant::now(), what.time());
        readings.push_back((now, busy));
        while readings.len() > 2 && now.duration_since(readings[1].0) >= OVER {
            readings.pop_front();
        }
        if let Some(&(then, before)) = readings.front() {
            metrics.set_accelerator_busy(ratio(busy.saturating_sub(before), now.duration_since(then), what.count()));
        }
    }
}

/// Share of `elapsed` in which each of `count` was busy, `busy` in all.
fn ratio(busy: Duration, elapsed: Duration, count: usize) -> f64 {
    let available = elapsed.as_secs_f64() * count.max(1) as f64;
    if available > 0.0 { (busy.as_secs_f64() / available).min(1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_one_and_a_processor_its_threads() {
        let networks = |provider| Busy::Networks { provider, threads: 16 };
        assert_eq!(networks(Provider::Cuda { device: 0 }).count(), 1);
        assert_eq!((networks(Provider::Cpu).count(), Busy::Trainings(2).count()), (16, 2));
    }

    #[test]
    fn all_share_what_there_is() {
        let second = Duration::from_secs(1);
        assert_eq!(ratio(second, 4 * second, 1), 0.25);
        assert_eq!(ratio(second, 4 * second, 2), 0.125);
        assert_eq!((ratio(3 * second, second, 2), ratio(second, Duration::ZERO, 1)), (1.0, 0.0));
    }
}
