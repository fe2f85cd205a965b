//! Where servers are installed, and ports for them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A server as `e2e/tools/setup` installs it, or as it is found on PATH.
pub(crate) fn program(name: &str) -> PathBuf {
    let cache = std::env::var_os("OFA_CACHE").map_or_else(
        || {
            let home = std::env::var_os("HOME").expect("HOME is set");
            PathBuf::from(home).join(".cache/openfactory-fanout")
        },
        PathBuf::from,
    );
    let installed = cache.join("bin").join(name);
    if installed.exists() {
        return installed;
    }
    PathBuf::from(name)
}

/// A port that no later call returns again, below those that the kernel gives to outgoing connections: one of these would
/// otherwise take it before its server is up.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id();
    let numbers =
        std::iter::repeat_with(|| first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)));
    let mut ports = numbers.filter_map(|number| u16::try_from(10_000 + number % 20_000).ok());
    ports
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .unwrap()
}
