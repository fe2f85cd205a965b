//! Groups of assets: which one an asset belongs to, and the service that streams it.
//!
//! The UNS map says the group of an asset ([`Directory`]); a [`GroupRegistry`] says where
//! a group's service is. Requests for an asset go to its group's service as they are ([`proxy`]).

mod api;
mod control_registry;
mod proxy;
mod registry;
mod settings;

use std::sync::Arc;

use ofa_crds::kafka::DirectoryReader;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::lag::Lags;

pub use ofa_crds::groups::Directory;

pub use control_registry::ControlRegistry;
pub use proxy::{Proxy, Question};
pub use registry::{FileRegistry, GroupRegistry, RegistryError, TemplateRegistry};
pub use settings::GroupsArgs;

pub(super) use api::routes;

/// All that is known of groups.
#[derive(Clone)]
pub struct Groups {
    /// Assets and their groups.
    pub directory: Arc<RwLock<Directory>>,
    /// Groups and their services.
    pub registry: Arc<dyn GroupRegistry>,
    /// The way to the services.
    pub proxy: Proxy,
    /// Changes whenever the directory does.
    pub news: watch::Receiver<u64>,
    /// Who knows how far the groups' streams are behind.
    pub lags: Option<Lags>,
}

impl Groups {
    /// Begins to follow the UNS map, if it is known where groups' services are: from the settings, or `control`.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub(super) fn start(
        args: &GroupsArgs,
        kafka: &ofa_crds::kafka::KafkaSettings,
        control: Option<ControlRegistry>,
        lags: Lags,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let registry: Arc<dyn GroupRegistry> = match (args.registry(stop)?, control) {
            (Some(registry), _) => registry,
            (None, Some(control)) => Arc::new(control),
            (None, None) => return Ok(None),
        };
        let reader = DirectoryReader::follow(kafka, &args.uns_map_topic, args.strategy())?;
        let DirectoryReader { directory, news } = reader;
        Ok(Some(Self {
            directory,
            registry,
            proxy: Proxy::new(stop.clone())?.redirecting(args.group_redirect),
            news,
            lags: Some(lags),
        }))
    }
}
