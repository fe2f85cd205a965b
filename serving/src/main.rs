//! The HTTP side of the fan-out layer: `serving router`.

use clap::Parser;
use ofa_serving::cli::Args;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Args::parse().run().await
}
