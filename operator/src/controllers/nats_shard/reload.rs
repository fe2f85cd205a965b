//! Asks a node, through NATS itself, to take in its changed configuration.
//!
//! nats-server reads and checks the whole file, as `nats-server -t` does, before it changes anything: an answer that
//! refuses leaves the node as it was. So the check needs no nats-server where the operator runs, and the request no
//! rights in anybody's containers.

use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use thiserror::Error;

use super::conf::CLIENT_PORT;
use super::credentials::{Credentials, OPERATOR};
use super::node::NodeView;

/// A node that serves answers within moments; certificates and users are checked meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// How nats-server begins to say that an option takes a restart.
const NOT_RELOADABLE: &str = "config reload not supported";

/// Why a node has not taken in its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum ReloadError {
    /// An option takes a restart.
    #[error("{0}")]
    NotReloadable(String),
    /// The configuration is wrong; the node goes on with the one it has.
    #[error("{0}")]
    Refused(String),
    /// The node lets the operator in no more, or not yet: it was started with other passwords or certificates.
    #[error("it does not let the operator in: {0}")]
    NoAccess(String),
    /// Nobody answers.
    #[error("it does not answer: {0}")]
    Unreachable(String),
}

/// How a node is reached.
pub(super) struct Address<'a> {
    /// Address of the node.
    pub(super) host: &'a str,
    /// With TLS, the name in its certificate and the authority that has signed it.
    pub(super) tls: Option<(&'a str, &'a str)>,
}

/// Asks one node.
///
/// # Errors
/// With what to do next.
pub(super) async fn reload(
    node: &NodeView,
    address: &Address<'_>,
    credentials: &Credentials,
) -> Result<(), ReloadError> {
    let client = connect(address, credentials).await?;
    let answer = request(&client, &node.id).await;
    let _ = client.drain().await;
    answer
}

async fn request(client: &Client, id: &str) -> Result<(), ReloadError> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<Fault>,
    }
    #[derive(Deserialize)]
    struct Fault {
        description: String,
    }
    let unreachable = |error: &dyn std::fmt::Display| ReloadError::Unreachable(error.to_string());
    let subject = format!("$SYS.REQ.SERVER.{id}.RELOAD");
    let message = client.request(subject, Vec::new().into()).await;
    let message = message.map_err(|error| unreachable(&error))?;
    let answer: Answer =
        serde_json::from_slice(&message.payload).map_err(|error| unreachable(&error))?;
    match answer.error.map(|error| error.description) {
        None => Ok(()),
        Some(why) if why.contains(NOT_RELOADABLE) => Err(ReloadError::NotReloadable(why)),
        Some(why) => Err(ReloadError::Refused(why.trim().to_owned())),
    }
}

async fn connect(address: &Address<'_>, credentials: &Credentials) -> Result<Client, ReloadError> {
    let password = credentials.operator.clone();
    let mut options = ConnectOptions::with_user_and_password(OPERATOR.to_owned(), password)
        .name("openfactory-fanout operator")
        .connection_timeout(PATIENCE)
        .request_timeout(Some(PATIENCE))
        .ignore_discovered_servers()
        .max_reconnects(1);
    let (scheme, host) = match address.tls {
        None => ("nats", address.host),
        Some((name, authority)) => {
            options = options
                .tls_client_config(trust(authority)?)
                .require_tls(true);
            ("tls", name)
        }
    };
    let url = format!("{scheme}://{host}:{CLIENT_PORT}");
    options.connect(url).await.map_err(|error| {
        let why = error.to_string();
        match error.kind() {
            ConnectErrorKind::Authentication
            | ConnectErrorKind::AuthorizationViolation
            | ConnectErrorKind::Tls => ReloadError::NoAccess(why),
            _ => ReloadError::Unreachable(why),
        }
    })
}

fn trust(authority: &str) -> Result<ClientConfig, ReloadError> {
    let wrong = |error: &dyn std::fmt::Display| {
        ReloadError::NoAccess(format!("ca.crt of the TLS secret cannot be read: {error}"))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    Ok(ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth())
}
