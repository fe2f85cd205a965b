//! `operator status`, `ofa status`: the resources as `kubectl get` would print them, by the columns of their CRDs.
#![allow(clippy::print_stdout, reason = "this is the output of a command")]

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use kube::CustomResourceExt;
use ofa_crds::api::{AssetGroup, ConditionStatus, ForwarderPool, NatsShard, READY};
use serde_json::Value;

use crate::cli::Output;
use crate::platform::WorkloadState;
use crate::platform::local::store::read_json;
use crate::reconciler::INSTANCES_FILE;
use crate::resources::{Kind, Manifest, PROBLEMS_FILE, Problem, read_objects};

/// A column: its title, where its value is, and whether that is a date.
#[derive(Debug, Clone)]
struct Column {
    title: String,
    path: String,
    is_date: bool,
    is_wide: bool,
}

/// Everything that is printed.
#[derive(Debug, Default)]
pub struct View {
    /// The resources.
    pub objects: Vec<Manifest>,
    /// What runs for them.
    pub instances: Vec<WorkloadState>,
    /// What is wrong with the files they are in.
    pub problems: Vec<Problem>,
}

/// Prints what the state directory holds.
///
/// # Errors
/// When it cannot be read.
pub fn print(state: &Path, output: Output) -> io::Result<()> {
    println!("{}", of_state(state, output)?);
    Ok(())
}

/// What the state directory holds, as text.
///
/// # Errors
/// When it cannot be read.
pub fn of_state(state: &Path, output: Output) -> io::Result<String> {
    // Looking must not create what is looked for.
    if !state.exists() {
        return Ok(format!(
            "No resources: no operator has used {} yet.",
            state.display()
        ));
    }
    let view = View {
        objects: read_objects(state)?,
        instances: read_json(&state.join(INSTANCES_FILE))?.unwrap_or_default(),
        problems: read_json(&state.join(PROBLEMS_FILE))?.unwrap_or_default(),
    };
    render(&view, output)
}

/// Everything as text.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn render(view: &View, output: Output) -> io::Result<String> {
    let text = match output {
        Output::Json => json(view)?,
        Output::Table => tables(view, false, Timestamp::now()),
        Output::Wide => tables(view, true, Timestamp::now()),
    };
    Ok(text.trim_end().to_owned())
}

fn json(view: &View) -> io::Result<String> {
    let items: Vec<Value> = view.objects.iter().map(Manifest::to_json).collect();
    let all = serde_json::json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": items,
        "workloads": view.instances,
        "problems": view.problems,
    });
    Ok(serde_json::to_string_pretty(&all)?)
}

fn tables(view: &View, wide: bool, now: Timestamp) -> String {
    let mut out = String::new();
    for kind in [
        Kind::NatsShard,
        Kind::ForwarderPool,
        Kind::AssetGroup,
        Kind::StatefulSet,
        Kind::Deployment,
    ] {
        let objects: Vec<&Manifest> = view.objects.iter().filter(|o| o.kind() == kind).collect();
        if !objects.is_empty() {
            push_table(&mut out, kind, &objects, wide, now);
        }
    }
    push_instances(&mut out, &view.instances);
    push_conditions(&mut out, &view.objects);
    for problem in &view.problems {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "Problem: {problem}");
    }
    if out.is_empty() {
        "No resources.".to_owned()
    } else {
        out
    }
}

fn push_table(out: &mut String, kind: Kind, objects: &[&Manifest], wide: bool, now: Timestamp) {
    let columns: Vec<Column> = columns(kind)
        .into_iter()
        .filter(|c| wide || !c.is_wide)
        .collect();
    let titles = columns.iter().map(|column| column.title.to_uppercase());
    let mut rows = vec![
        ["NAMESPACE".to_owned(), "NAME".to_owned()]
            .into_iter()
            .chain(titles)
            .collect(),
    ];
    for object in objects {
        let key = object.key();
        let json = object.to_json();
        let cells = columns.iter().map(|column| cell(column, &json, now));
        let name = format!("{}/{}", kind.name().to_lowercase(), key.name);
        rows.push([key.namespace, name].into_iter().chain(cells).collect());
    }
    push_rows(out, &rows);
}

fn columns(kind: Kind) -> Vec<Column> {
    let crd = match kind {
        Kind::NatsShard => NatsShard::crd(),
        Kind::ForwarderPool => ForwarderPool::crd(),
        Kind::AssetGroup => AssetGroup::crd(),
        Kind::Service | Kind::StatefulSet | Kind::Deployment => return plain_columns(),
    };
    let version = crd.spec.versions.into_iter().next();
    let columns = version
        .and_then(|version| version.additional_printer_columns)
        .unwrap_or_default();
    let column = |column: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition| Column {
        is_date: column.type_ == "date",
        is_wide: column.priority.unwrap_or(0) > 0,
        title: column.name,
        path: column.json_path,
    };
    columns.into_iter().map(column).collect()
}

fn plain_columns() -> Vec<Column> {
    let column = |title: &str, path: &str| Column {
        title: title.to_owned(),
        path: path.to_owned(),
        is_date: title == "Age",
        is_wide: false,
    };
    vec![
        column("Replicas", ".spec.replicas"),
        column("Ready", ".status.readyReplicas"),
        column("Address", ".status.addresses[0]"),
        column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
        column("Age", ".metadata.creationTimestamp"),
    ]
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> String {
    match lookup(object, &column.path) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) if column.is_date => age(text, now),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The JSONPath that printer columns use: members, an index, and one filter on a member's value.
fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let path = path.trim_start_matches('.');
    if path.is_empty() {
        return Some(value);
    }
    if let Some(rest) = path.strip_prefix('[') {
        let (inside, rest) = rest.split_once(']')?;
        let items = value.as_array()?;
        let item = match inside.strip_prefix("?(@.") {
            Some(filter) => {
                let (member, wanted) = filter.trim_end_matches(')').split_once("==")?;
                let wanted = wanted.trim_matches(['\'', '"']);
                items
                    .iter()
                    .find(|item| item.get(member).and_then(Value::as_str) == Some(wanted))?
            }
            None => items.get(inside.parse::<usize>().ok()?)?,
        };
        return lookup(item, rest);
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    lookup(value.get(&path[..end])?, &path[end..])
}

fn age(created: &str, now: Timestamp) -> String {
    let Ok(created) = created.parse::<Timestamp>() else {
        return created.to_owned();
    };
    let seconds = now.duration_since(created).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn push_instances(out: &mut String, workloads: &[WorkloadState]) {
    let mut rows = vec![
        [
            "INSTANCE", "ADDRESS", "PHASE", "READY", "CURRENT", "RESTARTS", "PROCESS",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for instance in workloads.iter().flat_map(|workload| &workload.instances) {
        rows.push(vec![
            instance.name.clone(),
            instance.host.clone(),
            format!("{:?}", instance.phase),
            instance.ready.to_string(),
            instance.current.to_string(),
            instance.restarts.to_string(),
            instance.process.clone().unwrap_or_default(),
        ]);
    }
    if rows.len() > 1 {
        push_rows(out, &rows);
    }
}

/// What is not as it should be, in full.
fn push_conditions(out: &mut String, objects: &[Manifest]) {
    for object in objects {
        let conditions = object.conditions();
        let trouble = conditions
            .iter()
            .filter(|c| c.kind != READY && c.status == ConditionStatus::True);
        for condition in trouble {
            let _ = writeln!(
                out,
                "{}: {} ({}): {}",
                object.key(),
                condition.kind,
                condition.reason,
                condition.message
            );
        }
        if let Manifest::AssetGroup(group) = object {
            let actions = group.status.iter().flat_map(|it| &it.planned_actions);
            for action in actions {
                let _ = writeln!(
                    out,
                    "{}: planned since {}: {:?} of stream {}: {}",
                    object.key(),
                    action.since,
                    action.action,
                    action.stream,
                    action.message
                );
            }
        }
    }
}

fn push_rows(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|c| c.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}   ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_paths_of_printer_columns_are_understood() {
        let object = json!({"spec": {"nodes": 2}, "status": {"conditions": [
            {"type": "Stalled", "status": "False"}, {"type": "Ready", "status": "True"}
        ], "addresses": ["a:1"]}});
        assert_eq!(lookup(&object, ".spec.nodes"), Some(&json!(2)));
        assert_eq!(
            lookup(&object, ".status.conditions[?(@.type=='Ready')].status"),
            Some(&json!("True"))
        );
        assert_eq!(lookup(&object, ".status.addresses[0]"), Some(&json!("a:1")));
        assert_eq!(lookup(&object, ".status.nothing.here"), None);
    }

    #[test]
    fn every_column_of_every_kind_has_a_path_that_is_understood() {
        for kind in [Kind::NatsShard, Kind::ForwarderPool, Kind::AssetGroup] {
            assert!(
                columns(kind)
                    .iter()
                    .all(|column| column.path.starts_with('.'))
            );
            assert!(columns(kind).iter().any(|column| column.title == "Ready"));
        }
    }

    #[test]
    fn ages_read_as_in_kubectl() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(age("2026-01-01T23:58:59Z", now), "61s");
        assert_eq!(age("2026-01-01T23:00:00Z", now), "60m");
        assert_eq!(age("2025-12-20T00:00:00Z", now), "13d");
    }
}
