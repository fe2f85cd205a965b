//! Groups of assets: which one an asset belongs to, and the service that streams it.
//!
//! The UNS map says the group of an asset ([`follow`] keeps a [`Directory`] of it); a [`GroupRegistry`] says where
//! a group's service is. Requests for an asset go to its group's service as they are ([`proxy`]).

mod api;
mod directory;
mod follow;
mod proxy;
mod registry;
mod settings;

use std::sync::Arc;

use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

pub use directory::Directory;
pub use proxy::Proxy;
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
}

impl Groups {
    /// Begins to follow the UNS map, if the settings say where groups' services are.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub(super) fn start(
        args: &GroupsArgs,
        kafka: &ofa_crds::kafka::KafkaSettings,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let Some(registry) = args.registry(stop)? else {
            return Ok(None);
        };
        let directory = Directory::new(args.strategy());
        let directory = Arc::new(RwLock::new(directory));
        follow::start(
            kafka,
            &args.uns_map_topic,
            Arc::clone(&directory),
            stop.clone(),
        )?;
        Ok(Some(Self {
            directory,
            registry,
            proxy: Proxy::new(stop.clone())?,
        }))
    }
}
