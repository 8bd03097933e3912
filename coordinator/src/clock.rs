//! The time, as documents have it.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Now, UTC, RFC 3339 in whole seconds.
pub(crate) fn now() -> String {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    // A year of five digits is the only way for this to fail.
    now.format(&Rfc3339).unwrap_or_default()
}
