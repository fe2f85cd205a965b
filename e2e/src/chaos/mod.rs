//! Schedules of faults against the whole system, each drawn from a seed and repeatable by it.

mod resharding;
mod schedule;
mod stage;

use std::env;
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use schedule::{Fault, Schedule, Step};

use crate::scene::{say, scenario_with_own_broker_within};
use stage::Stage;

/// How many schedules are run unless `OFA_CHAOS_SCHEDULES` says otherwise.
const SCHEDULES: u64 = 20;

/// A schedule takes a quarter of a minute; one that takes this long hangs.
const LIMIT: Duration = Duration::from_secs(90);

/// Runs as many schedules as `OFA_CHAOS_SCHEDULES` says, from the seed `OFA_CHAOS_SEED` on. After each, everything
/// in Kafka must have come to the subscribers, in order and once.
pub async fn run() {
    let (count, first) = (
        variable("OFA_CHAOS_SCHEDULES", SCHEDULES),
        variable("OFA_CHAOS_SEED", 1),
    );
    let limit = LIMIT * u32::try_from(count).unwrap_or(u32::MAX);
    scenario_with_own_broker_within("chaos", limit, async |scene, broker| {
        let mut stage = Stage::set(scene, broker).await?;
        for seed in first..first + count {
            let schedule = Schedule::draw(seed);
            say(&format!("chaos: {schedule}"));
            perform(&mut stage, &schedule).await.with_context(|| {
                format!("{schedule} (again with OFA_CHAOS_SCHEDULES=1 OFA_CHAOS_SEED={seed})")
            })?;
        }
        Ok(())
    })
    .await;
}

async fn perform(stage: &mut Stage<'_>, schedule: &Schedule) -> Result<()> {
    let load = stage.load()?;
    for step in &schedule.steps {
        tokio::time::sleep(step.quiet).await;
        for &fault in &step.faults {
            stage.inject(fault).await?;
        }
        tokio::time::sleep(step.lasts).await;
        for &fault in &step.faults {
            stage.heal(fault).await?;
        }
    }
    stage.judge(load).await
}

fn variable(name: &str, default: u64) -> u64 {
    let value = env::var(name).ok().and_then(|text| text.parse().ok());
    value.unwrap_or(default)
}
