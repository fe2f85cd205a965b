//! Settings of a Kafka client, from flags or from OpenFactory's environment variables.

use std::path::{Path, PathBuf};

use clap::Args;
use rdkafka::ClientConfig;
use thiserror::Error;

/// Settings that cannot be used.
#[derive(Debug, Error)]
pub enum KafkaSettingsError {
    /// The password's file cannot be read.
    #[error("cannot read the Kafka password from {path} (KAFKA_SASL_PASSWORD_FILE): {source}")]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SASL without user or password.
    #[error(
        "KAFKA_SASL_MECHANISM is set, so KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD_FILE must be too"
    )]
    IncompleteSasl,
}

/// How to reach Kafka.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaSettings {
    /// Brokers to ask first, `host:port` separated by commas
    #[arg(
        long = "kafka-broker",
        env = "KAFKA_BROKER",
        default_value = "127.0.0.1:9092"
    )]
    pub brokers: String,
    /// PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
    #[arg(long = "kafka-security-protocol", env = "KAFKA_SECURITY_PROTOCOL")]
    pub security_protocol: Option<String>,
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
    #[arg(long = "kafka-sasl-mechanism", env = "KAFKA_SASL_MECHANISM")]
    pub sasl_mechanism: Option<String>,
    /// User for SASL
    #[arg(long = "kafka-sasl-username", env = "KAFKA_SASL_USERNAME")]
    pub sasl_username: Option<String>,
    /// File with the password for SASL
    #[arg(long = "kafka-sasl-password-file", env = "KAFKA_SASL_PASSWORD_FILE")]
    pub sasl_password_file: Option<PathBuf>,
    /// Certificate authority of the brokers (PEM)
    #[arg(long = "kafka-ssl-ca-file", env = "KAFKA_SSL_CA_FILE")]
    pub ssl_ca_file: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long = "kafka-ssl-cert-file", env = "KAFKA_SSL_CERT_FILE")]
    pub ssl_cert_file: Option<PathBuf>,
    /// Key of the client certificate (PEM)
    #[arg(long = "kafka-ssl-key-file", env = "KAFKA_SSL_KEY_FILE")]
    pub ssl_key_file: Option<PathBuf>,
}

impl KafkaSettings {
    /// Plain text to these brokers.
    #[must_use]
    pub fn plain(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            security_protocol: None,
            sasl_mechanism: None,
            sasl_username: None,
            sasl_password_file: None,
            ssl_ca_file: None,
            ssl_cert_file: None,
            ssl_key_file: None,
        }
    }

    /// The settings as librdkafka takes them.
    ///
    /// # Errors
    /// When the password cannot be read or SASL is only half described.
    pub fn client_config(&self) -> Result<ClientConfig, KafkaSettingsError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        // librdkafka's own default of 10 s would hide a restarted broker for that long.
        config.set("reconnect.backoff.max.ms", "1000");
        set(
            &mut config,
            "security.protocol",
            self.security_protocol.as_deref(),
        );
        if let Some(sasl) = self.sasl()? {
            config.set("sasl.mechanism", sasl.mechanism);
            config.set("sasl.username", sasl.user);
            config.set("sasl.password", sasl.password);
        }
        set_path(&mut config, "ssl.ca.location", self.ssl_ca_file.as_deref());
        set_path(
            &mut config,
            "ssl.certificate.location",
            self.ssl_cert_file.as_deref(),
        );
        set_path(
            &mut config,
            "ssl.key.location",
            self.ssl_key_file.as_deref(),
        );
        Ok(config)
    }

    /// Who to say one is; `None` without SASL.
    ///
    /// # Errors
    /// When the password cannot be read or SASL is only half described.
    pub fn sasl(&self) -> Result<Option<SaslCredentials>, KafkaSettingsError> {
        let Some(mechanism) = &self.sasl_mechanism else {
            return Ok(None);
        };
        let (Some(user), Some(path)) = (&self.sasl_username, &self.sasl_password_file) else {
            return Err(KafkaSettingsError::IncompleteSasl);
        };
        let password =
            std::fs::read_to_string(path).map_err(|source| KafkaSettingsError::PasswordFile {
                path: path.clone(),
                source,
            })?;
        Ok(Some(SaslCredentials {
            mechanism: mechanism.clone(),
            user: user.clone(),
            password: password.trim_end_matches(['\r', '\n']).to_owned(),
        }))
    }
}

/// Who one says one is, and how.
#[derive(Clone, Default)]
pub struct SaslCredentials {
    /// As the settings name it.
    pub mechanism: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

fn set(config: &mut ClientConfig, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        config.set(name, value);
    }
}

fn set_path(config: &mut ClientConfig, name: &str, path: Option<&Path>) {
    if let Some(path) = path {
        config.set(name, path.to_string_lossy());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sasl_needs_user_and_password() {
        let mut settings = KafkaSettings::plain("b:9092");
        settings.sasl_mechanism = Some("PLAIN".into());
        assert!(matches!(
            settings.client_config(),
            Err(KafkaSettingsError::IncompleteSasl)
        ));
        settings.sasl_username = Some("u".into());
        settings.sasl_password_file = Some("/does/not/exist".into());
        assert!(matches!(
            settings.client_config(),
            Err(KafkaSettingsError::PasswordFile { .. })
        ));
    }
}
