//! `ofa demo`: everything on this machine, watched.

mod counter;
mod latency;
mod operator;
mod resources;
mod scrape;
mod view;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use ofa_crds::kafka::KafkaSettings;
use ofa_crds::wire;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::counter::SharedTally;
use self::operator::Operator;
use self::resources::Changes;
use self::watch::Watch;
use super::{RouterArgs, output, stop};
use ofa_client::audit::kafka::{Positions, end_positions, read};
use ofa_client::audit::{Expected, Report};
use ofa_client::{Client, ClientOptions};

/// Kafka's port on its instance.
const KAFKA_PORT: u16 = 9092;

/// How long everything may take to start: the broker's first start on a slow machine is most of it.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// An instance that ended again and again for this long does not get better by itself.
const TROUBLE_TIMEOUT: Duration = Duration::from_secs(8);

/// How long the first events may take once everything is ready.
const FIRST_EVENTS_TIMEOUT: Duration = Duration::from_secs(60);

/// After the first event of every shard, all its nodes know of the counter's subscription within this time.
const SETTLE: Duration = Duration::from_secs(1);

/// How long what is in Kafka may take to arrive at the end: a forwarder that is being restarted, say.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(45);

/// How often the operator is asked while things start.
const POLL: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Folder of the resources; change them while it runs
    #[arg(long, default_value = "examples/factory", value_name = "DIR")]
    resources: PathBuf,
    /// End by itself after this many seconds, and check that nothing was lost or reordered
    #[arg(long, env = "DEMO_SECONDS", value_name = "S")]
    seconds: Option<f64>,
    /// Number of machines, in place of what the resources say
    #[arg(long, env = "ASSETS")]
    assets: Option<usize>,
    /// Events a second, in place of what the resources say
    #[arg(long, env = "RATE")]
    rate: Option<f64>,
    /// Replay this recording under as many UUIDs in place of simulated machines
    #[arg(long, env = "REPLAY", value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Topic that is counted
    #[arg(long, env = "KAFKA_TOPIC", default_value = wire::ASSETS_TOPIC)]
    topic: String,
    #[command(flatten)]
    router: RouterArgs,
}

/// How a demo that ends by itself has ended.
struct Outcome {
    report: Report,
    p99_ms: f64,
}

impl DemoArgs {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let page = self.router.url();
        output::note(format_args!(
            "{page}/ shows it all in a browser, some seconds from now"
        ));
        let folder = work_folder()?;
        let resources = self.prepare_resources(&folder)?;
        let mut operator = Operator::start(&resources, &folder)?;
        let outcome = tokio::select! {
            outcome = self.watch(&mut operator, &resources) => outcome.map(Some),
            () = stop::requested() => Ok(None),
        };
        output::note(format_args!("stopping all processes"));
        operator.stop().await;
        conclude(outcome, &folder)
    }

    fn prepare_resources(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let replay = self.replay.as_ref().filter(|it| !it.as_os_str().is_empty());
        let replay = replay
            .map(|path| {
                path.canonicalize().with_context(|| {
                    format!("the recording {} (REPLAY) cannot be read", path.display())
                })
            })
            .transpose()?;
        let changes = Changes {
            assets: self.assets,
            rate: self.rate,
            replay,
        };
        if changes.is_empty() {
            return Ok(self.resources.clone());
        }
        let copy = folder.join("changed-resources");
        resources::copy(&self.resources, &copy, &changes)?;
        Ok(copy)
    }

    async fn watch(&self, operator: &mut Operator, resources: &Path) -> anyhow::Result<Outcome> {
        let kafka = wait_until_settled(operator).await?;
        let options = ClientOptions {
            name: "ofa-demo".to_owned(),
            ..ClientOptions::default()
        };
        let client = Client::with_options(self.router.url(), options)?;
        let tally = SharedTally::default();
        // Dropped, and with it the counting ended, before the router is.
        let mut counting = JoinSet::new();
        counting.spawn(counter::count(client.clone(), Arc::clone(&tally)));
        let asset = wait_for_events(&client, &tally).await?;
        let from = self.end_positions(&kafka).await?;
        {
            let mut tally = tally.lock();
            tally.latencies.clear();
            tally.recent.clear();
        }
        let hints = self.hints(&asset, &kafka, resources);
        let mut watch = Watch::new(&client, operator, &tally, asset, hints).await?;
        watch.run(self.seconds.map(Duration::from_secs_f64)).await?;

        let to = self.end_positions(&kafka).await?;
        let expected = self.read(&kafka, from, to).await?;
        let report = wait_for_arrival(&expected, &tally).await;
        let p99_ms = tally.lock().latencies.quantile_ms(990);
        Ok(Outcome { report, p99_ms })
    }

    async fn end_positions(&self, kafka: &KafkaSettings) -> anyhow::Result<Positions> {
        let (kafka, topic) = (kafka.clone(), self.topic.clone());
        Ok(tokio::task::spawn_blocking(move || end_positions(&kafka, &topic)).await??)
    }

    async fn read(
        &self,
        kafka: &KafkaSettings,
        from: Positions,
        to: Positions,
    ) -> anyhow::Result<Expected> {
        let (kafka, topic) = (kafka.clone(), self.topic.clone());
        let read = move || read(&kafka, &topic, &from, &to);
        Ok(tokio::task::spawn_blocking(read).await??)
    }

    fn hints(&self, asset: &str, kafka: &KafkaSettings, resources: &Path) -> Vec<String> {
        let router = self.router.url();
        let broker = &kafka.brokers;
        vec![
            format!("{router}/ in a browser: groups, assets, live values"),
            format!("{router}/asset/{asset}   {router}/shards   {router}/metrics"),
            format!("ofa subscribe {asset}   ofa route {asset}"),
            format!("KAFKA_BROKER={broker} ofa produce {asset} note hello"),
            format!("change replicas or nodes in {}", resources.display()),
        ]
    }
}

/// A folder of this run's own, for the operator's state and all logs.
fn work_folder() -> anyhow::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("ofa-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// Waits until everything runs that the resources ask for. Returns how Kafka is reached.
async fn wait_until_settled(operator: &mut Operator) -> anyhow::Result<KafkaSettings> {
    let deadline = Instant::now() + START_TIMEOUT;
    let mut trouble_since = None;
    let mut said = String::new();
    loop {
        let status = operator.status().await?;
        let kafka = status.host_of("kafka");
        if let (true, Some(host)) = (status.is_settled(), kafka) {
            return Ok(KafkaSettings::plain(format!("{host}:{KAFKA_PORT}")));
        }
        let trouble = status.trouble();
        if trouble.is_empty() {
            trouble_since = None;
        } else if trouble_since.get_or_insert_with(Instant::now).elapsed() > TROUBLE_TIMEOUT {
            bail!("it cannot start:\n{}", trouble.join("\n"));
        }
        let waiting = status.waiting_for().join(", ");
        if Instant::now() > deadline {
            bail!("these are not ready in time: {waiting}");
        }
        if waiting != said && !waiting.is_empty() {
            output::note(format_args!("starting: {waiting}"));
            said = waiting;
        }
        sleep(POLL).await;
    }
}

/// Waits until every shard has delivered something to the counter. Returns an asset to show.
async fn wait_for_events(client: &Client, tally: &SharedTally) -> anyhow::Result<String> {
    let deadline = Instant::now() + FIRST_EVENTS_TIMEOUT;
    loop {
        let shards = client
            .shards()
            .await?
            .map(|it| it.shards)
            .unwrap_or_default();
        let asset = {
            let tally = tally.lock();
            let all = shards
                .iter()
                .all(|it| tally.by_shard.contains_key(&it.name));
            tally.first_asset.clone().filter(|_| all)
        };
        if let Some(asset) = asset {
            sleep(SETTLE).await;
            return Ok(asset);
        }
        if Instant::now() > deadline {
            bail!("no events arrive; does a factory write to the topic?");
        }
        sleep(POLL).await;
    }
}

/// Waits until everything expected has been received, or it takes too long.
async fn wait_for_arrival(expected: &Expected, tally: &SharedTally) -> Report {
    let deadline = Instant::now() + ARRIVAL_TIMEOUT;
    loop {
        let report = expected.compare(&tally.lock().received);
        if report.lost == 0 || Instant::now() > deadline {
            return report;
        }
        sleep(POLL).await;
    }
}

/// Says how it went. Logs are kept where something went wrong.
fn conclude(outcome: anyhow::Result<Option<Outcome>>, folder: &Path) -> anyhow::Result<ExitCode> {
    let keep = || format!("the logs are kept in {}", folder.display());
    let remove = || std::fs::remove_dir_all(folder);
    match outcome {
        Ok(Some(Outcome { report, p99_ms })) => {
            let good = report.lost == 0 && report.reordered == 0;
            if good {
                // What is left of it does no harm.
                let _ = remove();
            } else {
                output::note(keep());
                output::note(format_args!(
                    "lost, among others: {}",
                    report.examples.join(", ")
                ));
            }
            output::note(format_args!(
                "{} duplicates removed, {} lost events without an announced gap",
                report.duplicates, report.lost_silently
            ));
            output::line(format_args!(
                "demo: {} events, {} lost, {} reordered, p99 {p99_ms:.1} ms",
                report.events, report.lost, report.reordered
            ))?;
            Ok(if good {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Ok(None) => {
            let _ = remove();
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(error.context(keep())),
    }
}
