//! What a person sees while a request runs: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Without a terminal at most one line is written in this time, and one for each change of stage at the end.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Progress of one request, on standard error.
pub struct Progress {
    face: Face,
    unit: &'static str,
    total: u64,
    done: u64,
    /// Units that were done before this process began: they say nothing about its speed.
    head_start: u64,
    stage: String,
    started: Instant,
}

enum Face {
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
}

impl Progress {
    /// Begins to show `total` units (`"images"`, `"steps"`), of which `done` were finished earlier.
    pub fn begin(unit: &'static str, total: u64, done: u64) -> Self {
        let face = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total).with_position(done);
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {prefix}  {msg}  {elapsed} gone")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar.set_prefix(unit);
            bar.enable_steady_tick(Duration::from_millis(250));
            Face::Bar(bar)
        } else {
            Face::Lines { last: None }
        };
        Self { face, unit, total, done, head_start: done, stage: String::new(), started: Instant::now() }
    }

    /// Names what is being done now.
    pub fn stage(&mut self, stage: &str) {
        if self.stage != stage {
            stage.clone_into(&mut self.stage);
            self.show(false);
        }
    }

    /// Sets how many units are done.
    pub fn done(&mut self, done: u64) {
        if done != self.done {
            self.done = done.min(self.total);
            self.show(self.done == self.total);
        }
    }

    /// Writes a line that stays.
    pub fn note(&self, text: &str) {
        match &self.face {
            Face::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            Face::Lines { .. } => eprintln!("{text}"),
        }
    }

    /// Removes the bar.
    pub fn end(&self) {
        if let Face::Bar(bar) = &self.face {
            bar.finish_and_clear();
        }
    }

    fn show(&mut self, at_once: bool) {
        let message = message(
            &self.stage,
            self.unit,
            self.done - self.head_start,
            self.total - self.done,
            self.started.elapsed(),
        );
        match &mut self.face {
            Face::Bar(bar) => {
                bar.set_position(self.done);
                bar.set_message(message);
            }
            Face::Lines { last } => {
                if at_once || last.is_none_or(|time| time.elapsed() >= LINE_INTERVAL) {
                    // A closed standard error must not end the work.
                    let _ = writeln!(std::io::stderr(), "{}/{} {}  {message}", self.done, self.total, self.unit);
                    *last = Some(Instant::now());
                }
            }
        }
    }
}

/// `stage, 0.52 images/s, 14 s left`; no rate before the first unit of this process is done.
fn message(stage: &str, unit: &str, done: u64, left: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if done == 0 || seconds <= 0.0 {
        return stage.to_owned();
    }
    let rate = done as f64 / seconds;
    let speed = format!("{rate:.2} {unit}/s");
    let time = match left {
        0 => "done".to_owned(),
        left => format!("{} left", duration(left as f64 / rate)),
    };
    if stage.is_empty() { format!("{speed}, {time}") } else { format!("{stage}, {speed}, {time}") }
}

/// A duration for people: `42 s`, `3 min 5 s`, `2 h 14 min`.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_gives_stage_rate_and_time_left() {
        assert_eq!(message("lesions", "images", 0, 12, Duration::from_secs(3)), "lesions");
        assert_eq!(message("lesions", "images", 5, 10, Duration::from_secs(10)), "lesions, 0.50 images/s, 20 s left");
        assert_eq!(message("", "steps", 4, 0, Duration::from_secs(2)), "2.00 steps/s, done");
    }

    #[test]
    fn durations_are_readable() {
        assert_eq!(duration(41.6), "42 s");
        assert_eq!(duration(185.0), "3 min 5 s");
        assert_eq!(duration(8040.0), "2 h 14 min");
    }

    #[test]
    fn work_done_earlier_does_not_speed_up_the_rate() {
        let mut progress = Progress::begin("images", 10, 8);
        progress.done(9);
        assert_eq!(progress.done - progress.head_start, 1);
    }
}
