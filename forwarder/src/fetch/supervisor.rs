//! Keeps what is known of the cluster up to date, and a task for each broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ParseResponseErrorCode as _;
use kafka_protocol::messages::{MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::table::{Cluster, Leader};
use super::{Shared, broker};
use crate::kafka::{
    BrokerError, Connection, METADATA_VERSIONS, addresses, brokers_of, metadata_request,
};
use crate::log_limit::LogLimit;

/// Rest after the cluster was asked about: an election takes about as long, and many tasks notice at once.
const REST: Duration = Duration::from_millis(100);

/// Runs until dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut brokers = BTreeSet::new();
    let mut tasks = JoinSet::new();
    let mut log = LogLimit::default();
    loop {
        match ask(&shared).await {
            Ok(cluster) => {
                for &id in cluster.brokers.keys() {
                    if brokers.insert(id) {
                        tasks.spawn(broker::run(shared.clone(), id));
                    }
                }
                debug!(?cluster, "the cluster");
                shared.set_cluster(cluster);
                let outdated = shared.table.lock().lacks_leader();
                if !outdated {
                    shared.outdated.notified().await;
                }
            }
            Err(error) => {
                if let Some(held_back) = log.allow() {
                    warn!(%error, held_back, "Kafka does not say who leads the topic's partitions; trying on");
                }
            }
        }
        sleep(REST).await;
    }
}

/// Asks any broker that answers.
async fn ask(shared: &Shared) -> Result<Cluster, BrokerError> {
    let settings = &shared.settings;
    let addresses = addresses(&shared.table.lock().cluster().brokers, &settings.kafka);
    let mut last = None;
    for address in addresses {
        match ask_at(shared, &address).await {
            Ok(cluster) => return Ok(cluster),
            Err(error) => last = Some(format!("{address}: {error}")),
        }
    }
    Err(BrokerError::NoBroker {
        brokers: settings.kafka.brokers.clone(),
        last: last.unwrap_or_default(),
    })
}

async fn ask_at(shared: &Shared, address: &str) -> Result<Cluster, BrokerError> {
    let settings = &shared.settings;
    let mut connection = Connection::open(address, &settings.client_id, &shared.security).await?;
    let name = TopicName(StrBytes::from_string(settings.topic.clone()));
    let request = metadata_request([name]);
    let answer = connection
        .call(&request, METADATA_VERSIONS, Duration::ZERO)
        .await?;
    cluster_of(&answer)
}

fn cluster_of(answer: &MetadataResponse) -> Result<Cluster, BrokerError> {
    let brokers = brokers_of(answer);
    let mut leaders = BTreeMap::new();
    for topic in &answer.topics {
        if let Some(error) = topic.error_code.err() {
            return Err(BrokerError::Refused(error));
        }
        for partition in &topic.partitions {
            let leader = Leader {
                broker: partition.leader_id.0,
                epoch: partition.leader_epoch,
            };
            if brokers.contains_key(&leader.broker) {
                leaders.insert(partition.partition_index, leader);
            }
        }
    }
    Ok(Cluster { brokers, leaders })
}
