//! What a NATS server may say, in whatever pieces it arrives.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| ofa_forwarder::internals::nats_protocol(data));
