//! Measures the forwarder beside a ceiling; see [`ofa_e2e::bench`].

use clap::Parser as _;
use ofa_e2e::bench::Bench;

fn main() -> anyhow::Result<()> {
    Bench::parse().run()
}
