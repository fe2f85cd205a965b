//! The operator.

use std::process::ExitCode;

use clap::Parser;
use ofa_operator::cli::Cli;
use ofa_operator::tls;

#[tokio::main]
#[allow(
    clippy::print_stderr,
    reason = "the last word of a command that failed"
)]
async fn main() -> ExitCode {
    tls::install_provider();
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("operator: {error}");
            ExitCode::FAILURE
        }
    }
}
