//! A machine's place in the Unified Namespace.

use serde_json::json;

/// Machines of a work center.
const PER_WORKCENTER: usize = 10;

/// Where a machine stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsPlace {
    /// Level name and value, from the top.
    pub levels: [(&'static str, String); 4],
}

impl UnsPlace {
    /// The place of the machine `index`, called `asset`, in `area`.
    #[must_use]
    pub fn new(index: usize, area: &str, asset: &str) -> Self {
        let workcenter = format!("WC{:03}", index / PER_WORKCENTER + 1);
        Self {
            levels: [
                ("inc", "OpenFactory".to_owned()),
                ("area", area.to_owned()),
                ("workcenter", workcenter),
                ("asset", asset.to_owned()),
            ],
        }
    }

    /// The record of the UNS map topic, whose key is the asset's UUID.
    #[must_use]
    pub fn map_entry(&self, uuid: &str, updated_at_ms: i64) -> Vec<u8> {
        let path: Vec<&str> = self
            .levels
            .iter()
            .map(|(_, value)| value.as_str())
            .collect();
        let levels: serde_json::Map<_, _> = self
            .levels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        json!({
            "ASSET_UUID": uuid,
            "UNS_ID": path.join("/"),
            "UNS_LEVELS": levels,
            "UPDATED_AT": updated_at_ms,
        })
        .to_string()
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_is_what_openfactory_writes() {
        let entry =
            UnsPlace::new(12, "Machining", "MILL-0012").map_entry("MILL-0012", 1_761_338_400_000);
        let expected = json!({
            "ASSET_UUID": "MILL-0012",
            "UNS_ID": "OpenFactory/Machining/WC002/MILL-0012",
            "UNS_LEVELS": {"inc": "OpenFactory", "area": "Machining", "workcenter": "WC002", "asset": "MILL-0012"},
            "UPDATED_AT": 1_761_338_400_000_i64,
        });
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&entry).unwrap(),
            expected
        );
    }
}
