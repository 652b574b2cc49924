//! `tidings config`: what is set, where it came from, and `docs/configuration.md`.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::error::Source;
use super::resolve::{Resolved, show_default};
use super::settings::{SETTINGS, Standing};
use super::value::Value;
use super::{Loaded, topics};

impl Loaded {
    /// Every setting for people: value, source, default, environment name, meaning.
    pub(crate) fn explain(&self) -> String {
        let mut out = String::new();
        for resolved in &self.settled.all {
            let setting = resolved.setting;
            let value = resolved.value.as_ref().map_or("-".to_owned(), Value::show);
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "{} = {}",
                setting.key,
                if value.is_empty() { "(empty)" } else { &value }
            );
            let _ = writeln!(out, "    {}", setting.doc);
            let _ = writeln!(
                out,
                "    from {}; default {}; {}",
                from(resolved),
                default_text(resolved),
                setting.environment()
            );
            if let Standing::Waits(why) | Standing::Refused(why) = setting.standing {
                let _ = writeln!(out, "    no effect: {why}");
            }
        }
        out
    }

    /// The same for programs: an array of objects.
    pub(crate) fn explain_json(&self) -> Json {
        self.settled.all.iter().map(describe).collect()
    }

    /// The effective configuration as TOML. Secrets are masked and commented out, so that the rest can be used.
    pub(crate) fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for resolved in self
            .settled
            .all
            .iter()
            .filter(|r| r.setting.key != "topics")
        {
            let key = resolved.setting.key.as_str();
            let (prefix, name) = key.rsplit_once('.').unwrap_or(("", key));
            let Some(value) = &resolved.value else {
                continue;
            };
            if prefix != section {
                let _ = write!(out, "\n[{prefix}]\n");
                section = prefix;
            }
            let is_masked =
                resolved.setting.kind.is_secret() || value.show().contains(super::value::MASK);
            let comment = if is_masked { "# " } else { "" };
            let _ = writeln!(out, "{comment}{name} = {}", value.to_toml());
        }
        let rules = self.settled.all.iter().find_map(|r| match &r.value {
            Some(Value::Topics(rules)) => Some(rules),
            _ => None,
        });
        for rule in rules.into_iter().flatten() {
            let _ = write!(out, "\n{}", topics::to_toml(rule));
        }
        out
    }
}

fn from(resolved: &Resolved) -> String {
    let mut text = resolved.source.to_string();
    if !resolved.over.is_empty() {
        let over: Vec<_> = resolved.over.iter().map(Source::to_string).collect();
        let _ = write!(text, " (over {})", over.join(", "));
    }
    text
}

fn default_text(resolved: &Resolved) -> String {
    match show_default(resolved.setting) {
        text if text.is_empty() => "empty".to_owned(),
        text => text,
    }
}

fn describe(resolved: &Resolved) -> Json {
    let setting = resolved.setting;
    let over: Vec<_> = resolved.over.iter().map(Source::to_string).collect();
    let effect = match setting.standing {
        Standing::Used => Json::Null,
        Standing::Waits(why) | Standing::Refused(why) => json!(why),
    };
    json!({
        "key": setting.key,
        "value": resolved.value.as_ref().map(Value::to_json),
        "default": match show_default(setting).as_str() { "-" => Json::Null, text => json!(text) },
        "source": resolved.source.to_string(),
        "over": over,
        "environment": setting.environment(),
        "aliases": setting.aliases,
        "allowed": setting.kind.allowed(),
        "doc": setting.doc,
        "no_effect": effect,
    })
}

const HEAD: &str = "# Configuration

Generated from the table of settings by `tidings config --markdown`; a test compares the two.

A setting comes from a TOML file (`--config FILE` or `TIDINGS_CONFIG`), from the environment, or from a flag
(`--set key=value`, and `--listen`, `--data-dir`, `--policies`, `--log-level`, `--log-format` for the common ones): each
is stronger than those before it. In the environment a setting is named `TIDINGS_` and its key in capitals with `_` for
`.`; lists have commas between their items or are JSON arrays, tables are JSON objects, and an empty variable counts as
not set. Some settings also have the names that existing deployments use; the setting's own name is stronger than those.

Times are written `500ms`, `30s`, `5m`, `24h`, `30d` (a plain number is seconds), sizes `64KiB`, `1MiB`, `10GiB` (a plain
number is bytes). Paths are relative to the working directory. Unknown keys, wrong types and values out of range are
refused with exit code 2, all at once. `tidings config --explain` shows each value in effect and where it came from.
";

const TOPICS: &str = "
## Topics

Each `[[topics]]` entry has a `pattern` (`*` is one segment, a last `**` the rest), and either `ephemeral = true` (never
stored, delivered at most once) or bounds: `max_age`, `max_count`, `max_bytes` (0 is none). An entry without any is kept
for 30 days, like topics that no entry matches.

```toml
[[topics]]
pattern = \"vitals/**\"
ephemeral = true

[[topics]]
pattern = \"audit/**\"
max_age = \"365d\"
max_bytes = \"10GiB\"
```
";

/// `docs/configuration.md`.
pub(crate) fn markdown() -> String {
    let mut out = HEAD.to_owned();
    let mut section = None;
    for setting in SETTINGS.iter() {
        let first = setting.key.split_once('.').map_or("", |(first, _)| first);
        let first = if matches!(first, "idempotency" | "retention") {
            ""
        } else {
            first
        };
        if section != Some(first) {
            section = Some(first);
            let title = if first.is_empty() { "General" } else { first };
            let _ = write!(out, "\n## {title}\n\n");
        }
        let default = match show_default(setting) {
            text if text == "-" => "none".to_owned(),
            text if text.is_empty() => "empty".to_owned(),
            text => format!("`{text}`"),
        };
        let _ = write!(
            out,
            "- **`{}`** (default {default}). {}\n  {}.",
            setting.key,
            setting.doc,
            capital(&setting.kind.allowed())
        );
        if !setting.aliases.is_empty() {
            let names: Vec<_> = setting.aliases.iter().map(|a| format!("`{a}`")).collect();
            let _ = write!(out, " Also {}.", names.join(", "));
        }
        if let Standing::Waits(why) | Standing::Refused(why) = setting.standing {
            let _ = write!(out, " **No effect yet:** {why}.");
        }
        out.push('\n');
    }
    out.push_str(TOPICS);
    out
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
