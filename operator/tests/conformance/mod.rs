//! What every backend of `DeploymentPlatform` must do, asked of it from outside. A backend brings a
//! [`Fixture`]; each function here is one test.
#![allow(
    unreachable_pub,
    reason = "every test file that includes the suite is a crate of its own"
)]

use std::time::{Duration, Instant};

use async_trait::async_trait;
use ofa_operator::platform::{
    DeploymentPlatform, EnvVar, InstanceState, Owner, PlatformError, SecretData, SecretId,
    UpdateStrategy, Workload, WorkloadId, WorkloadKind, WorkloadState,
};

/// Longer than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a backend brings to be tested.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The platform as an operator that has just started sees it. Called again, it is another operator's
    /// after the first has ended.
    async fn open(&self) -> Box<dyn DeploymentPlatform>;

    /// A workload that runs until stopped and takes a moment to become ready.
    fn workload(&self, name: &str, replicas: u16) -> Workload;

    /// A resource that something runs for.
    fn owner(&self, name: &str) -> Owner {
        owner(name)
    }

    /// Whether the platform's own number tells of changes.
    fn tells_of_changes(&self) -> bool {
        true
    }

    /// Ends an instance's process from outside.
    async fn kill(&self, instance: &InstanceState);

    /// Whether the process of an instance that was observed earlier still runs.
    async fn runs(&self, instance: &InstanceState) -> bool;

    /// Starts something that is not ours and says whether it is still there when asked.
    async fn foreign(&self) -> Box<dyn Foreign>;
}

/// Something that is not ours.
#[async_trait]
pub trait Foreign: Send + Sync {
    /// Whether it still runs.
    async fn runs(&self) -> bool;
}

pub fn owner(name: &str) -> Owner {
    Owner {
        kind: "Deployment".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
    }
}

async fn state(platform: &dyn DeploymentPlatform, id: &WorkloadId) -> WorkloadState {
    platform
        .observe(id)
        .await
        .unwrap()
        .unwrap_or_else(|| panic!("there is no {id}"))
}

async fn eventually(
    platform: &dyn DeploymentPlatform,
    id: &WorkloadId,
    what: &str,
    holds: impl Fn(&WorkloadState) -> bool,
) -> WorkloadState {
    let begin = Instant::now();
    loop {
        let now = state(platform, id).await;
        if holds(&now) {
            return now;
        }
        assert!(begin.elapsed() < PATIENCE, "never {what}: {now:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn settled(platform: &dyn DeploymentPlatform, id: &WorkloadId) -> WorkloadState {
    eventually(platform, id, "settled", WorkloadState::settled).await
}

fn processes(state: &WorkloadState) -> Vec<Option<String>> {
    state
        .instances
        .iter()
        .map(|instance| instance.process.clone())
        .collect()
}

fn changed(workload: &Workload) -> Workload {
    let mut changed = workload.clone();
    changed.env.push(EnvVar::text("CHANGED", "yes"));
    changed.chosen = "by a user".to_owned();
    changed
}

async fn gone(platform: &dyn DeploymentPlatform, id: &WorkloadId) {
    let begin = Instant::now();
    while !platform.remove(id).await.unwrap() {
        assert!(begin.elapsed() < PATIENCE, "{id} is never gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(platform.observe(id).await.unwrap(), None);
}

/// The cases that every platform is held to by itself, handed to a macro behind what stands in the brackets.
macro_rules! every_case {
    ($macro:ident[$($before:tt)*]) => {
        $macro! {
            $($before)*
            creates_and_removes,
            restarts_nothing_unasked,
            scales_without_touching_the_others,
            a_change_rolls_one_instance_at_a_time,
            a_gated_change_waits_for_each_restart,
            what_ends_unasked_is_restarted,
            what_cannot_run_is_reported_and_recovers_when_repaired,
            a_name_of_another_owner_is_not_taken_over,
            generated_secrets_are_made_once,
            addresses_are_stable,
        }
    };
}

pub async fn creates_and_removes(fixture: &dyn Fixture) {
    let platform = fixture.open().await;
    let foreign = fixture.foreign().await;
    let workload = fixture.workload("create", 2);
    platform.ensure(&workload).await.unwrap();
    let running = settled(&*platform, &workload.id).await;
    assert_eq!(running.owner, workload.owner);
    assert_eq!(platform.list().await.unwrap().len(), 1);
    let names: Vec<&str> = running.instances.iter().map(|i| i.name.as_str()).collect();
    assert!(names.iter().all(|name| name.starts_with("create")) && names[0] != names[1]);

    gone(&*platform, &workload.id).await;
    for instance in &running.instances {
        assert!(
            !fixture.runs(instance).await,
            "{} is left behind",
            instance.name
        );
    }
    assert!(platform.list().await.unwrap().is_empty());
    assert!(
        platform.remove(&workload.id).await.unwrap(),
        "removing again is no error"
    );
    assert!(foreign.runs().await, "what is not ours was touched");
}

pub async fn restarts_nothing_unasked(fixture: &dyn Fixture) {
    let platform = fixture.open().await;
    let workload = fixture.workload("calm", 2);
    platform.ensure(&workload).await.unwrap();
    let before = settled(&*platform, &workload.id).await;

    platform.ensure(&workload).await.unwrap();
    let mut unrelated = workload.clone();
    unrelated.stop.grace_seconds += 1;
    platform.ensure(&unrelated).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        processes(&settled(&*platform, &workload.id).await),
        processes(&before)
    );

    drop(platform);
    let platform = fixture.open().await;
    platform.ensure(&workload).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = settled(&*platform, &workload.id).await;
    assert_eq!(
        processes(&after),
        processes(&before),
        "a new operator restarts nothing"
    );
    assert!(after.instances.iter().all(|i| i.restarts == 0));
    gone(&*platform, &workload.id).await;
}

pub async fn scales_without_touching_the_others(fixture: &dyn Fixture) {
    let platform = fixture.open().await;
    let workload = fixture.workload("scale", 2);
    platform.ensure(&workload).await.unwrap();
    let two = settled(&*platform, &workload.id).await;

    let more = Workload {
        replicas: 3,
        ..workload.clone()
    };
    platform.ensure(&more).await.unwrap();
    let three = settled(&*platform, &workload.id).await;
    assert_eq!(processes(&three)[..2], processes(&two)[..]);

    let less = Workload {
        replicas: 1,
        ..workload.clone()
    };
    platform.ensure(&less).await.unwrap();
    let one = settled(&*platform, &workload.id).await;
    assert_eq!(processes(&one), processes(&two)[..1]);
    assert!(!fixture.runs(&three.instances[2]).await);
    gone(&*platform, &workload.id).await;
}

pub async fn a_change_rolls_one_instance_at_a_time(fixture: &dyn Fixture) {
    let platform = fixture.open().await;
    let workload = fixture.workload("roll", 3);
    platform.ensure(&workload).await.unwrap();
    let before = settled(&*platform, &workload.id).await;

    platform.ensure(&changed(&workload)).await.unwrap();
    let after = eventually(&*platform, &workload.id, "rolled", |state| {
        assert!(
            state.ready() >= 2,
            "two instances at a time are away: {state:#?}"
        );
        state.settled()
    })
    .await;
    for (old, new) in processes(&before).iter().zip(processes(&after)) {
        assert_ne!(*old, new, "every instance was to be replaced");
    }
    gone(&*platform, &workload.id).await;
}

pub async fn a_gated_change_waits_for_each_restart(fixture: &dyn Fixture) {
    let platform = fixture.open().await;
    let workload = Workload {
        update: UpdateStrategy::Gated,
        ..fixture.workload("gated", 2)
    };
    platform.ensure(&workload).await.unwrap();
    let before = settled(&*platform, &workload.id).await;

    platform.ensure(&changed(&workload)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let waiting = state(&*platform, &workload.id).await;
    assert_eq!(processes(&waiting), processes(&before));
    assert_eq!(waiting.current(), 0);

    platform.restart(&workload.id, 1).await.unwrap();
    let one = eventually(&*platform, &workload.id, "restarted", |state| {
        state.current() == 1 && state.ready() == 2
    })
    .await;
    assert_eq!(processes(&one)[0], processes(&before)[0]);
    assert!(one.instances[1].current && !one.instances[0].current);
    assert!(matches!(
        platform.restart(&workload.id, 9).await,
        Err(PlatformError::NotFound(_))
    ));
    gone(&*platform, &workload.id).await;
}

pub async fn what_ends_unasked_is_restarted(fixture: &dyn Fixture) {
    let platform = fixture.open().await;
    let mut changes = platform.watch();
    let workload = fixture.workload("crash", 2);
    platform.ensure(&workload).await.unwrap();
    let before = settled(&*platform, &workload.id).await;
    changes.mark_unchanged();

    fixture.kill(&before.instances[0]).await;
    if fixture.tells_of_changes() {
        tokio::time::timeout(PATIENCE, changes.changed())
            .await
            .unwrap()
            .unwrap();
    }
    let after = eventually(&*platform, &workload.id, "restarted", |state| {
        state.settled() && state.instances[0].restarts > 0
    })
    .await;
    assert_ne!(processes(&after)[0], processes(&before)[0]);
    assert_eq!(
        processes(&after)[1],
        processes(&before)[1],
        "the other instance was touched"
    );
    gone(&*platform, &workload.id).await;
}

pub async fn what_cannot_run_is_reported_and_recovers_when_repaired(fixture: &dyn Fixture) {
    let platform = fixture.open().await;
    let workload = fixture.workload("broken", 1);
    let broken = Workload {
        command: vec!["no-such-program".to_owned()],
        chosen: "by mistake".to_owned(),
        ..workload.clone()
    };
    platform.ensure(&broken).await.unwrap();
    let stuck = eventually(&*platform, &workload.id, "stuck", |state| {
        state
            .instances
            .first()
            .is_some_and(|instance| instance.stuck)
    })
    .await;
    let message = stuck.instances[0].message.clone().unwrap_or_default();
    assert!(message.contains("no-such-program"), "{message}");

    platform.ensure(&workload).await.unwrap();
    settled(&*platform, &workload.id).await;
    gone(&*platform, &workload.id).await;
}

pub async fn a_name_of_another_owner_is_not_taken_over(fixture: &dyn Fixture) {
    let platform = fixture.open().await;
    let workload = fixture.workload("mine", 1);
    platform.ensure(&workload).await.unwrap();
    let before = settled(&*platform, &workload.id).await;

    let theirs = Workload {
        owner: fixture.owner("somebody-else"),
        ..changed(&workload)
    };
    let refused = platform.ensure(&theirs).await;
    assert!(
        matches!(refused, Err(PlatformError::NameConflict { .. })),
        "{refused:?}"
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        processes(&state(&*platform, &workload.id).await),
        processes(&before)
    );
    gone(&*platform, &workload.id).await;
}

/// What makes a workload one that cannot be had.
pub type Change = fn(&mut Workload);

pub async fn what_cannot_be_done_is_named_before_anything_is_changed(
    fixture: &dyn Fixture,
    unsupported: &[(&str, Change)],
) {
    let platform = fixture.open().await;
    for (field, change) in unsupported {
        let mut workload = fixture.workload("unsupported", 2);
        change(&mut workload);
        match platform.ensure(&workload).await {
            Err(PlatformError::Unsupported {
                field: named,
                reason,
                ..
            }) => {
                assert_eq!(named, *field);
                assert!(!reason.is_empty());
            }
            other => panic!("{field}: {other:?}"),
        }
        assert_eq!(platform.observe(&workload.id).await.unwrap(), None);
    }
}

pub async fn generated_secrets_are_made_once(fixture: &dyn Fixture) {
    let platform = fixture.open().await;
    let namespace = fixture.workload("any", 1).id.namespace;
    let id = SecretId::new(namespace, "generated");
    let data = |value: &str| SecretData([("key".to_owned(), value.to_owned())].into());
    assert_eq!(platform.secret(&id).await.unwrap(), None);
    platform
        .create_secret(&id, &fixture.owner("a"), &data("first"))
        .await
        .unwrap();
    platform
        .create_secret(&id, &fixture.owner("a"), &data("second"))
        .await
        .unwrap();
    assert_eq!(platform.secret(&id).await.unwrap(), Some(data("first")));

    drop(platform);
    let platform = fixture.open().await;
    assert_eq!(platform.secret(&id).await.unwrap(), Some(data("first")));
    platform.remove_secret(&id).await.unwrap();
    assert_eq!(platform.secret(&id).await.unwrap(), None);
}

pub async fn addresses_are_stable(fixture: &dyn Fixture) {
    let platform = fixture.open().await;
    let mut workload = fixture.workload("stable", 2);
    workload.kind = WorkloadKind::Stateful { data: None };
    let expected = [
        platform.instance_host(&workload.id, 0).await.unwrap(),
        platform.instance_host(&workload.id, 1).await.unwrap(),
    ];
    assert_ne!(expected[0], expected[1]);
    drop(platform);
    let platform = fixture.open().await;
    assert_eq!(
        platform.instance_host(&workload.id, 1).await.unwrap(),
        expected[1]
    );
}
