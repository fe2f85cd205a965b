//! What becomes of a plain Service name.

use super::qualified;

#[test]
fn a_service_is_known_in_other_namespaces_by_its_full_name() {
    assert_eq!(qualified("factory", "kafka:9092"), "kafka.factory.svc:9092");
    for known in [
        "kafka.plant.example:9092",
        "10.0.0.1:9092",
        "localhost:9092",
    ] {
        assert_eq!(qualified("factory", known), known);
    }
}
