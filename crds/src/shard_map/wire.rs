//! The JSON form: starts as 16 hexadecimal digits, since JSON numbers lose bits past 2^53.

use serde::{Deserialize, Serialize};

use super::{HandoverPhase, Ranges, Shard, ShardMapError, check_shards, index};
use crate::names::ShardName;

#[derive(Serialize, Deserialize)]
pub(super) struct ShardMap {
    epoch: u64,
    shards: Vec<Shard>,
    ranges: Vec<Range>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handover: Option<Handover>,
}

#[derive(Serialize, Deserialize)]
struct Handover {
    phase: HandoverPhase,
    ranges: Vec<Range>,
}

#[derive(Serialize, Deserialize)]
struct Range {
    start: String,
    shard: ShardName,
}

impl From<super::ShardMap> for ShardMap {
    fn from(map: super::ShardMap) -> Self {
        let named = |ranges: &Ranges| -> Vec<Range> {
            let pairs = ranges.starts().iter().zip(ranges.owners());
            let name = |owner: u16| map.shards[usize::from(owner)].name.clone();
            pairs
                .map(|(start, &owner)| Range {
                    start: format!("{start:016x}"),
                    shard: name(owner),
                })
                .collect()
        };
        let handover = map.handover.as_ref();
        let handover = handover.map(|change| Handover {
            phase: change.phase,
            ranges: named(&change.next),
        });
        Self {
            epoch: map.epoch,
            ranges: named(&map.ranges),
            handover,
            shards: map.shards,
        }
    }
}

impl TryFrom<ShardMap> for super::ShardMap {
    type Error = ShardMapError;

    fn try_from(wire: ShardMap) -> Result<Self, ShardMapError> {
        check_shards(&wire.shards)?;
        let ranges = parse_ranges(wire.ranges, &wire.shards)?;
        let handover = match wire.handover {
            Some(change) => {
                let next = parse_ranges(change.ranges, &wire.shards)?;
                Some(super::Handover {
                    phase: change.phase,
                    next,
                })
            }
            None => None,
        };
        Ok(Self {
            epoch: wire.epoch,
            shards: wire.shards,
            ranges,
            handover,
        })
    }
}

fn parse_ranges(ranges: Vec<Range>, shards: &[Shard]) -> Result<Ranges, ShardMapError> {
    let mut starts = Vec::with_capacity(ranges.len());
    let mut owners = Vec::with_capacity(ranges.len());
    for range in ranges {
        starts.push(parse_start(&range.start)?);
        let owner = shards.iter().position(|shard| shard.name == range.shard);
        owners.push(
            owner
                .map(index)
                .ok_or(ShardMapError::UnknownShard(range.shard))?,
        );
    }
    if starts.first() != Some(&0) || !starts.is_sorted_by(|a, b| a < b) {
        return Err(ShardMapError::BadRanges);
    }
    Ok(Ranges::new(starts, owners))
}

fn parse_start(digits: &str) -> Result<u64, ShardMapError> {
    let well_formed = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let start = well_formed
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten();
    start.ok_or(ShardMapError::BadRanges)
}
