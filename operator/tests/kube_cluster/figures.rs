//! What an operator costs: memory and requests to the API, by how many resources there are, and what it writes while
//! nothing changes. One kind at a time, since a control plane on two cores takes minutes for thousands of pods:
//!
//! `OFA_FIGURES="NatsShard 100" cargo test -p ofa-operator --test kube_cluster figures -- --ignored --nocapture`
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::{Api, ListParams};
use ofa_crds::api::{AssetGroup, ForwarderPool, NatsShard};
use ofa_operator::kube::kind::Kind;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cluster::{client, done, metered, namespace};
use crate::kafka::Kafka;
use crate::meter::Meter;
use crate::nodes::Nodes;
use crate::operator::Operator;
use crate::{group, pool, shard};

/// Set for the process that holds nothing but the operator.
const CHILD: &str = "OFA_FIGURES_NAMESPACE";

/// Idle for this long: a resync of everything comes every ten minutes.
const IDLE: Duration = Duration::from_secs(660);

/// What the process with the operator tells every second.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    requests: u64,
    writes: u64,
    rss_kib: u64,
}

struct Measured {
    process: Child,
    told: Arc<Mutex<Told>>,
}

impl Measured {
    fn start(namespace: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "figures::only_an_operator",
                "--ignored",
                "--nocapture",
            ])
            .env(CHILD, namespace)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = Arc::new(Mutex::new(Told::default()));
        let (lines, newest) = (process.stdout.take().unwrap(), told.clone());
        std::thread::spawn(move || {
            for line in std::io::BufReader::new(lines).lines().map_while(Result::ok) {
                let numbers: Vec<u64> = line.split(' ').filter_map(|w| w.parse().ok()).collect();
                if let [requests, writes, rss_kib] = numbers[..] {
                    *newest.lock() = Told {
                        requests,
                        writes,
                        rss_kib,
                    };
                }
            }
        });
        Self { process, told }
    }

    fn told(&self) -> Told {
        *self.told.lock()
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

#[tokio::test]
#[ignore = "the process that is measured"]
async fn only_an_operator() {
    let Ok(namespace) = std::env::var(CHILD) else {
        return;
    };
    let meter = Meter::unlimited();
    let kafka = Kafka::new(&client());
    let _operator = Operator::start(&metered(&meter), &namespace, &kafka);
    loop {
        println!("{} {} {}", meter.requests(), meter.writes(), rss_kib());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn create(client: &Client, namespace: &str, kind: &str, name: &str) {
    match kind {
        "NatsShard" => {
            shard::create(client, namespace, name, json!({"nodes": 1})).await;
        }
        "ForwarderPool" => {
            let spec = json!({"replicas": 1, "consumerGroup": name});
            pool::create(client, namespace, name, spec).await;
        }
        _ => group::create(client, namespace, name, json!({"level": name})).await,
    }
}

async fn ready<K: Kind>(client: &Client, namespace: &str) -> usize {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let all = api.list(&ListParams::default()).await.unwrap();
    let is_ready = |object: &K| {
        let object = serde_json::to_value(object).unwrap();
        let conditions = object["status"]["conditions"].as_array().cloned();
        let is = |c: &Value, kind: &str, status: &str| c["type"] == kind && c["status"] == status;
        let all = conditions.unwrap_or_default();
        all.iter().any(|c| is(c, "Ready", "True"))
            && all.iter().any(|c| is(c, "Reconciling", "False"))
    };
    all.iter().filter(|object| is_ready(object)).count()
}

async fn count_ready(client: &Client, namespace: &str, kind: &str) -> usize {
    match kind {
        "NatsShard" => ready::<NatsShard>(client, namespace).await,
        "ForwarderPool" => ready::<ForwarderPool>(client, namespace).await,
        _ => ready::<AssetGroup>(client, namespace).await,
    }
}

async fn measure(kind: &str, number: usize) {
    let client = client();
    let namespace = namespace(&client).await;
    let _nodes = Nodes::answer(&client, &namespace);
    let operator = Measured::start(&namespace);
    let mut expected = number;
    if kind == "ForwarderPool" {
        shard::create(&client, &namespace, "line", json!({"nodes": 1})).await;
        shard::settled(&client, &namespace, "line").await;
    }
    while operator.told().rss_kib == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (begin, before) = (Instant::now(), operator.told());
    for index in 0..number {
        create(&client, &namespace, kind, &format!("r{index}")).await;
    }
    while expected > 0 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        expected = number - count_ready(&client, &namespace, kind).await;
    }
    let took = begin.elapsed();
    // What is still on its way arrives.
    let mut last = u64::MAX;
    while last != operator.told().writes {
        last = operator.told().writes;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let settled = operator.told();
    tokio::time::sleep(IDLE).await;
    let idle = operator.told();
    println!(
        "{number} {kind}: all ready after {:.0} s, {} requests of which {} writes, {} MiB resident; \
         idle for {} s: {} requests, {} writes",
        took.as_secs_f64(),
        settled.requests - before.requests,
        settled.writes - before.writes,
        idle.rss_kib / 1024,
        IDLE.as_secs(),
        idle.requests - settled.requests,
        idle.writes - settled.writes,
    );
    drop(operator);
    done(&client, &namespace).await;
}

#[tokio::test]
#[ignore = "takes minutes; see the top of this file"]
async fn of_memory_and_requests() {
    let wanted = std::env::var("OFA_FIGURES").unwrap_or_default();
    let all = ["NatsShard", "ForwarderPool", "AssetGroup"];
    for kind in all
        .into_iter()
        .filter(|kind| wanted.is_empty() || wanted.contains(kind))
    {
        let number = wanted.split(' ').find_map(|word| word.parse().ok());
        let numbers = number.map_or(vec![1, 100], |number| vec![number]);
        for number in numbers {
            measure(kind, number).await;
        }
    }
}
