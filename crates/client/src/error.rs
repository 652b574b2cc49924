//! What can go wrong, and whether trying again may help.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// What a server says about a request that it refused (RFC 9457).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The kind of problem, as `/problems/<slug>`.
    pub kind: Option<String>,
    /// What it is called.
    pub title: Option<String>,
    /// What is wrong with this request.
    pub detail: Option<String>,
    /// The path, query parameter or header at fault.
    pub field: Option<String>,
    /// The item of a batch that is at fault, from 0.
    pub index: Option<u64>,
    /// What the server's log calls this request.
    pub correlation_id: Option<String>,
    /// When the server wishes to be asked again.
    pub retry_after: Option<Duration>,
}

/// The document, with members of the wrong kind left out: the status alone is enough to act on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    r#type: Value,
    title: Value,
    detail: Value,
    field: Value,
    index: Value,
    correlation_id: Value,
}

impl Problem {
    /// Reads an answer that is no success. `body` need not be a problem document: a proxy may stand between.
    #[must_use]
    pub(crate) fn read(status: u16, retry_after: Option<&str>, body: &[u8]) -> Self {
        let document: Document = serde_json::from_slice(body).unwrap_or_default();
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            Value::Null => None,
            other => Some(other.to_string()),
        };
        Self {
            status,
            kind: text(document.r#type),
            title: text(document.title),
            detail: text(document.detail),
            field: text(document.field),
            index: document.index.as_u64(),
            correlation_id: text(document.correlation_id),
            retry_after: retry_after
                .and_then(|secs| secs.trim().parse().ok())
                .map(Duration::from_secs),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(text) = self.detail.as_ref().or(self.title.as_ref()) {
            write!(f, ": {text}")?;
        }
        if let Some(field) = &self.field {
            write!(f, " (at {field}")?;
            if let Some(index) = self.index {
                write!(f, " of item {index}")?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// Why a request or a stream failed. No variant holds token material.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address, or something else that was given, cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// The token provider gave none.
    #[error("no token: {0}")]
    Token(String),
    /// No connection could be made: nothing has reached the server.
    #[error("cannot reach the server: {0}")]
    Unreachable(String),
    /// The connection broke: what was sent may have arrived or not.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The server refused the request.
    #[error("the server answered {0}")]
    Refused(Box<Problem>),
    /// The answer is not one that a tidings server gives.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// The server closed the stream, and coming back is of no use.
    #[error("the server closed the stream: {reason}")]
    Closed {
        /// The reason that its `closing` frame gave.
        reason: String,
    },
}

impl Error {
    /// The HTTP status, where the server answered with one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem) => Some(problem.status),
            _ => None,
        }
    }

    /// The same attempt may succeed later: no connection, a lost one, 408, 429 or a 5xx.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Lost(_) | Self::Token(_) => true,
            Self::Refused(problem) => matches!(problem.status, 408 | 425 | 429 | 500..=599),
            Self::Invalid(_) | Self::Protocol(_) | Self::Closed { .. } => false,
        }
    }

    /// The server has certainly done nothing, so that even a request without a key may be sent again.
    pub(crate) fn is_untouched(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Token(_) => true,
            Self::Refused(problem) => matches!(problem.status, 429 | 503),
            _ => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(problem) => problem.retry_after,
            _ => None,
        }
    }

    /// The whole chain of causes in one line; the address without its query, which may hold a ticket.
    pub(crate) fn http(error: reqwest::Error) -> Self {
        let (is_unsent, is_unbuilt) = (error.is_connect(), error.is_builder());
        let error = error.without_url();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(deeper) = cause {
            let deeper_text = deeper.to_string();
            if !text.contains(&deeper_text) {
                text.push_str(": ");
                text.push_str(&deeper_text);
            }
            cause = deeper.source();
        }
        if is_unbuilt {
            Self::Invalid(text)
        } else if is_unsent {
            Self::Unreachable(text)
        } else {
            Self::Lost(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_read_from_whatever_came() {
        let body = br#"{"type":"/problems/invalid","title":"Invalid","status":422,"detail":"too long","field":"topic","index":3,"correlation_id":"c"}"#;
        let problem = Problem::read(422, None, body);
        assert_eq!(problem.to_string(), "422: too long (at topic of item 3)");
        assert_eq!(problem.correlation_id.as_deref(), Some("c"));
        let list = Problem::read(422, None, br#"{"detail":[{"loc":["body"]}]}"#);
        assert_eq!(list.detail.as_deref(), Some(r#"[{"loc":["body"]}]"#));
        let proxy = Problem::read(502, Some("7"), b"<html>bad gateway</html>");
        assert_eq!(proxy.to_string(), "502");
        assert_eq!(proxy.retry_after, Some(Duration::from_secs(7)));
    }
}
