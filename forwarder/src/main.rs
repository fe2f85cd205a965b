//! `forwarder`: see `forwarder --help`.

mod cli;

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    // Only fails when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::Cli::parse().run()
}
