//! One thing that would be done, and how it is told.

use std::fmt;

use serde::Serialize;

use super::Objects;
use crate::platform::WorkloadId;
use crate::resources::ObjectKey;

/// One thing that would be done.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(
    tag = "step",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Step {
    /// There is an object that was not there.
    New {
        /// Which.
        object: ObjectKey,
    },
    /// An object asks for something else.
    Changed {
        /// Which.
        object: ObjectKey,
    },
    /// An object is there no more.
    Deleted {
        /// Which.
        object: ObjectKey,
    },
    /// A workload is started.
    Start {
        /// Which.
        workload: WorkloadId,
        /// How many instances.
        instances: u16,
    },
    /// A workload gets more or fewer instances.
    Scale {
        /// Which.
        workload: WorkloadId,
        /// How many there are.
        from: u16,
        /// How many there will be.
        to: u16,
    },
    /// Instances take in a changed configuration while they run.
    Reload {
        /// Which workload's.
        workload: WorkloadId,
        /// In this order.
        instances: Vec<String>,
    },
    /// Instances are replaced, one after the other.
    Restart {
        /// Which workload's.
        workload: WorkloadId,
        /// In this order; only how many there are, where they have no names of their own.
        instances: Vec<String>,
        /// Whether it is, or is also, for what a newer operator has kept back (`RolloutPending`).
        held_back: bool,
    },
    /// A workload is stopped.
    Stop {
        /// Which.
        workload: WorkloadId,
    },
    /// Assets move between shards.
    Move {
        /// Of which pool.
        object: ObjectKey,
        /// Ranges of hashes that get another shard.
        ranges: usize,
        /// Their share of all assets, 0 to 1.
        share: f64,
        /// About how many assets that is, where it is known how many there are.
        assets: Option<u64>,
        /// Number of shards before.
        from: usize,
        /// Number of shards after.
        to: usize,
    },
    /// A stream of ksqlDB is made.
    Create {
        /// Of which group.
        object: ObjectKey,
        /// The stream.
        stream: String,
    },
    /// A stream of ksqlDB and its query are dropped and made again: what the source still holds is written once more.
    Recreate {
        /// Of which group.
        object: ObjectKey,
        /// The stream.
        stream: String,
        /// What differs.
        why: String,
    },
    /// A stream of ksqlDB, its query and its topic go.
    Drop {
        /// Of which group.
        object: ObjectKey,
        /// The stream.
        stream: String,
    },
}

/// Objects that are new, ask for something else, or are no longer there.
pub(super) fn objects(before: &Objects, after: &Objects) -> Vec<Step> {
    let mut steps = Vec::new();
    for (object, wanted) in after {
        let object = object.clone();
        match before.get(&object) {
            None => steps.push(Step::New { object }),
            Some(old) if !old.same_spec(wanted) => steps.push(Step::Changed { object }),
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    steps.extend(gone.cloned().map(|object| Step::Deleted { object }));
    steps
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New { object } => write!(f, "new       {object}"),
            Self::Changed { object } => write!(f, "changed   {object}"),
            Self::Deleted { object } => write!(f, "deleted   {object}"),
            Self::Start {
                workload,
                instances,
            } => write!(f, "start     {workload}: {instances} instances"),
            Self::Scale { workload, from, to } => {
                write!(f, "scale     {workload}: {from} -> {to} instances")
            }
            Self::Reload {
                workload,
                instances,
            } => write!(
                f,
                "reload    {workload}: {} take in a changed configuration, none restarts",
                instances.join(", ")
            ),
            Self::Restart {
                workload,
                instances,
                held_back,
            } => {
                let names = instances.join(", ");
                write!(f, "restart   {workload}: {names}, one after the other")?;
                if *held_back {
                    f.write_str("; takes in what a newer operator builds (RolloutPending)")?;
                }
                Ok(())
            }
            Self::Stop { workload } => write!(f, "stop      {workload}"),
            Self::Move {
                object,
                ranges,
                share,
                assets,
                from,
                to,
            } => {
                let percent = share * 100.0;
                write!(
                    f,
                    "move      {object}: {ranges} ranges, {percent:.1}% of the assets"
                )?;
                if let Some(assets) = assets {
                    write!(f, " (about {assets})")?;
                }
                write!(f, ", from {from} to {to} shards")
            }
            Self::Create { object, stream } => write!(f, "create    {object}: stream {stream}"),
            Self::Recreate {
                object,
                stream,
                why,
            } => write!(
                f,
                "recreate  {object}: stream {stream} is dropped and made again, since {why}; what the source still holds is written to its topic once more"
            ),
            Self::Drop { object, stream } => {
                write!(f, "drop      {object}: stream {stream} and its topic")
            }
        }
    }
}
