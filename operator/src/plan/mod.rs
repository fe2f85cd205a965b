//! What other resources than those in force would change, nothing of it done: `operator plan`, `ofa plan`.
//!
//! All of it is computed by the builders that reconciling uses; no process, no broker and no node is asked.
#![allow(clippy::print_stdout, reason = "this is the output of a command")]

mod moves;
mod step;
mod streams;
mod workloads;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use ofa_crds::kafka::KafkaSettings;
use serde::Serialize;

pub use step::Step;

use crate::controllers::{KsqlDbSettings, Settings};
use crate::resources::{
    Document, Folder, Manifest, ObjectKey, Problem, Snapshot, parse_file_in, read_objects,
};

/// Objects by what they are called.
pub type Objects = BTreeMap<ObjectKey, Manifest>;

/// What a change would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// What cannot be read, and would leave its object as it is.
    pub problems: Vec<Problem>,
    /// What would be done; nothing, if all is in force already.
    pub steps: Vec<Step>,
}

/// Prints what a folder would change of what an operator has put in force in its state directory.
///
/// # Errors
/// When the state directory cannot be read.
pub fn print(state: &Path, resources: &Path) -> io::Result<()> {
    let (after, problems) = wanted(&Folder::new(resources.to_owned()).read(), "default");
    let plan = plan(&in_force(state)?, &after, problems);
    println!("{}", plan.to_string().trim_end());
    Ok(())
}

/// What a local operator has put in force.
///
/// # Errors
/// When its state directory cannot be read.
pub fn in_force(state: &Path) -> io::Result<Objects> {
    // Looking must not create what is looked for.
    if !state.exists() {
        return Ok(Objects::new());
    }
    Ok(objects(read_objects(state)?))
}

/// Those of the objects that are not about to be deleted.
#[must_use]
pub fn objects(all: Vec<Manifest>) -> Objects {
    let alive = all
        .into_iter()
        .filter(|object| object.meta().deletion_timestamp.is_none());
    alive.map(|object| (object.key(), object)).collect()
}

/// The objects in files, and what cannot be read of them.
#[must_use]
pub fn wanted(files: &Snapshot, namespace: &str) -> (Objects, Vec<Problem>) {
    let mut objects = Objects::new();
    let mut problems = files.problems.clone();
    for (file, text) in &files.files {
        for parsed in parse_file_in(namespace, file, text) {
            match parsed {
                Ok(Document { manifest, .. }) => {
                    objects.insert(manifest.key(), manifest);
                }
                Err(problem) => problems.push(problem),
            }
        }
    }
    (objects, problems)
}

/// What it takes to come from one set of objects to another.
#[must_use]
pub fn plan(before: &Objects, after: &Objects, problems: Vec<Problem>) -> Plan {
    let settings = settings();
    let mut steps = step::objects(before, after);
    steps.extend(workloads::steps(before, after, &settings));
    steps.extend(moves::steps(before, after, &settings));
    steps.extend(streams::steps(before, after, &settings));
    Plan { problems, steps }
}

/// What an operator was started with is the same before and after.
fn settings() -> Settings {
    Settings {
        kafka: KafkaSettings::plain(""),
        control_topic: String::new(),
        forwarder_image: String::new(),
        serving_image: String::new(),
        ksqldb: KsqlDbSettings {
            url: Some(String::new()),
            ..KsqlDbSettings::default()
        },
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "Problem: {problem}")?;
        }
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        if self.problems.is_empty() && self.steps.is_empty() {
            writeln!(f, "Nothing would change.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
