//! The routing layer: which shard has an asset.
//!
//! `GET /asset/{uuid}` answers as OpenFactory's Asset Router does, with more nodes to choose from.

mod api;
mod follow;
mod settings;
mod static_map;

use std::sync::Arc;

use tokio::net::TcpListener;
use tracing::info;

pub use api::app;
pub use follow::Routing;
pub use settings::RouterArgs;
pub use static_map::{StaticMapError, static_map};

use crate::{http, metrics::Metrics};

/// Serves the routing layer on `listener` until `shutdown` completes.
///
/// # Errors
/// When the settings are unusable.
pub async fn run(
    listener: TcpListener,
    args: RouterArgs,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new("router"));
    let (routing, membership) = follow::start(&args, &metrics)?;
    info!(address = %listener.local_addr()?, "the router listens");
    http::serve(listener, app(routing, metrics), shutdown).await;
    membership.leave().await;
    Ok(())
}
