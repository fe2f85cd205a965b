//! Kafka as the operator sees it. Which broker it is makes no difference to what is tested here; that nobody answers
//! for pods in which nothing runs would.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use ofa_crds::kafka::{ControlState, KafkaSettings};
use ofa_crds::{GroupName, GroupService, ShardMap};
use ofa_operator::controllers::control_plane::{
    ControlPlane, ControlPlaneError, PoolRef, Progress, Published,
};
use ofa_operator::controllers::group_plane::{GroupPlane, GroupSource};
use ofa_operator::controllers::news::{Board, Listener, News, Subject};
use ofa_operator::controllers::partitioning::Partitioning;
use parking_lot::Mutex;

/// A control topic on which every forwarder acknowledges at once.
#[derive(Clone)]
pub(crate) struct Kafka {
    admin: Client,
    maps: Arc<Mutex<BTreeMap<String, Arc<ShardMap>>>>,
    progress: Arc<Mutex<Progress>>,
    groups: Arc<Mutex<BTreeMap<String, GroupService>>>,
    news: Board,
}

impl Kafka {
    pub(crate) fn new(admin: &Client) -> Self {
        Self {
            admin: admin.clone(),
            maps: Arc::default(),
            progress: Arc::new(Mutex::new(Progress {
                partitions: 6,
                ..Progress::default()
            })),
            groups: Arc::default(),
            news: Board::default(),
        }
    }

    pub(crate) fn map(&self, pool: &str) -> Option<Arc<ShardMap>> {
        self.maps.lock().get(pool).cloned()
    }

    /// What the forwarders' group looks like from now on.
    pub(crate) fn group(&self, lag: u64, members: Option<u32>) {
        let mut progress = self.progress.lock();
        (progress.lag, progress.members) = (lag, members);
        drop(progress);
        self.news.tell(News::OfAnything);
    }

    /// Topics of the groups that routers know of.
    pub(crate) fn served(&self) -> Vec<String> {
        self.groups.lock().keys().cloned().collect()
    }

    fn tell(&self, subject: Subject) {
        self.news.tell(News::Of(subject));
    }
}

#[async_trait]
impl ControlPlane for Kafka {
    async fn published(&self, pool: &PoolRef) -> Result<Published, ControlPlaneError> {
        let map = self.map(&pool.name);
        let epoch = map.as_ref().map_or(0, |map| map.epoch());
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), &pool.namespace);
        let name = pool.name.split_once('.').map_or("", |(_, name)| name);
        let all = ListParams::default().labels(&format!("fanout.openfactory.io/pool={name}"));
        let pods = pods.list(&all).await.unwrap();
        let acknowledged = pods.iter().map(|pod| (pod.name_any(), epoch)).collect();
        Ok(Published {
            map,
            acknowledged,
            mixed: None,
        })
    }

    async fn publish(&self, pool: &PoolRef, map: &ShardMap) -> Result<(), ControlPlaneError> {
        self.maps
            .lock()
            .insert(pool.name.clone(), Arc::new(map.clone()));
        self.tell(Subject::Pool(pool.name.clone()));
        Ok(())
    }

    async fn withdraw(&self, pool: &PoolRef) -> Result<(), ControlPlaneError> {
        self.maps.lock().remove(&pool.name);
        self.tell(Subject::Pool(pool.name.clone()));
        Ok(())
    }

    fn progress(&self, _: &KafkaSettings, _: &str, _: &str) -> Option<Progress> {
        Some(Progress {
            rate: None,
            ..*self.progress.lock()
        })
    }

    fn news(&self) -> Listener {
        self.news.listen()
    }
}

/// A plant with one group, called after its level.
#[async_trait]
impl GroupPlane for Kafka {
    fn groups(
        &self,
        source: &GroupSource,
    ) -> Result<Option<BTreeMap<GroupName, u64>>, ControlPlaneError> {
        Ok(Some([(source.level.parse().unwrap(), 1)].into()))
    }

    fn table(&self, _: &KafkaSettings) -> Result<Option<ControlState>, ControlPlaneError> {
        Ok(Some(ControlState {
            caught_up: true,
            groups: self.groups.lock().clone(),
            ..ControlState::default()
        }))
    }

    async fn publish_service(
        &self,
        _: &KafkaSettings,
        topic: &str,
        service: Option<&GroupService>,
    ) -> Result<(), ControlPlaneError> {
        match service {
            Some(service) => self.groups.lock().insert(topic.to_owned(), service.clone()),
            None => self.groups.lock().remove(topic),
        };
        self.tell(Subject::Service(topic.to_owned()));
        Ok(())
    }

    async fn forget_wanted(&self, _: &KafkaSettings, _: &str) -> Result<(), ControlPlaneError> {
        Ok(())
    }

    async fn delete_topic(&self, _: &KafkaSettings, _: &str) -> Result<(), ControlPlaneError> {
        Ok(())
    }

    fn partitioning(&self, _: &KafkaSettings, _: &str) -> Option<Partitioning> {
        None
    }
}
