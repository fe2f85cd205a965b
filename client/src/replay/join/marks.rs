//! How far a whole shard has come.

use std::time::Duration;

use tokio::time::Instant;

use crate::sequencer::Heads;

/// How far back a whole shard is asked for beyond its newest event: when a partition changes its forwarder, the old one
/// may be ahead of the new one for a moment.
const OVERLAP: Duration = Duration::from_secs(1);

/// How far each partition has come, now and a moment ago.
#[derive(Debug, Default)]
pub(super) struct Marks {
    now: Heads,
    /// Between once and twice [`OVERLAP`] ago.
    pub(super) before: Heads,
    /// Between then and now.
    between: Heads,
    turned: Option<Instant>,
}

impl Marks {
    pub(super) fn note(&mut self, partition: u32, next: u64, now: Instant) {
        let turned = *self.turned.get_or_insert(now);
        if now.saturating_duration_since(turned) >= OVERLAP {
            self.before = std::mem::replace(&mut self.between, self.now.clone());
            self.turned = Some(now);
        }
        raise(&mut self.now, partition, next);
    }
}

/// A partition has come to `next` at least.
pub(super) fn raise(heads: &mut Heads, partition: u32, next: u64) {
    let head = heads.entry(partition).or_insert(next);
    *head = next.max(*head);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_lately_does_not_count() {
        let (mut marks, begun) = (Marks::default(), Instant::now());
        for tenth in 0..50 {
            let next = u64::from(tenth);
            marks.note(0, next, begun + OVERLAP / 10 * tenth);
            let before = marks.before.get(&0).copied().unwrap_or(0);
            assert!(before + 10 <= next.max(10), "{before} at {next}");
            assert!(before + 22 >= next, "{before} at {next}");
        }
    }
}
