//! What is particular to a Swarm.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ofa_crds::api::{Resources, Spread, SpreadMode};
use ofa_operator::platform::{
    DataVolume, DeploymentPlatform, EnvValue, EnvVar, FileContent, InstanceState, MountedFile,
    PlatformError, Port, SecretKey, UpdateStrategy, Workload, WorkloadId, WorkloadKind,
    WorkloadState,
};

use crate::conformance::{self, Change, Fixture as _, owner};
use crate::fixture::Swarm;

/// Longer than a node is missed for, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn wait_for(
    platform: &dyn DeploymentPlatform,
    id: &WorkloadId,
    holds: impl Fn(&WorkloadState) -> bool,
) -> Vec<InstanceState> {
    let begin = Instant::now();
    loop {
        let state = platform.observe(id).await.unwrap();
        if let Some(state) = state.as_ref().filter(|state| holds(state)) {
            return state.instances.clone();
        }
        assert!(begin.elapsed() < PATIENCE, "{state:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn with_identity(swarm: &Swarm, name: &str, replicas: u16, mode: SpreadMode) -> Workload {
    Workload {
        update: UpdateStrategy::Gated,
        spread: Spread {
            mode,
            ..Spread::default()
        },
        ..swarm.workload(name, replicas)
    }
}

fn nodes_of(swarm: &Swarm, services: &[&str]) -> Vec<String> {
    let node = |service: &&str| {
        let filter = ["--filter", "desired-state=running", "--format", "{{.Node}}"];
        let args = [&["service", "ps", service], &filter[..]].concat();
        swarm.cluster.docker(1, &args)
    };
    services.iter().map(node).collect()
}

pub(crate) async fn what_cannot_be_done_is_named_before_anything_is_changed(swarm: &Swarm) {
    fn in_zones(workload: &mut Workload) {
        workload.spread = Spread {
            topology_key: "zone".to_owned(),
            mode: SpreadMode::Required,
        };
    }
    fn with_a_size(workload: &mut Workload) {
        workload.kind = WorkloadKind::Stateful {
            data: Some(DataVolume {
                path: "/data".to_owned(),
                size: Some("1Gi".to_owned()),
            }),
        };
    }
    fn with_its_address(workload: &mut Workload) {
        workload.env.push(EnvVar::of("POD_IP", EnvValue::PodIp));
    }
    fn with_something_to_limit(workload: &mut Workload) {
        workload.resources = Resources {
            limits: [("nvidia.com/gpu".to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
    }
    fn on_the_host(workload: &mut Workload) {
        workload.update = UpdateStrategy::Gated;
        workload.ports = vec![Port {
            host_port: Some(80),
            ..Port::new("http", 80)
        }];
    }
    let unsupported: [(&str, Change); 5] = [
        ("spread.topologyKey", in_zones),
        ("data.size", with_a_size),
        ("env.fieldRef status.podIP", with_its_address),
        ("resources", with_something_to_limit),
        ("ports.hostPort", on_the_host),
    ];
    conformance::what_cannot_be_done_is_named_before_anything_is_changed(swarm, &unsupported).await;
}

pub(crate) async fn instances_with_an_identity_lie_apart_and_are_known_by_name(swarm: &Swarm) {
    let platform = swarm.platform().await;
    let workload = with_identity(swarm, "apart", 3, SpreadMode::Required);
    platform.ensure(&workload).await.unwrap();
    let running = wait_for(&platform, &workload.id, WorkloadState::settled).await;
    let names = ["apart-0", "apart-1", "apart-2"];
    assert_eq!(
        running.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(),
        names
    );
    let nodes: BTreeSet<String> = nodes_of(swarm, &names).into_iter().collect();
    assert_eq!(nodes.len(), 3, "{nodes:?}");

    // By the name of its service, and by that of its container, from another node.
    let host = platform.instance_host(&workload.id, 2).await.unwrap();
    let mut args = vec![
        "run",
        "--rm",
        "--network",
        "factory-net",
        "--entrypoint",
        "nslookup",
    ];
    args.extend([crate::cluster::IMAGE, &host]);
    let by_name = swarm.cluster.docker(1, &args);
    let last = args.len() - 1;
    args[last] = &running[2].host;
    let by_container = swarm.cluster.docker(1, &args);
    let address = |answer: &str| {
        let mut lines = answer.lines().map(str::to_owned);
        lines.rfind(|line| line.starts_with("Address"))
    };
    assert_eq!(address(&by_name), address(&by_container), "{by_name}");
}

pub(crate) async fn too_few_hosts_are_said_and_change_nothing(swarm: &Swarm) {
    let platform = swarm.platform().await;
    for mut workload in [
        swarm.workload("crowd", 4),
        with_identity(swarm, "crowd", 4, SpreadMode::Required),
    ] {
        workload.spread.mode = SpreadMode::Required;
        let refused = platform.ensure(&workload).await;
        assert!(
            matches!(
                refused,
                Err(PlatformError::TooFewHosts {
                    wanted: 4,
                    hosts: 3,
                    ..
                })
            ),
            "{refused:?}"
        );
        assert_eq!(platform.observe(&workload.id).await.unwrap(), None);
    }
}

pub(crate) async fn a_service_of_somebody_else_is_not_touched(swarm: &Swarm) {
    let platform = swarm.platform().await;
    let foreign = swarm.foreign().await;
    let name = "foreign-a-service-of-somebody-else-is-not-touched";
    let workload = swarm.workload(name, 1);
    let refused = platform.ensure(&workload).await;
    assert!(
        matches!(&refused, Err(PlatformError::NameConflict { owner, .. }) if owner.contains("not of this operator")),
        "{refused:?}"
    );
    assert!(platform.remove(&workload.id).await.unwrap());
    assert!(foreign.runs().await);
}

pub(crate) async fn a_changed_secret_replaces_the_instances_that_use_it(swarm: &Swarm) {
    let platform = swarm.platform().await;
    let mut workload = swarm.workload("secretive", 1);
    workload.owner = owner("secretive");
    workload.files = vec![
        MountedFile {
            path: "/etc/app/password".to_owned(),
            content: FileContent::Secret {
                key: SecretKey {
                    secret: "mine".to_owned(),
                    key: "password".to_owned(),
                },
                optional: false,
            },
        },
        MountedFile {
            path: "/etc/app/settings".to_owned(),
            content: FileContent::Plain("plain".to_owned()),
        },
    ];
    let missing = platform.ensure(&workload).await;
    assert!(
        matches!(&missing, Err(PlatformError::MissingSecret(_, what)) if what.contains("test/mine/password")),
        "{missing:?}"
    );

    let file = swarm.secret_file("test", "mine", "password");
    std::fs::write(&file, "one").unwrap();
    platform.ensure(&workload).await.unwrap();
    let first = wait_for(&platform, &workload.id, WorkloadState::settled).await;
    assert_eq!(read(swarm, &first[0], "/etc/app/password"), "one");
    assert_eq!(read(swarm, &first[0], "/etc/app/settings"), "plain");

    std::fs::write(&file, "two").unwrap();
    platform.ensure(&workload).await.unwrap();
    let second = wait_for(&platform, &workload.id, |state| {
        state.settled() && state.instances[0].process != first[0].process
    })
    .await;
    assert_eq!(read(swarm, &second[0], "/etc/app/password"), "two");

    // What nobody uses any more is gone; what is in use is not.
    platform.ensure(&workload).await.unwrap();
    let secrets = swarm
        .cluster
        .docker(1, &["secret", "ls", "--format", "{{.Name}}"]);
    let mine = secrets
        .lines()
        .filter(|name| name.starts_with("secretive-"));
    assert_eq!(mine.count(), 1, "{secrets}");
}

fn read(swarm: &Swarm, instance: &InstanceState, path: &str) -> String {
    let (node, container) = swarm
        .container(instance.process.as_deref().unwrap())
        .unwrap();
    swarm
        .cluster
        .docker(node, &["exec", &container, "cat", path])
}

pub(crate) async fn a_change_by_hand_is_undone(swarm: &Swarm) {
    let platform = swarm.platform().await;
    let workload = swarm.workload("drift", 1);
    platform.ensure(&workload).await.unwrap();
    wait_for(&platform, &workload.id, WorkloadState::settled).await;
    let by_hand = [
        "--detach",
        "--replicas",
        "3",
        "--env-add",
        "BY=hand",
        "drift",
    ];
    let by_hand = [&["service", "update"], &by_hand[..]].concat();
    swarm.cluster.docker(1, &by_hand);
    platform.ensure(&workload).await.unwrap();
    let format = "{{.Spec.Mode.Replicated.Replicas}} {{.Spec.TaskTemplate.ContainerSpec.Env}}";
    let now = swarm
        .cluster
        .docker(1, &["service", "inspect", "--format", format, "drift"]);
    assert_eq!(now, "1 [POD_NAME={{.Task.Name}}]");
    wait_for(&platform, &workload.id, WorkloadState::settled).await;
}

pub(crate) async fn what_was_on_a_lost_node_comes_up_on_another(swarm: &Swarm) {
    let platform = swarm.platform().await;
    let mut shard = with_identity(swarm, "moves", 2, SpreadMode::Required);
    let mut pool = swarm.workload("pool", 3);
    shard.stop.grace_seconds = 1;
    pool.stop.grace_seconds = 1;
    for workload in [&shard, &pool] {
        platform.ensure(workload).await.unwrap();
    }
    for workload in [&shard, &pool] {
        wait_for(&platform, &workload.id, WorkloadState::settled).await;
    }
    let before = nodes_of(swarm, &["moves-0", "moves-1"]);
    // Node 1 is the manager, which stays.
    let lost = if before[1] == "node-1" { 0 } else { 1 };
    let node = before[lost].strip_prefix("node-").unwrap().to_owned();
    swarm.cluster.tool(&["kill", &node]);
    let begin = Instant::now();
    loop {
        for workload in [&shard, &pool] {
            platform.ensure(workload).await.unwrap();
        }
        let now = nodes_of(swarm, &["moves-0", "moves-1"]);
        let settled = |state: Option<WorkloadState>| state.is_some_and(|state| state.settled());
        if now[lost] != before[lost]
            && settled(platform.observe(&shard.id).await.unwrap())
            && settled(platform.observe(&pool.id).await.unwrap())
        {
            assert_eq!(now[1 - lost], before[1 - lost], "the other stayed");
            assert_ne!(now[0], now[1]);
            break;
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "{:#?}",
            platform.list().await.unwrap()
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    swarm.cluster.tool(&["start", &node]);
    // The Swarm is whole again for the next one.
    loop {
        let states = swarm
            .cluster
            .docker(1, &["node", "ls", "--format", "{{.Status}}"]);
        if states.lines().all(|state| state == "Ready") {
            break;
        }
        assert!(begin.elapsed() < 2 * PATIENCE, "{states}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
