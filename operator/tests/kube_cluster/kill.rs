//! The operator is killed in place of any of its writes, one after the other; the next one always gets there, and then
//! writes nothing. What is killed between two writes has only read, and leaves behind what it found.

use futures::StreamExt as _;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use ofa_crds::GroupName;
use ofa_crds::api::{AssetGroup, ForwarderPool, NatsShard};
use ofa_operator::kube::kind::Kind;
use serde_json::{Value, json};

use crate::cluster::{client, done, eventually, metered, names, namespace, objects};
use crate::kafka::Kafka;
use crate::meter::Meter;
use crate::nodes::Nodes;
use crate::operator::{once, shell};

/// Lives that are tried at a time: they wait for pods most of their time.
const AT_A_TIME: usize = 4;

/// More writes than a resource takes; a test that gets here would go on for ever.
const ENOUGH: i64 = 60;

/// What is killed over, again and again, each time under another name.
struct Subject {
    /// Label of what was made for it.
    label: &'static str,
    spec: fn(&str) -> Value,
    /// What is changed of the spec in the middle of its life.
    change: fn() -> Value,
    /// `Kind/name` of everything that is there when it is as it should be.
    objects: fn(&str) -> Vec<String>,
}

struct Scene {
    admin: Client,
    namespace: String,
    kafka: Kafka,
    subject: Subject,
}

impl Scene {
    fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    async fn create<K: Kind>(&self, name: &str, spec: &Value) {
        let object = json!({
            "apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "metadata": {"name": name}, "spec": spec,
        });
        let object: K = serde_json::from_value(object).unwrap();
        let created = self.api().create(&PostParams::default(), &object).await;
        created.unwrap();
    }

    async fn settles<K: Kind>(&self, name: &str) {
        let operator = shell(&self.admin, &self.namespace, &self.kafka);
        eventually(name, || async {
            let _ = once::<K>(&operator, &self.admin, &self.namespace, name).await;
            is_settled(self.api::<K>().get_opt(name).await.unwrap().as_ref()).then_some(())
        })
        .await;
    }

    /// An operator that dies in place of a write, and the next one. Returns whether the first has lived long enough.
    async fn reach<K: Kind>(
        &self,
        name: &str,
        budget: i64,
        reached: fn(Option<&K>) -> bool,
    ) -> bool {
        let meter = Meter::with_budget(budget);
        let mortal = shell(&metered(&meter), &self.namespace, &self.kafka);
        eventually("the end of an operator or of its work", || async {
            let _ = once::<K>(&mortal, &self.admin, &self.namespace, name).await;
            let found = self.api::<K>().get_opt(name).await.unwrap();
            (meter.is_dead() || reached(found.as_ref())).then_some(())
        })
        .await;
        let survived = !meter.is_dead();

        let meter = Meter::unlimited();
        let next = shell(&metered(&meter), &self.namespace, &self.kafka);
        let what = format!("{name} as it should be, and nothing written, after {budget} writes");
        eventually(&what, || async {
            let writes = meter.writes();
            let mut idle = true;
            // Something else may have changed an object at this moment: the controller tries again then.
            for _ in 0..3 {
                let looked = once::<K>(&next, &self.admin, &self.namespace, name).await;
                idle &= looked.is_ok() && meter.writes() == writes;
            }
            let found = self.api::<K>().get_opt(name).await.unwrap();
            (idle && reached(found.as_ref())).then_some(())
        })
        .await;
        survived
    }

    /// `Kind/name` of everything that was made for it; what derives is called after what it writes.
    async fn made(&self, name: &str) -> Vec<String> {
        let mut all = objects(&self.admin, &self.namespace).await;
        all.retain(|object| {
            let labels = object.metadata.labels.as_ref().unwrap();
            labels.get(self.subject.label).is_some_and(|of| of == name)
        });
        let plain = |name: String| match name.split_once("/derive-") {
            Some((kind, _)) => format!("{kind}/derive"),
            None => name,
        };
        let mut made: Vec<String> = names(&all).into_iter().map(plain).collect();
        made.sort();
        made
    }

    /// One life and what comes after it, in each phase; returns whether the life was always long enough.
    async fn live<K: Kind>(&self, budget: i64) -> bool {
        let name = format!("life-{budget}");
        self.create::<K>(&name, &(self.subject.spec)(&name)).await;
        let created = self.reach::<K>(&name, budget, is_settled).await;
        let expected = (self.subject.objects)(&name);
        assert_eq!(self.made(&name).await, expected, "{name}");

        let change = Patch::Merge(json!({ "spec": (self.subject.change)() }));
        let params = PatchParams::default();
        let changed = self.api::<K>().patch(&name, &params, &change).await;
        changed.unwrap();
        let changed = self.reach::<K>(&name, budget, is_settled).await;
        assert_eq!(self.made(&name).await, expected, "{name} changed");

        let params = DeleteParams::default();
        self.api::<K>().delete(&name, &params).await.unwrap();
        let deleted = self.reach::<K>(&name, budget, |found| found.is_none());
        let deleted = deleted.await;
        assert_eq!(self.made(&name).await, [""; 0], "{name} deleted");
        created && changed && deleted
    }
}

fn is_settled<K: Kind>(object: Option<&K>) -> bool {
    let object = serde_json::to_value(object).unwrap();
    let empty = Vec::new();
    let conditions = object["status"]["conditions"].as_array().unwrap_or(&empty);
    let is = |kind: &str, wanted: &str| {
        let mut of_kind = conditions.iter().filter(|c| c["type"] == kind);
        of_kind.any(|c| c["status"] == wanted)
    };
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
        && is("Ready", "True")
        && is("Reconciling", "False")
}

async fn kill_in_place_of_every_write<K: Kind>(subject: Subject, needs_a_shard: bool) {
    let admin = client();
    let namespace = namespace(&admin).await;
    let _nodes = Nodes::answer(&admin, &namespace);
    let kafka = Kafka::new(&admin);
    let scene = Scene {
        admin,
        namespace,
        kafka,
        subject,
    };
    if needs_a_shard {
        scene
            .create::<NatsShard>("line", &json!({"nodes": 1}))
            .await;
        scene.settles::<NatsShard>("line").await;
    }
    let mut lives = futures::stream::iter(0..ENOUGH)
        .map(|budget| scene.live::<K>(budget))
        .buffered(AT_A_TIME);
    let mut tried = 0;
    while let Some(complete) = lives.next().await {
        tried += 1;
        if complete {
            break;
        }
    }
    assert!(tried > 5 && tried < ENOUGH, "{tried} lives were tried");
    drop(lives);
    done(&scene.admin, &scene.namespace).await;
}

fn of(name: &str, kinds: &[&str]) -> Vec<String> {
    kinds.iter().map(|kind| format!("{kind}/{name}")).collect()
}

#[tokio::test]
async fn whatever_write_for_a_shard_was_the_last_the_next_operator_gets_there() {
    let subject = Subject {
        label: "fanout.openfactory.io/shard",
        spec: |_| json!({"nodes": 2}),
        // One node after the other is replaced, and one is added.
        change: || json!({"nodes": 3, "resources": {"requests": {"cpu": "10m"}}}),
        objects: |name| {
            let mut all = of(name, &["PodDisruptionBudget"]);
            all.push(format!("Secret/{name}-files"));
            all.push(format!("Secret/{name}-nats-auth"));
            all.push(format!("Service/{name}"));
            all.push(format!("Service/{name}-client"));
            all.extend(of(name, &["ServiceAccount", "StatefulSet"]));
            all
        },
    };
    kill_in_place_of_every_write::<NatsShard>(subject, false).await;
}

#[tokio::test]
async fn whatever_write_for_a_pool_was_the_last_the_next_operator_gets_there() {
    let subject = Subject {
        label: "fanout.openfactory.io/pool",
        spec: |name| json!({"replicas": 1, "consumerGroup": name}),
        change: || json!({"replicas": 2, "resources": {"requests": {"cpu": "10m"}}}),
        objects: |name| {
            let mut all = of(name, &["Deployment", "PodDisruptionBudget"]);
            all.push(format!("Secret/{name}-files"));
            all.extend(of(name, &["ServiceAccount"]));
            all
        },
    };
    kill_in_place_of_every_write::<ForwarderPool>(subject, true).await;
}

#[tokio::test]
async fn whatever_write_for_a_group_was_the_last_the_next_operator_gets_there() {
    let subject = Subject {
        label: "fanout.openfactory.io/group",
        // The plant of these tests has one group, called after the level.
        spec: |name| json!({"grouping": {"level": name}, "stream": {"engine": "Native"}}),
        change: || json!({"serving": {"resources": {"requests": {"cpu": "10m"}}}}),
        objects: |name| {
            let service = name.parse::<GroupName>().unwrap().service();
            let mut all: Vec<String> = ["PodDisruptionBudget", "ServiceAccount", "StatefulSet"]
                .iter()
                .flat_map(|kind| [format!("{kind}/derive"), format!("{kind}/{service}")])
                .collect();
            all.push(format!("Service/{service}"));
            all.sort();
            all
        },
    };
    kill_in_place_of_every_write::<AssetGroup>(subject, false).await;
}
