//! The pool's shard map, as it changes on the control topic.

use std::sync::Arc;
use std::time::Duration;

use ofa_crds::kafka::{ControlError, ControlState, ControlTopic};
use ofa_crds::{ControlRole, ShardMap};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::credentials::Credentials;
use crate::health::Health;
use crate::settings::ForwardArgs;

/// How often it is looked whether a shard's credentials have come: they travel another way than the map that has it.
const CREDENTIALS_LOOK: Duration = Duration::from_millis(200);

type Maps = watch::Receiver<Option<Arc<ShardMap>>>;

/// Follows the pool's map on the control topic, and acknowledges what the pump puts in force.
pub(crate) fn follow_map(
    args: &ForwardArgs,
    member: &str,
    epochs: mpsc::UnboundedReceiver<u64>,
    stop: CancellationToken,
) -> Result<Maps, ControlError> {
    let topic = ControlTopic::new(&args.kafka, &args.control_topic)?;
    let state = topic.follow()?;
    let (sender, receiver) = watch::channel(None);
    let pool = args.pool.clone().unwrap_or_default();
    let credentials = Credentials::new(args.credentials.as_deref());
    tokio::spawn(pass_on(state, pool.clone(), credentials, sender));
    let acknowledging = Acknowledging {
        topic,
        pool,
        member: member.to_owned(),
    };
    tokio::spawn(acknowledging.run(epochs, stop));
    Ok(receiver)
}

/// Passes newer maps on, each as soon as all its shards can be connected to; until then the one before stays in force.
async fn pass_on(
    mut state: watch::Receiver<ControlState>,
    pool: String,
    credentials: Credentials,
    maps: watch::Sender<Option<Arc<ShardMap>>>,
) {
    let mut said = None;
    loop {
        let newest = state.borrow_and_update().maps.get(&pool).cloned();
        let epoch = maps.borrow().as_ref().map(|map| map.epoch());
        let newer = newest.filter(|map| epoch.is_none_or(|epoch| epoch < map.epoch()));
        let waits = newer.as_ref().is_some_and(|map| {
            let why = why_not_yet(map, &credentials);
            if let Some(why) = why.as_ref().filter(|_| said != Some(map.epoch())) {
                warn!(
                    epoch = map.epoch(),
                    "the shard map is not put in force yet: {why}"
                );
                said = Some(map.epoch());
            }
            why.is_some()
        });
        let changed = if waits {
            timeout(CREDENTIALS_LOOK, state.changed())
                .await
                .unwrap_or(Ok(()))
        } else {
            if newer.is_some() {
                maps.send_replace(newer);
            }
            state.changed().await
        };
        if changed.is_err() {
            return;
        }
    }
}

fn why_not_yet(map: &ShardMap, credentials: &Credentials) -> Option<String> {
    match credentials.lacking(map) {
        Ok(None) => None,
        Ok(Some(shard)) => Some(format!("NATS_CREDENTIALS_FILE does not name {shard}")),
        Err(error) => Some(error.to_string()),
    }
}

/// Tells on the control topic which epochs are in force.
struct Acknowledging {
    topic: ControlTopic,
    pool: String,
    member: String,
}

impl Acknowledging {
    async fn run(self, mut epochs: mpsc::UnboundedReceiver<u64>, stop: CancellationToken) {
        let (pool, member) = (&self.pool, &self.member);
        while let Some(epoch) = epochs.recv().await {
            let told = self.topic.ack(pool, ControlRole::Forwarder, member, epoch);
            if let Err(error) = told.await {
                warn!(epoch, %error, "the shard map's epoch could not be acknowledged");
            }
        }
        if stop.is_cancelled()
            && let Err(error) = self.topic.leave(pool, ControlRole::Forwarder, member).await
        {
            warn!(%error, "leaving could not be told on the control topic");
        }
    }
}

/// Waits for the first map; `None` when told to stop before.
pub(crate) async fn first_map(
    maps: &mut Maps,
    health: &Health,
    stop: &CancellationToken,
) -> Option<Arc<ShardMap>> {
    health.pending(
        "shard_map",
        "no shard map of the pool on the control topic yet".to_owned(),
    );
    let found = tokio::select! {
        map = maps.wait_for(Option::is_some) => map.ok()?.clone(),
        () = stop.cancelled() => None,
    };
    maps.mark_unchanged();
    health.settled("shard_map");
    found
}

#[cfg(test)]
mod tests {
    use ofa_crds::shard_map::Shard;

    use super::*;

    fn map(epoch: u64, names: &[&str]) -> Arc<ShardMap> {
        let shards = names.iter().map(|name| Shard {
            name: name.parse().unwrap(),
            urls: vec!["nats://h:4222".into()],
            advertised_urls: vec![],
        });
        Arc::new(ShardMap::from_ring(epoch, shards.collect(), 8).unwrap())
    }

    #[tokio::test]
    async fn a_map_waits_for_the_credentials_of_its_shards_and_a_newer_one_overtakes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shards.json");
        let name = |names: &[&str]| {
            let entry = |name| format!(r#""{name}": {{"username": "u", "password": "p"}}"#);
            let entries: Vec<String> = names.iter().map(entry).collect();
            std::fs::write(&path, format!("{{{}}}", entries.join(","))).unwrap();
        };
        name(&["C1"]);
        let topic = watch::Sender::new(ControlState::default());
        let (sender, mut maps) = watch::channel(None);
        let publish = |map: Arc<ShardMap>| {
            topic.send_modify(|state| {
                state.maps.insert("p".to_owned(), map);
            });
        };
        let credentials = Credentials::new(Some(&path));
        tokio::spawn(pass_on(
            topic.subscribe(),
            "p".to_owned(),
            credentials,
            sender,
        ));
        let mut in_force = async |epoch: u64| {
            let found = maps.wait_for(|map| map.as_ref().is_some_and(|map| map.epoch() >= epoch));
            let found = timeout(Duration::from_secs(20), found)
                .await
                .unwrap()
                .unwrap();
            found.as_ref().map(|map| map.epoch())
        };
        publish(map(1, &["C1"]));
        assert_eq!(in_force(1).await, Some(1));
        publish(map(2, &["C1", "C2"]));
        tokio::time::sleep(CREDENTIALS_LOOK * 2).await;
        assert_eq!(in_force(1).await, Some(1), "C2 is not named");
        name(&["C1", "C2"]);
        assert_eq!(in_force(2).await, Some(2));
        publish(map(3, &["C1", "C3"]));
        publish(map(4, &["C2"]));
        assert_eq!(in_force(3).await, Some(4));
    }
}
