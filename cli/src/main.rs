//! The command line of the fan-out layer: `ofa`, and under the name `kubectl-ofa` a plugin of kubectl.

use std::process::ExitCode;

use ofa_cli::Args;

#[tokio::main]
async fn main() -> ExitCode {
    Args::of_process().run().await
}
