//! The bounds that the generated schemas put on values, as the API server would check them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use serde_json::Value;

/// What in `object` is out of the bounds of its CRD's schema; patterns are checked where names are parsed.
pub(super) fn violations(crd: &CustomResourceDefinition, object: &Value) -> Vec<String> {
    let schema = crd
        .spec
        .versions
        .first()
        .and_then(|version| version.schema.as_ref());
    let mut found = Vec::new();
    if let Some(schema) = schema.and_then(|schema| schema.open_api_v3_schema.as_ref()) {
        walk(schema, object, "", &mut found);
    }
    found
}

fn walk(schema: &JSONSchemaProps, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            check(
                schema.minimum.filter(|&min| number < min),
                path,
                "must be at least",
                found,
            );
            check(
                schema.maximum.filter(|&max| number > max),
                path,
                "must be at most",
                found,
            );
        }
        Value::String(text) => {
            let length = length(text.chars().count());
            check(
                schema.min_length.filter(|&min| length < min),
                path,
                "must have at least this many characters:",
                found,
            );
            check(
                schema.max_length.filter(|&max| length > max),
                path,
                "must have at most this many characters:",
                found,
            );
        }
        Value::Array(items) => {
            let count = length(items.len());
            check(
                schema.max_items.filter(|&max| count > max),
                path,
                "must have at most this many items:",
                found,
            );
            if let Some(JSONSchemaPropsOrArray::Schema(of_item)) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    walk(of_item, item, &format!("{path}[{index}]"), found);
                }
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let of_member = schema.properties.as_ref().and_then(|all| all.get(name));
                if let Some(of_member) = of_member {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    walk(of_member, member, &path, found);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn check(
    violated: Option<impl std::fmt::Display>,
    path: &str,
    what: &str,
    found: &mut Vec<String>,
) {
    if let Some(bound) = violated {
        found.push(format!("{path} {what} {bound}"));
    }
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
