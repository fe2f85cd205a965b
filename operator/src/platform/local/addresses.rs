//! One loopback address for each instance, kept for good.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::store::{read_json, write_json};

/// 127.64.0.0/10: far from 127.0.0.1, where everything else on a machine lives. Linux answers on all of 127/8.
const NETWORK: u32 = u32::from_be_bytes([127, 64, 0, 0]);

/// Addresses of the network.
const SIZE: u32 = 1 << 22;

/// The addresses given out by one state directory.
#[derive(Debug)]
pub(super) struct Addresses {
    file: PathBuf,
    /// Two state directories begin at different places, so that two operators stay apart.
    base: u32,
    given: BTreeMap<String, Ipv4Addr>,
}

impl Addresses {
    pub(super) fn open(state: &Path) -> io::Result<Self> {
        let file = state.join("addresses.json");
        let hash = Sha256::digest(state.as_os_str().as_encoded_bytes());
        let number = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        Ok(Self {
            given: read_json(&file)?.unwrap_or_default(),
            base: (number << 8) % SIZE,
            file,
        })
    }

    /// The address of `instance`; a new one when it has none yet.
    pub(super) fn of(&mut self, instance: &str) -> io::Result<Ipv4Addr> {
        if let Some(&address) = self.given.get(instance) {
            return Ok(address);
        }
        let candidates = (1..SIZE).map(|n| Ipv4Addr::from(NETWORK + (self.base + n) % SIZE));
        let mut free =
            candidates.filter(|address| !self.given.values().any(|used| used == address));
        let address = free
            .next()
            .ok_or_else(|| io::Error::other("all of 127.64.0.0/10 is given out"))?;
        self.given.insert(instance.to_owned(), address);
        write_json(&self.file, &self.given)?;
        Ok(address)
    }
}
