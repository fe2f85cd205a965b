//! `ofa route`: which shard has an asset.

use clap::Args;
use ofa_crds::{AssetUuid, subject};

use super::{RouterArgs, output};
use crate::router::{Route, RouterClient};

#[derive(Debug, Args)]
pub(super) struct RouteArgs {
    /// UUID of the asset
    asset: AssetUuid,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    router: RouterArgs,
}

impl RouteArgs {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Self {
            asset,
            json,
            router,
        } = self;
        let route = RouterClient::new(&router.router)?.route(&asset).await?;
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
