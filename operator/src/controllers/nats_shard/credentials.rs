//! The generated passwords of a shard: made once, kept for good.

use std::collections::BTreeMap;
use std::fmt;

use super::validate::ValidShard;
use crate::platform::{DeploymentPlatform, PlatformError, SecretData, SecretId};

/// User of the forwarders.
pub const FORWARDER: &str = "forwarder";

/// User of the clients.
pub const CLIENT: &str = "client";

/// User of the nodes among themselves.
pub const ROUTE: &str = "route";

/// User of the operator, in the system account.
pub const OPERATOR: &str = "operator";

/// Key of the file with the forwarders' user name, for mounting beside the password.
pub const FORWARDER_NAME_KEY: &str = "username";

/// The passwords of a shard.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Of the forwarders.
    pub forwarder: String,
    /// Of the clients.
    pub client: String,
    /// Of the nodes among themselves.
    pub route: String,
    /// Of the operator.
    pub operator: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// The secret of a shard called `name`.
#[must_use]
pub fn secret_name(name: &str) -> String {
    format!("{name}-nats-auth")
}

/// The shard's passwords; new ones the first time.
///
/// # Errors
/// When the secret cannot be read or written, or lacks a password.
pub async fn ensure(
    shard: &ValidShard,
    platform: &dyn DeploymentPlatform,
) -> Result<Credentials, PlatformError> {
    let id = SecretId::new(
        shard.identity.namespace.as_str(),
        secret_name(&shard.identity.name),
    );
    let data = match platform.secret(&id).await? {
        Some(data) => data,
        None => {
            platform
                .create_secret(&id, &shard.identity.owner("NatsShard"), &generate())
                .await?;
            platform.secret(&id).await?.unwrap_or_default()
        }
    };
    let password = |user: &str| {
        data.0.get(user).cloned().ok_or_else(|| {
            PlatformError::MissingSecret(
                format!("{}/{}", id.namespace, id.name),
                format!(
                    "it has no key {user}; add it, or delete the secret so that it is made anew"
                ),
            )
        })
    };
    Ok(Credentials {
        forwarder: password(FORWARDER)?,
        client: password(CLIENT)?,
        route: password(ROUTE)?,
        operator: password(OPERATOR)?,
    })
}

fn generate() -> SecretData {
    let mut data: BTreeMap<String, String> = [FORWARDER, CLIENT, ROUTE, OPERATOR]
        .into_iter()
        .map(|user| (user.to_owned(), password()))
        .collect();
    data.insert(FORWARDER_NAME_KEY.to_owned(), FORWARDER.to_owned());
    SecretData(data)
}

/// 32 random bytes in letters only, so that neither a URL nor nats.conf reads them as anything but text.
fn password() -> String {
    let bytes: [u8; 32] = rand::random();
    let letter = |nibble: u8| char::from(b'a' + nibble);
    bytes
        .iter()
        .flat_map(|byte| [letter(byte >> 4), letter(byte & 0xf)])
        .collect()
}
