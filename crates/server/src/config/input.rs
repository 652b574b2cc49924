//! Values as they were written, in TOML, JSON, an environment variable or a flag.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;

use super::units;

/// A value as it was written, before its setting's kind is known.
#[derive(Debug, Clone)]
pub(super) enum Input {
    /// The text of an environment variable or a flag: read by the setting's kind.
    Raw(String),
    /// A TOML or JSON string.
    Text(String),
    /// `true` or `false`.
    Switch(bool),
    /// A whole number.
    Number(i128),
    /// An array.
    Array(Vec<Self>),
    /// A table, in the order of its keys.
    Table(BTreeMap<String, Self>),
    /// What no setting takes: a float, a date, `null`. Its text.
    Other(String),
}

impl Input {
    /// As it was written, for an error's text. Cut where it is long.
    pub(super) fn show(&self) -> String {
        let text = match self {
            Self::Raw(text) | Self::Text(text) => format!("{text:?}"),
            Self::Switch(is_on) => is_on.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Array(items) => {
                let items: Vec<_> = items.iter().map(Self::show).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Table(members) => {
                let members = members.iter().map(|(n, v)| format!("{n} = {}", v.show()));
                format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
            }
            Self::Other(text) => text.clone(),
        };
        match text.char_indices().nth(120) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text,
        }
    }

    /// From JSON, as an environment variable may hold it.
    pub(super) fn from_json(value: Json) -> Self {
        match value {
            Json::String(text) => Self::Text(text),
            Json::Bool(is_on) => Self::Switch(is_on),
            Json::Number(number) => match number.to_string().parse() {
                Ok(number) => Self::Number(number),
                Err(_) => Self::Other(number.to_string()),
            },
            Json::Array(items) => Self::Array(items.into_iter().map(Self::from_json).collect()),
            Json::Object(members) => Self::Table(
                members
                    .into_iter()
                    .map(|(name, value)| (name, Self::from_json(value)))
                    .collect(),
            ),
            Json::Null => Self::Other("null".to_owned()),
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Raw(text) | Self::Text(text) if !text.trim().is_empty() => Some(text.trim()),
            _ => None,
        }
    }

    pub(super) fn switch(&self) -> Option<bool> {
        match self {
            Self::Switch(is_on) => Some(*is_on),
            Self::Raw(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// A whole number; text counts only where it came as text.
    pub(super) fn count(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            Self::Raw(text) => text.trim().replace('_', "").parse().ok(),
            _ => None,
        }
    }

    pub(super) fn span(&self) -> Option<Duration> {
        match self {
            Self::Number(_) => self.count().map(Duration::from_secs),
            Self::Raw(text) | Self::Text(text) => units::parse_duration(text),
            _ => None,
        }
    }

    pub(super) fn bytes(&self) -> Option<u64> {
        match self {
            Self::Number(_) => self.count(),
            Self::Raw(text) | Self::Text(text) => units::parse_bytes(text),
            _ => None,
        }
    }

    /// A list of texts: an array, or text with commas, or a JSON array in text.
    pub(super) fn list(&self) -> Option<Vec<String>> {
        match self {
            Self::Array(items) => items
                .iter()
                .map(|item| item.text().map(str::to_owned))
                .collect(),
            Self::Raw(_) => match self.json() {
                Some(json @ Self::Array(_)) => json.list(),
                Some(_) => None,
                None => Some(self.split()),
            },
            // A single text is a list of one.
            Self::Text(_) => self.text().map(|text| vec![text.to_owned()]),
            _ => None,
        }
    }

    fn split(&self) -> Vec<String> {
        let text = self.text().unwrap_or_default();
        let items = text.split(',').map(str::trim);
        items.filter(|i| !i.is_empty()).map(str::to_owned).collect()
    }

    /// The JSON array or object that a raw text holds, if it looks like one and is one.
    pub(super) fn json(&self) -> Option<Self> {
        let text = self.text()?;
        if !text.starts_with(['[', '{']) {
            return None;
        }
        match serde_json::from_str(text) {
            Ok(json) => Some(Self::from_json(json)),
            Err(_) => Some(Self::Other(text.to_owned())),
        }
    }

    pub(super) fn table(&self) -> Option<BTreeMap<String, Self>> {
        match self {
            Self::Table(members) => Some(members.clone()),
            Self::Raw(_) => match self.json()? {
                Self::Table(members) => Some(members),
                _ => None,
            },
            _ => None,
        }
    }
}
