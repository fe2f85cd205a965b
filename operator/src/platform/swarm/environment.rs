//! Environment and arguments of an instance.

use std::collections::BTreeMap;

use super::files::{Secrets, value};
use crate::platform::local::text::expand;
use crate::platform::{EnvValue, PlatformError, Workload};

/// What Swarm replaces by `<service>.<slot>.<task>`, the container's name on its networks, which no two tasks share.
const TASK_NAME: &str = "{{.Task.Name}}";

/// The environment as Docker takes it. Swarm reads values as templates, so braces of the user's own are escaped.
pub(super) fn environment(
    workload: &Workload,
    secrets: &Secrets,
    ordinal: Option<u16>,
) -> Result<Vec<String>, PlatformError> {
    let all = resolved(workload, secrets, ordinal)?;
    let named = workload.env.iter().map(|var| {
        let value = all.get(&var.name).map_or("", String::as_str);
        format!("{}={value}", var.name)
    });
    Ok(named.collect())
}

/// Words of a command with their variables in place.
pub(super) fn expanded(
    workload: &Workload,
    secrets: &Secrets,
    ordinal: Option<u16>,
    words: &[String],
) -> Result<Vec<String>, PlatformError> {
    let all = plain(workload, secrets, ordinal)?;
    Ok(words.iter().map(|word| expand(word, &all)).collect())
}

/// The values of secrets among the environment.
pub(super) fn variables<'a>(
    workload: &'a Workload,
    secrets: &'a Secrets,
) -> impl Iterator<Item = Result<&'a str, PlatformError>> {
    workload.env.iter().filter_map(|var| match &var.value {
        EnvValue::Secret(key) => Some(value(workload, key, secrets)),
        _ => None,
    })
}

fn resolved(
    workload: &Workload,
    secrets: &Secrets,
    ordinal: Option<u16>,
) -> Result<BTreeMap<String, String>, PlatformError> {
    values(workload, secrets, ordinal, |text| {
        text.replace("{{", "{{\"{{\"}}")
    })
}

fn plain(
    workload: &Workload,
    secrets: &Secrets,
    ordinal: Option<u16>,
) -> Result<BTreeMap<String, String>, PlatformError> {
    values(workload, secrets, ordinal, str::to_owned)
}

fn values(
    workload: &Workload,
    secrets: &Secrets,
    ordinal: Option<u16>,
    literal: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, String>, PlatformError> {
    let mut all = BTreeMap::new();
    for var in &workload.env {
        let text = match &var.value {
            EnvValue::Text(text) => expand(&literal(text), &all),
            EnvValue::PodName => ordinal.map_or_else(
                || TASK_NAME.to_owned(),
                |ordinal| workload.id.instance(ordinal),
            ),
            // A container has a network of its own. Addresses of instances are refused before.
            EnvValue::BindAddress | EnvValue::PodIp => "0.0.0.0".to_owned(),
            EnvValue::Secret(key) => literal(value(workload, key, secrets)?),
        };
        all.insert(var.name.clone(), text);
    }
    Ok(all)
}
