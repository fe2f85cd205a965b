//! Quantities as Kubernetes writes them, in the units of Docker.

use std::collections::BTreeMap;

use bollard::models::{Limit, ResourceObject, TaskSpecResources};
use ofa_crds::api::Resources;

/// Nanoseconds of CPU time a second: `1` is one core, `100m` a tenth of one.
#[must_use]
pub(super) fn nano_cpus(quantity: &str) -> Option<i64> {
    scaled(quantity, &[("m", 1e-3)], 1e9)
}

/// Bytes: `64Mi`, `1G`, `1048576`.
#[must_use]
pub(super) fn bytes(quantity: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 8] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
    ];
    scaled(quantity, &UNITS, 1.0)
}

/// CPU and memory of a container: what it has for itself, and what it may have at most.
pub(super) fn resources(resources: &Resources) -> Option<TaskSpecResources> {
    let Resources { requests, limits } = resources;
    let cpus =
        |from: &BTreeMap<String, String>| from.get("cpu").and_then(|quantity| nano_cpus(quantity));
    let bytes = |from: &BTreeMap<String, String>| {
        from.get("memory")
            .and_then(|quantity| self::bytes(quantity))
    };
    let limited = (!limits.is_empty()).then(|| Limit {
        nano_cpus: cpus(limits),
        memory_bytes: bytes(limits),
        ..Limit::default()
    });
    let reserved = (!requests.is_empty()).then(|| ResourceObject {
        nano_cpus: cpus(requests),
        memory_bytes: bytes(requests),
        ..ResourceObject::default()
    });
    (limited.is_some() || reserved.is_some()).then(|| TaskSpecResources {
        limits: limited,
        reservations: reserved,
        ..TaskSpecResources::default()
    })
}

fn scaled(quantity: &str, units: &[(&str, f64)], by: f64) -> Option<i64> {
    let unit = units
        .iter()
        .find_map(|(unit, factor)| Some((quantity.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((quantity, 1.0));
    let value: f64 = number.parse().ok()?;
    let scaled = value * factor * by;
    // Beyond this a float has no whole numbers any more, and no machine that much of anything.
    let sensible = scaled.is_finite() && (0.0..9e15).contains(&scaled);
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the bounds are checked above"
    )]
    sensible.then_some(scaled.ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        assert_eq!(nano_cpus("100m"), Some(100_000_000));
        assert_eq!(nano_cpus("1.5"), Some(1_500_000_000));
        assert_eq!(bytes("64Mi"), Some(67_108_864));
        assert_eq!(bytes("1G"), Some(1_000_000_000));
        assert_eq!(bytes("1024"), Some(1024));
        for wrong in ["", "much", "-1", "1Xi", "1e300"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
