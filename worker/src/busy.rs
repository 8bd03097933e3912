//! How busy the networks keep their device, measured over the last minute.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use hiresmed_inference::session::time_in_all_runs;
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

/// Time that networks have run in this process, trained or used.
fn time_in_all() -> Duration {
    time_in_all_runs() + Duration::from_nanos(STEPS.load(Ordering::Relaxed))
}

/// Keeps `hiresmed_accelerator_busy_ratio` up to date for `lanes` networks at a time; ends when the task is dropped.
pub async fn measure(metrics: Metrics, lanes: usize) {
    let mut readings = VecDeque::from([(Instant::now(), time_in_all())]);
    loop {
        tokio::time::sleep(EVERY).await;
        let (now, busy) = (Instant::now(), time_in_all());
        readings.push_back((now, busy));
        while readings.len() > 2 && now.duration_since(readings[1].0) >= OVER {
            readings.pop_front();
        }
        if let Some(&(then, before)) = readings.front() {
            metrics.set_accelerator_busy(ratio(busy.saturating_sub(before), now.duration_since(then), lanes));
        }
    }
}

/// Share of `elapsed` in which each of `lanes` was busy, their runs adding up to `busy`.
fn ratio(busy: Duration, elapsed: Duration, lanes: usize) -> f64 {
    let available = elapsed.as_secs_f64() * lanes.max(1) as f64;
    if available > 0.0 { (busy.as_secs_f64() / available).min(1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_share_what_there_is() {
        let second = Duration::from_secs(1);
        assert_eq!(ratio(second, 4 * second, 1), 0.25);
        assert_eq!(ratio(second, 4 * second, 2), 0.125);
        assert_eq!((ratio(3 * second, second, 2), ratio(second, Duration::ZERO, 1)), (1.0, 0.0));
    }
}
