//! Writes the manifests of the three kinds: `cargo run -p ofa-crds --features kube --example crdgen -- crds`.

use std::path::Path;

use kube::CustomResourceExt as _;
use ofa_crds::api::{AssetGroup, ForwarderPool, NatsShard};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args()
        .nth(1)
        .ok_or("say the folder to write the manifests to")?;
    for (name, crd) in [
        ("assetgroups", AssetGroup::crd()),
        ("forwarderpools", ForwarderPool::crd()),
        ("natsshards", NatsShard::crd()),
    ] {
        let yaml = serde_saphyr::to_string(&crd)?;
        std::fs::write(Path::new(&folder).join(format!("{name}.yaml")), yaml)?;
    }
    Ok(())
}
