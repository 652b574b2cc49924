//! The `[[topics]]` array: which topics are kept, and how long.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use tidings_core::retention::{DEFAULT_MAX_AGE, Keep, TopicRule};
use tidings_core::topic::Pattern;

use super::input::Input;
use super::suggest::nearest;
use super::units;
use super::value::quote;

const MEMBERS: [&str; 5] = ["pattern", "ephemeral", "max_age", "max_count", "max_bytes"];

/// Reads the array; an error names the entry (from 1) and its member.
pub(super) fn read(input: &Input) -> Result<Vec<TopicRule>, String> {
    let Input::Array(entries) = input else {
        return Err("allowed: an array of tables, [[topics]], with a pattern each".to_owned());
    };
    let rules = entries.iter().enumerate().map(|(at, entry)| {
        let rule = match entry {
            Input::Table(members) => read_rule(members),
            other => Err(format!("{} is no table", other.show())),
        };
        rule.map_err(|detail| format!("entry {}: {detail}", at + 1))
    });
    rules.collect()
}

fn read_rule(members: &BTreeMap<String, Input>) -> Result<TopicRule, String> {
    if let Some(name) = members.keys().find(|n| !MEMBERS.contains(&n.as_str())) {
        let hint = nearest(name, MEMBERS).map_or_else(
            || format!("; known: {}", MEMBERS.join(", ")),
            |near| format!("; did you mean {near}?"),
        );
        return Err(format!("unknown member {name}{hint}"));
    }
    let pattern = match members.get("pattern") {
        Some(Input::Text(text)) => {
            Pattern::new(text).map_err(|why| format!("pattern = {text:?}: {why}"))?
        }
        Some(other) => return Err(format!("pattern = {}: a text", other.show())),
        None => return Err("it needs a pattern, such as \"vitals/**\"".to_owned()),
    };
    let is_ephemeral = match members.get("ephemeral") {
        None => false,
        Some(Input::Switch(is_on)) => *is_on,
        Some(other) => return Err(format!("ephemeral = {}: true or false", other.show())),
    };
    let bounds = ["max_age", "max_count", "max_bytes"];
    if is_ephemeral {
        return match bounds.iter().find(|name| members.contains_key(**name)) {
            Some(name) => Err(format!("an ephemeral topic is never kept: no {name}")),
            None => Ok(TopicRule {
                pattern,
                keep: Keep::Ephemeral,
            }),
        };
    }
    let keep = if bounds.iter().any(|name| members.contains_key(*name)) {
        Keep::Durable {
            max_age: bound(members, "max_age", "a time such as 30d", Input::span)?
                .filter(|age| !age.is_zero()),
            max_count: bound(members, "max_count", "a whole number", Input::count)?
                .filter(|&n| n > 0),
            max_bytes: bound(members, "max_bytes", "a size such as 10GiB", Input::bytes)?
                .filter(|&n| n > 0),
        }
    } else {
        Keep::Durable {
            max_age: Some(DEFAULT_MAX_AGE),
            max_count: None,
            max_bytes: None,
        }
    };
    Ok(TopicRule { pattern, keep })
}

fn bound<T>(
    members: &BTreeMap<String, Input>,
    name: &str,
    allowed: &str,
    read: impl Fn(&Input) -> Option<T>,
) -> Result<Option<T>, String> {
    match members.get(name) {
        None => Ok(None),
        Some(input) => match read(input) {
            Some(value) => Ok(Some(value)),
            None => Err(format!(
                "{name} = {}: {allowed}, or 0 for none",
                input.show()
            )),
        },
    }
}

/// A rule as one object.
pub(super) fn to_json(rule: &TopicRule) -> Json {
    let pattern = rule.pattern.as_str();
    match rule.keep {
        Keep::Ephemeral => json!({"pattern": pattern, "ephemeral": true}),
        Keep::Durable {
            max_age,
            max_count,
            max_bytes,
        } => {
            let mut members = serde_json::Map::new();
            members.insert("pattern".to_owned(), json!(pattern));
            let age = max_age.map_or_else(|| "0".to_owned(), units::show_duration);
            members.insert("max_age".to_owned(), json!(age));
            if let Some(count) = max_count {
                members.insert("max_count".to_owned(), json!(count));
            }
            if let Some(bytes) = max_bytes {
                members.insert("max_bytes".to_owned(), json!(units::show_bytes(bytes)));
            }
            Json::Object(members)
        }
    }
}

/// A rule as a `[[topics]]` table.
pub(super) fn to_toml(rule: &TopicRule) -> String {
    let mut out = String::from("[[topics]]\n");
    if let Json::Object(members) = to_json(rule) {
        for (name, value) in members {
            let value = match value {
                Json::String(text) => quote(&text),
                other => other.to_string(),
            };
            out.push_str(&format!("{name} = {value}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rules(json: Json) -> Result<Vec<TopicRule>, String> {
        read(&Input::from_json(json))
    }

    #[test]
    fn rules_are_read_in_their_order() {
        let rules = rules(json!([
            {"pattern": "vitals/**", "ephemeral": true},
            {"pattern": "audit/**", "max_age": "0", "max_count": 5, "max_bytes": "10GiB"},
            {"pattern": "plain"},
        ]))
        .unwrap();
        assert_eq!(rules[0].keep, Keep::Ephemeral);
        assert_eq!(
            rules[1].keep,
            Keep::Durable {
                max_age: None,
                max_count: Some(5),
                max_bytes: Some(10 << 30)
            }
        );
        assert_eq!(
            rules[2].keep,
            Keep::Durable {
                max_age: Some(Duration::from_secs(30 * 86_400)),
                max_count: None,
                max_bytes: None
            }
        );
        let again = rules_of_toml(&rules.iter().map(to_toml).collect::<String>());
        assert_eq!(again, rules);
    }

    fn rules_of_toml(text: &str) -> Vec<TopicRule> {
        let value: Json = toml::from_str(text).unwrap();
        rules(value["topics"].clone()).unwrap()
    }

    #[test]
    fn a_wrong_rule_names_its_entry_and_member() {
        for (json, says) in [
            (json!({}), "an array of tables"),
            (json!([{"ephemeral": true}]), "entry 1: it needs a pattern"),
            (
                json!([{"pattern": "a"}, {"pattern": "a/**/b"}]),
                "entry 2: pattern",
            ),
            (
                json!([{"pattern": "a", "max_agee": 1}]),
                "did you mean max_age?",
            ),
            (
                json!([{"pattern": "a", "max_age": "soon"}]),
                "max_age = \"soon\"",
            ),
            (json!([{"pattern": "a", "max_count": -1}]), "max_count = -1"),
            (
                json!([{"pattern": "a", "max_count": "5"}]),
                "max_count = \"5\"",
            ),
            (
                json!([{"pattern": "a", "ephemeral": "yes"}]),
                "true or false",
            ),
            (
                json!([{"pattern": "a", "ephemeral": true, "max_age": "1d"}]),
                "no max_age",
            ),
        ] {
            let error = rules(json.clone()).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
        }
    }
}
