//! The command line of the fan-out layer: `ofa`.

use clap::Parser;
use ofa_client::cli::Args;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Args::parse().run().await
}
