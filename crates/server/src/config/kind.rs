//! What a setting can take: kinds, how each reads a value, and what it says of a wrong one.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_core::tenant::Tenant;

use super::input::Input;
use super::value::{MASK, Value};
use super::{topics, units};

/// What kind of value a setting takes, and its range.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// `host:port` with a numeric host.
    Address,
    /// A path, relative to the working directory.
    Path,
    /// Any text.
    Text,
    /// Text of at least so many bytes that is never shown.
    Secret(usize),
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

impl Kind {
    /// Whether its values are masked wherever they are shown.
    pub(super) fn is_secret(self) -> bool {
        matches!(self, Self::Secret(_))
    }

    /// A value that the kind did not take, for an error's text: without what it may hold of credentials.
    pub(super) fn show(self, input: &Input) -> String {
        let shown = input.show();
        let is_masked = match self {
            Self::Secret(_) => true,
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
            Self::Secret(bytes) => check(text()?, |text| text.len() >= bytes)
                .map(|text| Value::Secret(text.into()))
                .ok_or_else(wrong),
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
            Self::Origins => self.read_each(input, read_origin),
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
            Self::Secret(0) => "a text (never shown)".to_owned(),
            Self::Secret(bytes) => format!("a text of at least {bytes} bytes (never shown)"),
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
