//! Writes the manifests of the three kinds: `cargo run -p ofa-crds --features kube --example crdgen -- crds`.

use std::path::Path;

use kube::CustomResourceExt as _;
use ofa_crds::api::{AssetGroup, ForwarderPool, NatsShard};
use serde_json::Value;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args()
        .nth(1)
        .ok_or("say the folder to write the manifests to")?;
    for (name, crd) in [
        ("assetgroups", AssetGroup::crd()),
        ("forwarderpools", ForwarderPool::crd()),
        ("natsshards", NatsShard::crd()),
    ] {
        let mut crd = serde_json::to_value(&crd)?;
        use_known_formats(&mut crd);
        let yaml = serde_saphyr::to_string(&crd)?;
        std::fs::write(Path::new(&folder).join(format!("{name}.yaml")), yaml)?;
    }
    Ok(())
}

/// Kubernetes knows formats of signed numbers only, and warns about others at every `kubectl apply`.
fn use_known_formats(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let known = match map.get("format").and_then(Value::as_str) {
                Some("uint8" | "uint16") => Some("int32"),
                Some("uint32" | "uint64") => Some("int64"),
                _ => None,
            };
            if let Some(known) = known {
                map.insert("format".to_owned(), known.into());
            }
            map.values_mut().for_each(use_known_formats);
        }
        Value::Array(list) => list.iter_mut().for_each(use_known_formats),
        _ => {}
    }
}
