//! A limit for messages that bad input could repeat without end.

use std::time::{Duration, Instant};

/// Lets one message a second pass and counts the others.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    last: Option<Instant>,
    held_back: u64,
}

/// Often enough to be seen, seldom enough to drown nothing.
const INTERVAL: Duration = Duration::from_secs(1);

impl LogLimit {
    /// Whether a message may be written now, and how many were held back since the last.
    pub(crate) fn allow(&mut self) -> Option<u64> {
        if self.last.is_some_and(|last| last.elapsed() < INTERVAL) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_counted() {
        let mut limit = LogLimit::default();
        assert_eq!(limit.allow(), Some(0));
        assert_eq!(limit.allow(), None);
        assert_eq!(limit.allow(), None);
        limit.last = None;
        assert_eq!(limit.allow(), Some(2));
    }
}
