//! From YAML to objects, each problem with file, line and reason.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResourceExt;
use ofa_crds::api::{AssetGroup, ForwarderPool, NatsShard};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::bounds;
use super::manifest::{Kind, Manifest, ObjectKey};

/// Something in a file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// The object, where it is known.
    pub object: Option<ObjectKey>,
    /// What is wrong and what to do.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// One object of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// File.
    pub file: String,
    /// First line of its document.
    pub line: u64,
    /// The object.
    pub manifest: Manifest,
}

/// What every document says about itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    metadata: ObjectMeta,
}

/// Longest name of our kinds: names of objects and their instances are made from it.
const MAX_NAME: usize = 40;

/// Parses a file of one or more documents. Documents of comments alone are none.
#[must_use]
pub fn parse_file(file: &str, text: &str) -> Vec<Result<Document, Problem>> {
    parse_file_in("default", file, text)
}

/// The same, where an object that names no namespace is in `namespace`.
#[must_use]
pub fn parse_file_in(namespace: &str, file: &str, text: &str) -> Vec<Result<Document, Problem>> {
    split(text)
        .into_iter()
        .filter(|(_, document)| !is_blank(document))
        .map(|(line, document)| parse_document(namespace, file, line, &document))
        .collect()
}

/// The documents of a file and the lines they begin at. A line `---` cannot stand in a value: those are indented.
fn split(text: &str) -> Vec<(u64, String)> {
    let mut documents = vec![(1, String::new())];
    for (number, line) in (1..).zip(text.lines()) {
        if line == "---" || line.starts_with("--- ") {
            documents.push((number + 1, String::new()));
        } else if let Some((_, document)) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents
}

fn is_blank(document: &str) -> bool {
    document
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

fn parse_document(namespace: &str, file: &str, line: u64, text: &str) -> Result<Document, Problem> {
    let problem = |line, object, reason| Problem {
        file: file.to_owned(),
        line,
        object,
        reason,
    };
    let yaml_problem = |object: Option<ObjectKey>, error: &serde_saphyr::Error| {
        let at = error
            .location()
            .map_or(0, |location| location.line().saturating_sub(1));
        let text = error.without_snippet().to_string();
        // The position counts from the document's beginning; ours counts from the file's.
        let reason = text.split(" at line ").next().unwrap_or(&text).to_owned();
        problem(line + at, object, reason)
    };
    let head: Head = serde_saphyr::from_str(text).map_err(|error| yaml_problem(None, &error))?;
    let key = key_of(head, namespace).map_err(|reason| problem(line, None, reason))?;
    let parsed = match key.kind {
        Kind::Service => yaml(text).map(Manifest::Service),
        Kind::StatefulSet => yaml(text).map(Manifest::StatefulSet),
        Kind::Deployment => yaml(text).map(Manifest::Deployment),
        Kind::NatsShard => yaml(text).map(Manifest::NatsShard),
        Kind::ForwarderPool => yaml(text).map(Manifest::ForwarderPool),
        Kind::AssetGroup => yaml(text).map(Manifest::AssetGroup),
    };
    let mut manifest = parsed.map_err(|error| yaml_problem(Some(key.clone()), &error))?;
    check(&manifest, &key).map_err(|reason| problem(line, Some(key.clone()), reason))?;
    let meta = manifest.meta_mut();
    *meta = ObjectMeta {
        name: Some(key.name),
        namespace: Some(key.namespace),
        labels: meta.labels.take(),
        annotations: meta.annotations.take(),
        ..ObjectMeta::default()
    };
    manifest.clear_status();
    Ok(Document {
        file: file.to_owned(),
        line,
        manifest,
    })
}

fn yaml<T: DeserializeOwned>(text: &str) -> Result<Box<T>, serde_saphyr::Error> {
    serde_saphyr::from_str(text).map(Box::new)
}

fn key_of(head: Head, namespace: &str) -> Result<ObjectKey, String> {
    let (Some(api_version), Some(kind)) = (head.api_version, head.kind) else {
        return Err("apiVersion and kind are missing; every document needs both".to_owned());
    };
    let Some(kind) = Kind::find(&api_version, &kind) else {
        let known: Vec<String> = Kind::ALL
            .iter()
            .map(|kind| format!("{} {}", kind.api_version(), kind.name()))
            .collect();
        return Err(format!(
            "{api_version} {kind} is not supported here; supported are {}",
            known.join(", ")
        ));
    };
    let Some(name) = head.metadata.name else {
        return Err("metadata.name is missing".to_owned());
    };
    let namespace = head
        .metadata
        .namespace
        .unwrap_or_else(|| namespace.to_owned());
    for (what, text) in [("metadata.name", &name), ("metadata.namespace", &namespace)] {
        if !is_dns_label(text) {
            return Err(format!(
                "{what} '{text}' must be 1 to 63 lower-case letters, digits and '-', with a letter or digit at both ends"
            ));
        }
    }
    Ok(ObjectKey {
        kind,
        namespace,
        name,
    })
}

fn is_dns_label(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(legal)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn check(manifest: &Manifest, key: &ObjectKey) -> Result<(), String> {
    let crd = match manifest {
        Manifest::NatsShard(_) => NatsShard::crd(),
        Manifest::ForwarderPool(_) => ForwarderPool::crd(),
        Manifest::AssetGroup(_) => AssetGroup::crd(),
        Manifest::Service(_) | Manifest::StatefulSet(_) | Manifest::Deployment(_) => return Ok(()),
    };
    if key.name.len() > MAX_NAME {
        return Err(format!(
            "metadata.name may have at most {MAX_NAME} characters, since the names of its objects are made from it"
        ));
    }
    let violations = bounds::violations(&crd, &manifest.to_json());
    if violations.is_empty() {
        Ok(())
    } else {
        Err(violations.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let parsed = parse_file("f.yaml", text);
        parsed
            .into_iter()
            .filter_map(Result::err)
            .map(|problem| problem.to_string())
            .collect()
    }

    #[test]
    fn the_smallest_shard_gets_its_defaults() {
        let text = "apiVersion: fanout.openfactory.io/v1alpha1\nkind: NatsShard\nmetadata: {name: a}\nspec: {}\n";
        let parsed = parse_file("f.yaml", text);
        let Ok(Document {
            manifest: Manifest::NatsShard(shard),
            ..
        }) = &parsed[0]
        else {
            panic!("{parsed:?}");
        };
        assert_eq!(shard.spec.nodes, 3);
        assert_eq!(shard.metadata.namespace.as_deref(), Some("default"));
    }

    #[test]
    fn problems_name_file_line_and_reason() {
        insta::assert_yaml_snapshot!(problems(
            "# a comment\n---\napiVersion: fanout.openfactory.io/v1alpha1\nkind: NatsShard\nmetadata: {name: a}\nspec:\n  nodez: 3\n"
        ));
        insta::assert_yaml_snapshot!(problems(
            "apiVersion: fanout.openfactory.io/v1alpha1\nkind: NatsShard\nmetadata: {name: a}\nspec:\n  nodes: 99\n"
        ));
        insta::assert_yaml_snapshot!(problems(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
        ));
        insta::assert_yaml_snapshot!(problems(
            "apiVersion: v1\nkind: Service\nmetadata: {name: A_b}\nspec: {}\n"
        ));
        insta::assert_yaml_snapshot!(problems("kind: [\n"));
        insta::assert_yaml_snapshot!(problems(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  selector: {matchLabels: {}}\n  template:\n    spec:\n      hostNetwork: true\n      containers: []\n"
        ));
    }

    #[test]
    fn one_bad_document_leaves_the_others() {
        let good = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {}\n";
        let parsed = parse_file("f.yaml", &format!("{good}---\nkind: x\n---\n{good}"));
        assert_eq!(
            parsed.iter().map(Result::is_ok).collect::<Vec<_>>(),
            [true, false, true]
        );
    }
}
