//! The server's clock, learnt from its answers.
//!
//! A signature holds for a quarter of an hour around its time, so a server refuses everything from a machine whose clock is wrong by
//! more. Its refusal says what time it is there: requests are signed by that from then on, the refused one again as well.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_sdk_s3::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{BeforeDeserializationInterceptorContextRef, InterceptorContext},
        retry::{ClassifyRetry, RetryAction},
    },
    error::BoxError,
    primitives::{DateTime, DateTimeFormat},
};
use aws_smithy_async::time::TimeSource;

/// Less is no reason for a refusal.
const TOLERATED_S: i64 = 120;

/// The time by which requests are signed: the machine's, moved by what the server's clock differs. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerClock {
    /// Seconds that the server is ahead.
    ahead_s: Arc<AtomicI64>,
}

impl ServerClock {
    /// Learns from a refusal.
    fn learn(&self, date: Option<&str>) {
        let Some(server_s) = date.and_then(seconds) else { return };
        let own_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let ahead_s = server_s - own_s;
        if (ahead_s - self.ahead_s.load(Ordering::Relaxed)).abs() > TOLERATED_S {
            tracing::warn!(ahead_s, "this machine's clock and the store's differ; requests are signed by the store's");
            self.ahead_s.store(ahead_s, Ordering::Relaxed);
        }
    }
}

impl TimeSource for ServerClock {
    fn now(&self) -> SystemTime {
        let ahead_s = self.ahead_s.load(Ordering::Relaxed);
        let distance = Duration::from_secs(ahead_s.unsigned_abs());
        let now = SystemTime::now();
        let moved = if ahead_s < 0 { now.checked_sub(distance) } else { now.checked_add(distance) };
        moved.unwrap_or(now)
    }
}

impl Intercept for ServerClock {
    fn name(&self) -> &'static str {
        "ServerClock"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        if response.status().as_u16() == 403 {
            self.learn(response.headers().get("date"));
        }
        Ok(())
    }
}

impl ClassifyRetry for ServerClock {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let (Some(request), Some(response)) = (context.request(), context.response()) else {
            return RetryAction::NoActionIndicated;
        };
        let signed = request.headers().get("x-amz-date").and_then(signed_seconds);
        let answered = response.headers().get("date").and_then(seconds);
        let refused = response.status().as_u16() == 403;
        match (signed, answered) {
            (Some(signed), Some(answered)) if refused && (answered - signed).abs() > TOLERATED_S => {
                RetryAction::transient_error()
            }
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "ServerClock"
    }
}

/// Seconds since 1970 of a `Date` header (RFC 9110, 5.6.7).
fn seconds(date: &str) -> Option<i64> {
    DateTime::from_str(date, DateTimeFormat::HttpDate).ok().map(|date| date.secs())
}

/// Seconds since 1970 of the time in a signature: `20260125T102400Z`.
fn signed_seconds(text: &str) -> Option<i64> {
    let part = |range: std::ops::Range<usize>| text.get(range);
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, second) = (part(9..11)?, part(11..13)?, part(13..15)?);
    let text = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    DateTime::from_str(&text, DateTimeFormat::DateTime).ok().map(|date| date.secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_kinds_are_read() {
        assert_eq!(seconds("Sun, 25 Jan 2026 10:24:00 GMT"), signed_seconds("20260125T102400Z"));
        assert_eq!(signed_seconds("19700101T000001Z"), Some(1));
        for wrong in ["", "20260125", "no time", "20261325T102400Z"] {
            assert_eq!((seconds(wrong), signed_seconds(wrong)), (None, None), "{wrong}");
        }
    }

    #[test]
    fn the_clock_follows_the_server_by_more_than_two_minutes() {
        let clock = ServerClock::default();
        let ahead = || clock.now().duration_since(SystemTime::now()).map_or(0, |ahead| ahead.as_secs() / 60);
        let date = |ahead_s| {
            let date = DateTime::from(SystemTime::now() + Duration::from_secs(ahead_s));
            date.fmt(DateTimeFormat::HttpDate).unwrap()
        };
        clock.learn(Some(&date(60)));
        assert_eq!(ahead(), 0);
        clock.learn(Some(&date(3630)));
        assert_eq!(ahead(), 60);
        clock.learn(None);
        clock.learn(Some("yesterday"));
        assert_eq!(ahead(), 60);
    }
}
