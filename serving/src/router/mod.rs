//! The routing layer: which shard has an asset, and the way to its group.
//!
//! `GET /asset/{uuid}` answers as OpenFactory's Asset Router does, with more nodes to choose from. `/asset_stream` and `/asset_state` go to the
//! service of the asset's group, and `/` is a page that shows all of it.

mod api;
pub mod auth;
mod follow;
pub mod groups;
mod lag;
mod page;
mod settings;
mod static_map;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use api::{About, Access, app, app_with};
pub use follow::Routing;
pub(crate) use follow::look;
use groups::{ControlRegistry, Groups};
pub use lag::{Lags, ReaderLag};
pub use settings::{MapArgs, RouterArgs};
pub use static_map::{StaticMapError, static_map};

use crate::http::{self, Clients};
use crate::metrics::Metrics;

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
    let stop = CancellationToken::new();
    let control = membership.control().map(|(states, control)| {
        ControlRegistry::new(
            states,
            control,
            &args.groups.grouping_level,
            &args.member_name(),
        )
    });
    let lags = Lags::new(&args.kafka);
    let groups = Groups::start(&args.groups, &args.kafka, control, lags.clone(), &stop)?;
    let about = About {
        replay_url: args.replay_url.clone(),
        forwarders: Some(ReaderLag {
            lags,
            reader: args.forwarders(),
        }),
    };
    info!(address = %listener.local_addr()?, "the router listens");
    let clients = Clients::new(args.client_limits());
    let access = Access {
        auth: args.auth.auth(&stop).await?,
        clients: Some(Arc::clone(&clients)),
    };
    let app = app_with(routing, metrics, groups, about, &access);
    let end = async {
        shutdown.await;
        // Streams end first: nothing else ends a connection that is in the middle of one.
        stop.cancel();
    };
    http::serve_clients(listener, app, &clients, end).await;
    membership.leave().await;
    Ok(())
}
