//! Waiting with a limit.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until `look` gives something.
///
/// # Errors
/// When `look` fails, or has given nothing within `limit`; `what` says what was waited for.
pub async fn for_some<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until `look` is true.
///
/// # Errors
/// As [`for_some`].
pub async fn until(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    for_some(what, limit, async || Ok(look().await?.then_some(()))).await
}
