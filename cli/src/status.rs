//! `ofa status`: all resources and what runs for them.

use anyhow::Context;
use clap::Args;
use ofa_operator::cli::{Output, StateArgs};
use ofa_operator::status_table;

use super::cluster::ClusterArgs;
use super::output;

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl StatusArgs {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self {
            output,
            state,
            cluster,
        } = self;
        let text = if cluster.is_meant() {
            let view = cluster.connect().await?.view().await?;
            status_table::render(&view, output)?
        } else {
            let state = &state.state_dir;
            status_table::of_state(state, output)
                .with_context(|| format!("{} cannot be read", state.display()))?
        };
        output::line(text)
    }
}
