//! What `ofa subscribe --json` has printed: a client that runs where this process cannot.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use ofa_client::audit::Received;
use ofa_client::{Cause, Event, Extent, Gap, Item};
use serde_json::Value;

use crate::kafka::Positions;
use crate::scene::say;

/// Everything that a subscriber has printed.
#[derive(Debug, Default)]
pub struct Printed {
    /// Events and gaps.
    pub received: Received,
    /// Gaps that it has announced.
    pub gaps: u64,
    /// When events of each asset arrived.
    arrivals: BTreeMap<String, Vec<Timestamp>>,
}

impl Printed {
    /// The longest time without an event of an asset that has many, between two moments: of the asset that it was
    /// longest for.
    #[must_use]
    pub fn longest_wait(&self, from: Timestamp, to: Timestamp) -> Duration {
        let waits = self.arrivals.values().flat_map(|times| {
            let within = |pair: &&[Timestamp]| pair[1] >= from && pair[0] <= to;
            times.windows(2).filter(within)
        });
        let longest = waits.map(|pair| pair[1].duration_since(pair[0])).max();
        longest
            .and_then(|wait| Duration::try_from(wait).ok())
            .unwrap_or_default()
    }
}

/// Reads the file that a subscriber of `topic` has printed into; events before `from` are passed over.
///
/// # Errors
/// When it holds something else.
pub fn read(path: &Path, topic: &str, from: &Positions) -> Result<Printed> {
    let mut printed = Printed::default();
    for line in BufReader::new(File::open(path)?).lines() {
        let line = line?;
        // The last line may be cut off.
        let Ok(item) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        if let Some(event) = item.get("event") {
            let event = event_of(event)?;
            let cursor = event.cursor.as_ref().context("an event without cursor")?;
            if cursor.offset >= from.get(&cursor.partition).copied().unwrap_or(0) {
                let times = printed.arrivals.entry(event.asset.clone()).or_default();
                times.push(event.received_at);
                printed.received.note("subscriber", &Item::Event(event));
            }
        } else if let Some(gap) = item.get("gap") {
            printed.gaps += 1;
            let gap = gap_of(gap, topic)?;
            printed.received.note("subscriber", &Item::Gap(gap));
        } else {
            say(&line);
        }
    }
    Ok(printed)
}

fn event_of(event: &Value) -> Result<Event> {
    let text = |name: &str| event[name].as_str().map(str::to_owned);
    let received_at = text("received_at").map(|at| at.parse()).transpose()?;
    Ok(Event {
        cursor: text("cursor").map(|cursor| cursor.parse()).transpose()?,
        prev: event["prev"].as_u64(),
        moved_from: None,
        asset: text("asset").context("an event without asset")?,
        id: text("id").context("an event without id")?,
        payload: Default::default(),
        received_at: received_at.unwrap_or_default(),
    })
}

fn gap_of(gap: &Value, topic: &str) -> Result<Gap> {
    let range = &gap["range"];
    let extent = if range.is_null() {
        Extent::Unknown
    } else {
        let number = |name: &str| range[name].as_u64().context("a gap without range");
        let topic = topic.to_owned();
        let partition = u32::try_from(number("partition")?)?;
        let (first, last) = (number("first")?, number("last")?);
        if gap["certain"] == true {
            Extent::Missed {
                topic,
                partition,
                first,
                last,
            }
        } else {
            Extent::Possible {
                topic,
                partition,
                first,
                last,
            }
        }
    };
    Ok(Gap {
        asset: gap["asset"].as_str().map(str::to_owned),
        extent,
        cause: Cause::Delivery,
        state: Vec::new(),
    })
}
