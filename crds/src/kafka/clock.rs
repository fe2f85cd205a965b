//! Time as Kafka counts it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, as in a record's timestamp; 0 on a clock before that.
#[must_use]
pub fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| {
        i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
    })
}
