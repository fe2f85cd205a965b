//! Who may see which groups: bearer tokens (JWT) signed by a key of a known set.

mod ring;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use clap::Args;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use ofa_crds::GroupName;
use parking_lot::RwLock;
use reqwest::{Client, Url, redirect};
use serde_json::{Map, Value};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::http::ApiError;

/// How often the keys are read again: a new one is used within this time, and one that was withdrawn no longer.
const KEYS_EVERY: Duration = Duration::from_secs(60);

/// How long the server of the keys may take.
const KEYS_TIMEOUT: Duration = Duration::from_secs(10);

/// Algorithms with a public key alone: a key that verifies must not be able to sign.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Which tokens are asked for. Without keys nobody is asked for one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tokens")]
pub struct AuthArgs {
    /// File or URL of the keys that sign tokens (JWKS); with it every request for data needs a bearer token
    #[arg(long, env = "JWT_JWKS")]
    jwt_jwks: Option<String>,
    /// Issuer that a token must name
    #[arg(long, env = "JWT_ISSUER", requires = "jwt_jwks")]
    jwt_issuer: Option<String>,
    /// Audience that a token must name
    #[arg(long, env = "JWT_AUDIENCE", requires = "jwt_jwks")]
    jwt_audience: Option<String>,
    /// Claim with the list of groups that the token's owner may see, * for all
    #[arg(long, env = "JWT_GROUPS_CLAIM", default_value = "groups")]
    jwt_groups_claim: String,
}

/// Keys that cannot be had.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("the keys in {0} (JWT_JWKS) cannot be read: {1}")]
    File(PathBuf, std::io::Error),
    /// The server does not answer.
    #[error("the keys at {0} (JWT_JWKS) cannot be fetched: {1}")]
    Url(Url, reqwest::Error),
    /// They are none.
    #[error("JWT_JWKS is no JSON Web Key Set: {0}")]
    Json(serde_json::Error),
    /// None of them is of use.
    #[error("JWT_JWKS holds no keys")]
    None,
}

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// Everything: nobody is asked for a token, or this one says so.
    All,
    /// These groups.
    Groups(Arc<BTreeSet<String>>),
}

impl Permission {
    /// Whether the group may be seen.
    #[must_use]
    pub fn allows(&self, group: &GroupName) -> bool {
        match self {
            Self::All => true,
            Self::Groups(groups) => groups.contains(group.as_str()),
        }
    }

    /// The derived topics of the groups that may be seen, where these are not all.
    #[must_use]
    pub fn topics(&self) -> Option<Vec<String>> {
        let Self::Groups(groups) = self else {
            return None;
        };
        let names = groups.iter().filter_map(|name| name.parse().ok());
        Some(names.map(|group: GroupName| group.topic()).collect())
    }
}

/// Checks tokens.
pub struct Auth {
    keys: Arc<RwLock<JwkSet>>,
    validation: Validation,
    claim: String,
}

enum Source {
    File(PathBuf),
    Url(Url, Client),
}

impl AuthArgs {
    /// The keys, followed until `stop`; `None` when no tokens are asked for.
    ///
    /// # Errors
    /// When the keys are not to be had at the beginning; later the last good ones stay.
    pub async fn auth(&self, stop: &CancellationToken) -> anyhow::Result<Option<Arc<Auth>>> {
        let Some(place) = &self.jwt_jwks else {
            return Ok(None);
        };
        let source = match Url::parse(place) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => {
                let client = Client::builder()
                    .redirect(redirect::Policy::none())
                    .timeout(KEYS_TIMEOUT)
                    .build()?;
                Source::Url(url, client)
            }
            _ => Source::File(place.into()),
        };
        let keys = Arc::new(RwLock::new(source.read().await?));
        let followed = follow(source, Arc::clone(&keys));
        tokio::spawn(stop.clone().run_until_cancelled_owned(followed));
        Ok(Some(Arc::new(self.with_keys(keys))))
    }

    fn with_keys(&self, keys: Arc<RwLock<JwkSet>>) -> Auth {
        ring::install();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.algorithms = ALGORITHMS.to_vec();
        validation.validate_nbf = true;
        if let Some(issuer) = &self.jwt_issuer {
            validation.set_issuer(&[issuer]);
        }
        match &self.jwt_audience {
            Some(audience) => validation.set_audience(&[audience]),
            None => validation.validate_aud = false,
        }
        Auth {
            keys,
            validation,
            claim: self.jwt_groups_claim.clone(),
        }
    }
}

impl Source {
    async fn read(&self) -> Result<JwkSet, KeysError> {
        let text = match self {
            Self::File(path) => tokio::fs::read(path)
                .await
                .map_err(|error| KeysError::File(path.clone(), error))?,
            Self::Url(url, client) => {
                let fetched = async {
                    client
                        .get(url.clone())
                        .send()
                        .await?
                        .error_for_status()?
                        .bytes()
                        .await
                };
                let failed = |error| KeysError::Url(url.clone(), error);
                fetched.await.map_err(failed)?.to_vec()
            }
        };
        let keys: JwkSet = serde_json::from_slice(&text).map_err(KeysError::Json)?;
        if keys.keys.is_empty() {
            return Err(KeysError::None);
        }
        Ok(keys)
    }
}

async fn follow(source: Source, keys: Arc<RwLock<JwkSet>>) {
    loop {
        tokio::time::sleep(KEYS_EVERY).await;
        match source.read().await {
            Ok(read) => *keys.write() = read,
            Err(error) => warn!(%error, "the last good keys stay"),
        }
    }
}

impl Auth {
    /// What a request's token allows.
    ///
    /// # Errors
    /// 401 when there is none or it is not valid.
    pub fn check(&self, headers: &HeaderMap) -> Result<Permission, ApiError> {
        let value = headers.get(header::AUTHORIZATION);
        let value = value.and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        });
        let token = token
            .ok_or_else(|| ApiError::unauthorized("send a token: Authorization: Bearer <token>"))?;
        let claims = self.claims(token);
        let claims = claims.ok_or_else(|| {
            ApiError::unauthorized("the token is not valid, or not any more; get a new one")
        })?;
        Ok(self.permission(&claims))
    }

    fn claims(&self, token: &str) -> Option<Map<String, Value>> {
        let header = decode_header(token).ok()?;
        let keys = self.keys.read();
        let mut candidates = keys
            .keys
            .iter()
            .filter(|key| header.kid.is_none() || key.common.key_id == header.kid);
        candidates.find_map(|key| {
            let key = DecodingKey::from_jwk(key).ok()?;
            // One family at a time, which must be the key's.
            let mut validation = self.validation.clone();
            validation.algorithms.retain(|known| *known == header.alg);
            if validation.algorithms.is_empty() {
                return None;
            }
            let token = decode::<Map<String, Value>>(token, &key, &validation).ok()?;
            Some(token.claims)
        })
    }

    fn permission(&self, claims: &Map<String, Value>) -> Permission {
        let names: BTreeSet<String> = match claims.get(&self.claim) {
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str);
                names.map(str::to_owned).collect()
            }
            Some(Value::String(name)) => [name.clone()].into(),
            _ => BTreeSet::new(),
        };
        if names.contains("*") {
            Permission::All
        } else {
            Permission::Groups(Arc::new(names))
        }
    }
}

/// Lets requests with a valid token pass, and tells the handlers what it allows.
pub(super) async fn require(
    State(auth): State<Option<Arc<Auth>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let permission = match auth.map(|auth| auth.check(request.headers())) {
        None => Permission::All,
        Some(Ok(permission)) => permission,
        Some(Err(error)) => return error.into_response(),
    };
    request.extensions_mut().insert(permission);
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use ::ring::hmac;
    use ::ring::signature::Ed25519KeyPair;
    use serde_json::json;

    use super::*;

    /// The key pair of RFC 8037, appendix A, which everybody knows.
    const SECRET: [u8; 32] = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c,
        0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae,
        0x7f, 0x60,
    ];
    const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn auth() -> Auth {
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": PUBLIC, "kid": "k", "alg": "EdDSA"}]});
        let args = AuthArgs {
            jwt_jwks: None,
            jwt_issuer: Some("plant".to_owned()),
            jwt_audience: None,
            jwt_groups_claim: "groups".to_owned(),
        };
        let keys = serde_json::from_value(keys).unwrap();
        args.with_keys(Arc::new(RwLock::new(keys)))
    }

    /// Base 64 as URLs have it, without padding.
    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::new();
        for three in bytes.chunks(3) {
            let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for digit in 0..=three.len() {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
            }
        }
        text
    }

    fn signed(algorithm: &str, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let header = json!({"alg": algorithm, "kid": "k", "typ": "JWT"}).to_string();
        let body = [header, claims.to_string()].map(|part| base64(part.as_bytes()));
        let body = body.join(".");
        let signature = base64(&sign(body.as_bytes()));
        format!("{body}.{signature}")
    }

    fn token(claims: &Value) -> String {
        let pair = Ed25519KeyPair::from_seed_unchecked(&SECRET).unwrap();
        signed("EdDSA", claims, |body| pair.sign(body).as_ref().to_vec())
    }

    fn check(token: &str) -> Result<Permission, ApiError> {
        let mut headers = HeaderMap::new();
        let value = format!("Bearer {token}");
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        auth().check(&headers)
    }

    const FAR: u64 = 4_000_000_000;

    #[test]
    fn a_token_allows_the_groups_it_names() {
        let with = |groups: Value| {
            let claims = json!({"iss": "plant", "exp": FAR, "groups": groups});
            check(&token(&claims)).unwrap()
        };
        let [weld, paint]: [GroupName; 2] = ["Weld", "Paint"].map(|name| name.parse().unwrap());
        let some = with(json!(["Weld"]));
        assert!(some.allows(&weld) && !some.allows(&paint));
        assert!(!with(json!(null)).allows(&weld));
        assert_eq!(with(json!(["*"])), Permission::All);
    }

    #[test]
    fn what_was_not_signed_by_the_key_or_is_over_is_refused() {
        let good = json!({"iss": "plant", "exp": FAR, "groups": ["*"]});
        let valid = token(&good);
        assert!(check(&valid).is_ok());
        // The public key as a shared secret is the classic forgery.
        let shared = hmac::Key::new(hmac::HMAC_SHA256, PUBLIC.as_bytes());
        let forged = |body: &[u8]| hmac::sign(&shared, body).as_ref().to_vec();
        let mut changed = valid.clone().into_bytes();
        let at = valid.find('.').unwrap() + 5;
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        for bad in [
            signed("HS256", &good, forged),
            signed("none", &good, |_| Vec::new()),
            token(&json!({"iss": "plant", "exp": 1})),
            token(&json!({"iss": "other", "exp": FAR})),
            token(&json!({"iss": "plant"})),
            String::from_utf8(changed).unwrap(),
            "x".to_owned(),
        ] {
            assert!(check(&bad).is_err(), "{bad}");
        }
        assert!(auth().check(&HeaderMap::new()).is_err());
    }
}
