//! The hash that places a key.

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

use crate::ring;

/// The hash that places a key: the first 8 bytes, big-endian, of SHA-256 over the raw key bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// Hashes the raw bytes of a Kafka key.
    #[must_use]
    #[inline]
    pub fn of(key: &[u8]) -> Self {
        match padded(key) {
            Some(block) => {
                let mut state = INITIAL_STATE;
                compress256(&mut state, &[block]);
                Self(u64::from(state[0]) << 32 | u64::from(state[1]))
            }
            None => Self(ring::prefix(&Sha256::digest(key).into())),
        }
    }
}

/// The state that SHA-256 begins with (FIPS 180-4, 5.3.3).
const INITIAL_STATE: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// A key with SHA-256's padding, where both fit one block (FIPS 180-4, 5.1.1): nearly all keys, and without the
/// bookkeeping of a stream of blocks, which costs as much as the hash itself.
#[inline]
fn padded(key: &[u8]) -> Option<[u8; 64]> {
    let mut block = [0; 64];
    let (text, length) = block.split_at_mut(56);
    text.get_mut(..key.len())?.copy_from_slice(key);
    *text.get_mut(key.len())? = 0x80;
    length.copy_from_slice(&(key.len() as u64 * 8).to_be_bytes());
    Some(block)
}
