//! `GET /api/openapi.json`: the whole API, a file per part of it, put together once. A test holds it against the routes.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde_json::Value;

/// The parts: the first has the document's head, each its own tags, paths and components.
const PARTS: [&str; 7] = [
    include_str!("../openapi/core.json"),
    include_str!("../openapi/network.json"),
    include_str!("../openapi/alarms.json"),
    include_str!("../openapi/clusters.json"),
    include_str!("../openapi/incidents.json"),
    include_str!("../openapi/customers.json"),
    include_str!("../openapi/users.json"),
];

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let parts = PARTS.iter().map(|part| serde_json::from_str(part));
    let parts: Vec<Value> = parts.map(Result::unwrap_or_default).collect();
    format!("{:#}\n", merge(parts))
});

/// The OpenAPI 3.1 document.
pub(crate) fn document() -> &'static str {
    &DOCUMENT
}

/// The document.
pub(crate) async fn get() -> Response {
    ([(CONTENT_TYPE, "application/json")], document()).into_response()
}

/// Objects are merged member by member, lists are joined; of anything else the first stands.
fn merge(parts: impl IntoIterator<Item = Value>) -> Value {
    parts.into_iter().fold(Value::Null, put)
}

fn put(whole: Value, part: Value) -> Value {
    match (whole, part) {
        (Value::Null, part) => part,
        (Value::Object(mut whole), Value::Object(part)) => {
            for (name, value) in part {
                let before = whole.remove(&name).unwrap_or_default();
                whole.insert(name, put(before, value));
            }
            Value::Object(whole)
        }
        (Value::Array(mut whole), Value::Array(part)) => {
            whole.extend(part);
            Value::Array(whole)
        }
        (whole, _) => whole,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_parts_say_the_same_thing() {
        let mut said = BTreeSet::new();
        let mut say = |kind: &str, name: &str| {
            assert!(said.insert(format!("{kind} {name}")), "{kind} {name}");
        };
        for part in PARTS {
            let part: Value = serde_json::from_str(part).unwrap();
            for path in part["paths"].as_object().unwrap().keys() {
                say("path", path);
            }
            for (kind, components) in part["components"].as_object().unwrap() {
                for name in components.as_object().unwrap().keys() {
                    say(kind, name);
                }
            }
            for tag in part["tags"].as_array().unwrap() {
                say("tag", tag["name"].as_str().unwrap());
            }
        }
        let whole: Value = serde_json::from_str(document()).unwrap();
        let count = |members: &Value| members.as_object().unwrap().len();
        let components = whole["components"].as_object().unwrap();
        let named = count(&whole["paths"])
            + components.values().map(count).sum::<usize>()
            + whole["tags"].as_array().unwrap().len();
        assert_eq!(named, said.len());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(whole: &Value, value: &Value) {
            match value {
                Value::Object(members) => {
                    if let Some(to) = members.get("$ref").and_then(Value::as_str) {
                        let pointer = to.strip_prefix('#').unwrap();
                        assert!(whole.pointer(pointer).is_some(), "{to}");
                    }
                    members.values().for_each(|v| walk(whole, v));
                }
                Value::Array(items) => items.iter().for_each(|v| walk(whole, v)),
                _ => {}
            }
        }
        let whole: Value = serde_json::from_str(document()).unwrap();
        walk(&whole, &whole);
    }
}
