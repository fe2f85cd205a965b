//! Short texts that tell one thing from another.

use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// A short text that differs when `what` does.
#[must_use]
pub fn digest(what: &impl Serialize) -> String {
    // Only maps with keys that are not text cannot be written, and there are none.
    let text = serde_json::to_vec(what).unwrap_or_default();
    let mut digest = String::new();
    for byte in &Sha256::digest(text)[..8] {
        // Writing to a String cannot fail.
        let _ = write!(digest, "{byte:02x}");
    }
    digest
}
