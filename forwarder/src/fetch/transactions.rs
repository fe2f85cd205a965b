//! Which batches belong to transactions that were given up (`read_committed`). Pure.
//!
//! Source: KIP-98, and `CompletedFetch` of Kafka's own consumer.

use std::collections::BTreeSet;

use super::batch::Batch;

/// Key of the marker that ends a given-up transaction: a version and a type, of two bytes each.
const ABORT: [u8; 2] = [0, 0];

/// What a broker said of the given-up transactions in what it sent.
#[derive(Debug, Default)]
pub(super) struct AbortedTransactions {
    /// Producer and first offset, the smallest offset last.
    to_come: Vec<(i64, i64)>,
    under_way: BTreeSet<i64>,
}

impl AbortedTransactions {
    /// From pairs of a producer and its transaction's first offset.
    pub(super) fn new(mut transactions: Vec<(i64, i64)>) -> Self {
        transactions.sort_by_key(|&(_, first_offset)| std::cmp::Reverse(first_offset));
        Self {
            to_come: transactions,
            under_way: BTreeSet::new(),
        }
    }

    /// Whether the next batch's records count.
    pub(super) fn admits(&mut self, batch: &Batch) -> bool {
        while let Some((producer, _)) = self
            .to_come
            .pop_if(|(_, first_offset)| *first_offset <= batch.last_offset)
        {
            self.under_way.insert(producer);
        }
        if batch.is_control() {
            if is_abort(batch) {
                self.under_way.remove(&batch.producer_id);
            }
            return false;
        }
        !(batch.is_transactional() && self.under_way.contains(&batch.producer_id))
    }
}

fn is_abort(batch: &Batch) -> bool {
    let marker = batch.reader().next(batch).and_then(Result::ok);
    let key = marker.and_then(|marker| marker.key.of(&batch.records));
    key.is_some_and(|key| key.len() >= 4 && key[2..4] == ABORT)
}
