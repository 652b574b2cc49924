//! What a setting holds, and how it is shown.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value as Json, json};
use tidings_core::retention::TopicRule;
use tidings_core::tenant::Tenant;

use super::{topics, units};

/// What stands in place of a secret wherever a setting is shown.
pub(super) const MASK: &str = "********";

/// A value that its setting's kind took.
#[derive(Clone)]
pub(super) enum Value {
    Text(String),
    Secret(SecretString),
    Url(String),
    Path(PathBuf),
    Address(SocketAddr),
    Tenant(Tenant),
    Switch(bool),
    Span(Duration),
    Count(u64),
    Bytes(u64),
    List(Vec<String>),
    Names(BTreeMap<String, String>),
    Lists(BTreeMap<String, Vec<String>>),
    Topics(Vec<TopicRule>),
}

impl fmt::Debug for Value {
    /// As [`Value::show`]: an address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

impl Value {
    /// For people: short, secrets masked.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Secret(_) => MASK.to_owned(),
            Self::Url(url) => mask_url(url),
            Self::Path(path) => path.display().to_string(),
            Self::Address(address) => address.to_string(),
            Self::Tenant(tenant) => tenant.to_string(),
            Self::Switch(is_on) => is_on.to_string(),
            Self::Span(span) => units::show_duration(*span),
            Self::Count(number) => number.to_string(),
            Self::Bytes(number) => units::show_bytes(*number),
            Self::List(items) => items.join(","),
            Self::Names(_) | Self::Lists(_) | Self::Topics(_) => self.to_json().to_string(),
        }
    }

    /// For programs: secrets masked.
    pub(super) fn to_json(&self) -> Json {
        match self {
            Self::Switch(is_on) => json!(is_on),
            Self::Count(number) => json!(number),
            Self::List(items) => json!(items),
            Self::Names(names) => json!(names),
            Self::Lists(lists) => json!(lists),
            Self::Topics(rules) => rules.iter().map(topics::to_json).collect(),
            _ => json!(self.show()),
        }
    }

    /// As TOML, secrets masked.
    pub(super) fn to_toml(&self) -> String {
        let list = |items: &[String]| {
            let items: Vec<_> = items.iter().map(|i| quote(i)).collect();
            format!("[{}]", items.join(", "))
        };
        match self {
            Self::Switch(_) | Self::Count(_) => self.show(),
            Self::List(items) => list(items),
            Self::Names(names) => table(names.iter().map(|(n, v)| (n, quote(v)))),
            Self::Lists(lists) => table(lists.iter().map(|(n, v)| (n, list(v)))),
            _ => quote(&self.show()),
        }
    }
}

/// A TOML basic string.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn table<'a>(members: impl Iterator<Item = (&'a String, String)>) -> String {
    let members: Vec<_> = members
        .map(|(n, v)| format!("{} = {v}", quote(n)))
        .collect();
    format!("{{ {} }}", members.join(", "))
}

/// An address without what it carries of credentials: everything before the `@`, and the query.
fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return MASK.to_owned();
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, "?********"),
        None => (rest, ""),
    };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{MASK}@{host}{query}"),
        None => format!("{scheme}://{rest}{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_credentials() {
        assert_eq!(
            mask_url("postgres://me:p@ss@db:5432/x?password=s"),
            "postgres://********@db:5432/x?********"
        );
        assert_eq!(mask_url("http://collector:4318"), "http://collector:4318");
    }
}
