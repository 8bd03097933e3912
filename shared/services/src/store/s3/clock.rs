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
    /// Of a machine whose clock is wrong, a refusal may be one of a time, and the next attempt is signed with another. The request
    /// itself, with its time, is gone by now.
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let refused = context.response().is_some_and(|response| response.status().as_u16() == 403);
        match refused && self.ahead_s.load(Ordering::Relaxed) != 0 {
            true => RetryAction::transient_error(),
            false => RetryAction::NoActionIndicated,
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

#[cfg(test)]
mod tests {
    use super::*;

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
