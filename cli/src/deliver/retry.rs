//! When a call is made again, and how long to wait before: exponentially longer, with jitter, and as long as the archive asks.

use std::time::Duration;

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::http::{Answer, Trouble};

/// The longest wait that follows from the number of attempts.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest rest that an archive is given because it asks for it.
const LONGEST_REST: Duration = Duration::from_secs(600);

/// How often and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Attempts after the first.
    pub retries: u32,
    /// Wait before the second attempt.
    pub first_wait: Duration,
}

impl Patience {
    /// How long to wait after attempt `attempt`, from 0; `chance` is from 0 to 1.
    fn wait(self, attempt: u32, asked: Option<Duration>, chance: f64) -> Duration {
        let full = self.first_wait.saturating_mul(2u32.saturating_pow(attempt)).min(LONGEST);
        // At least half of it: what came down together does not come back together.
        let wait = full.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0));
        wait.max(asked.unwrap_or_default().min(LONGEST_REST))
    }

    /// Waits before the next attempt, and says so; false where `stop` ended it.
    pub async fn rest(self, attempt: u32, asked: Option<Duration>, why: &str, stop: &CancellationToken) -> bool {
        let chance = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
        let wait = self.wait(attempt, asked, chance);
        tracing::warn!(attempt = attempt + 1, wait_s = wait.as_secs_f64(), "{why}; trying again");
        if wait >= Duration::from_secs(4) {
            eprintln!("{why}; trying again in {:.0} s", wait.as_secs_f64());
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = stop.cancelled() => false,
        }
    }
}

/// What a try came to.
pub enum Tried {
    /// An answer that another try would not change.
    Answer(Answer),
    /// None, or one that says that it may be another next time.
    Again { why: String, asked: Option<Duration>, kind: Kind },
    /// No answer, and none will come.
    Never(String),
}

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The archive as a whole is away or busy.
    Archive,
    /// It may be what was sent: the connection broke, or the archive failed at it (500).
    Content,
}

/// Sorts what a call gave.
pub fn sort(called: Result<Answer, Trouble>) -> Tried {
    match called {
        Err(trouble @ Trouble::Certificate(_)) => Tried::Never(trouble.to_string()),
        Err(trouble @ Trouble::Connect(_)) => {
            Tried::Again { why: trouble.to_string(), asked: None, kind: Kind::Archive }
        }
        Err(trouble @ Trouble::Transfer(_)) => {
            Tried::Again { why: trouble.to_string(), asked: None, kind: Kind::Content }
        }
        Ok(answer) if is_transient(answer.status) => {
            let kind = if answer.status == StatusCode::INTERNAL_SERVER_ERROR { Kind::Content } else { Kind::Archive };
            Tried::Again { why: format!("the archive answers {}", answer.status), asked: answer.retry_after, kind }
        }
        Ok(answer) => Tried::Answer(answer),
    }
}

/// 408, 429 and 5xx, but for those that say that the archive cannot do it at all.
fn is_transient(status: StatusCode) -> bool {
    let never = [StatusCode::NOT_IMPLEMENTED, StatusCode::HTTP_VERSION_NOT_SUPPORTED];
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
        || (status.is_server_error() && !never.contains(&status))
}

/// Why an answer says that nothing else will be answered there either; `None` where it is about what was asked.
pub fn fatal(status: StatusCode, root: &str) -> Option<String> {
    match status.as_u16() {
        401 | 403 | 407 => {
            Some(format!("the archive answers {status}: it does not take the credentials, or there are none"))
        }
        300..=399 => {
            Some(format!("the archive answers {status}: it wants to be called at another address; give that as --to"))
        }
        404 | 405 | 406 | 410 | 501 | 505 => {
            Some(format!("the archive answers {status}: there seems to be no DICOMweb service at {root}; check --to"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_follow_what_the_archive_asks() {
        let patience = Patience { retries: 8, first_wait: Duration::from_millis(500) };
        assert_eq!(patience.wait(0, None, 1.0), Duration::from_millis(500));
        assert_eq!(patience.wait(0, None, 0.0), Duration::from_millis(250));
        assert_eq!(patience.wait(3, None, 1.0), Duration::from_secs(4));
        assert_eq!(patience.wait(1000, None, 1.0), LONGEST);
        assert_eq!(patience.wait(0, Some(Duration::from_secs(30)), 0.5), Duration::from_secs(30));
        assert_eq!(patience.wait(0, Some(Duration::from_secs(1 << 40)), 0.5), LONGEST_REST);
    }

    #[test]
    fn statuses_are_sorted() {
        for status in [408, 429, 500, 502, 503, 504, 507] {
            assert!(is_transient(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        for status in [200, 202, 400, 401, 404, 409, 413, 415, 501, 505] {
            assert!(!is_transient(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        for (status, ends) in
            [(401, true), (301, true), (404, true), (501, true), (400, false), (413, false), (409, false)]
        {
            assert_eq!(fatal(StatusCode::from_u16(status).unwrap(), "x").is_some(), ends, "{status}");
        }
    }
}
