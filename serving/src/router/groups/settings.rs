//! Settings of the router's groups.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ofa_crds::UnsLevel;
use ofa_crds::groups::UNS_MAP_TOPIC;
use tokio_util::sync::CancellationToken;

use super::{FileRegistry, GroupRegistry, TemplateRegistry};

/// Where groups come from and where their services are. Without either of the two addresses the services are those that the operator
/// tells of on the control topic.
#[derive(Debug, Args)]
#[command(next_help_heading = "Groups")]
pub struct GroupsArgs {
    /// Address of every group's service, with {service} for its name: http://{service}:5555
    #[arg(long, env = "GROUP_SERVICE_URL", conflicts_with = "group_services")]
    pub(super) group_service_url: Option<String>,
    /// JSON file with the address of each group's service: {"Weld": "http://10.0.0.7:5555"}; followed while it changes
    #[arg(long, env = "GROUP_SERVICES")]
    pub(super) group_services: Option<PathBuf>,
    /// Sends clients on to groups' services, which they must be able to reach themselves, in place of passing everything on
    #[arg(long, env = "GROUP_REDIRECT", conflicts_with = "jwt_jwks")]
    pub(super) group_redirect: bool,
    /// Compacted topic that says to which levels of the Unified Namespace each asset belongs
    #[arg(long, env = "UNS_MAP_TOPIC", default_value = UNS_MAP_TOPIC)]
    pub(super) uns_map_topic: String,
    /// Level of the Unified Namespace whose values are the groups
    #[arg(long, env = "GROUPING_LEVEL", default_value = "workcenter")]
    pub(in crate::router) grouping_level: String,
}

impl GroupsArgs {
    pub(super) fn registry(
        &self,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Arc<dyn GroupRegistry>>> {
        Ok(match (&self.group_service_url, &self.group_services) {
            (Some(template), _) => Some(Arc::new(TemplateRegistry::new(template)?)),
            (None, Some(file)) => Some(Arc::new(FileRegistry::follow(file, stop.clone())?)),
            (None, None) => None,
        })
    }

    pub(super) fn strategy(&self) -> UnsLevel {
        UnsLevel::every_value(&self.grouping_level)
    }
}
