//! `ofa route`: which shard has an asset.

use clap::Args;
use ofa_crds::{AssetUuid, subject};

use super::cluster::ClusterArgs;
use super::{RouterArgs, output};
use ofa_client::router::{Route, RouterClient};

#[derive(Debug, Args)]
pub(crate) struct RouteArgs {
    /// UUID of the asset
    asset: AssetUuid,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    router: RouterArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl RouteArgs {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self {
            asset,
            json,
            router,
            cluster,
        } = self;
        let router = router.reach(&cluster).await?;
        // What it tells are the addresses inside the cluster, not those of a tunnel.
        let route = RouterClient::new(router.inside())?.route(&asset).await?;
        if json {
            return output::json(&route);
        }
        print(&route)
    }
}

fn print(route: &Route) -> anyhow::Result<()> {
    let by_rule = || subject::asset_wildcard(&route.asset_id);
    let subject = route.subject.clone().unwrap_or_else(by_rule);
    output::line(format_args!("asset    {}", route.asset_id))?;
    output::line(format_args!("shard    {}", route.cluster_name))?;
    output::line(format_args!("subject  {subject}"))?;
    output::line(format_args!("nodes    {}", route.urls().join(" ")))?;
    match route.epoch {
        Some(epoch) => output::line(format_args!("epoch    {epoch}")),
        None => Ok(()),
    }
}
