//! What a pool's forwarders show to each shard, in one file that is changed under them: a new shard takes no new forwarders.

use ofa_crds::{ShardAccess, ShardAccessFile};

use super::map::Candidate;
use crate::controllers::nats_shard::credentials::{FORWARDER, FORWARDER_NAME_KEY, secret_name};
use crate::platform::{DeploymentPlatform, PlatformError, SecretData, SecretId};

/// Key of the authorities in a shard's TLS secret.
const AUTHORITIES: &str = "ca.crt";

/// The file, as the shards' secrets have it now.
///
/// # Errors
/// When a shard's secret is missing, lacks a key, or cannot be read.
pub(super) async fn dereference(
    namespace: &str,
    shards: &[Candidate],
    platform: &dyn DeploymentPlatform,
) -> Result<ShardAccessFile, PlatformError> {
    let mut file = ShardAccessFile::default();
    for candidate in shards {
        let Some(shard) = &candidate.shard else {
            continue;
        };
        let secret = SecretId::new(namespace, secret_name(&candidate.resource));
        let user = platform.secret(&secret).await?;
        let authorities = match &candidate.tls_secret {
            Some(name) => platform.secret(&SecretId::new(namespace, name)).await?,
            None => None,
        };
        let access = access(&secret, user, authorities)?;
        file.0.insert(shard.name.clone(), access);
    }
    Ok(file)
}

fn access(
    secret: &SecretId,
    user: Option<SecretData>,
    authorities: Option<SecretData>,
) -> Result<ShardAccess, PlatformError> {
    let mut user = user.unwrap_or_default().0;
    let mut take = |key: &str| {
        user.remove(key).ok_or_else(|| {
            PlatformError::MissingSecret(
                format!("{}/{}", secret.namespace, secret.name),
                format!("it has no key {key}, which forwarders need; delete the secret so that it is made anew"),
            )
        })
    };
    Ok(ShardAccess {
        username: take(FORWARDER_NAME_KEY)?,
        password: take(FORWARDER)?,
        ca_certificate: authorities.and_then(|mut data| data.0.remove(AUTHORITIES)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(entries: &[(&str, &str)]) -> Option<SecretData> {
        let entries = entries.iter();
        let owned = entries.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Some(SecretData(owned.collect()))
    }

    #[test]
    fn what_is_missing_is_named() {
        let secret = SecretId::new("n", "line-1-nats-auth");
        let whole = data(&[
            ("username", "forwarder"),
            ("forwarder", "p"),
            ("client", "c"),
        ]);
        let found = access(&secret, whole.clone(), data(&[("ca.crt", "PEM")])).unwrap();
        assert_eq!(
            (found.username.as_str(), found.password.as_str()),
            ("forwarder", "p")
        );
        assert_eq!(found.ca_certificate.as_deref(), Some("PEM"));
        let without = access(&secret, whole, data(&[("tls.crt", "PEM")])).unwrap();
        assert_eq!(without.ca_certificate, None);
        let missing = access(&secret, data(&[("username", "forwarder")]), None).unwrap_err();
        assert!(
            missing.to_string().contains("no key forwarder"),
            "{missing}"
        );
    }
}
