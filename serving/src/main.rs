//! The HTTP side of the fan-out layer: `serving router`, `serving group`, `serving replay`.

use std::process::ExitCode;

use clap::Parser;
use ofa_serving::cli::Args;

#[tokio::main]
#[allow(
    clippy::print_stderr,
    reason = "the last word of a program that cannot go on"
)]
async fn main() -> ExitCode {
    // Fails only if one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Args::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
