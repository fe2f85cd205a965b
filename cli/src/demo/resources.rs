//! A copy of the resources with another number of machines, or a recording in their place.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

/// What the simulator is told in addition.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Changes {
    pub(crate) assets: Option<usize>,
    pub(crate) rate: Option<f64>,
    pub(crate) replay: Option<PathBuf>,
}

impl Changes {
    /// Arguments of `ofa simulate`; those at the end win.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut push = |flag: &str, value: Option<String>| {
            if let Some(value) = value {
                arguments.extend([flag.to_owned(), value]);
            }
        };
        push("--assets", self.assets.map(|it| it.to_string()));
        push("--rate", self.rate.map(|it| it.to_string()));
        let replay = self
            .replay
            .as_ref()
            .map(|it| it.to_string_lossy().into_owned());
        push("--replay", replay);
        arguments
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.arguments().is_empty()
    }
}

/// Writes the changed copy of every YAML file of `from` into `to`.
pub(crate) fn copy(from: &Path, to: &Path, changes: &Changes) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let folder = fs::read_dir(from)
        .with_context(|| format!("cannot read the resources in {}", from.display()))?;
    for entry in folder {
        let path = entry?.path();
        let is_yaml = path
            .extension()
            .is_some_and(|it| it == "yaml" || it == "yml");
        let (true, Some(name)) = (is_yaml, path.file_name()) else {
            continue;
        };
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let changed =
            change(&text, changes).with_context(|| format!("{} is no YAML", path.display()))?;
        fs::write(to.join(name), changed)
            .with_context(|| format!("cannot write into {}", to.display()))?;
    }
    Ok(())
}

/// JSON is YAML, so every document is written as JSON.
fn change(yaml: &str, changes: &Changes) -> anyhow::Result<String> {
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
    for document in &mut documents {
        let containers = document.pointer_mut("/spec/template/spec/containers");
        let containers = containers
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten();
        for container in containers {
            add_arguments(container, changes);
        }
    }
    let documents: Vec<String> = documents
        .iter()
        .map(serde_json::to_string_pretty)
        .collect::<Result<_, _>>()?;
    Ok(documents.join("\n---\n"))
}

fn add_arguments(container: &mut Value, changes: &Changes) {
    let Some(arguments) = container.pointer_mut("/args").and_then(Value::as_array_mut) else {
        return;
    };
    if arguments.first().and_then(Value::as_str) == Some("simulate") {
        arguments.extend(changes.arguments().into_iter().map(Value::from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_simulator_is_changed() {
        let factory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/factory");
        let changes = Changes {
            assets: Some(7),
            rate: None,
            replay: Some("/data/r.jsonl.gz".into()),
        };
        let mut changed = 0;
        for entry in fs::read_dir(factory).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            let before: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            let after = change(&text, &changes).unwrap();
            let after: Vec<Value> = serde_saphyr::from_multiple(&after).unwrap();
            if before != after {
                changed += 1;
                let arguments = after
                    .iter()
                    .find_map(|it| it.pointer("/spec/template/spec/containers/0/args"));
                let arguments: Vec<&str> = arguments
                    .unwrap()
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter_map(Value::as_str)
                    .collect();
                assert!(
                    arguments.ends_with(&["--assets", "7", "--replay", "/data/r.jsonl.gz"]),
                    "{arguments:?}"
                );
            }
        }
        assert_eq!(changed, 1);
    }
}
