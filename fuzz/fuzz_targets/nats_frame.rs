//! The lengths that a frame states are those it has, whatever the names.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|parts: (&str, &str, &[u8])| {
    let (asset, id, payload) = parts;
    ofa_forwarder::internals::nats_frame(asset, id, payload);
});
