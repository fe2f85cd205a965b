use ofa_crds::api::{AssetGroupStatus, GroupStatus};

use super::*;

const SHARD: &str = "apiVersion: fanout.openfactory.io/v1alpha1\nkind: NatsShard\nmetadata: {name: NAME}\nspec: {}\n---\n";

const POOL: &str = "apiVersion: fanout.openfactory.io/v1alpha1\nkind: ForwarderPool\nmetadata: {name: pool}\nspec: {replicas: 2}\n";

const GROUP: &str = "---\napiVersion: fanout.openfactory.io/v1alpha1\nkind: AssetGroup\nmetadata: {name: lines}\n\
    spec: {grouping: {level: line}, stream: {engine: ENGINE, partitions: 3}}\n";

fn folder(shards: &[&str], rest: &str) -> Objects {
    let shards: String = shards
        .iter()
        .map(|name| SHARD.replace("NAME", name))
        .collect();
    let (objects, problems) = read(&(shards + rest));
    assert_eq!(problems, []);
    objects
}

fn read(text: &str) -> (Objects, Vec<Problem>) {
    let files = Snapshot {
        files: BTreeMap::from([("f.yaml".to_owned(), text.to_owned())]),
        problems: Vec::new(),
        complete: true,
    };
    wanted(&files, "default")
}

/// As a group's controller has found it: 700 assets in one line, 300 in another.
fn with_assets(mut objects: Objects) -> Objects {
    for object in objects.values_mut() {
        if let Manifest::AssetGroup(group) = object {
            let found = |name: &str, assets| GroupStatus {
                name: name.to_owned(),
                topic: format!("asset_stream_{name}_topic"),
                assets,
                service: None,
                state: Default::default(),
                message: None,
            };
            group.status = Some(AssetGroupStatus {
                groups: vec![found("Weld", 700), found("Paint", 300)],
                ..AssetGroupStatus::default()
            });
        }
    }
    objects
}

fn told(before: &Objects, after: &Objects) -> String {
    plan(before, after, Vec::new()).to_string()
}

fn group(engine: &str) -> String {
    GROUP.replace("ENGINE", engine)
}

#[test]
fn everything_is_new_at_first() {
    let after = folder(&["a", "b"], &format!("{POOL}{}", group("Native")));
    insta::assert_snapshot!(told(&Objects::new(), &after));
}

#[test]
fn a_third_shard_and_forwarder() {
    let before = with_assets(folder(&["a", "b"], &format!("{POOL}{}", group("ksqlDB"))));
    let pool = POOL.replace("replicas: 2", "replicas: 3");
    let after = folder(&["a", "b", "c"], &format!("{pool}{}", group("ksqlDB")));
    insta::assert_snapshot!(told(&before, &after));
}

#[test]
fn a_shard_less() {
    insta::assert_snapshot!(told(
        &folder(&["a", "b", "c"], POOL),
        &folder(&["a", "b"], POOL)
    ));
}

#[test]
fn another_protocol_of_the_group_restarts_the_forwarders() {
    let consumer = POOL.replace("replicas: 2", "replicas: 2, groupProtocol: Consumer");
    let (before, after) = (folder(&["a"], POOL), folder(&["a"], &consumer));
    assert_eq!(
        told(&before, &after),
        "changed   ForwarderPool default/pool\nrestart   default/pool: 2 instances, one after the other\n"
    );
}

#[test]
fn what_is_in_force_changes_nothing() {
    let same = folder(&["a", "b"], POOL);
    assert_eq!(told(&same, &same), "Nothing would change.\n");
}

#[test]
fn what_nodes_take_in_while_they_run_is_told_from_what_restarts_them() {
    let with = |spec: &str| {
        let shard = SHARD.replace("NAME", "a");
        let (objects, _) =
            read(&shard.replace("spec: {}", &format!("spec: {{config: {{{spec}}}}}")));
        objects
    };
    let changes = [
        "maxConnections: 7",
        "maxPending: 99999999",
        "lameDuckSeconds: 60",
    ];
    let told = changes.map(|change| told(&with(""), &with(change)));
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn what_a_newer_operator_kept_back_comes_with_the_next_change() {
    let mut before = folder(&["a"], "");
    for object in before.values_mut() {
        object.set_condition(ofa_crds::api::ROLLOUT_PENDING, "a newer operator");
    }
    let (changed, _) = read(
        "apiVersion: fanout.openfactory.io/v1alpha1\nkind: NatsShard\nmetadata: {name: a, annotations: \
         {fanout.openfactory.io/roll-out: now}}\nspec: {}\n",
    );
    assert_eq!(
        told(&before, &changed),
        "restart   default/a: a-2, a-1, a-0, one after the other; takes in what a newer operator builds (RolloutPending)\n"
    );
    assert_eq!(told(&before, &before), "Nothing would change.\n");
}

#[test]
fn streams_that_are_made_again_and_that_go() {
    let before = with_assets(folder(&[], &group("ksqlDB")));
    let keeps = GROUP.replace("ENGINE", "ksqlDB");
    let fewer = folder(&[], &keeps.replace("partitions: 3", "partitions: 2"));
    let other = folder(&[], &keeps.replace("level: line", "level: area"));
    let deletes = keeps.replace("partitions: 3", "partitions: 3, deletionPolicy: Delete");
    let deleting = with_assets(folder(&[], &deletes));
    let one = folder(
        &[],
        &deletes.replace("level: line", "level: line, value: Weld"),
    );
    let told = [
        told(&before, &fewer),
        told(&before, &other),
        told(&deleting, &one),
        told(&before, &folder(&[], &group("Native"))),
        told(&deleting, &Objects::new()),
    ];
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn what_cannot_be_read_is_told() {
    let shard = SHARD.replace("NAME", "a");
    let (after, problems) = read(&(shard + &POOL.replace("replicas: 2", "replicas: many")));
    let said = plan(&Objects::new(), &after, problems).to_string();
    assert!(said.starts_with("Problem: f.yaml:"), "{said}");
    assert!(said.contains("start     default/a"), "{said}");
}
