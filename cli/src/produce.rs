//! `ofa produce`: single events into Kafka.

use std::io::{self, BufRead};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use ofa_crds::kafka::KafkaSettings;
use ofa_crds::{AssetUuid, wire};
use serde::Deserialize;
use serde_json::value::Map;
use serde_json::{Value, json};

use super::output;
use ofa_client::produce::{Producer, event_json, scalar};

/// How long Kafka may take to confirm everything.
const FINISH_TIMEOUT: Duration = Duration::from_secs(30);

/// Lines from standard input fill a batch within this time.
const LINGER: Duration = Duration::from_millis(5);

/// Write one event, or, without ASSET, one for every line of standard input: `ASSET<tab>ID<tab>VALUE`, or
/// `{"key":"ASSET","value":{"ID":...}}` as in a recording
#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    /// UUID of the asset
    #[arg(requires = "id")]
    asset: Option<AssetUuid>,
    /// Id of the attribute
    #[arg(requires = "value")]
    id: Option<String>,
    /// Its value: a number where it is one, otherwise text
    #[arg(allow_hyphen_values = true)]
    value: Option<String>,
    /// What the value is, Temperature say
    #[arg(long, default_value = "Attribute")]
    tag: String,
    /// Samples, Condition, Events, Method or OpenFactory
    #[arg(long = "type", default_value = "Samples")]
    kind: String,
    /// When it was observed (RFC 3339); now by default
    #[arg(long)]
    timestamp: Option<Timestamp>,
    /// Kafka topic
    #[arg(long, env = "KAFKA_TOPIC", default_value = wire::ASSETS_TOPIC)]
    topic: String,
    #[command(flatten)]
    kafka: KafkaSettings,
}

#[derive(Deserialize)]
struct RecordLine {
    key: String,
    value: Map<String, Value>,
}

impl ProduceArgs {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || self.run_blocking()).await?
    }

    fn run_blocking(self) -> anyhow::Result<()> {
        let producer = Producer::new(&self.kafka, LINGER)?;
        producer.check_topic(&self.topic)?;
        match (&self.asset, &self.id, &self.value) {
            (Some(asset), Some(id), Some(value)) => {
                producer.send(&self.topic, asset.as_str(), &self.event(id, value), None)?;
            }
            _ => self.send_lines(&producer)?,
        }
        let written = producer.finish(FINISH_TIMEOUT)?;
        output::line(format_args!("{written} written to {}", self.topic))
    }

    fn send_lines(&self, producer: &Producer) -> anyhow::Result<()> {
        for (index, line) in io::stdin().lock().lines().enumerate() {
            let line = line.context("standard input cannot be read")?;
            if line.trim().is_empty() {
                continue;
            }
            let (asset, value) = self
                .parse(&line)
                .with_context(|| format!("line {} of standard input cannot be used", index + 1))?;
            producer.send(&self.topic, asset.as_str(), &value, None)?;
        }
        Ok(())
    }

    fn parse(&self, line: &str) -> anyhow::Result<(AssetUuid, Vec<u8>)> {
        if line.starts_with('{') {
            let RecordLine { key, value } = serde_json::from_str(line)?;
            return Ok((key.parse()?, json!(value).to_string().into_bytes()));
        }
        let fields: Vec<&str> = line.splitn(3, '\t').collect();
        let [asset, id, value] = fields[..] else {
            bail!("it must read ASSET<tab>ID<tab>VALUE, or be a JSON object with key and value");
        };
        Ok((asset.parse()?, self.event(id, value)))
    }

    fn event(&self, id: &str, value: &str) -> Vec<u8> {
        let timestamp = self.timestamp.unwrap_or_else(Timestamp::now);
        let timestamp = format!("{timestamp:.3}");
        event_json(id, &scalar(value), &self.tag, &self.kind, &timestamp)
    }
}
