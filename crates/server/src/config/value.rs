//! What a setting can hold: kinds, how each is read from TOML or from text, and how it is shown.

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

/// What kind of value a setting takes, and its range.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// `host:port` with a numeric host.
    Address,
    /// A path, relative to the working directory.
    Path,
    /// Any text.
    Text,
    /// Text that is never shown.
    Secret,
    /// A tenant's name.
    Tenant,
    /// A cookie's name.
    CookieName,
    /// An address with one of these schemes. A password in it is never shown.
    Url(&'static [&'static str]),
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Directives of a log filter.
    LogFilter,
    /// A time in milliseconds from .. to; zero besides where `.2`.
    Span(u64, u64, bool),
    /// A number from .. to; zero besides where `.2`.
    Count(u64, u64, bool),
    /// A number of bytes from .. to; zero besides where `.2`.
    Bytes(u64, u64, bool),
    /// Texts.
    List,
    /// Web origins.
    Origins,
    /// Dotted paths into a token.
    Claims,
    /// Names to texts.
    Names,
    /// Names to lists of texts.
    Lists,
    /// The `[[topics]]` array.
    Topics,
}

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

    fn text(&self) -> Option<&str> {
        match self {
            Self::Raw(text) | Self::Text(text) if !text.trim().is_empty() => Some(text.trim()),
            _ => None,
        }
    }

    fn switch(&self) -> Option<bool> {
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
    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            Self::Raw(text) => text.trim().replace('_', "").parse().ok(),
            _ => None,
        }
    }

    pub(super) fn span(&self) -> Option<Duration> {
        match self {
            Self::Number(_) => self.number().map(Duration::from_secs),
            Self::Raw(text) | Self::Text(text) => units::parse_duration(text),
            _ => None,
        }
    }

    pub(super) fn bytes(&self) -> Option<u64> {
        match self {
            Self::Number(_) => self.number(),
            Self::Raw(text) | Self::Text(text) => units::parse_bytes(text),
            _ => None,
        }
    }

    pub(super) fn count(&self) -> Option<u64> {
        self.number()
    }

    /// A list of texts: an array, or text with commas, or a JSON array in text.
    fn list(&self) -> Option<Vec<String>> {
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
    fn json(&self) -> Option<Self> {
        let text = self.text()?;
        if !text.starts_with(['[', '{']) {
            return None;
        }
        match serde_json::from_str(text) {
            Ok(json) => Some(Self::from_json(json)),
            Err(_) => Some(Self::Other(text.to_owned())),
        }
    }

    fn table(&self) -> Option<BTreeMap<String, Self>> {
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

impl Kind {
    /// Whether its values are masked wherever they are shown.
    pub(super) fn is_secret(self) -> bool {
        matches!(self, Self::Secret)
    }

    /// A value that the kind did not take, for an error's text: without what it may hold of credentials.
    pub(super) fn show(self, input: &Input) -> String {
        let shown = input.show();
        let is_masked = match self {
            Self::Secret => true,
            Self::Url(_) => shown.contains(['@', '?']),
            _ => false,
        };
        if is_masked { MASK.to_owned() } else { shown }
    }

    /// Reads a value; an error says what is wrong with it.
    pub(super) fn read(self, input: &Input) -> Result<Value, String> {
        let wrong = || self.wrong();
        let text = || input.text().map(str::to_owned).ok_or_else(wrong);
        match self {
            Self::Address => text()?
                .parse()
                .map(Value::Address)
                .map_err(|_| self.wrong()),
            Self::Path => text().map(|text| Value::Path(text.into())),
            Self::Text => text().map(Value::Text),
            Self::Secret => text().map(|text| Value::Secret(text.into())),
            Self::Tenant => Tenant::new(&text()?)
                .map(Value::Tenant)
                .map_err(|_| self.wrong()),
            Self::CookieName => check(text()?, is_cookie_name)
                .map(Value::Text)
                .ok_or_else(wrong),
            Self::Url(schemes) => check(text()?, |url| is_url(url, schemes))
                .map(Value::Url)
                .ok_or_else(wrong),
            Self::Switch => input.switch().map(Value::Switch).ok_or_else(wrong),
            Self::Choice(words) => check(text()?, |word| words.contains(&word))
                .map(Value::Text)
                .ok_or_else(wrong),
            Self::LogFilter => check(text()?, crate::telemetry::is_filter)
                .map(Value::Text)
                .ok_or_else(wrong),
            Self::Span(from, to, zero) => input
                .span()
                .filter(|s| in_range(s.as_millis(), from, to, zero) || s.is_zero() && zero)
                .map(Value::Span)
                .ok_or_else(wrong),
            Self::Count(from, to, zero) => input
                .count()
                .filter(|&n| in_range(n.into(), from, to, zero))
                .map(Value::Count)
                .ok_or_else(wrong),
            Self::Bytes(from, to, zero) => input
                .bytes()
                .filter(|&n| in_range(n.into(), from, to, zero))
                .map(Value::Bytes)
                .ok_or_else(wrong),
            Self::List => input.list().map(Value::List).ok_or_else(wrong),
            Self::Origins => self.read_each(input, |item| read_origin(item)),
            Self::Claims => self.read_each(input, |item| {
                (!item.split('.').any(str::is_empty)).then(|| item.to_owned())
            }),
            Self::Names => self.read_names(input).map(Value::Names),
            Self::Lists => self.read_lists(input).map(Value::Lists),
            Self::Topics => match input {
                Input::Raw(_) => topics::read(&input.json().ok_or_else(wrong)?),
                _ => topics::read(input),
            }
            .map(Value::Topics),
        }
    }

    fn read_each(
        self,
        input: &Input,
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<Value, String> {
        let items = input.list().ok_or_else(|| self.wrong())?;
        let items = items
            .iter()
            .map(|item| read(item).ok_or_else(|| format!("{item:?} is wrong; {}", self.wrong())));
        items.collect::<Result<_, _>>().map(Value::List)
    }

    fn read_names(self, input: &Input) -> Result<BTreeMap<String, String>, String> {
        let members = input.table().ok_or_else(|| self.wrong())?;
        let members = members.into_iter().map(|(name, value)| {
            let value = value.text().map(str::to_owned);
            value.map(|v| (name, v)).ok_or_else(|| self.wrong())
        });
        members.collect()
    }

    fn read_lists(self, input: &Input) -> Result<BTreeMap<String, Vec<String>>, String> {
        let members = input.table().ok_or_else(|| self.wrong())?;
        let members = members.into_iter().map(|(name, value)| {
            let value = value.list();
            value.map(|v| (name, v)).ok_or_else(|| self.wrong())
        });
        members.collect()
    }

    fn wrong(self) -> String {
        format!("allowed: {}", self.allowed())
    }

    /// What is allowed, in words.
    pub(super) fn allowed(self) -> String {
        match self {
            Self::Address => {
                "an IP address and port, such as 127.0.0.1:8080 or [::]:8080".to_owned()
            }
            Self::Path => "a path".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Secret => "a text (never shown)".to_owned(),
            Self::Tenant => "a tenant's name: 1 to 128 bytes without control characters".to_owned(),
            Self::CookieName => "a cookie's name: letters, digits, '-', '_' and '.'".to_owned(),
            Self::Url(schemes) => format!("an address that begins with {}", schemes.join(" or ")),
            Self::Switch => "true or false".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::LogFilter => "error, warn, info, debug, trace or off, or directives such as info,tidings::http=debug".to_owned(),
            Self::Span(from, to, zero) => range(
                "a time such as 500ms, 30s, 5m, 24h or 30d (a plain number is seconds)",
                &units::show_duration(Duration::from_millis(from)),
                &units::show_duration(Duration::from_millis(to)),
                zero,
            ),
            Self::Count(from, to, zero) => range("a whole number", &from.to_string(), &to.to_string(), zero),
            Self::Bytes(from, to, zero) => range(
                "a size such as 64KiB, 1MiB or 10GiB (a plain number is bytes)",
                &units::show_bytes(from),
                &units::show_bytes(to),
                zero,
            ),
            Self::List => "a list of texts".to_owned(),
            Self::Origins => "a list of origins such as https://app.example.org, without path; '*' is not possible, because credentials are allowed".to_owned(),
            Self::Claims => "a list of dotted paths into a token".to_owned(),
            Self::Names => "a table of names to texts (in the environment: a JSON object)".to_owned(),
            Self::Lists => "a table of names to lists of texts (in the environment: a JSON object)".to_owned(),
            Self::Topics => "an array of tables with pattern and ephemeral or max_age, max_count, max_bytes (in the environment: a JSON array)".to_owned(),
        }
    }
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

fn check(text: String, is_right: impl FnOnce(&str) -> bool) -> Option<String> {
    is_right(&text).then_some(text)
}

fn in_range(number: u128, from: u64, to: u64, zero: bool) -> bool {
    number == 0 && zero || (u128::from(from)..=u128::from(to)).contains(&number)
}

fn range(what: &str, from: &str, to: &str, zero: bool) -> String {
    let zero = if zero { ", or 0 for none" } else { "" };
    format!("{what}, from {from} to {to}{zero}")
}

fn is_cookie_name(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn is_url(url: &str, schemes: &[&str]) -> bool {
    let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
    let is_plain = !url.chars().any(|c| c.is_whitespace() || c.is_control());
    is_plain && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

/// An origin in the form in which browsers send it: scheme and host in small letters, no default port, no path.
fn read_origin(text: &str) -> Option<String> {
    let origin = text.trim_end_matches('/').to_ascii_lowercase();
    let (scheme, host) = origin.split_once("://")?;
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        // Shells such as Capacitor and Electron have schemes of their own.
        _ if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) => "",
        _ => return None,
    };
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if host.is_empty() || !host.bytes().all(is_host) {
        return None;
    }
    let port = host.rsplit_once(':').filter(|_| !host.ends_with(']'));
    if port.is_some_and(|(_, port)| port.parse::<u16>().is_err()) {
        return None;
    }
    let host = match default_port {
        "" => host,
        port => host.strip_suffix(port).unwrap_or(host),
    };
    Some(format!("{scheme}://{host}"))
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
    fn origins_are_kept_as_browsers_send_them() {
        for (text, kept) in [
            ("https://App.Example.org/", Some("https://app.example.org")),
            ("https://a.example:443", Some("https://a.example")),
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("http://[::1]:80", Some("http://[::1]")),
            ("capacitor://localhost", Some("capacitor://localhost")),
            ("*", None),
            ("https://*.example.org", None),
            ("https://a.example/path", None),
            ("https://a.example:port", None),
            ("null", None),
        ] {
            assert_eq!(read_origin(text).as_deref(), kept, "{text}");
        }
    }

    #[test]
    fn an_address_is_shown_without_its_credentials() {
        assert_eq!(
            mask_url("postgres://me:p@ss@db:5432/x?password=s"),
            "postgres://********@db:5432/x?********"
        );
        assert_eq!(mask_url("http://collector:4318"), "http://collector:4318");
    }

    #[test]
    fn lists_come_with_commas_or_as_json() {
        let list = |text: &str| match Kind::List.read(&Input::Raw(text.into())) {
            Ok(Value::List(items)) => items.join("|"),
            other => format!("{other:?}"),
        };
        assert_eq!(list("a, b,,c"), "a|b|c");
        assert_eq!(list(r#"["a","b"]"#), "a|b");
        assert_eq!(list("[]"), "");
        assert!(list(r#"["a""#).starts_with("Err"));
    }
}
