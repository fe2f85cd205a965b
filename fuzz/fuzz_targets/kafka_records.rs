//! What a Kafka broker may send as records and their headers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| ofa_forwarder::internals::kafka_records(data));
