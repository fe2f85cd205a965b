//! OpenFactory's consistent-hash ring, as a list of hash ranges.
//!
//! Upstream sorts the virtual nodes `SHA-256("<cluster>::<r>")` as 256-bit numbers and gives a key to the
//! first virtual node greater than its hash, wrapping at the end. So a virtual node's owner has the range
//! that ends before it, and the first owner has what lies behind the last virtual node.

use sha2::{Digest, Sha256};

use crate::names::ShardName;

/// Virtual nodes of one shard unless `HASH_RING_REPLICAS` says otherwise: upstream's default.
pub const DEFAULT_REPLICAS: u32 = 128;

/// Starts of the ranges and the index of each range's owner in `names`, sorted, first start 0.
pub(crate) fn ranges(names: &[ShardName], replicas: u32) -> Vec<(u64, usize)> {
    let mut virtual_nodes: Vec<([u8; 32], usize)> = names
        .iter()
        .enumerate()
        .flat_map(|(owner, name)| (0..replicas).map(move |r| (virtual_node(name, r), owner)))
        .collect();
    virtual_nodes.sort_unstable();
    let Some(&(_, first_owner)) = virtual_nodes.first() else {
        return Vec::new();
    };
    let mut ranges: Vec<(u64, usize)> = Vec::with_capacity(virtual_nodes.len() + 1);
    let mut start = 0;
    for (hash, owner) in virtual_nodes {
        push_range(&mut ranges, start, owner);
        start = prefix(&hash);
    }
    push_range(&mut ranges, start, first_owner);
    ranges
}

/// Neighbours of one owner are one range; of two ranges with one start the later one has all of it.
fn push_range(ranges: &mut Vec<(u64, usize)>, start: u64, owner: usize) {
    if ranges.last().is_some_and(|&(last, _)| last == start) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|&(_, last)| last != owner) {
        ranges.push((start, owner));
    }
}

fn virtual_node(name: &ShardName, replica: u32) -> [u8; 32] {
    Sha256::digest(format!("{name}::{replica}").as_bytes()).into()
}

/// The first 8 bytes, big-endian: the part of a hash that decides the range.
pub(crate) fn prefix(hash: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
