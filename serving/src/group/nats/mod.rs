//! The group's events through NATS, for a service of several instances: each takes in what its own clients watch, and
//! not the whole topic.
//!
//! A ForwarderPool whose source is the group's topic puts it on NATS. For each asset that is watched here there is one
//! subscription of the client library ([`lanes`]), which follows the shard map and asks a replay service for what NATS did
//! not deliver. Each event is encoded once and handed to all who watch the asset ([`lane`]). Offsets and values are
//! the topic's own, so a client may come from another instance, or from the feed that reads the topic, with the id it has
//! ([`super::seen`]). What memory does not have for it is read from Kafka ([`stream`]).

mod inbox;
mod lane;
mod lanes;
mod progress;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use ofa_client::{Client, ClientError, ClientOptions, Credentials, Since};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::hub::Limits;
use super::position::Position;
use super::seen::Seen;
use super::stream::{AHEAD_PATIENCE, AHEAD_POLL, Start};
use crate::metrics::Metrics;
use lanes::Lanes;
pub(super) use stream::{Begun, Sources, events};

/// How long before the replay service is asked again whether it answers.
const RETRY: Duration = Duration::from_secs(1);

/// How long the replay service may take to tell where the topic ends: a request of milliseconds.
const ENDS_PATIENCE: Duration = Duration::from_secs(3);

/// Where the group's events are on NATS
#[derive(Debug, Args)]
#[command(next_help_heading = "NATS")]
pub(in crate::group) struct NatsArgs {
    /// Router of the ForwarderPool whose source is the group's topic: events then come through NATS, one subscription for each asset
    /// that is watched here, and the topic is not read for them. The router has to name a replay service
    // Not ASSET_ROUTER_URL: in an installation that sets this for all programs it leads to the pool of all assets.
    #[arg(
        id = "nats_router",
        long = "nats-router",
        env = "NATS_ROUTER_URL",
        value_name = "URL"
    )]
    router: Option<String>,
    /// User on NATS, where anonymous clients are not allowed
    #[arg(
        id = "nats_user",
        long = "nats-user",
        env = "NATS_USER",
        value_name = "NAME",
        requires = "nats_password_file"
    )]
    user: Option<String>,
    /// File with that user's password
    #[arg(
        id = "nats_password_file",
        long = "nats-password-file",
        env = "NATS_PASSWORD_FILE",
        value_name = "PATH"
    )]
    password_file: Option<std::path::PathBuf>,
}

impl NatsArgs {
    /// The client library's way to the events, where one is named. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// When the password cannot be read or no HTTP client be made.
    pub(super) fn client(&self, name: String) -> anyhow::Result<Option<Client>> {
        let Some(router) = self.router.as_deref().filter(|url| !url.is_empty()) else {
            return Ok(None);
        };
        let credentials = self.credentials()?;
        let options = ClientOptions {
            name,
            credentials,
            ..ClientOptions::default()
        };
        Ok(Some(Client::with_options(router, options)?))
    }

    fn credentials(&self) -> anyhow::Result<Option<Credentials>> {
        let (Some(user), Some(path)) = (&self.user, &self.password_file) else {
            return Ok(None);
        };
        let password = std::fs::read_to_string(path).with_context(|| {
            let path = path.display();
            format!("cannot read the password from {path} (NATS_PASSWORD_FILE)")
        })?;
        Ok(Some(Credentials {
            user: user.clone(),
            password: password.trim_end_matches(['\r', '\n']).to_owned(),
        }))
    }
}

/// Why clients cannot be served; `None` when they can.
type Trouble = Option<String>;

/// The feed.
#[derive(Clone)]
pub(super) struct NatsFeed {
    client: Client,
    topic: Arc<str>,
    lanes: Arc<Lanes>,
    trouble: watch::Receiver<Trouble>,
}

impl NatsFeed {
    /// Begins to ask whether there is everything that is needed. Must be called inside a Tokio runtime.
    pub(super) fn start(
        client: Client,
        topic: &str,
        limits: Limits,
        metrics: Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Self {
        let why = "the replay service is not asked yet".to_owned();
        let (says, trouble) = watch::channel(Some(why));
        let lanes = Lanes::new(client.clone(), topic, limits, metrics, says.clone());
        let feed = Self {
            client,
            topic: topic.into(),
            lanes,
            trouble,
        };
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(feed.clone().get_ready(says)),
        );
        feed
    }

    /// Clients are served as soon as a replay service of this topic has answered.
    async fn get_ready(self, says: watch::Sender<Trouble>) {
        loop {
            match self.position().await {
                Ok(position) => {
                    says.send_replace(None);
                    info!(%position, "clients are served through NATS");
                    return;
                }
                Err(why) => {
                    warn!(%why, "events cannot be had through NATS yet; trying on");
                    says.send_replace(Some(why));
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Why clients cannot be served.
    #[must_use]
    pub(super) fn trouble(&self) -> Trouble {
        self.trouble.borrow().clone()
    }

    /// Assets that are subscribed to.
    #[must_use]
    pub(super) fn subscriptions(&self) -> usize {
        self.lanes.count()
    }

    /// Assets' subscriptions, for streams.
    #[must_use]
    pub(super) fn lanes(&self) -> Arc<Lanes> {
        Arc::clone(&self.lanes)
    }

    /// Where the topic ends, by the replay service.
    async fn position(&self) -> Result<Position, String> {
        let ends = tokio::time::timeout(ENDS_PATIENCE, self.client.ends()).await;
        let ends = ends.map_err(|_| "the replay service is silent".to_owned())?;
        position(ends.map_err(|error| explained(&error))?, &self.topic)
    }

    /// Where a client begins. One whose id is ahead of the topic has the id of a topic that is no more.
    ///
    /// # Errors
    /// With why it cannot begin now. One that resumes always can: it waits, and is not refused, since browsers do not
    /// come back after that.
    pub(super) async fn begin(&self, start: Start) -> Result<Begun, String> {
        let asked = tokio::time::Instant::now();
        loop {
            let is_late = asked.elapsed() >= AHEAD_PATIENCE;
            match (self.position().await, &start) {
                (Ok(now), Start::After(seen)) if is_ahead(seen, &now) => {
                    if is_late {
                        return Ok(Begun::anew(now.into()));
                    }
                }
                (_, Start::After(seen)) => return Ok(Begun::after(seen.clone())),
                (Ok(now), _) => return Ok(Begun::now(now.into(), start == Start::Unknown)),
                (Err(why), _) if is_late => return Err(why),
                (Err(_), _) => {}
            }
            tokio::time::sleep(AHEAD_POLL).await;
        }
    }
}

fn is_ahead(seen: &Seen, now: &Position) -> bool {
    (0..seen.partitions()).any(|partition| seen.furthest(partition) > now.next(partition))
}

fn explained(error: &ClientError) -> String {
    format!("events cannot be had through NATS: {error}")
}

/// Ends as a position, if they are of the group's topic.
fn position(ends: Since, topic: &str) -> Result<Position, String> {
    if ends.topic != topic {
        return Err(format!(
            "the router of NATS_ROUTER_URL is of a pool that reads {}; name one whose ForwarderPool has spec.source.topic: {topic}",
            ends.topic
        ));
    }
    let mut position = Position::new(topic, Vec::new());
    for (partition, next) in ends.next {
        position.advance(partition, next);
    }
    Ok(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(topic: &str, next: &[(u32, u64)]) -> Since {
        Since {
            topic: topic.to_owned(),
            next: next.iter().copied().collect(),
        }
    }

    #[test]
    fn a_pool_of_another_topic_is_refused() {
        let found = position(ends("t", &[(0, 5), (2, 7)]), "t").unwrap();
        assert_eq!(found.to_string(), "t/0/4,2/6");
        let error = position(ends("ofa_assets", &[(0, 5)]), "t").unwrap_err();
        assert!(error.contains("spec.source.topic: t"), "{error}");
    }

    #[test]
    fn an_id_of_a_former_topic_is_ahead() {
        let now = Position::new("t", vec![5, 5]);
        let seen = |id: &str| Seen::parse(id).unwrap();
        assert!(!is_ahead(&seen("t/0/4,1/4"), &now));
        assert!(is_ahead(&seen("t/0/5"), &now));
        assert!(is_ahead(&seen("t/2/0"), &now));
        assert!(is_ahead(&seen("t/0/4;0000000000000001/1/5"), &now));
    }
}
