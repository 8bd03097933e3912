//! How long the stages take.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hiresmed_inference::session::time_in_runs;
use hiresmed_protocol::outcome::{Stage, StageTiming};

/// Wall time by stage, summed over images. For one thread.
#[derive(Debug, Default)]
pub struct Clock {
    stages: BTreeMap<Stage, Sum>,
}

#[derive(Debug, Default)]
struct Sum {
    duration: Duration,
    /// Of that inside ONNX Runtime.
    runtime: Duration,
    count: u64,
}

impl Clock {
    /// Runs `work` and counts its time for one image at `stage`.
    pub fn time<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let (started, runtime) = (Instant::now(), time_in_runs());
        let result = work();
        let sum = self.stages.entry(stage).or_default();
        sum.duration += started.elapsed();
        sum.runtime += time_in_runs().saturating_sub(runtime);
        sum.count += 1;
        result
    }

    /// Adds what another thread's clock has counted.
    pub fn add(&mut self, other: Self) {
        for (stage, more) in other.stages {
            let sum = self.stages.entry(stage).or_default();
            sum.duration += more.duration;
            sum.runtime += more.runtime;
            sum.count += more.count;
        }
    }

    /// The sums so far, in the order of the stages.
    pub fn timings(&self) -> Vec<StageTiming> {
        self.stages
            .iter()
            .map(|(&stage, sum)| StageTiming {
                stage,
                duration_ms: sum.duration.as_secs_f64() * 1000.0,
                runtime_ms: sum.runtime.as_secs_f64() * 1000.0,
                count: sum.count,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_summed_in_their_order() {
        let mut clock = Clock::default();
        clock.time(Stage::Outputs, || ());
        assert_eq!(clock.time(Stage::Inputs, || 7), 7);
        clock.time(Stage::Outputs, || ());
        let mut other = Clock::default();
        other.time(Stage::Outputs, || ());
        clock.add(other);
        let timings = clock.timings();
        assert_eq!(
            timings.iter().map(|timing| (timing.stage, timing.count)).collect::<Vec<_>>(),
            [(Stage::Inputs, 1), (Stage::Outputs, 3)]
        );
    }
}
