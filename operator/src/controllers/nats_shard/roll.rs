//! Takes one step of a change through the gate: restarts a node, or has it take in its changed configuration.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ofa_crds::api::{AcceptedConfig, NatsShardStatus, RefusedConfig};

use super::build::build;
use super::config::InForce;
use super::credentials::Credentials;
use super::gate::{Gate, gate, unsettled};
use super::node::{self, NodeView, ask_all};
use super::reload::{Address, ReloadError, reload};
use crate::controllers::Context;
use crate::controllers::conditions::{Outcome, Progress};
use crate::platform::{InstanceState, PlatformError, SecretId, WorkloadState};

/// Between two looks at the clients: long enough for those of a node that has gone to come to another one.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);

/// Clients that are still on the move after this long always are, and hold up a change no longer.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(5);

/// A change to a shard's nodes.
pub(super) struct Roll<'a> {
    pub(super) in_force: &'a InForce,
    pub(super) hosts: &'a [String],
    pub(super) credentials: &'a Credentials,
    pub(super) status: Option<&'a NatsShardStatus>,
    pub(super) context: &'a Context<'a>,
}

/// What a step has come to.
pub(super) struct Step {
    pub(super) outcome: Outcome,
    pub(super) news: News,
}

/// What is noted in the status for the next step.
pub(super) enum News {
    /// All nodes run the configuration in force.
    Accepted(AcceptedConfig),
    /// A node has refused the one asked for.
    Refused(RefusedConfig),
    /// Clients are on the move.
    ClientsMove,
    /// Nothing.
    None,
}

impl From<Outcome> for Step {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            news: News::None,
        }
    }
}

impl Roll<'_> {
    /// Does what the gate lets happen now. `outcome` is what the instances say.
    pub(super) async fn step(
        &self,
        state: &WorkloadState,
        outcome: Outcome,
    ) -> Result<Step, PlatformError> {
        if let Some(instance) = self.fails_since_the_change(state) {
            let why = instance.message.as_deref().unwrap_or("it does not start");
            return self.go_back(state, instance, why).await;
        }
        let nodes = ask_all(state, self.context.http).await;
        let next = gate(state, &nodes, &self.in_force.conf.digest);
        if let Gate::Restart(_) | Gate::Reload(_) = next
            && let Some(why) = self.clients_move(state, &nodes).await
        {
            return Ok(Step {
                outcome: Outcome::under_way("ClientsNotSettled", why),
                news: News::ClientsMove,
            });
        }
        match next {
            Gate::Whole => Ok(Step {
                outcome: self.whole(outcome),
                news: News::Accepted(self.in_force.accepted()),
            }),
            Gate::Refuse(message) => Ok(Outcome::stalled("VersionRefused", message).into()),
            Gate::Wait(_) if outcome.state == Progress::Stalled => Ok(outcome.into()),
            Gate::Wait(why) => Ok(Outcome::under_way("NodesNotReady", why).into()),
            Gate::Replace(ordinal) | Gate::Restart(ordinal) => {
                let name = state.id.instance(ordinal);
                let message = format!("{name} restarts with what has changed");
                self.restart(state, ordinal, message).await
            }
            Gate::Reload(ordinal) => self.take_in(state, &nodes, ordinal, outcome).await,
        }
    }

    fn whole(&self, outcome: Outcome) -> Outcome {
        match &self.in_force.refused {
            None => outcome,
            Some(refused) => Outcome::stalled("ConfigRefused", refusal(refused)).serving(true),
        }
    }

    async fn restart(
        &self,
        state: &WorkloadState,
        ordinal: u16,
        message: String,
    ) -> Result<Step, PlatformError> {
        self.context.platform.restart(&state.id, ordinal).await?;
        Ok(Outcome::under_way("RollingUpdate", message).into())
    }

    /// Where clients are on the move, unless they have been for so long that they always are.
    async fn clients_move(&self, state: &WorkloadState, before: &[NodeView]) -> Option<String> {
        let since = self.status?.clients_moving_since.as_ref();
        let since = since.and_then(|since| since.parse::<Timestamp>().ok());
        if since.is_some_and(|since| Timestamp::now().duration_since(since) >= LONGEST_WAIT) {
            return None;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        unsettled(before, &ask_all(state, self.context.http).await)
    }

    async fn take_in(
        &self,
        state: &WorkloadState,
        nodes: &[NodeView],
        ordinal: u16,
        outcome: Outcome,
    ) -> Result<Step, PlatformError> {
        let instance = state.instances.iter().find(|i| i.ordinal == ordinal);
        let node = nodes.iter().find(|node| node.ordinal == ordinal);
        let (Some(instance), Some(node)) = (instance, node) else {
            return Ok(outcome.into());
        };
        let name = &instance.name;
        match self.ask(instance, node).await? {
            Ok(()) => Ok(self.verify(instance).await.into()),
            Err(ReloadError::Unreachable(why)) => {
                let message = format!("{name} cannot be asked to take in its configuration: {why}");
                Ok(Outcome::under_way("NodesNotReady", message).into())
            }
            Err(ReloadError::Refused(why)) => self.go_back(state, instance, &why).await,
            Err(ReloadError::NotReloadable(_)) if self.in_force.unchanged => {
                let why =
                    "this operator would configure its nodes in another way, which takes a restart";
                Ok(outcome.rollout_pending(why.to_owned()).into())
            }
            Err(error @ (ReloadError::NotReloadable(_) | ReloadError::NoAccess(_))) => {
                let message = format!("{name} restarts for its changed configuration: {error}");
                self.restart(state, ordinal, message).await
            }
        }
    }

    async fn ask(
        &self,
        instance: &InstanceState,
        node: &NodeView,
    ) -> Result<Result<(), ReloadError>, PlatformError> {
        let shard = &self.in_force.shard;
        let authority = match &shard.tls {
            None => None,
            Some(tls) => {
                let namespace = shard.identity.namespace.as_str();
                let id = SecretId::new(namespace, tls.secret_name.as_str());
                let data = self.context.platform.secret(&id).await?.unwrap_or_default();
                data.0.get("ca.crt").cloned()
            }
        };
        let name = self.hosts.get(usize::from(instance.ordinal));
        let name = name.map_or(instance.host.as_str(), String::as_str);
        let tls = shard
            .tls
            .as_ref()
            .map(|_| (name, authority.as_deref().unwrap_or_default()));
        let host = instance.host.as_str();
        Ok(reload(node, &Address { host, tls }, self.credentials).await)
    }

    /// What a node says it runs after it was asked to take in its file: the file may not have arrived yet.
    async fn verify(&self, instance: &InstanceState) -> Outcome {
        let name = &instance.name;
        let now = node::ask(instance, self.context.http).await;
        let runs = now.and_then(|node| node.config);
        if runs.as_ref() == Some(&self.in_force.conf.digest) {
            let message =
                format!("{name} has taken in the changed configuration; the next node follows");
            return Outcome::under_way("ConfigReload", message);
        }
        let message = format!(
            "the changed configuration is on its way to {name}; {} brings files to running nodes within two minutes",
            self.context.platform.name()
        );
        Outcome::under_way("ConfigPending", message)
    }

    /// A node that does not come up with settings that users have just changed.
    fn fails_since_the_change<'s>(&self, state: &'s WorkloadState) -> Option<&'s InstanceState> {
        self.in_force.before.as_ref()?;
        let mut instances = state.instances.iter();
        instances.find(|instance| instance.stuck && instance.current)
    }

    /// Puts the configuration before back in force, at once: a node that restarts meanwhile starts with it.
    async fn go_back(
        &self,
        state: &WorkloadState,
        instance: &InstanceState,
        why: &str,
    ) -> Result<Step, PlatformError> {
        let refused = self.in_force.refusal(&instance.name, why);
        if self.in_force.before.is_some() {
            let status = NatsShardStatus {
                refused_config: Some(refused.clone()),
                ..self.status.cloned().unwrap_or_default()
            };
            let back = InForce::of(
                self.in_force.asked(),
                self.hosts,
                self.credentials,
                Some(&status),
            );
            let workload = build(&back.shard, &back.conf);
            self.context.platform.ensure(&workload).await?;
            if instance.stuck {
                self.context
                    .platform
                    .restart(&state.id, instance.ordinal)
                    .await?;
            }
        }
        Ok(Step {
            outcome: Outcome::stalled("ConfigRefused", refusal(&refused)),
            news: News::Refused(refused),
        })
    }
}

fn refusal(refused: &RefusedConfig) -> String {
    let RefusedConfig { node, message, .. } = refused;
    format!(
        "{node} refuses the changed configuration: {message}; the nodes keep the one before, correct spec.config"
    )
}
