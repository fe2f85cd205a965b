//! Addresses for servers, which stay theirs over a restart.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

/// Below the range that the kernel gives to outgoing connections, which would otherwise take the port of a server
/// that is down for a moment.
const FIRST: u16 = 20_000;
const LAST: u16 = 30_000;

static NEXT: AtomicU16 = AtomicU16::new(FIRST);

/// This process' own loopback address: Linux answers on all of 127.0.0.0/8, so that test programs that run side by
/// side cannot take each other's ports. The upper half; the operator's local platform takes its addresses from the lower.
#[must_use]
pub fn host() -> Ipv4Addr {
    let [_, b, c, d] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | (b & 0x7f), c, d.clamp(1, 254))
}

/// An address that nobody listens on, and that no later call returns again.
///
/// # Errors
/// When all ports of the range are taken.
pub fn free() -> Result<SocketAddr> {
    std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed))
        .take_while(|&port| port < LAST)
        .map(|port| SocketAddr::V4(SocketAddrV4::new(host(), port)))
        .find(|&address| TcpListener::bind(address).is_ok())
        .with_context(|| format!("no free port on {}", host()))
}
