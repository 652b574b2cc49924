//! The paths of the alarms module: who may, how bodies are read, how errors look there. A file per noun.

pub(crate) mod alarm;
mod body;
pub(crate) mod clusters;
pub(crate) mod customers;
mod denials;
pub(crate) mod entities;
pub(crate) mod incidents;
pub(crate) mod ingest;
pub(crate) mod kpis;
pub(crate) mod scorecard;
pub(crate) mod sleeping_cells;
pub(crate) mod stream;
pub(crate) mod tmf642;

use std::sync::Arc;

use http::request::Parts;
use tidings_alarms::{Error, Invalid, Step};
use tidings_core::auth::{Action, Principal};
use tidings_core::clock::Timestamp;
use tidings_core::topic::Topic;

pub(crate) use body::{Content, items, object, object_or_empty, one_or_items};

pub(crate) use denials::Denials;

use super::caller;
use crate::app::App;
use crate::http::problem::{Kind, Located, LocatedStep, Problem};
use crate::transport::request::Query;

/// Who makes a request, where the policy allows them an action of the module, as `alarm_read`.
pub(crate) async fn caller_may(
    app: &App,
    parts: &Parts,
    action: &'static str,
) -> Result<Arc<Principal>, Problem> {
    let principal = caller(app, parts).await?;
    if may(app, &principal, action) {
        return Ok(principal);
    }
    if !action.ends_with("_read") {
        denials::tell(app, parts, &principal, action).await;
    }
    let detail = format!("the policy does not allow {action}");
    Err(Problem::new(Kind::Forbidden, &detail))
}

/// Whether the policy allows a principal an action of the module: on the topic that tells of it.
pub(crate) fn may(app: &App, principal: &Principal, action: &'static str) -> bool {
    let topic = match action.split('_').next() {
        Some("incident" | "scorecard") => "incidents",
        Some("care") => "audit/alarms",
        _ => "alarms",
    };
    Topic::new(topic).is_ok_and(|topic| {
        let policies = app.policies.current();
        policies.allows(principal, Action::Module(action), &topic)
    })
}

/// A parameter of a query; an empty one is none. No database keeps a NUL character.
pub(crate) fn filter(query: &Query, name: &'static str) -> Result<Option<String>, Problem> {
    match query.get(name).filter(|value| !value.is_empty()) {
        Some(value) if value.contains('\0') => {
            Err(Problem::bad_request(name, "has a NUL character"))
        }
        value => Ok(value.map(str::to_owned)),
    }
}

/// A moment in a query. The `+` of an offset may have come as the space that it stands for there.
pub(crate) fn moment(query: &Query, name: &'static str) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = filter(query, name)? else {
        return Ok(None);
    };
    let read = Timestamp::parse(&text).or_else(|_| Timestamp::parse(&text.replacen(' ', "+", 1)));
    let read = read.map_err(|e| Problem::bad_request(name, &e.to_string()))?;
    Ok(Some(read))
}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        match e {
            Error::Invalid(faults) => invalid(faults),
            Error::NotFound { .. } => Self::not_found(&e.to_string()),
            Error::Illegal { ref legal, .. } => Self::illegal(&e.to_string(), legal.clone()),
            Error::Full => Self::from(tidings_core::log::PublishError::Full),
            Error::Unavailable(e) => e.into(),
        }
    }
}

/// The members at fault, as existing clients read them, beside the members of every other problem.
fn invalid(faults: Vec<Invalid>) -> Problem {
    let index = match faults.first().and_then(|first| first.at.first()) {
        Some(Step::Index(index)) => Some(*index),
        _ => None,
    };
    let faults = faults.into_iter().map(|fault| {
        let field = fault.at.iter().filter_map(|step| match step {
            Step::Member(name) => Some(name.as_str()),
            Step::Index(_) => None,
        });
        let field = field.collect::<Vec<_>>().join(".");
        let steps = fault.at.into_iter().map(|step| match step {
            Step::Member(name) => LocatedStep::Member(name),
            Step::Index(index) => LocatedStep::Index(index),
        });
        let body = LocatedStep::Member("body".to_owned());
        let located = Located {
            loc: std::iter::once(body).chain(steps).collect(),
            msg: fault.message,
            r#type: fault.kind,
        };
        (field, located)
    });
    Problem::faults(index, faults.collect())
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use serde_json::{Value, json};
    use tidings_alarms::Severity;
    use tidings_alarms::reading;
    use tidings_core::db::DbError;

    use super::*;

    fn document(e: Error) -> Value {
        serde_json::to_value(Problem::from(e)).unwrap()
    }

    #[test]
    fn a_wrong_member_is_told_to_old_and_new_clients_alike() {
        let body = json!({"severity": "loud", "colour": 1});
        let read = reading::object(body, |r| r.word::<Severity>("severity"));
        let shown = document(read.unwrap_err());
        assert_eq!(shown["type"], "/problems/invalid");
        assert_eq!(shown["status"], 422);
        assert_eq!(shown["field"], "severity");
        assert_eq!(shown["detail"][0]["loc"], json!(["body", "severity"]));
        assert_eq!(shown["detail"][0]["type"], "enum");
        assert!(
            shown["detail"][0]["msg"]
                .as_str()
                .unwrap()
                .contains("major")
        );
        assert_eq!(shown["detail"][1]["loc"], json!(["body", "colour"]));
        assert_eq!(shown["errors"][1]["field"], "colour");
        assert_eq!(shown["index"], Value::Null);
    }

    #[test]
    fn an_item_of_a_batch_is_named_by_its_place() {
        let items = vec![json!({"severity": "minor"}), json!({"severity": null})];
        let read = reading::each(items, |r| r.word::<Severity>("severity"));
        let shown = document(read.unwrap_err());
        assert_eq!(shown["index"], 1);
        assert_eq!(shown["field"], "severity");
        assert_eq!(shown["detail"][0]["loc"], json!(["body", 1, "severity"]));
        assert_eq!(shown["detail"][0]["type"], "missing");
    }

    #[test]
    fn every_other_error_has_a_text() {
        let id = "x".to_owned();
        let not_found = document(Error::NotFound { what: "alarm", id });
        assert_eq!(not_found["status"], 404);
        assert_eq!(not_found["detail"], "no alarm x");
        let illegal = document(Error::Illegal {
            from: "open".into(),
            to: "closed".into(),
            legal: vec!["acknowledged"],
        });
        assert_eq!(illegal["status"], 409);
        assert_eq!(illegal["legal"], json!(["acknowledged"]));
        assert!(illegal["detail"].is_string());
        let unavailable = Error::Unavailable(DbError::Unavailable("gone".into()));
        for busy in [Error::Full, unavailable] {
            let response = Problem::from(busy).into_response();
            assert_eq!(response.status(), 503);
            assert!(response.headers().contains_key("retry-after"));
        }
    }
}
