//! Every error of the product in one table, as RFC 9457 problem documents. The only place with a status.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde::Serialize;
use tidings_core::auth::{Refusal, TicketError};
use tidings_core::db::DbError;
use tidings_core::ingest::Invalid;
use tidings_core::log::{PublishError, WriteError};

macro_rules! problems {
    ($($name:ident = $status:ident, $slug:literal, $title:literal, $meaning:literal;)*) => {
        /// What went wrong, by kind. Each has a stable `type` under `/problems/`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind {
            $(#[doc = $meaning] $name,)*
        }

        impl Kind {
            /// Every kind.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// The last segment of its `type`.
            #[must_use]
            pub(crate) fn slug(self) -> &'static str {
                match self { $(Self::$name => $slug,)* }
            }

            /// Its status.
            #[must_use]
            pub(crate) fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What it is called.
            #[must_use]
            pub(crate) fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What it means, for its page.
            #[must_use]
            pub(crate) fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

problems! {
    Malformed = BAD_REQUEST, "malformed", "The request cannot be read",
        "The body is not what its content type says: not JSON, not UTF-8, nested too deep, or cut short.";
    IllegalMove = BAD_REQUEST, "illegal-move", "Not from here",
        "The state of the thing does not allow this move; `legal` lists those that it does. Newer paths answer 409.";
    BadParameter = BAD_REQUEST, "bad-parameter", "A parameter or header is wrong",
        "A query parameter or header is missing, repeated, or has a value that is not allowed.";
    Unauthenticated = UNAUTHORIZED, "unauthenticated", "A valid credential is needed",
        "No credential came with the request, or it is expired, revoked, forged, or not for this server.";
    Forbidden = FORBIDDEN, "forbidden", "The policy says no",
        "The credential is valid, but the policy does not allow this.";
    NotFound = NOT_FOUND, "not-found", "Nothing is here",
        "There is no such path, or no such thing in this tenant.";
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "This method is not for this path",
        "The Allow header lists the methods that are.";
    Conflict = CONFLICT, "conflict", "It stands already, otherwise",
        "Something with this identity exists, and is different.";
    TooLarge = PAYLOAD_TOO_LARGE, "too-large", "The body is too large",
        "The body, one event of it, or the number of its items is over the server's limit.";
    UnsupportedType = UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "This content type is not taken",
        "The Content-Type is missing or none of those that this path takes.";
    Invalid = UNPROCESSABLE_ENTITY, "invalid", "A member is wrong",
        "The body can be read, but a member is missing, unknown, of the wrong type, or has a value that is not allowed.";
    KeyReused = UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The Idempotency-Key was used before",
        "The same Idempotency-Key came with another request. Use a new key for a new request.";
    TooMany = TOO_MANY_REQUESTS, "too-many", "Too many of them",
        "This user has as many open connections as are allowed. Close one, or come back later.";
    TooManyAttempts = TOO_MANY_REQUESTS, "too-many-attempts", "Too many attempts",
        "Too many wrong passwords came. Try again after Retry-After.";
    HeadersTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", "The headers are too large",
        "The request's line and headers are over the server's limit.";
    Internal = INTERNAL_SERVER_ERROR, "internal", "Something broke",
        "A fault of the server. The correlation id finds it in the log.";
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "Not now",
        "The server cannot do this now: too busy, going down, or without its database. Come back after Retry-After.";
}

/// One more fault of the same request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    /// The path inside the item.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) detail: String,
}

/// One fault as the existing clients of the alarms module read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Located {
    /// The way to it, `body` first.
    pub(crate) loc: Vec<LocatedStep>,
    /// What is wrong.
    pub(crate) msg: String,
    /// A short code.
    pub(crate) r#type: &'static str,
}

/// A step of that way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum LocatedStep {
    /// A member.
    Member(String),
    /// A place in a list, from 0.
    Index(usize),
}

/// What a problem says: to a person, or to existing clients of the alarms module.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum Detail {
    Text(String),
    Faults(Vec<Located>),
}

/// An error, on its way to the client.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    kind: Kind,
    detail: Detail,
    field: Option<String>,
    index: Option<usize>,
    errors: Vec<FieldError>,
    /// What the state allows, where a move was refused; it may be nothing.
    legal: Option<Vec<&'static str>>,
    retry_after: Option<Duration>,
    allow: Option<String>,
    /// Set by the middleware, which knows it.
    pub(crate) correlation_id: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a Detail,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    legal: Option<&'a [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
}

impl Problem {
    /// A problem with a text for a person.
    #[must_use]
    pub(crate) fn new(kind: Kind, detail: &str) -> Self {
        Self {
            kind,
            detail: Detail::Text(detail.to_owned()),
            field: None,
            index: None,
            errors: Vec::new(),
            legal: None,
            retry_after: None,
            allow: None,
            correlation_id: None,
        }
    }

    /// Names the field at fault.
    #[must_use]
    pub(crate) fn at(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    /// Names the item at fault, by its place in a batch.
    #[must_use]
    pub(crate) fn of_item(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }

    /// The body cannot be read.
    #[must_use]
    pub(crate) fn malformed(detail: &str) -> Self {
        Self::new(Kind::Malformed, detail)
    }

    /// A query parameter or header is wrong.
    #[must_use]
    pub(crate) fn bad_request(field: &str, detail: &str) -> Self {
        Self::new(Kind::BadParameter, detail).at(field)
    }

    /// The policy says no.
    #[must_use]
    pub(crate) fn forbidden(field: &str, detail: &str) -> Self {
        Self::new(Kind::Forbidden, detail).at(field)
    }

    /// Not in this tenant.
    #[must_use]
    pub(crate) fn not_found(detail: &str) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    /// A member is wrong.
    #[must_use]
    pub(crate) fn invalid(field: &str, detail: &str) -> Self {
        Self::new(Kind::Invalid, detail).at(field)
    }

    /// Members are wrong, each with its place: the `detail` that existing clients of the alarms module read.
    #[must_use]
    pub(crate) fn faults(index: Option<usize>, faults: Vec<(String, Located)>) -> Self {
        let errors = faults.iter().map(|(field, fault)| FieldError {
            field: field.clone(),
            detail: fault.msg.clone(),
        });
        let errors: Vec<_> = errors.collect();
        Self {
            field: errors.first().map(|first| first.field.clone()),
            index,
            errors,
            detail: Detail::Faults(faults.into_iter().map(|(_, fault)| fault).collect()),
            ..Self::new(Kind::Invalid, "")
        }
    }

    /// The state allows other moves.
    #[must_use]
    pub(crate) fn illegal(detail: &str, legal: Vec<&'static str>) -> Self {
        Self {
            legal: Some(legal),
            ..Self::new(Kind::Conflict, detail)
        }
    }

    /// The same under another kind, for paths whose existing clients expect another status.
    #[must_use]
    pub(crate) fn under(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// Come back later.
    #[must_use]
    pub(crate) fn unavailable(detail: &str, retry: Duration) -> Self {
        Self {
            retry_after: Some(retry),
            ..Self::new(Kind::Unavailable, detail)
        }
    }

    /// Too many of this user's.
    #[must_use]
    pub(crate) fn too_many(detail: &str, retry: Duration) -> Self {
        Self {
            retry_after: Some(retry),
            ..Self::new(Kind::TooMany, detail)
        }
    }

    /// Too many wrong passwords.
    #[must_use]
    pub(crate) fn too_many_attempts(retry: Duration) -> Self {
        Self {
            retry_after: Some(retry),
            ..Self::new(Kind::TooManyAttempts, "too many attempts; try again later")
        }
    }

    /// The body or a part of it is over a limit.
    #[must_use]
    pub(crate) fn too_large(detail: &str) -> Self {
        Self::new(Kind::TooLarge, detail)
    }

    /// A path that takes other methods.
    #[must_use]
    pub(crate) fn method_not_allowed(allow: &[Method]) -> Self {
        let allow = allow
            .iter()
            .map(Method::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        let detail = format!("this path takes {allow}");
        Self {
            allow: Some(allow),
            ..Self::new(Kind::MethodNotAllowed, &detail)
        }
    }

    /// A fault of ours: the text goes to the log, not to the client.
    #[must_use]
    pub(crate) fn internal(why: &str) -> Self {
        tracing::error!(error = why, "internal error");
        Self::new(
            Kind::Internal,
            "a fault of the server; the correlation id finds it in the log",
        )
    }

    fn document(&self) -> Document<'_> {
        Document {
            r#type: format!("/problems/{}", self.kind.slug()),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
            index: self.index,
            errors: &self.errors,
            legal: self.legal.as_deref(),
            correlation_id: self.correlation_id.as_deref(),
        }
    }
}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.document().serialize(to)
    }
}

impl IntoResponse for Problem {
    /// The middleware adds the correlation id: it finds the problem among the response's extensions.
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.document()).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(retry) = self.retry_after {
            let secs = retry.as_secs() + u64::from(retry.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(secs.max(1)));
        }
        if self.kind == Kind::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self
            .allow
            .as_deref()
            .and_then(|allow| HeaderValue::from_str(allow).ok())
        {
            headers.insert(ALLOW, allow);
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<DbError> for Problem {
    fn from(e: DbError) -> Self {
        match e {
            DbError::Unavailable(_) | DbError::Full(_) => {
                tracing::warn!(error = %e, "the database did not answer");
                Self::unavailable(
                    "the server's database does not answer",
                    Duration::from_secs(2),
                )
            }
            DbError::Conflict(_) | DbError::Fault(_) => Self::internal(&e.to_string()),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(e: PublishError) -> Self {
        match e {
            PublishError::Full => Self::unavailable(&e.to_string(), Duration::from_secs(1)),
            PublishError::Unavailable(why) => {
                tracing::warn!(error = %why, "events could not be stored");
                Self::unavailable("the log cannot store events now", Duration::from_secs(2))
            }
            PublishError::KeyReused => {
                Self::new(Kind::KeyReused, &e.to_string()).at("Idempotency-Key")
            }
            PublishError::IdConflict { index } => Self::new(Kind::Conflict, &e.to_string())
                .at("id")
                .of_item(index),
        }
    }
}

impl From<WriteError<DbError>> for Problem {
    fn from(e: WriteError<DbError>) -> Self {
        match e {
            WriteError::Full => {
                Self::unavailable("too many writes wait; try again", Duration::from_secs(1))
            }
            WriteError::Unavailable(why) => {
                tracing::warn!(error = %why, "a change could not be stored");
                Self::unavailable("the log cannot store now", Duration::from_secs(2))
            }
            WriteError::Refused(why) => Self::from(why),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        metrics::counter!("tidings_auth_failures_total", "reason" => refusal.reason()).increment(1);
        let detail = refusal.to_string();
        match refusal {
            Refusal::NoTenant => Self::new(Kind::Forbidden, &detail),
            Refusal::Origin => Self::new(Kind::Forbidden, &detail).at("Origin"),
            Refusal::KeysUnavailable => Self::unavailable(&detail, Duration::from_secs(2)),
            _ => Self::new(Kind::Unauthenticated, &detail),
        }
    }
}

impl From<&TicketError> for Problem {
    fn from(e: &TicketError) -> Self {
        match e {
            TicketError::Full => Self::unavailable(&e.to_string(), Duration::from_secs(2)),
            TicketError::Random => Self::internal(&e.to_string()),
        }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        use tidings_core::ingest::Class;
        let kind = match invalid.class {
            Class::Malformed => Kind::Malformed,
            Class::Header => Kind::BadParameter,
            Class::Invalid => Kind::Invalid,
            Class::TooLarge => Kind::TooLarge,
        };
        let errors = invalid
            .errors
            .into_iter()
            .map(|(field, detail)| FieldError { field, detail })
            .collect();
        Self {
            field: invalid.field,
            index: invalid.index,
            errors,
            ..Self::new(kind, &invalid.detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_has_a_type_of_its_own() {
        let mut slugs: Vec<_> = Kind::ALL.iter().map(|k| k.slug()).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), Kind::ALL.len());
    }

    #[test]
    fn too_many_tickets_are_no_fault_of_the_server() {
        let full = Problem::from(&TicketError::Full).into_response();
        assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(full.headers()[RETRY_AFTER], "2");
        let broken = Problem::from(&TicketError::Random).into_response();
        assert_eq!(broken.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn a_document_names_the_field() {
        let document =
            serde_json::to_value(Problem::bad_request("wait", "a whole number from 0 to 60"))
                .unwrap();
        assert_eq!(document["type"], "/problems/bad-parameter");
        assert_eq!(
            (&document["status"], &document["field"]),
            (&400.into(), &"wait".into())
        );
    }
}
