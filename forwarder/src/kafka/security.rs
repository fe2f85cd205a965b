//! TLS and SASL towards brokers, from the same settings as librdkafka's.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ParseResponseErrorCode as _;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use ofa_crds::kafka::{KafkaSettings, SaslCredentials};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Stream};
use super::error::BrokerError;
use super::scram::{Hash, Scram};
use crate::tls;

/// How to secure a connection, and how to say who one is.
pub(crate) struct Security {
    tls: Option<TlsConnector>,
    sasl: Option<Sasl>,
}

struct Sasl {
    mechanism: Mechanism,
    credentials: SaslCredentials,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    Plain,
    Scram(Hash),
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(Hash::Sha256) => "SCRAM-SHA-256",
            Self::Scram(Hash::Sha512) => "SCRAM-SHA-512",
        }
    }
}

impl Security {
    /// Reads the settings, and the files they name.
    pub(crate) fn new(settings: &KafkaSettings) -> Result<Self, BrokerError> {
        let protocol = settings.security_protocol.as_deref().unwrap_or("PLAINTEXT");
        let (tls, sasl) = match protocol.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => (false, false),
            "SSL" => (true, false),
            "SASL_PLAINTEXT" => (false, true),
            "SASL_SSL" => (true, true),
            other => {
                return Err(BrokerError::Settings {
                    setting: "KAFKA_SECURITY_PROTOCOL",
                    reason: format!(
                        "'{other}' is none of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"
                    ),
                });
            }
        };
        let tls = tls.then(|| tls_config(settings)).transpose()?;
        Ok(Self {
            tls: tls.map(|config| TlsConnector::from(Arc::new(config))),
            sasl: sasl.then(|| Sasl::new(settings)).transpose()?,
        })
    }

    /// Puts TLS over a connection where the settings want it.
    pub(crate) async fn encrypt(
        &self,
        tcp: TcpStream,
        address: &str,
    ) -> Result<Box<dyn Stream>, BrokerError> {
        let Some(tls) = &self.tls else {
            return Ok(Box::new(tcp));
        };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| BrokerError::Settings {
            setting: "KAFKA_BROKER",
            reason: format!("'{host}' is no name that a certificate could have"),
        })?;
        Ok(Box::new(tls.connect(name, tcp).await?))
    }

    /// Says who one is where the settings want it (KIP-43, KIP-152).
    pub(crate) async fn authenticate(
        &self,
        connection: &mut Connection,
    ) -> Result<(), BrokerError> {
        let Some(sasl) = &self.sasl else {
            return Ok(());
        };
        let request = SaslHandshakeRequest::default()
            .with_mechanism(StrBytes::from_static_str(sasl.mechanism.name()));
        let answer = connection.call(&request, 0..=1, Duration::ZERO).await?;
        if answer.error_code.err().is_some() {
            let offered: Vec<&str> = answer.mechanisms.iter().map(StrBytes::as_str).collect();
            return Err(BrokerError::Settings {
                setting: "KAFKA_SASL_MECHANISM",
                reason: format!("the broker offers {} only", offered.join(", ")),
            });
        }
        let SaslCredentials { user, password, .. } = &sasl.credentials;
        match sasl.mechanism {
            Mechanism::Plain => {
                let message = format!("\0{user}\0{password}");
                exchange(connection, message.into_bytes()).await?;
            }
            Mechanism::Scram(hash) => {
                let scram = Scram::new(hash, user, password);
                let challenge = exchange(connection, scram.first().into_bytes()).await?;
                let refused = |reason| BrokerError::Credentials(reason);
                let answer = scram.answer(&challenge).map_err(refused)?;
                let proof = exchange(connection, answer.message.into_bytes()).await?;
                answer.expected.verify(&proof).map_err(refused)?;
            }
        }
        Ok(())
    }
}

async fn exchange(connection: &mut Connection, message: Vec<u8>) -> Result<Bytes, BrokerError> {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
    let answer = connection.call(&request, 0..=2, Duration::ZERO).await?;
    match answer.error_code.err() {
        None => Ok(answer.auth_bytes),
        Some(error) => {
            let said = answer.error_message.map(|message| message.to_string());
            Err(BrokerError::Credentials(
                said.unwrap_or_else(|| error.to_string()),
            ))
        }
    }
}

impl Sasl {
    fn new(settings: &KafkaSettings) -> Result<Self, BrokerError> {
        let credentials = settings.sasl()?.unwrap_or_default();
        let mechanism = match credentials.mechanism.as_str() {
            "PLAIN" => Mechanism::Plain,
            "SCRAM-SHA-256" => Mechanism::Scram(Hash::Sha256),
            "SCRAM-SHA-512" => Mechanism::Scram(Hash::Sha512),
            other => {
                return Err(BrokerError::Settings {
                    setting: "KAFKA_SASL_MECHANISM",
                    reason: format!("'{other}' is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
                });
            }
        };
        Ok(Self {
            mechanism,
            credentials,
        })
    }
}

fn tls_config(settings: &KafkaSettings) -> Result<ClientConfig, BrokerError> {
    let builder = ClientConfig::builder().with_root_certificates(roots(settings)?);
    let (Some(certificate), Some(key)) = (&settings.ssl_cert_file, &settings.ssl_key_file) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain =
        tls::certificates(certificate).map_err(unreadable("KAFKA_SSL_CERT_FILE", certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable("KAFKA_SSL_KEY_FILE", key))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(unreadable("KAFKA_SSL_CERT_FILE", certificate))
}

/// Whom to trust: the authority of the settings, or else those of the system.
fn roots(settings: &KafkaSettings) -> Result<RootCertStore, BrokerError> {
    if let Some(path) = &settings.ssl_ca_file {
        return tls::trust(path).map_err(unreadable("KAFKA_SSL_CA_FILE", path));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Ok(roots)
}

fn unreadable<E: std::fmt::Display>(
    setting: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> BrokerError {
    let path = path.to_owned();
    move |reason| BrokerError::File {
        setting,
        path,
        reason: reason.to_string(),
    }
}
