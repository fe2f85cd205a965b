//! `ofa subscribe`: the events of assets as they happen.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use futures::StreamExt;
use futures::stream::SelectAll;
use ofa_crds::{AssetUuid, Cursor};
use serde_json::{Value, json};

use super::cluster::ClusterArgs;
use super::{RouterArgs, output, stop};
use ofa_client::{Client, ClientOptions, Credentials, Event, Extent, Gap, Item, SubscribeOptions};

/// Most lines that are written at once, where they come faster than they are taken one by one.
const LINES: usize = 256;

#[derive(Debug, Args)]
pub(crate) struct SubscribeArgs {
    /// UUIDs of the assets
    #[arg(required = true)]
    assets: Vec<AssetUuid>,
    /// Only these attributes; may be repeated
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// Resume after this cursor, the position of the last event that was seen; may be repeated, one for each partition.
    /// What lies between comes first. Without, only what happens from now on is printed
    #[arg(long = "from", value_name = "TOPIC/PARTITION/OFFSET")]
    from: Vec<Cursor>,
    /// Print a JSON object a line: {"event": ...}, {"gap": ...}, {"moved": ...}, {"disconnected": ...}
    #[arg(long)]
    json: bool,
    /// End after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    router: RouterArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// User on NATS, where clients have to name one
    #[arg(long, env = "NATS_USER", requires = "nats_password_file")]
    nats_user: Option<String>,
    /// File with that user's password
    #[arg(long, env = "NATS_PASSWORD_FILE", value_name = "FILE")]
    nats_password_file: Option<PathBuf>,
}

impl SubscribeArgs {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let options = ClientOptions {
            name: "ofa-subscribe".to_owned(),
            credentials: self.credentials()?,
            ..ClientOptions::default()
        };
        // Held: a tunnel ends with it.
        let router = self.router.reach(&self.cluster).await?;
        let client = Client::with_options(router.url(), options)?;
        let mut items = SelectAll::new();
        for asset in &self.assets {
            let options = SubscribeOptions {
                from: self.from.clone(),
                ..SubscribeOptions::default()
            };
            let subscription = client.subscribe_with(asset, options).await?;
            items.push(subscription.map(move |item| (asset, item)));
        }
        let printed = self.print(&mut items);
        tokio::select! {
            done = printed => done,
            () = stop::requested() => Ok(()),
        }
    }

    async fn print<'a>(
        &self,
        items: &mut (impl futures::Stream<Item = (&'a AssetUuid, Item)> + Unpin),
    ) -> anyhow::Result<()> {
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut ready = items.ready_chunks(LINES);
        while left > 0
            && let Some(chunk) = ready.next().await
        {
            let mut lines = Vec::new();
            for (asset, item) in chunk {
                if let Item::Event(event) = &item {
                    if left == 0 || !self.is_wanted(event) {
                        continue;
                    }
                    left -= 1;
                }
                lines.push(self.line(asset, &item));
            }
            if !lines.is_empty() {
                output::line(lines.join("\n"))?;
            }
        }
        Ok(())
    }

    fn is_wanted(&self, event: &Event) -> bool {
        self.ids.is_empty() || self.ids.contains(&event.id)
    }

    fn line(&self, asset: &AssetUuid, item: &Item) -> String {
        if self.json {
            as_json(asset, item).to_string()
        } else {
            as_text(asset, item)
        }
    }

    fn credentials(&self) -> anyhow::Result<Option<Credentials>> {
        let (Some(user), Some(path)) = (&self.nats_user, &self.nats_password_file) else {
            return Ok(None);
        };
        let password = std::fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read the password from {} (NATS_PASSWORD_FILE)",
                path.display()
            )
        })?;
        Ok(Some(Credentials {
            user: user.clone(),
            password: password.trim_end_matches(['\r', '\n']).to_owned(),
        }))
    }
}

fn as_text(asset: &AssetUuid, item: &Item) -> String {
    match item {
        Item::Event(event) | Item::Stale(event) => event_text(event),
        Item::Gap(gap) => format!("! gap: {gap}"),
        Item::Moved { from, to, .. } => format!("! {asset}: moved from shard {from} to {to}"),
        Item::Disconnected { shard } => {
            format!("! {asset}: the connection to shard {shard} is lost, trying its nodes")
        }
        Item::Reconnected { shard, node } => {
            format!("! {asset}: connected to node {node} of shard {shard}")
        }
        Item::Complete { next } => format!("! {asset}: nothing is missing below {next:?}"),
    }
}

fn event_text(event: &Event) -> String {
    let position = event
        .cursor
        .as_ref()
        .map_or_else(|| "-".to_owned(), ToString::to_string);
    let parsed = event.parsed().unwrap_or_default();
    let time = parsed.timestamp().unwrap_or("-");
    let value = match &parsed.value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let tag = parsed.tag.as_deref().unwrap_or("-");
    format!(
        "{time}  {}  {} = {value}  {tag}  {position}",
        event.asset, event.id
    )
}

fn as_json(asset: &AssetUuid, item: &Item) -> Value {
    match item {
        Item::Event(event) | Item::Stale(event) => json!({ "event": event_json(event) }),
        Item::Gap(gap) => json!({ "gap": gap_json(gap) }),
        Item::Moved { from, to, epoch } => {
            json!({ "moved": { "asset": asset, "from": from, "to": to, "epoch": epoch } })
        }
        Item::Disconnected { shard } => {
            json!({ "disconnected": { "asset": asset, "shard": shard } })
        }
        Item::Reconnected { shard, node } => {
            json!({ "reconnected": { "asset": asset, "shard": shard, "node": node } })
        }
        Item::Complete { next } => json!({ "complete": { "asset": asset, "next": next } }),
    }
}

fn event_json(event: &Event) -> Value {
    let payload: Value = serde_json::from_slice(&event.payload)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&event.payload).into_owned()));
    json!({
        "asset": event.asset,
        "id": event.id,
        "cursor": event.cursor,
        "prev": event.prev,
        "received_at": format!("{:.3}", event.received_at),
        "payload": payload,
    })
}

fn gap_json(gap: &Gap) -> Value {
    let cause = match gap.cause {
        ofa_client::Cause::Delivery => "delivery",
        ofa_client::Cause::SlowConsumer => "slow consumer",
        ofa_client::Cause::Retention => "retention",
    };
    let (certain, range) = match &gap.extent {
        Extent::Missed {
            topic,
            partition,
            first,
            last,
        } => (true, Some((topic, partition, first, last))),
        Extent::Possible {
            topic,
            partition,
            first,
            last,
        } => (false, Some((topic, partition, first, last))),
        Extent::Unknown => (true, None),
    };
    let range = range.map(|(topic, partition, first, last)| {
        json!({ "topic": topic, "partition": partition, "first": first, "last": last })
    });
    let state: Vec<Value> = gap.state.iter().map(event_json).collect();
    json!({ "asset": gap.asset, "certain": certain, "range": range, "cause": cause, "state": state })
}
