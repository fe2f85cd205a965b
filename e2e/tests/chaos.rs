//! Twenty schedules of faults, drawn from seeds: forwarders, NATS nodes and the broker are killed, stopped, frozen
//! and started again, up to two at once. `make chaos` runs two hundred.

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_nothing_is_lost_reordered_or_repeated() {
    ofa_e2e::chaos::run().await;
}
