//! The routing layer of a cluster, as if it were on this machine: its answers name addresses inside the cluster, and a
//! small HTTP server here puts forwarded ones in their place.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use kube::api::ListParams;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::cluster::ClusterArgs;
use super::forward::{Forwards, Target};

/// The router's port inside the cluster.
const PORT: u16 = 8002;

/// What the chart's router is labelled with.
const LABEL: &str =
    "app.kubernetes.io/component=router,app.kubernetes.io/part-of=openfactory-fanout";

/// Name of the router's Service in the examples.
const NAME: &str = "router";

/// A routing layer that can be asked, for as long as this is held.
pub(crate) struct Router {
    url: String,
    inside: String,
    _serving: Option<AbortOnDropHandle<()>>,
}

struct Inner {
    forwards: Arc<Forwards>,
    http: reqwest::Client,
    router: String,
}

impl Router {
    /// One with an address.
    pub(crate) fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            inside: url.to_owned(),
            _serving: None,
        }
    }

    /// The one in a cluster.
    pub(crate) async fn in_cluster(cluster: &ClusterArgs) -> anyhow::Result<Self> {
        let target = find(cluster).await?;
        let forwards = Forwards::new(cluster);
        let address = forwards.address(&target).await?;
        let inside = format!("http://{address}");
        let inner = Arc::new(Inner {
            forwards,
            http: reqwest::Client::new(),
            router: inside.clone(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = axum::Router::new().fallback(answer).with_state(inner);
        let serving = tokio::spawn(async move {
            // Ends only with the process, or when it is dropped.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self {
            url,
            inside,
            _serving: Some(AbortOnDropHandle::new(serving)),
        })
    }
}

impl Router {
    /// Address at which it tells of addresses that can be reached from here.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Address at which it tells of addresses as its cluster has them.
    pub(crate) fn inside(&self) -> &str {
        &self.inside
    }
}

/// The router's Service: that of the chart, or one of its name.
async fn find(cluster: &ClusterArgs) -> anyhow::Result<Target> {
    let connected = cluster.connect().await?;
    let mut found = connected
        .services(&ListParams::default().labels(LABEL))
        .await?;
    if found.is_empty() {
        let named = ListParams::default().fields(&format!("metadata.name={NAME}"));
        found = connected.services(&named).await?;
    }
    match found.as_slice() {
        [(namespace, name)] => Ok(Target {
            namespace: namespace.clone(),
            object: format!("svc/{name}"),
            port: PORT,
        }),
        [] => bail!(
            "no Service of a router is in namespace {}; name its namespace by --namespace, or its address by --router",
            connected.namespace
        ),
        many => {
            let names: Vec<String> = many
                .iter()
                .map(|(namespace, name)| format!("{namespace}/{name}"))
                .collect();
            bail!(
                "there are several routers: {}; name one's namespace by --namespace, or its address by --router",
                names.join(", ")
            )
        }
    }
}

async fn answer(State(inner): State<Arc<Inner>>, uri: Uri) -> Response {
    match ask(&inner, &uri).await {
        Ok(answer) => answer,
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn ask(inner: &Inner, uri: &Uri) -> anyhow::Result<Response> {
    let path = uri.path_and_query().map_or("/", |it| it.as_str());
    let url = format!("{}{path}", inner.router);
    let asked = inner.http.get(&url).send().await;
    let asked = asked.context("the router does not answer")?;
    let status = asked.status();
    let text = asked.text().await?;
    let Ok(mut answer) = serde_json::from_str::<Value>(&text) else {
        return Ok((status, text).into_response());
    };
    if status.is_success() {
        for address in addresses(&mut answer) {
            *address = Value::String(forwarded(&inner.forwards, address).await?);
        }
    }
    Ok((status, Json(answer)).into_response())
}

/// Everything in an answer that is an address of the cluster.
fn addresses(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::String(text) if target_of(text).is_some() => vec![value],
        Value::Array(items) => items.iter_mut().flat_map(addresses).collect(),
        Value::Object(members) => members.values_mut().flat_map(addresses).collect(),
        _ => Vec::new(),
    }
}

async fn forwarded(forwards: &Forwards, address: &Value) -> anyhow::Result<String> {
    let text = address.as_str().unwrap_or_default();
    let Some((scheme, target)) = target_of(text) else {
        return Ok(text.to_owned());
    };
    let address = forwards.address(&target).await?;
    Ok(format!("{scheme}://{address}"))
}

/// What an address such as `nats://line-1-0.line-1.factory.svc:4222` belongs to; nothing for addresses outside.
fn target_of(text: &str) -> Option<(String, Target)> {
    let url = Url::parse(text).ok()?;
    let port = url.port_or_known_default()?;
    let labels: Vec<&str> = url.host_str()?.split('.').collect();
    let (object, namespace) = match labels.as_slice() {
        [service, namespace, "svc", ..] => (format!("svc/{service}"), namespace),
        [pod, _, namespace, "svc", ..] => (format!("pod/{pod}"), namespace),
        _ => return None,
    };
    let target = Target {
        namespace: (*namespace).to_owned(),
        object,
        port,
    };
    Some((url.scheme().to_owned(), target))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_of_the_cluster_are_known_from_others() {
        let told = |text| {
            target_of(text).map(|(scheme, target)| {
                format!(
                    "{scheme} {} {} {}",
                    target.namespace, target.object, target.port
                )
            })
        };
        assert_eq!(
            told("nats://line-1-0.line-1.factory.svc:4222").as_deref(),
            Some("nats factory pod/line-1-0 4222")
        );
        assert_eq!(
            told("http://replay.factory.svc.cluster.local:8003").as_deref(),
            Some("http factory svc/replay 8003")
        );
        for outside in [
            "nats://nats.example.com:4222",
            "line-1",
            "10.0.0.1:4222",
            "a.svc",
        ] {
            assert_eq!(told(outside), None, "{outside}");
        }
    }

    #[test]
    fn all_addresses_of_an_answer_are_found() {
        let mut answer = json!({
            "cluster_name": "line-1",
            "nats_urls": ["nats://a-0.a.n.svc:4222", "nats://public.example:4222"],
            "shards": [{"replay_url": "http://replay.n.svc:8003", "epoch": 3}],
        });
        assert_eq!(addresses(&mut answer).len(), 2);
    }
}
