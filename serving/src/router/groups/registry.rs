//! Where groups' services are. Only these addresses are ever called.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use futures::future::{self, BoxFuture};
use ofa_crds::GroupName;
use ofa_crds::control::StreamReader;
use parking_lot::RwLock;
use reqwest::Url;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often a file of services is looked at.
const FILE_INTERVAL: Duration = Duration::from_secs(1);

/// What stands for a Service's name in a URL.
const SERVICE: &str = "{service}";

/// Services that cannot be used.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// No URL of a service.
    #[error("'{0}' is no URL of a group's service; write http://<host>:<port>")]
    Url(String),
    /// The place of the name is missing.
    #[error("GROUP_SERVICE_URL '{0}' must hold {SERVICE}, as in http://{SERVICE}:5555")]
    NoPlace(String),
    /// The file cannot be read.
    #[error("the file of groups' services {path} cannot be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error(
        "the file of groups' services {path} must be a JSON object of group name and URL: {source}"
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Says where a group's service is.
pub trait GroupRegistry: Send + Sync {
    /// The address of a group's service, if it has one.
    fn service(&self, group: &GroupName) -> Option<Url>;

    /// Who writes a group's stream, if that is known.
    fn reader(&self, _group: &GroupName) -> Option<StreamReader> {
        None
    }

    /// Groups that are known here, whether they have assets or not.
    fn groups(&self) -> Vec<GroupName>;

    /// Has a group's service started, where that is done on demand, and waits until it is ready; `None` if that is
    /// not to be had.
    fn wake<'a>(&'a self, group: &'a GroupName) -> BoxFuture<'a, Option<Url>> {
        future::ready(self.service(group)).boxed()
    }
}

/// A service for every group, under the name that it has on every platform ([`GroupName::service`]).
#[derive(Debug, Clone)]
pub struct TemplateRegistry(String);

impl TemplateRegistry {
    /// Reads `http://{service}:5555`.
    ///
    /// # Errors
    /// When that makes no URL.
    pub fn new(template: &str) -> Result<Self, RegistryError> {
        if !template.contains(SERVICE) {
            return Err(RegistryError::NoPlace(template.to_owned()));
        }
        parse_url(&template.replace(SERVICE, "stream-api-group-x"))
            .map_err(|_| RegistryError::Url(template.to_owned()))?;
        Ok(Self(template.to_owned()))
    }
}

impl GroupRegistry for TemplateRegistry {
    fn service(&self, group: &GroupName) -> Option<Url> {
        parse_url(&self.0.replace(SERVICE, &group.service())).ok()
    }

    fn groups(&self) -> Vec<GroupName> {
        Vec::new()
    }
}

type Services = BTreeMap<GroupName, Url>;

/// The services in a JSON file, `{"Weld": "http://10.0.0.7:5555"}`, followed while it changes.
#[derive(Debug, Clone)]
pub struct FileRegistry(Arc<RwLock<Services>>);

impl FileRegistry {
    /// Reads the file and follows it until `stop`. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When the file is unusable at the beginning; later the last good one stays.
    pub fn follow(path: &Path, stop: CancellationToken) -> Result<Self, RegistryError> {
        let seen = changed_at(path);
        let services = Arc::new(RwLock::new(read(path)?));
        let followed = follow(path.to_owned(), seen, Arc::clone(&services));
        tokio::spawn(stop.run_until_cancelled_owned(followed));
        Ok(Self(services))
    }
}

impl GroupRegistry for FileRegistry {
    fn service(&self, group: &GroupName) -> Option<Url> {
        self.0.read().get(group).cloned()
    }

    fn groups(&self) -> Vec<GroupName> {
        self.0.read().keys().cloned().collect()
    }
}

async fn follow(path: PathBuf, mut seen: Option<SystemTime>, services: Arc<RwLock<Services>>) {
    loop {
        tokio::time::sleep(FILE_INTERVAL).await;
        let now = changed_at(&path);
        if now == seen {
            continue;
        }
        seen = now;
        match read(&path) {
            Ok(read) => {
                info!(groups = read.len(), "groups' services have changed");
                *services.write() = read;
            }
            Err(error) => warn!(%error, "the last good file of groups' services stays"),
        }
    }
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|file| file.modified())
        .ok()
}

fn read(path: &Path) -> Result<Services, RegistryError> {
    let text = std::fs::read(path).map_err(|source| RegistryError::File {
        path: path.to_owned(),
        source,
    })?;
    let entries: BTreeMap<GroupName, String> =
        serde_json::from_slice(&text).map_err(|source| RegistryError::Json {
            path: path.to_owned(),
            source,
        })?;
    let parsed = entries
        .into_iter()
        .map(|(group, url)| Ok((group, parse_url(&url)?)));
    parsed.collect()
}

pub(super) fn parse_url(text: &str) -> Result<Url, RegistryError> {
    let url = Url::parse(text).ok().filter(|url| {
        let plain = url.scheme() == "http" && url.has_host() && url.username().is_empty();
        plain && url.path() == "/" && url.query().is_none() && url.fragment().is_none()
    });
    url.ok_or_else(|| RegistryError::Url(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> GroupName {
        name.parse().unwrap()
    }

    #[test]
    fn every_group_has_its_service_by_name() {
        let registry = TemplateRegistry::new("http://{service}.plant:5555").unwrap();
        let url = registry.service(&group("Weld")).unwrap();
        assert_eq!(url.as_str(), "http://stream-api-group-weld.plant:5555/");
        let other = registry.service(&group("weld@evil.example/")).unwrap();
        assert!(other.host_str().unwrap().ends_with(".plant"), "{other}");
    }

    #[test]
    fn what_is_no_address_of_a_service_is_refused() {
        assert!(TemplateRegistry::new("http://weld:5555").is_err());
        for bad in [
            "",
            "weld:5555",
            "https://a",
            "file:///etc/passwd",
            "http://a/x",
            "http://u@a",
            "http://a/?q",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_file_is_followed_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("services.json");
        std::fs::write(&path, r#"{"Weld": "http://a:1"}"#).unwrap();
        let registry = FileRegistry::follow(&path, CancellationToken::new()).unwrap();
        let url = |name| registry.service(&group(name)).map(String::from);
        assert_eq!(url("Weld").as_deref(), Some("http://a:1/"));
        std::fs::write(&path, r#"{"Weld": 1}"#).unwrap();
        tokio::time::sleep(FILE_INTERVAL + Duration::from_millis(200)).await;
        assert_eq!(url("Weld").as_deref(), Some("http://a:1/"));
        std::fs::write(&path, r#"{"Paint": "http://b:2"}"#).unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while url("Paint").is_none() {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(url("Weld"), None);
    }
}
