//! What a stream's request asks for, read the same way by all transports.

use std::net::SocketAddr;

use http::HeaderMap;
use http::header::{HeaderName, USER_AGENT};
use tidings_core::topic::{MAX_PATTERNS, Pattern, Patterns};

use crate::http::problem::Problem;

/// The header in which a client says where it stands.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The longest user agent that is kept for the list of connections, in bytes.
const MAX_USER_AGENT_BYTES: usize = 256;

/// A decoded query: names and values, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a request's query.
    #[must_use]
    pub(crate) fn of(uri: &http::Uri) -> Self {
        let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        Self(
            pairs
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// The first value of a parameter.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// Where the client says that it stands, as bytes: a cursor of nobody's is still a parameter.
    #[must_use]
    pub(crate) fn cursor(&self, name: &str) -> Option<Vec<u8>> {
        let cursor = self.get(name).map(|text| text.as_bytes().to_vec());
        cursor.filter(|bytes| !bytes.is_empty())
    }

    /// The topics and patterns: `topic`, repeatable. `is_required` refuses none at all.
    pub(crate) fn topics(&self, is_required: bool) -> Result<Patterns, Problem> {
        let topics: Vec<&str> = self.all("topic").collect();
        if topics.is_empty() && is_required {
            return Err(Problem::bad_request(
                "topic",
                "at least one topic or pattern is needed, as ?topic=alarms",
            ));
        }
        patterns(&topics).map_err(|why| Problem::bad_request("topic", &why))
    }

    /// A number within bounds, or its default.
    pub(crate) fn number(
        &self,
        name: &'static str,
        default: u64,
        least: u64,
        most: u64,
    ) -> Result<u64, Problem> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(Problem::bad_request(
                name,
                &format!("a whole number from {least} to {most}"),
            )),
        }
    }

    /// `true` or `false`, or its default.
    pub(crate) fn flag(&self, name: &'static str, default: bool) -> Result<bool, Problem> {
        match self.get(name) {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(_) => Err(Problem::bad_request(name, "true or false")),
        }
    }
}

/// Reads topics and patterns, at most [`MAX_PATTERNS`].
pub(crate) fn patterns(of: &[impl AsRef<str>]) -> Result<Patterns, String> {
    if of.len() > MAX_PATTERNS {
        return Err(format!("at most {MAX_PATTERNS} topics on one stream"));
    }
    let read = |text: &str| Pattern::new(text).map_err(|e| e.to_string());
    Ok(Patterns::new(
        of.iter()
            .map(|t| read(t.as_ref()))
            .collect::<Result<_, _>>()?,
    ))
}

/// Where a client says it stands: the header wins over `?last_event_id=`. Bytes, because browsers send what they got.
#[must_use]
pub(crate) fn last_event_id(headers: &HeaderMap, query: &Query) -> Option<Vec<u8>> {
    match headers.get(LAST_EVENT_ID) {
        Some(value) => Some(value.as_bytes().to_vec()).filter(|bytes| !bytes.is_empty()),
        None => query.cursor("last_event_id"),
    }
}

/// Where a request came from, and with what.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The peer's address.
    pub(crate) remote: SocketAddr,
    /// Its user agent, cut to a sane length.
    pub(crate) user_agent: Option<Box<str>>,
}

impl Origin {
    /// Reads the user agent.
    #[must_use]
    pub(crate) fn new(remote: SocketAddr, headers: &HeaderMap) -> Self {
        let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok());
        let cut = |text: &str| {
            text.chars()
                .take(MAX_USER_AGENT_BYTES)
                .collect::<String>()
                .into_boxed_str()
        };
        Self {
            remote,
            user_agent: agent.map(cut),
        }
    }
}
