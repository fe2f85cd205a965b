//! Whether an object already is as it should be: a question that is asked before anything is written.

use serde_json::Value;

/// Whether everything in `wanted` stands in `live` too. What the server or others have added does not count.
#[must_use]
pub(super) fn holds(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            match live.get(key) {
                Some(live) => holds(live, wanted),
                // The server does not keep what is empty.
                None => is_empty(wanted),
            }
        }),
        (Value::Array(live), Value::Array(wanted)) => list_holds(live, wanted),
        _ => live == wanted || same_quantity(live, wanted),
    }
}

/// Lists of objects are maps by a key to Kubernetes, in which others may have entries too; lists of plain values are
/// one value.
fn list_holds(live: &[Value], wanted: &[Value]) -> bool {
    if !wanted.iter().all(Value::is_object) {
        return live == wanted;
    }
    wanted.iter().enumerate().all(|(index, wanted)| {
        let key = ["name", "mountPath", "uid"]
            .into_iter()
            .find(|key| wanted.get(key).is_some());
        let found = match key {
            Some(key) => live.iter().find(|live| live.get(key) == wanted.get(key)),
            None => live.get(index),
        };
        found.is_some_and(|live| holds(live, wanted))
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// `1000m` is kept as `1`: amounts that are written differently may be the same. Only such texts are compared so that
/// begin with a digit, and a wrong "same" is corrected by the digest of what was applied.
fn same_quantity(live: &Value, wanted: &Value) -> bool {
    match (
        live.as_str().and_then(amount),
        wanted.as_str().and_then(amount),
    ) {
        (Some(live), Some(wanted)) => (live - wanted).abs() <= f64::EPSILON * live.abs(),
        _ => false,
    }
}

fn amount(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("", 1.0),
    ];
    SUFFIXES.into_iter().find_map(|(suffix, factor)| {
        let number: f64 = text.strip_suffix(suffix)?.parse().ok()?;
        number.is_finite().then_some(number * factor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_others_added_does_not_count() {
        let wanted = json!({"a": {"b": 1}, "list": [{"name": "x", "v": 1}], "empty": {}});
        let live = json!({"a": {"b": 1, "default": true}, "z": 3,
            "list": [{"name": "injected"}, {"name": "x", "v": 1, "protocol": "TCP"}]});
        assert!(holds(&live, &wanted));
    }

    #[test]
    fn what_differs_or_is_missing_counts() {
        let wanted = json!({"args": ["a"], "list": [{"name": "x", "v": 1}], "n": {"m": 1}});
        for live in [
            json!({"args": ["a", "b"], "list": [{"name": "x", "v": 1}], "n": {"m": 1}}),
            json!({"args": ["a"], "list": [{"name": "x", "v": 2}], "n": {"m": 1}}),
            json!({"args": ["a"], "list": [{"name": "y", "v": 1}], "n": {"m": 1}}),
            json!({"args": ["a"], "list": [{"name": "x", "v": 1}]}),
        ] {
            assert!(!holds(&live, &wanted), "{live}");
        }
    }

    #[test]
    fn one_amount_may_be_written_in_two_ways() {
        assert!(holds(&json!("1"), &json!("1000m")));
        assert!(holds(&json!("1Gi"), &json!("1024Mi")));
        assert!(!holds(&json!("1G"), &json!("1Gi")));
        assert!(!holds(&json!("a"), &json!("b")));
    }
}
