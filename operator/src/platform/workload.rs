//! What a platform is asked to run: plain data in nobody's words.
//!
//! A backend destructures every field, so that a new one breaks its build; what it cannot do is a typed
//! [`Unsupported`](super::PlatformError::Unsupported), never passed over.

use std::collections::BTreeMap;
use std::fmt;

use ofa_crds::api::{Resources, Spread};
use serde::{Deserialize, Serialize};

/// Which workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkloadId {
    /// Namespace; two namespaces know nothing of each other's names.
    pub namespace: String,
    /// Name, unique in the namespace.
    pub name: String,
}

impl WorkloadId {
    /// The workload `name` of `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Name of the instance with this ordinal.
    #[must_use]
    pub fn instance(&self, ordinal: u16) -> String {
        format!("{}-{ordinal}", self.name)
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The resource a workload is run for. What it no longer asks for is removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// Kind of the resource.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its unique id: a resource made anew under an old name is another owner.
    pub uid: String,
}

/// Programs to keep running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Which one.
    pub id: WorkloadId,
    /// For whom.
    pub owner: Owner,
    /// Differs when users have chosen something else: see [`Workload`]'s builders. While it stays the same, a
    /// platform that is meant to run for years replaces no instance only because a newer operator would build it in
    /// another way, and says so in [`WorkloadState::held_back`](super::WorkloadState::held_back).
    pub chosen: String,
    /// Whether instances are alike or each is itself.
    pub kind: WorkloadKind,
    /// Container image; where there are no containers its base name names the program.
    pub image: String,
    /// Program in place of the image's own; empty for the image's own.
    pub command: Vec<String>,
    /// Arguments. `$(NAME)` stands for a variable of `env`, `$$(` for a plain `$(`.
    pub args: Vec<String>,
    /// Environment, in order: a value may refer to variables before it.
    pub env: Vec<EnvVar>,
    /// Files put before the program starts.
    pub files: Vec<MountedFile>,
    /// Ports it listens on.
    pub ports: Vec<Port>,
    /// How its state is asked for.
    pub probes: Probes,
    /// How many instances.
    pub replicas: u16,
    /// How they lie over the hosts.
    pub spread: Spread,
    /// CPU and memory of each.
    pub resources: Resources,
    /// How an instance is stopped.
    pub stop: Stop,
    /// How a change reaches running instances.
    pub update: UpdateStrategy,
    /// Names under which others of the namespace reach the instances.
    pub services: Vec<ServiceName>,
}

/// Whether instances are alike or each is itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkloadKind {
    /// Any instance may take another's place.
    Stateless {
        /// Directory for passing data, empty at every start.
        scratch: Option<String>,
    },
    /// Each instance keeps its name, its address and its data. Two live processes of one identity
    /// never exist at a time.
    Stateful {
        /// Directory that outlives the instance's processes.
        data: Option<DataVolume>,
    },
}

/// Lasting storage of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataVolume {
    /// Where the program sees it.
    pub path: String,
    /// Size asked for, as a Kubernetes quantity. `None`: as much as there is, lost with the host.
    pub size: Option<String>,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value.
    pub value: EnvValue,
}

impl EnvVar {
    /// A variable with this text.
    pub fn text(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: EnvValue::Text(value.into()),
        }
    }

    /// A variable with a value of another kind.
    pub fn of(name: impl Into<String>, value: EnvValue) -> Self {
        Self {
            name: name.into(),
            value,
        }
    }
}

/// Where a variable's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnvValue {
    /// This text.
    Text(String),
    /// The instance's address.
    PodIp,
    /// The instance's name.
    PodName,
    /// The address to listen on so that others reach the instance: every address where an instance
    /// has a network of its own, the instance's own where they share one.
    BindAddress,
    /// A value of a secret.
    Secret(SecretKey),
}

/// One value of a secret of the workload's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretKey {
    /// Name of the secret.
    pub secret: String,
    /// Key in the secret.
    pub key: String,
}

/// A file put before the program starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedFile {
    /// Absolute path as the program sees it.
    pub path: String,
    /// What is in it.
    pub content: FileContent,
}

/// What is in a file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileContent {
    /// Text anybody may read.
    Plain(String),
    /// Text with passwords in it: stored as secrets are.
    Sensitive(String),
    /// The same of a program that takes in a changed file when told to. A platform that can puts the change under
    /// running instances, which stay current; elsewhere it makes them outdated as any other change does.
    Live(String),
    /// A value of a secret; a file is left out where the key is optional and missing.
    Secret {
        /// Which value.
        key: SecretKey,
        /// Whether the key may be missing.
        optional: bool,
    },
}

/// Sensitive text stays out of logs.
impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.debug_tuple("Plain").field(text).finish(),
            Self::Sensitive(_) => f.write_str("Sensitive(..)"),
            Self::Live(_) => f.write_str("Live(..)"),
            Self::Secret { key, .. } => f.debug_tuple("Secret").field(key).finish(),
        }
    }
}

/// A port a program listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name, unique in the workload.
    pub name: String,
    /// Port number.
    pub port: u16,
    /// Port of the host that leads to it, if it is to be reached from outside.
    pub host_port: Option<u16>,
}

impl Port {
    /// A port for the other instances only.
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        Self {
            name: name.into(),
            port,
            host_port: None,
        }
    }
}

/// How an instance's state is asked for. All as Kubernetes means them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    /// Until it succeeds the others are not asked.
    pub startup: Option<Probe>,
    /// Whether the instance may be used; without it a running instance is ready.
    pub readiness: Option<Probe>,
    /// When it fails the instance is restarted.
    pub liveness: Option<Probe>,
}

/// One question to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked.
    pub check: Check,
    /// Seconds after the start before the first question.
    pub initial_delay: u32,
    /// Seconds between questions.
    pub period: u32,
    /// Seconds to wait for an answer.
    pub timeout: u32,
    /// Failures in a row that count as failed.
    pub failure_threshold: u32,
}

impl Probe {
    /// A question asked every `period` seconds, failed after three failures.
    #[must_use]
    pub fn every(period: u32, check: Check) -> Self {
        Self {
            check,
            initial_delay: 0,
            period,
            timeout: 5,
            failure_threshold: 3,
        }
    }

    /// `GET path`, asked every `period` seconds.
    #[must_use]
    pub fn http(period: u32, port: u16, path: &str) -> Self {
        let path = path.to_owned();
        Self::every(period, Check::Http { port, path })
    }
}

impl Probes {
    /// Those of a program that says by HTTP whether it may be used (`ready`: how often it is asked in seconds, and the
    /// path) and whether it lives.
    #[must_use]
    pub fn of_program(port: u16, (period, ready): (u32, &str), live: &str) -> Self {
        Self {
            startup: None,
            readiness: Some(Probe::http(period, port, ready)),
            liveness: Some(Probe {
                initial_delay: 10,
                ..Probe::http(10, port, live)
            }),
        }
    }
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// `GET path`; 200 to 399 is good.
    Http {
        /// Port of the instance.
        port: u16,
        /// Path with query.
        path: String,
    },
    /// A connection can be opened.
    Tcp {
        /// Port of the instance.
        port: u16,
    },
    /// The command, in the instance's environment, ends with 0.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// How an instance is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// What it is sent first.
    pub signal: StopSignal,
    /// Seconds until it is killed.
    pub grace_seconds: u32,
}

impl Default for Stop {
    /// Kubernetes' defaults.
    fn default() -> Self {
        Self {
            signal: StopSignal::Term,
            grace_seconds: 30,
        }
    }
}

/// A signal that asks a program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopSignal {
    /// SIGTERM.
    Term,
    /// SIGUSR2: lame duck mode of nats-server.
    Usr2,
}

/// How a change reaches running instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateStrategy {
    /// The platform restarts one instance at a time and waits until it is ready.
    Rolling,
    /// Instances keep running as they are until
    /// [`restart`](super::DeploymentPlatform::restart) names them.
    Gated,
}

/// A name under which instances are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceName {
    /// Name, unique among the namespace's services.
    pub name: String,
    /// Whether the name stands for the instances themselves (and `<instance>.<name>` for one of
    /// them) rather than for one address in front of them.
    pub headless: bool,
    /// Service ports by name: the port others use and the port of the instance.
    pub ports: Vec<ServicePort>,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Name.
    pub name: String,
    /// Port others use.
    pub port: u16,
    /// Port of the instance.
    pub target: u16,
}

/// Name of a secret in its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretId {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl SecretId {
    /// The secret `name` of `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// Values of a secret by their keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData(pub BTreeMap<String, String>);

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
