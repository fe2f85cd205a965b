//! The command line of the fan-out layer: `ofa`.

use std::process::ExitCode;

use clap::Parser;
use ofa_client::cli::Args;

#[tokio::main]
async fn main() -> ExitCode {
    Args::parse().run().await
}
