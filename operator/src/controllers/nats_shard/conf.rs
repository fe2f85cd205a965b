//! The text of nats.conf.

use std::fmt::{self, Write as _};

use super::credentials::{CLIENT, Credentials, FORWARDER, OPERATOR, ROUTE};
use super::validate::ValidShard;
use crate::digest::digest;

/// Port for clients.
pub const CLIENT_PORT: u16 = 4222;

/// Port for the other nodes.
pub const CLUSTER_PORT: u16 = 6222;

/// Port for monitoring.
pub const MONITOR_PORT: u16 = 8222;

/// Directory of the TLS files.
pub const TLS_DIRECTORY: &str = "/etc/nats/tls";

/// The configuration of every node of a shard. A node's own name and address come from its environment, so that all
/// have the same.
#[derive(Clone, PartialEq, Eq)]
pub struct Conf {
    /// nats.conf.
    pub text: String,
    /// Tells it from any other. A node says on its monitoring port which one it runs, as one of its tags: nothing else
    /// proves that a changed file has arrived and was taken in.
    pub digest: String,
}

/// Passwords stay out of logs.
impl fmt::Debug for Conf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Conf").field(&self.digest).finish()
    }
}

/// What a node's tag with the digest of its configuration begins with.
pub const DIGEST_TAG: &str = "config:";

impl Conf {
    /// The configuration of a shard whose nodes are reached under `hosts`.
    #[must_use]
    pub fn of(shard: &ValidShard, hosts: &[String], credentials: &Credentials) -> Self {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write_conf(&mut text, shard, hosts, credentials);
        let digest = digest(&text);
        let _ = writeln!(text, "server_tags: [\"{DIGEST_TAG}{digest}\"]");
        Self { text, digest }
    }
}

/// Settings that nats-server takes in at its start only.
const AT_START: [&str; 7] = [
    "server_name:",
    "host:",
    "port:",
    "http_port:",
    "max_pending:",
    "lame_duck_",
    "disable_sublist_cache:",
];

/// Whether a change from one nats.conf to another takes a restart.
#[must_use]
pub fn takes_restart(before: &str, after: &str) -> bool {
    let at_start = |text: &'static str| move |line: &&str| line.starts_with(text);
    AT_START.into_iter().any(|setting| {
        let (old, new) = (before.lines(), after.lines());
        old.filter(at_start(setting))
            .ne(new.filter(at_start(setting)))
    })
}

fn write_conf(
    out: &mut String,
    shard: &ValidShard,
    hosts: &[String],
    credentials: &Credentials,
) -> std::fmt::Result {
    let config = &shard.config;
    writeln!(out, "server_name: $POD_NAME")?;
    writeln!(out, "host: $BIND_ADDRESS")?;
    writeln!(out, "port: {CLIENT_PORT}")?;
    writeln!(out, "http_port: {MONITOR_PORT}")?;
    writeln!(out, "max_payload: {}", config.max_payload)?;
    writeln!(out, "max_pending: {}", config.max_pending)?;
    writeln!(out, "max_connections: {}", config.max_connections)?;
    writeln!(out, "lame_duck_duration: \"{}s\"", config.lame_duck_seconds)?;
    writeln!(
        out,
        "lame_duck_grace_period: \"{LAME_DUCK_GRACE_SECONDS}s\""
    )?;
    writeln!(
        out,
        "# A slow client is disconnected; it never holds back the forwarders."
    )?;
    writeln!(out, "no_fast_producer_stall: true")?;
    writeln!(
        out,
        "# It holds 1,024 subjects; a factory has more by far, so that looking into it and clearing it up is all it would do."
    )?;
    writeln!(out, "disable_sublist_cache: true")?;
    write_users(out, shard, credentials)?;
    if shard.tls.is_some() {
        writeln!(out, "tls {{")?;
        writeln!(out, "  cert_file: \"{TLS_DIRECTORY}/tls.crt\"")?;
        writeln!(out, "  key_file: \"{TLS_DIRECTORY}/tls.key\"")?;
        writeln!(out, "}}")?;
    }
    write_cluster(out, shard, hosts, credentials)
}

/// How long clients may move by themselves before a stopping node sends them away one by one.
const LAME_DUCK_GRACE_SECONDS: u32 = 5;

fn write_users(
    out: &mut String,
    shard: &ValidShard,
    credentials: &Credentials,
) -> std::fmt::Result {
    let Credentials {
        forwarder,
        client,
        operator,
        route: _,
    } = credentials;
    writeln!(out, "authorization {{")?;
    writeln!(out, "  users: [")?;
    // To publish is not named: what is not named is allowed. A node would check each message against even the widest
    // rule, and remembers the outcome for 128 subjects only.
    writeln!(
        out,
        "    {{ user: {FORWARDER}, password: \"{forwarder}\", permissions: {{ subscribe: \"_OFA.>\" }} }}"
    )?;
    writeln!(
        out,
        "    {{ user: {CLIENT}, password: \"{client}\", permissions: {{ publish: {{ deny: \">\" }}, subscribe: \">\" }} }}"
    )?;
    writeln!(out, "  ]")?;
    writeln!(out, "}}")?;
    writeln!(
        out,
        "# Whoever may ask a node to take in its changed configuration."
    )?;
    writeln!(
        out,
        "accounts {{ $SYS {{ users: [ {{ user: {OPERATOR}, password: \"{operator}\" }} ] }} }}"
    )?;
    if shard.auth.anonymous_clients {
        writeln!(out, "no_auth_user: {CLIENT}")?;
    }
    Ok(())
}

fn write_cluster(
    out: &mut String,
    shard: &ValidShard,
    hosts: &[String],
    credentials: &Credentials,
) -> std::fmt::Result {
    let route = &credentials.route;
    writeln!(out, "cluster {{")?;
    writeln!(out, "  name: \"{}\"", shard.ring_name)?;
    writeln!(out, "  host: $BIND_ADDRESS")?;
    writeln!(out, "  port: {CLUSTER_PORT}")?;
    writeln!(
        out,
        "  authorization {{ user: {ROUTE}, password: \"{route}\" }}"
    )?;
    writeln!(out, "  routes: [")?;
    for host in hosts {
        writeln!(
            out,
            "    \"nats-route://{ROUTE}:{route}@{host}:{CLUSTER_PORT}\""
        )?;
    }
    writeln!(out, "  ]")?;
    writeln!(out, "}}")
}
