//! The conformance suite on a real Docker Swarm of three engines, and what is particular to it.
//!
//! Where no engine can run, every test is shown as ignored, with the reason first; with `OFA_REQUIRE_SWARM` set that is
//! a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

mod cluster;
#[macro_use]
#[path = "../conformance/mod.rs"]
mod conformance;
mod fixture;
mod particular;

use std::sync::RwLock;

use libtest_mimic::{Arguments, Trial};

use self::cluster::{Cluster, Start};
use self::fixture::Swarm;

/// Held for writing by a test that takes a node away from all others.
static NODES: RwLock<()> = RwLock::new(());

/// Whether a test takes a node away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nodes {
    Stay,
    Go,
}

macro_rules! trials {
    ($cluster:expr, $nodes:expr, $module:ident: $($name:ident),* $(,)?) => {
        vec![$(trial($cluster, stringify!($name), $nodes, |swarm| Box::pin($module::$name(swarm)))),*]
    };
}

type Case = for<'a> fn(&'a Swarm) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;

fn trial(cluster: Option<&'static Cluster>, name: &'static str, nodes: Nodes, case: Case) -> Trial {
    let run = move || {
        let cluster = cluster.expect("a trial without a Swarm is ignored");
        let shared = || NODES.read().unwrap_or_else(|held| held.into_inner());
        let alone = || NODES.write().unwrap_or_else(|held| held.into_inner());
        let _held = (
            (nodes == Nodes::Stay).then(shared),
            (nodes == Nodes::Go).then(alone),
        );
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(async {
            let swarm = Swarm::new(cluster, name);
            case(&swarm).await;
            swarm.clean().await;
        });
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(cluster.is_none())
}

fn trials(cluster: Option<&'static Cluster>) -> Vec<Trial> {
    let mut all = every_case!(trials[cluster, Nodes::Stay, conformance:]);
    all.extend(trials!(cluster, Nodes::Stay, particular:
        what_cannot_be_done_is_named_before_anything_is_changed,
        instances_with_an_identity_lie_apart_and_are_known_by_name,
        too_few_hosts_are_said_and_change_nothing,
        a_service_of_somebody_else_is_not_touched,
        a_changed_secret_replaces_the_instances_that_use_it,
        a_change_by_hand_is_undone,
    ));
    all.extend(trials!(cluster, Nodes::Go, particular:
        what_was_on_a_lost_node_comes_up_on_another,
    ));
    all
}

fn main() {
    let arguments = Arguments::from_args();
    if arguments.list {
        libtest_mimic::run(&arguments, trials(None)).exit();
    }
    match cluster::start() {
        Start::Ready(cluster) => libtest_mimic::run(&arguments, trials(Some(cluster))).exit(),
        Start::Impossible(why) => {
            eprintln!("IGNORED: every test on a Docker Swarm: {why}");
            assert!(
                std::env::var_os("OFA_REQUIRE_SWARM").is_none(),
                "OFA_REQUIRE_SWARM is set"
            );
            libtest_mimic::run(&arguments, trials(None)).exit();
        }
    }
}
