//! One pass over a partition for all who wait: whose a record is, and whose page is full. Pure but for the answers.
//!
//! A record costs a lookup of its asset, however many wait.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Page, Range, Wanted};

/// Bytes after which a page ends.
pub(super) const PAGE_BYTES: usize = 256 * 1024;

/// Offsets after which a page ends, whatever it has: some tenths of a second. Who asks for a whole day takes turns
/// with who asks for a second.
pub(super) const PAGE_OFFSETS: u64 = 100_000;

/// Offsets that are sooner read over than left out: finding another place costs Kafka some requests.
const GAP: u64 = 10_000;

/// A request, and what was found for it so far.
pub(super) struct Request<W: Wanted> {
    range: Range<W>,
    page: Page<W::Item>,
    bytes: usize,
    reply: oneshot::Sender<Page<W::Item>>,
}

impl<W: Wanted> Request<W> {
    pub(super) fn new(range: Range<W>, reply: oneshot::Sender<Page<W::Item>>) -> Self {
        let page = Page {
            items: Vec::new(),
            next: range.from,
            lost: None,
        };
        Self {
            range,
            page,
            bytes: 0,
            reply,
        }
    }

    /// Where it is to be looked for.
    pub(super) fn place(&self) -> (Arc<str>, u32) {
        (Arc::clone(&self.range.topic), self.range.partition)
    }

    /// Offsets below `low` are no longer there.
    fn skip_to(&mut self, low: u64) {
        if self.page.next < low {
            let first = low.min(self.range.to);
            self.page.lost = Some(first);
            self.page.next = first;
        }
    }

    /// The offset at which its page ends at the latest.
    fn end(&self) -> u64 {
        let page = self.page.next.saturating_add(PAGE_OFFSETS);
        page.min(self.range.to)
    }

    /// Takes in an event that may be its. Whether the page is full.
    fn take(&mut self, item: &Arc<W::Item>) -> bool {
        if self.range.wanted.wants(item) {
            self.bytes += W::size(item);
            self.page.items.push(Arc::clone(item));
        }
        self.bytes >= PAGE_BYTES
    }

    /// Gives the page, which has everything below `next`. One who is gone needs no answer.
    fn answer(mut self, next: u64) {
        self.page.next = next.min(self.range.to);
        let _ = self.reply.send(self.page);
    }
}

/// Requests for one partition, those that lie side by side together. What lies below `low` is no longer there; those that ask for
/// nothing else are answered.
pub(super) fn passes<W: Wanted>(mut requests: Vec<Request<W>>, low: u64) -> Vec<Pass<W>> {
    for request in &mut requests {
        request.skip_to(low);
    }
    requests.sort_by_key(|request| request.page.next);
    let mut passes: Vec<Pass<W>> = Vec::new();
    for request in requests {
        let (from, end) = (request.page.next, request.end());
        if from >= end {
            request.answer(from);
            continue;
        }
        match passes.last_mut() {
            Some(pass) if from <= pass.end().saturating_add(GAP) => pass.add(request),
            _ => {
                let mut pass = Pass::new(from);
                pass.add(request);
                passes.push(pass);
            }
        }
    }
    passes
}

/// Requests that one reading of a part of a partition serves.
pub(super) struct Pass<W: Wanted> {
    from: u64,
    /// Those that are answered leave their place empty.
    requests: Vec<Option<Request<W>>>,
    by_asset: HashMap<Arc<str>, Vec<usize>>,
    /// Those that cannot tell the assets they want.
    by_rule: Vec<usize>,
    /// Where each page ends at the latest.
    ends: BTreeSet<(u64, usize)>,
}

impl<W: Wanted> Pass<W> {
    fn new(from: u64) -> Self {
        Self {
            from,
            requests: Vec::new(),
            by_asset: HashMap::new(),
            by_rule: Vec::new(),
            ends: BTreeSet::new(),
        }
    }

    fn add(&mut self, request: Request<W>) {
        let number = self.requests.len();
        self.ends.insert((request.end(), number));
        match request.range.wanted.assets() {
            Some(assets) => {
                for asset in assets {
                    self.by_asset.entry(asset).or_default().push(number);
                }
            }
            None => self.by_rule.push(number),
        }
        self.requests.push(Some(request));
    }

    /// Where to begin to read.
    pub(super) fn from(&self) -> u64 {
        self.from
    }

    fn end(&self) -> u64 {
        self.ends.last().map_or(self.from, |(end, _)| *end)
    }

    /// Whether everybody is answered.
    pub(super) fn is_done(&self) -> bool {
        self.ends.is_empty()
    }

    /// Takes in the record at an offset: an asset's, if it has one, that `read` makes an event of.
    pub(super) fn take(
        &mut self,
        offset: u64,
        asset: Option<&str>,
        read: impl FnOnce(&str) -> Option<W::Item>,
    ) {
        self.passed(offset);
        if let Some(asset) = asset {
            let candidates = self.candidates(offset, asset);
            let item = (!candidates.is_empty()).then(|| read(asset)).flatten();
            if let Some(item) = item.map(Arc::new) {
                for number in candidates {
                    let request = self.requests[number].as_mut();
                    if request.is_some_and(|request| request.take(&item)) {
                        self.answer(number, offset + 1);
                    }
                }
            }
        }
        self.passed(offset + 1);
    }

    /// Those that may want the event of an asset at an offset.
    fn candidates(&self, offset: u64, asset: &str) -> Vec<usize> {
        let named = self.by_asset.get(asset).into_iter().flatten();
        let by_rule = self.by_rule.iter().filter(|number| {
            let request = self.requests[**number].as_ref();
            request.is_some_and(|request| request.range.wanted.wants_asset(asset))
        });
        let waits = |number: &&usize| {
            let request = self.requests[**number].as_ref();
            request.is_some_and(|request| offset >= request.page.next)
        };
        named.chain(by_rule).filter(waits).copied().collect()
    }

    /// Everything below `next` has been read.
    fn passed(&mut self, next: u64) {
        while let Some((end, number)) = self.ends.first().copied()
            && end <= next
        {
            self.answer(number, next);
        }
    }

    /// The partition ends here: behind its last record there are only marks of transactions, up to `high`. Who asks for more asks
    /// a broker that does not have it yet, and is to come back.
    pub(super) fn at_the_end(&mut self, high: u64) {
        for request in self.requests.iter_mut().filter_map(Option::take) {
            if request.range.to <= high {
                request.answer(high);
            }
        }
        self.ends.clear();
    }

    /// Does nothing more for those who are gone.
    pub(super) fn forget_who_is_gone(&mut self) {
        for (number, place) in self.requests.iter_mut().enumerate() {
            if let Some(request) = place.take_if(|request| request.reply.is_closed()) {
                self.ends.remove(&(request.end(), number));
            }
        }
    }

    fn answer(&mut self, number: usize, next: u64) {
        if let Some(request) = self.requests[number].take() {
            self.ends.remove(&(request.end(), number));
            request.answer(next);
        }
    }
}

#[cfg(test)]
mod tests;
