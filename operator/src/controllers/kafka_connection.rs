//! How a resource reaches Kafka: for the operator itself and for the instances it runs.

use std::io;
use std::path::Path;

use ofa_crds::api::{KafkaConnection, SaslMechanism};
use ofa_crds::kafka::KafkaSettings;

use crate::platform::local::store::write_file;
use crate::platform::{
    DeploymentPlatform, EnvVar, FileContent, MountedFile, PlatformError, SecretId, SecretKey,
};

/// Where instances find the files for TLS and SASL.
const DIRECTORY: &str = "/etc/ofa/kafka";

/// Environment and files by which instances reach Kafka. What the resource leaves out is the operator's.
/// `client_certificate` says whether the TLS secret holds one.
#[must_use]
pub fn for_instances(
    connection: &KafkaConnection,
    defaults: &KafkaSettings,
    client_certificate: bool,
) -> (Vec<EnvVar>, Vec<MountedFile>) {
    let KafkaConnection {
        bootstrap_servers,
        tls,
        sasl,
    } = connection;
    let brokers = bootstrap_servers.as_deref().unwrap_or(&defaults.brokers);
    let mut env = vec![EnvVar::text("KAFKA_BROKER", brokers)];
    let mut files = Vec::new();
    if let Some(protocol) = security_protocol(connection) {
        env.push(EnvVar::text("KAFKA_SECURITY_PROTOCOL", protocol));
    }
    if let Some(secret) = tls.as_ref().and_then(|tls| tls.secret_name.as_ref()) {
        env.push(EnvVar::text(
            "KAFKA_SSL_CA_FILE",
            format!("{DIRECTORY}/ca.crt"),
        ));
        files.push(secret_file(secret, "ca.crt"));
        if client_certificate {
            env.push(EnvVar::text(
                "KAFKA_SSL_CERT_FILE",
                format!("{DIRECTORY}/tls.crt"),
            ));
            env.push(EnvVar::text(
                "KAFKA_SSL_KEY_FILE",
                format!("{DIRECTORY}/tls.key"),
            ));
            files.push(secret_file(secret, "tls.crt"));
            files.push(secret_file(secret, "tls.key"));
        }
    }
    if let Some(sasl) = sasl {
        env.push(EnvVar::text(
            "KAFKA_SASL_MECHANISM",
            mechanism(sasl.mechanism),
        ));
        env.push(EnvVar::of(
            "KAFKA_SASL_USERNAME",
            crate::platform::EnvValue::Secret(SecretKey {
                secret: sasl.secret_name.clone(),
                key: "username".to_owned(),
            }),
        ));
        env.push(EnvVar::text(
            "KAFKA_SASL_PASSWORD_FILE",
            format!("{DIRECTORY}/password"),
        ));
        files.push(secret_file(&sasl.secret_name, "password"));
    }
    (env, files)
}

/// Whether the TLS secret of a connection holds a client certificate.
///
/// # Errors
/// When the secret cannot be read.
pub async fn has_client_certificate(
    connection: &KafkaConnection,
    namespace: &str,
    platform: &dyn DeploymentPlatform,
) -> Result<bool, PlatformError> {
    let Some(name) = connection
        .tls
        .as_ref()
        .and_then(|tls| tls.secret_name.as_ref())
    else {
        return Ok(false);
    };
    let secret = platform
        .secret(&SecretId::new(namespace, name.as_str()))
        .await?;
    Ok(secret.is_some_and(|data| data.0.contains_key("tls.crt")))
}

/// Settings by which the operator itself reaches the same Kafka. Passwords and certificates are laid
/// down in `directory`, readable by the operator only.
///
/// # Errors
/// When a secret is missing or a file cannot be written.
pub async fn for_operator(
    connection: &KafkaConnection,
    defaults: &KafkaSettings,
    namespace: &str,
    platform: &dyn DeploymentPlatform,
    directory: &Path,
) -> Result<KafkaSettings, PlatformError> {
    let Some(bootstrap_servers) = &connection.bootstrap_servers else {
        return Ok(defaults.clone());
    };
    let brokers = platform.resolve(namespace, bootstrap_servers).await;
    let mut settings = KafkaSettings::plain(brokers);
    settings.security_protocol = security_protocol(connection).map(str::to_owned);
    if let Some(name) = connection
        .tls
        .as_ref()
        .and_then(|tls| tls.secret_name.as_ref())
    {
        let secret = SecretFilesFor {
            namespace,
            name,
            platform,
            directory,
        };
        settings.ssl_ca_file = secret.lay_down("ca.crt").await?;
        settings.ssl_cert_file = secret.lay_down("tls.crt").await?;
        settings.ssl_key_file = secret.lay_down("tls.key").await?;
    }
    if let Some(sasl) = &connection.sasl {
        let secret = SecretFilesFor {
            namespace,
            name: &sasl.secret_name,
            platform,
            directory,
        };
        settings.sasl_mechanism = Some(mechanism(sasl.mechanism).to_owned());
        settings.sasl_username = secret.value("username").await?;
        settings.sasl_password_file = secret.lay_down("password").await?;
    }
    Ok(settings)
}

fn security_protocol(connection: &KafkaConnection) -> Option<&'static str> {
    match (connection.tls.is_some(), connection.sasl.is_some()) {
        (true, true) => Some("SASL_SSL"),
        (true, false) => Some("SSL"),
        (false, true) => Some("SASL_PLAINTEXT"),
        (false, false) => None,
    }
}

const fn mechanism(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::Plain => "PLAIN",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
    }
}

fn secret_file(secret: &str, key: &str) -> MountedFile {
    MountedFile {
        path: format!("{DIRECTORY}/{key}"),
        content: FileContent::Secret {
            key: SecretKey {
                secret: secret.to_owned(),
                key: key.to_owned(),
            },
            optional: false,
        },
    }
}

struct SecretFilesFor<'a> {
    namespace: &'a str,
    name: &'a str,
    platform: &'a dyn DeploymentPlatform,
    directory: &'a Path,
}

impl SecretFilesFor<'_> {
    async fn value(&self, key: &str) -> Result<Option<String>, PlatformError> {
        let id = SecretId::new(self.namespace, self.name);
        let Some(data) = self.platform.secret(&id).await? else {
            return Err(PlatformError::MissingSecret(
                format!("{}/{}", self.namespace, self.name),
                "create it with the keys that spec.kafka describes".to_owned(),
            ));
        };
        Ok(data.0.get(key).cloned())
    }

    async fn lay_down(&self, key: &str) -> Result<Option<std::path::PathBuf>, PlatformError> {
        let Some(value) = self.value(key).await? else {
            return Ok(None);
        };
        let path = self
            .directory
            .join(self.namespace)
            .join(self.name)
            .join(key);
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| {
                if std::fs::read(&path).is_ok_and(|old| old == value.as_bytes()) {
                    return Ok(());
                }
                write_file(&path, value.as_bytes(), 0o600)
            });
        written
            .map(|()| Some(path))
            .map_err(|error: io::Error| PlatformError::Failed {
                what: format!("write {key} of secret {} for the operator", self.name),
                why: error.to_string(),
            })
    }
}
