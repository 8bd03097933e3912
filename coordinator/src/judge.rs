//! Whether a job is to blame for the deaths of its workers, judged by the records that they wrote when they began.

use hiresmed_protocol::Attempt;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// No job takes so long. More than an hour, so that clocks that differ by one do no harm.
const LONGEST: time::Duration = time::Duration::minutes(90);

/// How often a worker died while it ran the job: starts without an end, of attempts from `first_attempt` on, not before
/// `since`. A message that merely waited in a worker that died has left no start.
pub(crate) fn crashes(attempts: &[Attempt], first_attempt: u32, since: Option<OffsetDateTime>) -> u32 {
    let counts = |attempt: &&Attempt| {
        let late_enough = since.is_none_or(|since| {
            // A time that cannot be read is taken as recent: a job is better judged too early than run for ever.
            OffsetDateTime::parse(&attempt.started_at, &Rfc3339).map_or(true, |started| started >= since)
        });
        attempt.ended.is_none() && attempt.attempt >= first_attempt && late_enough
    };
    u32::try_from(attempts.iter().filter(counts).count()).unwrap_or(u32::MAX)
}

/// Whether an attempt began so long ago that it cannot be running: jobs are planned to take five minutes.
pub(crate) fn is_stale(attempt: &Attempt) -> bool {
    let began = OffsetDateTime::parse(&attempt.started_at, &Rfc3339);
    began.is_ok_and(|began| OffsetDateTime::now_utc() - began > LONGEST)
}

/// The history of a dead letter, for people.
pub(crate) fn history(attempts: &[Attempt]) -> String {
    let lines = attempts.iter().map(|attempt| {
        let end = attempt.ended.as_ref().map_or("died", |outcome| outcome.verdict.label());
        format!("attempt {} on {} at {}: {end}", attempt.attempt, attempt.worker, attempt.started_at)
    });
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use hiresmed_protocol::{Outcome, SiteId, VERSION, Verdict};

    use super::*;

    fn attempt(number: u32, hour: u32, ended: Option<Verdict>) -> Attempt {
        let started_at = format!("2026-01-01T{hour:02}:00:00Z");
        let ended = ended.map(|verdict| Outcome {
            version: VERSION,
            job: "r-s00000".parse().unwrap(),
            request: "r".parse().unwrap(),
            site: SiteId::local(),
            attempt: number,
            worker: "host/1".to_owned(),
            started_at: started_at.clone(),
            duration_ms: 1,
            verdict,
        });
        Attempt { version: VERSION, attempt: number, worker: "host/1".to_owned(), started_at, ended }
    }

    #[test]
    fn only_starts_without_an_end_are_crashes() {
        let attempts = [attempt(0, 1, None), attempt(0, 2, Some(Verdict::Interrupted)), attempt(0, 3, None)];
        assert_eq!(crashes(&attempts, 0, None), 2);
        assert_eq!(crashes(&[], 0, None), 0);
    }

    #[test]
    fn crashes_before_a_retry_or_before_the_start_do_not_count() {
        let attempts = [attempt(0, 1, None), attempt(1, 2, None), attempt(1, 3, None)];
        assert_eq!(crashes(&attempts, 1, None), 2);
        let since = OffsetDateTime::parse("2026-01-01T02:30:00Z", &Rfc3339).unwrap();
        assert_eq!(crashes(&attempts, 0, Some(since)), 1);
    }

    #[test]
    fn history_names_worker_time_and_end() {
        let text = history(&[attempt(0, 1, None), attempt(1, 2, Some(Verdict::Cancelled))]);
        assert_eq!(
            text,
            "attempt 0 on host/1 at 2026-01-01T01:00:00Z: died; attempt 1 on host/1 at 2026-01-01T02:00:00Z: cancelled"
        );
    }
}
