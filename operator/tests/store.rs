//! The folder as an API server: what is in force, and what a bad file does to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use ofa_operator::resources::{Folder, Kind, Manifest, ObjectKey, Problem, Store};
use tempfile::TempDir;

struct World {
    state: TempDir,
    folder: TempDir,
    store: Store,
}

const GOOD: &str = "apiVersion: fanout.openfactory.io/v1alpha1\nkind: NatsShard\nmetadata: {name: NAME}\nspec: {nodes: NODES}\n";

fn shard(name: &str, nodes: &str) -> String {
    GOOD.replace("NAME", name).replace("NODES", nodes)
}

impl World {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(state.path()).unwrap(),
            folder: tempfile::tempdir().unwrap(),
            state,
        }
    }

    fn write(&mut self, file: &str, text: &str) -> Vec<String> {
        std::fs::write(self.folder.path().join(file), text).unwrap();
        self.take()
    }

    fn take(&mut self) -> Vec<String> {
        let snapshot = Folder::new(self.folder.path().to_owned()).read();
        self.store.take(&snapshot).unwrap();
        problems(self.state.path())
    }

    fn nodes(&self, name: &str) -> Option<(u16, i64)> {
        let key = ObjectKey {
            kind: Kind::NatsShard,
            namespace: "default".to_owned(),
            name: name.to_owned(),
        };
        match self.store.get(&key)? {
            Manifest::NatsShard(shard) => {
                Some((shard.spec.nodes, shard.metadata.generation.unwrap()))
            }
            other => panic!("{other:?}"),
        }
    }

    fn is_deleted(&self, name: &str) -> bool {
        let mut shards = self.store.of_kind(Kind::NatsShard);
        shards.any(|s| s.key().name == name && s.meta().deletion_timestamp.is_some())
    }
}

fn problems(state: &Path) -> Vec<String> {
    let json = std::fs::read(state.join("problems.json")).unwrap();
    let problems: Vec<Problem> = serde_json::from_slice(&json).unwrap();
    problems
        .into_iter()
        .map(|p| format!("{}: {}", p.line, p.reason))
        .collect()
}

#[test]
fn a_changed_spec_is_a_new_generation_and_anything_else_is_not() {
    let mut world = World::new();
    assert!(world.write("a.yaml", &shard("a", "1")).is_empty());
    assert_eq!(world.nodes("a"), Some((1, 1)));
    world.write("a.yaml", &format!("# a comment\n{}", shard("a", "1")));
    assert_eq!(world.nodes("a"), Some((1, 1)));
    world.write("a.yaml", &shard("a", "2"));
    assert_eq!(world.nodes("a"), Some((2, 2)));
}

#[test]
fn a_bad_file_changes_nothing_and_is_reported() {
    let mut world = World::new();
    world.write(
        "a.yaml",
        &format!("{}---\n{}", shard("a", "1"), shard("b", "1")),
    );
    let problems = world.write(
        "a.yaml",
        &format!("{}---\n{}", shard("a", "2"), shard("b", "none")),
    );
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].starts_with("9: "),
        "the line in the file: {problems:?}"
    );
    assert_eq!(
        world.nodes("a"),
        Some((2, 2)),
        "what is good of a file is taken"
    );
    assert_eq!(
        world.nodes("b"),
        Some((1, 1)),
        "what is bad keeps its last good version"
    );

    world.write("a.yaml", "kind: [");
    assert!(
        !world.is_deleted("a") && !world.is_deleted("b"),
        "an unreadable file deletes nothing"
    );
    assert!(world.write("a.yaml", &shard("a", "3")).is_empty());
    assert!(world.is_deleted("b"));
}

#[test]
fn what_is_put_back_is_not_deleted() {
    let mut world = World::new();
    world.write("a.yaml", &shard("a", "1"));
    world.write("a.yaml", "# nothing\n");
    assert!(world.is_deleted("a"));
    world.write("a.yaml", &shard("a", "1"));
    assert!(!world.is_deleted("a"));
    assert_eq!(
        world.nodes("a"),
        Some((1, 1)),
        "the same object, not another of its name"
    );
}

#[test]
fn a_folder_that_cannot_be_read_deletes_nothing() {
    let mut world = World::new();
    world.write("a.yaml", &shard("a", "1"));
    std::fs::remove_dir_all(world.folder.path()).unwrap();
    assert_eq!(world.take().len(), 1);
    assert!(!world.is_deleted("a"));
}

#[test]
fn one_object_in_two_files_and_a_new_ring_name_are_refused() {
    let mut world = World::new();
    world.write("a.yaml", &shard("a", "1"));
    let problems = world.write("b.yaml", &shard("a", "5"));
    assert!(
        problems[0].contains("remove one of the two"),
        "{problems:?}"
    );
    assert_eq!(world.nodes("a"), Some((1, 1)));
    std::fs::remove_file(world.folder.path().join("b.yaml")).unwrap();
    let problems = world.write("a.yaml", &shard("a", "1, clusterName: C9"));
    assert!(problems[0].contains("cannot change"), "{problems:?}");
    assert_eq!(world.nodes("a"), Some((1, 1)));
}

#[test]
fn what_is_in_force_survives_a_restart_of_the_operator() {
    let mut world = World::new();
    world.write("a.yaml", &shard("a", "1"));
    world.write("a.yaml", "kind: [");
    world.store = Store::open(world.state.path()).unwrap();
    world.take();
    assert_eq!(world.nodes("a"), Some((1, 1)));
    assert!(!world.is_deleted("a"));
}

#[test]
fn a_half_written_file_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let mut watched = Folder::new(folder.path().to_owned());
    let write = |text: &str| std::fs::write(folder.path().join("a.yaml"), text).unwrap();
    write("first");
    assert_eq!(watched.poll(), None, "seen once only");
    assert!(watched.poll().is_some());
    assert_eq!(watched.poll(), None, "nothing new");
    write("");
    assert_eq!(watched.poll(), None);
    write("second");
    assert_eq!(watched.poll(), None);
    let taken = watched.poll().unwrap();
    assert_eq!(taken.files.values().collect::<Vec<_>>(), ["second"]);
}
