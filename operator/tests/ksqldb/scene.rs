//! A server with the streams that OpenFactory makes, and a client of it that is none of the project's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ofa_crds::GroupName;
use ofa_operator::engine::ksqldb::{Action, Claim, Identifier, KsqlServers, StreamState, Wanted};
use serde_json::{Value, json};

use crate::stand_in::{self, StandIn};

/// A real server takes seconds for a statement, on a busy machine many.
const PATIENCE: Duration = Duration::from_secs(120);

/// One test's server and names.
pub(crate) struct Scene {
    url: String,
    servers: KsqlServers,
    stand_in: Option<Arc<StandIn>>,
    /// Keeps the names of tests apart that share a real server.
    run: String,
    http: reqwest::Client,
}

pub(crate) fn action(state: &StreamState) -> Option<&Action> {
    state.action.as_ref()
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "it does not come about"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Scene {
    /// On a real server, if there is one.
    pub(crate) async fn new(budget: usize) -> Self {
        match std::env::var("KSQLDB_URL") {
            Ok(url) => Self::on(url, None, budget).await,
            Err(_) => Self::on_stand_in(budget).await,
        }
    }

    /// On a server that shows faults; none where a real one is asked for.
    pub(crate) async fn stand_in(budget: usize) -> Option<Self> {
        if std::env::var("KSQLDB_URL").is_ok() {
            return None;
        }
        Some(Self::on_stand_in(budget).await)
    }

    async fn on_stand_in(budget: usize) -> Self {
        let server = Arc::new(StandIn::default());
        let url = stand_in::start(Arc::clone(&server)).await;
        Self::on(url, Some(server), budget).await
    }

    async fn on(url: String, stand_in: Option<Arc<StandIn>>, budget: usize) -> Self {
        ofa_operator::tls::install_provider();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let scene = Self {
            url,
            stand_in,
            servers: KsqlServers::new(budget),
            run: format!("T{}", now.unwrap().as_nanos()),
            http: reqwest::Client::new(),
        };
        let run = &scene.run;
        let with = |topic: &str| {
            format!("WITH (KAFKA_TOPIC='{topic}', VALUE_FORMAT='JSON', PARTITIONS=3)")
        };
        scene
            .run(&format!(
                "CREATE STREAM SOURCE_{run} (asset_uuid VARCHAR KEY, id VARCHAR, value VARCHAR, tag VARCHAR, type VARCHAR, \
                 attributes MAP<VARCHAR, VARCHAR>) {};",
                with(&format!("source_{run}"))
            ))
            .await;
        scene
            .run(&format!(
                "CREATE TABLE MAP_{run} (asset_uuid VARCHAR PRIMARY KEY, uns_id VARCHAR, uns_levels MAP<VARCHAR, VARCHAR>) {};",
                with(&format!("map_{run}"))
            ))
            .await;
        scene
    }

    pub(crate) fn server(&self) -> &StandIn {
        self.stand_in.as_ref().expect("this is about the stand-in")
    }

    /// What these groups ask for.
    pub(crate) fn claim(&self, groups: &[&str]) -> Claim {
        let wanted = groups.iter().map(|name| {
            let group: GroupName = format!("{}{name}", self.run).parse().unwrap();
            Wanted {
                name: Identifier::new(&group.stream()).unwrap(),
                topic: group.topic(),
                source_topic: format!("source_{}", self.run),
                source: Identifier::new(&format!("SOURCE_{}", self.run)).unwrap(),
                map: Identifier::new(&format!("MAP_{}", self.run)).unwrap(),
                level: "workcenter".to_owned(),
                value: group,
                partitions: None,
                retention_ms: None,
            }
        });
        Claim {
            wanted: wanted.collect(),
            ..Claim::default()
        }
    }

    /// Claims until the server's streams are so.
    pub(crate) async fn wait(
        &self,
        owner: &str,
        claim: &Claim,
        are_so: impl Fn(&BTreeMap<Identifier, StreamState>) -> bool,
    ) -> BTreeMap<Identifier, StreamState> {
        until(|| {
            let claimed = self.servers.claim(&self.url, owner, claim);
            claimed.ok().flatten().filter(&are_so)
        })
        .await
    }

    /// Claims until nothing is to be done.
    pub(crate) async fn settled(
        &self,
        owner: &str,
        claim: &Claim,
    ) -> BTreeMap<Identifier, StreamState> {
        let settled = |state: &StreamState| action(state) == Some(&Action::Nothing);
        self.wait(owner, claim, |streams| {
            streams.len() == claim.wanted.len() && streams.values().all(settled)
        })
        .await
    }

    /// Has the server looked at once more.
    pub(crate) async fn another_look(&self, owner: &str, claim: &Claim) {
        let mut other = claim.clone();
        other.unwanted.push(Identifier::kept("NOTHING"));
        self.wait(owner, &other, |_| true).await;
    }

    /// The id and topic of the query that writes a stream.
    pub(crate) async fn statement(&self, stream: &Identifier) -> Option<(String, String)> {
        let queries = self.queries().await;
        let found = queries
            .iter()
            .find(|query| query["sinks"][0] == stream.as_str())?;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Some((text(&found["id"]), text(&found["sinkKafkaTopics"][0])))
    }

    pub(crate) async fn is_paused(&self, id: &str) -> bool {
        let queries = self.queries().await;
        let found = queries.iter().find(|query| query["id"] == id).unwrap();
        found["statusCount"]["PAUSED"].is_number()
    }

    async fn queries(&self) -> Vec<Value> {
        let answer = self.run("SHOW QUERIES;").await;
        answer[0]["queries"].as_array().unwrap().clone()
    }

    /// Changing statements that a stand-in has got; none of a real server.
    pub(crate) fn changes(&self) -> Vec<String> {
        let server = self.stand_in.iter();
        server
            .flat_map(|server| server.changes.lock().clone())
            .collect()
    }

    /// Has a statement carried out.
    pub(crate) async fn run(&self, statement: &str) -> Value {
        let body = json!({"ksql": statement, "streamsProperties": {}});
        let request = self.http.post(format!("{}/ksql", self.url)).json(&body);
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{statement}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// What a pull query answers.
    pub(crate) async fn pull(&self, sql: &str) -> (u16, String) {
        let request = self.http.post(format!("{}/query-stream", self.url));
        let answer = request.json(&json!({ "sql": sql })).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Leaves a real server as it was.
    pub(crate) async fn clean(&self, claim: &Claim) {
        if self.stand_in.is_some() {
            return;
        }
        let none = Claim {
            unwanted: claim
                .wanted
                .iter()
                .map(|wanted| wanted.name.clone())
                .collect(),
            ..Claim::default()
        };
        self.servers.release("b");
        self.wait("a", &none, BTreeMap::is_empty).await;
    }
}
