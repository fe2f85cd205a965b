//! The operator's state, kept by the Swarm: an operator that comes up on another manager knows what the last one knew,
//! above all which resources it runs services for, and which deleted ones it has not finished with.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use ofa_crds::api::READY;
use serde_json::Value;
use tracing::{info, warn};

use super::engine::{Engine, Stored};
use super::files::LARGEST;
use super::labels::{self, INSTALLATION, Labels, STATE};
use crate::digest::digest;
use crate::platform::PlatformError;
use crate::platform::local::store::write_json;
use crate::resources::RESOURCES_DIR;

/// Files of the resources by their names.
type Files = BTreeMap<String, Value>;

/// Keeps the resources of a state directory as a config of the Swarm.
#[derive(Debug)]
pub struct KeptState {
    engine: Engine,
    /// What is kept, without what is observed anew in any case.
    kept: Option<Files>,
}

impl KeptState {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, kept: None }
    }

    /// Puts what the Swarm keeps into a state directory that knows nothing.
    ///
    /// # Errors
    /// When the Swarm cannot be asked, or the directory cannot be written.
    pub async fn restore(&mut self, state: &Path) -> Result<(), PlatformError> {
        let failed = |source: io::Error| PlatformError::Failed {
            what: "write the state that the Swarm keeps into --state-dir".to_owned(),
            why: source.to_string(),
        };
        if !read(state).map_err(failed)?.is_empty() {
            return Ok(());
        }
        let Some(newest) = self.all().await?.pop() else {
            return Ok(());
        };
        let files: Files =
            serde_json::from_str(&newest.content).map_err(|error| PlatformError::Failed {
                what: format!("read the state in config {}", newest.name),
                why: error.to_string(),
            })?;
        info!(
            resources = files.len(),
            config = newest.name,
            "goes on from the state that the Swarm keeps"
        );
        for (name, content) in &files {
            write_json(&state.join(RESOURCES_DIR).join(name), content).map_err(failed)?;
        }
        self.kept = Some(files.into_iter().map(without_status).collect());
        Ok(())
    }

    /// Keeps the resources of a state directory, if they have changed.
    pub async fn keep(&mut self, state: &Path) {
        let Ok(files) = read(state) else { return };
        let now: Files = files.clone().into_iter().map(without_status).collect();
        if self.kept.as_ref() == Some(&now) {
            return;
        }
        match self.write(&files).await {
            Ok(()) => self.kept = Some(now),
            Err(error) => {
                warn!(%error, "the Swarm does not keep the operator's state; trying again");
            }
        }
    }

    async fn write(&self, files: &Files) -> Result<(), PlatformError> {
        let content = serde_json::json!(files).to_string();
        if content.len() > LARGEST {
            return Err(PlatformError::Failed {
                what: "keep the resources as a config".to_owned(),
                why: format!(
                    "they have {} bytes, a config {LARGEST} at most; keep --state-dir on a volume instead",
                    content.len()
                ),
            });
        }
        let old = self.all().await?;
        let number = old.iter().map(number).max().unwrap_or(0) + 1;
        let installation = &self.engine.installation;
        let name = format!("ofa-state-{}-{number}", digest(&[installation]));
        let labels = Labels::from([
            (INSTALLATION.to_owned(), installation.clone()),
            (STATE.to_owned(), number.to_string()),
        ]);
        self.engine.create_config(&name, labels, &content).await?;
        for config in &old {
            self.engine.remove_config(config).await?;
        }
        Ok(())
    }

    /// The newest last.
    async fn all(&self) -> Result<Vec<Stored>, PlatformError> {
        let mut all = self.engine.configs().await?;
        all.retain(|config| config.labels.contains_key(labels::STATE));
        all.sort_by_key(number);
        Ok(all)
    }
}

fn number(config: &Stored) -> u64 {
    let number = config.labels.get(STATE);
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn read(state: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let entries = match fs::read_dir(state.join(RESOURCES_DIR)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "json") {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let content = serde_json::from_slice(&fs::read(&path)?)?;
            files.insert(name.into_owned(), content);
        }
    }
    Ok(files)
}

/// Of a status, which changes often and is found out again, only what the next operator goes by: whether the resource
/// serves, and which shard map its pool has.
fn without_status((name, mut content): (String, Value)) -> (String, Value) {
    // Beside the name of its kind an object has nothing but itself.
    let object = content["manifest"].as_object_mut();
    let object = object.and_then(|kinds| kinds.values_mut().next());
    if let Some(status) = object.and_then(|object| object.get_mut("status")) {
        let conditions = status["conditions"].as_array();
        let ready = conditions.and_then(|all| all.iter().find(|it| it["type"] == READY));
        let serves = ready.is_some_and(|ready| ready["status"] == "True");
        *status = serde_json::json!([serves, status["shardMapEpoch"]]);
    }
    (name, content)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_next_operator_goes_by_is_a_reason_to_write() {
        let stored = |nodes: u32, ready: &str, message: &str| {
            let condition = json!({"type": "Ready", "status": ready, "message": message});
            let shard = json!({"spec": {"nodes": nodes}, "status": {"conditions": [condition]}});
            let manifest = json!({"NatsShard": shard});
            let content = json!({"file": "a.yaml", "manifest": manifest});
            without_status(("a.json".to_owned(), content))
        };
        assert_eq!(stored(2, "True", "x"), stored(2, "True", "y"));
        assert_ne!(stored(2, "True", "x"), stored(2, "False", "x"));
        assert_ne!(stored(2, "True", "x"), stored(3, "True", "x"));
    }
}
