//! A subset of TM Forum's TMF642 Alarm Management API v4: its alarm resource, in and out.

use serde_json::{Map, Value, json};

use super::{Context, native};
use crate::alarm::{Alarm, Condition, Identity, Moment, Occurrence, OperatorState};
use crate::reading::{self, Reading};
use crate::{Error, Perceived, Severity};

/// Reads a `POST`ed alarm.
pub fn create(value: Value, context: Context<'_>) -> Result<Occurrence, Error> {
    reading::object(value, |r| alarm(r, context))
}

fn alarm(r: &mut Reading, context: Context<'_>) -> Option<Occurrence> {
    r.ignore("tenant_id");
    let entity_id = r.object("alarmedObject", |object| {
        let id = object.text("id");
        object.rest();
        id
    });
    let alarm_type = r.text("alarmType");
    let perceived = r.word::<Perceived>("perceivedSeverity");
    let read = |value| context.not_ahead(reading::time(value)?);
    let raised = r.optional("alarmRaisedTime", read);
    let cleared = r.optional("alarmClearedTime", read);
    let event = r.optional("eventTime", read);
    let state = r.optional_text("state");
    let specific_problem = r.optional_text("specificProblem");
    let probable_cause = r.optional_text("probableCause");
    let source_system = r.optional_text("sourceSystemId");
    let entity_external_id = r.optional_text("externalAlarmId");
    let rest = r.rest().into_iter().filter(|(_, value)| !value.is_null());
    let mut perceived = perceived?;
    if state.is_some_and(|state| state.eq_ignore_ascii_case("cleared")) {
        perceived = Perceived::Cleared;
    }
    let at = if perceived == Perceived::Cleared {
        cleared.or(raised).or(event)
    } else {
        raised.or(event)
    };
    let mut attributes: Map<String, Value> = rest.collect();
    if let Some(id) = entity_external_id {
        attributes.insert("externalAlarmId".into(), id.into());
    }
    Some(Occurrence {
        identity: Identity {
            entity_id: entity_id?,
            alarm_type: alarm_type?,
            specific_problem,
        },
        perceived,
        at: at.unwrap_or(context.now),
        source_system: source_system.unwrap_or_else(|| "tmf642".into()),
        entity_external_id: None,
        probable_cause,
        attributes: native::text(attributes),
        ends_at: None,
        source_key: None,
        is_repeated: false,
    })
}

/// What a `PATCH` asks for: whether it is to be acknowledged. Who does it is the credential's to say.
pub fn patch(value: Value) -> Result<bool, Error> {
    reading::object(value, |r| {
        for ignored in ["ackUserId", "ackSystemId", "@type", "@baseType", "id"] {
            r.ignore(ignored);
        }
        r.required("ackState", |value| match value.as_str() {
            Some("acknowledged") => Ok(true),
            Some("unacknowledged") => Ok(false),
            _ => Err(("enum", "is acknowledged or unacknowledged".into())),
        })
    })
}

/// An alarm as TMF642 shows it. `base` is the path that its id follows.
#[must_use]
pub fn shown(alarm: &Alarm, tenant: &str, base: &str) -> Value {
    let time = |at: Option<_>| at.map_or(Value::Null, |at| json!(Moment(at)));
    let state = match (alarm.condition, alarm.raise_count) {
        (Condition::Cleared, _) => "cleared",
        (Condition::Raised, 0 | 1) => "raised",
        (Condition::Raised, _) => "updated",
    };
    json!({
        "id": alarm.id,
        "href": format!("{base}/{}", alarm.id),
        "tenant_id": tenant,
        "alarmType": alarm.identity.alarm_type,
        "perceivedSeverity": match alarm.condition {
            Condition::Raised => alarm.severity.as_str(),
            Condition::Cleared => "cleared",
        },
        "probableCause": alarm.probable_cause,
        "specificProblem": alarm.identity.specific_problem.as_ref().unwrap_or(&alarm.identity.alarm_type),
        "alarmedObject": { "id": alarm.identity.entity_id },
        "state": state,
        "ackState": ack_state(alarm),
        "ackUserId": alarm.acknowledged_by,
        "alarmRaisedTime": time(alarm.raised_at),
        "alarmChangedTime": json!(Moment(alarm.updated_at)),
        "alarmClearedTime": time(alarm.cleared_at),
        "sourceSystemId": alarm.source_system,
        "isShelved": alarm.operator_state == OperatorState::Shelved,
        "@type": "Alarm",
    })
}

/// The word for whether somebody has seen it.
#[must_use]
pub fn ack_state(alarm: &Alarm) -> &'static str {
    if alarm.acknowledged_at.is_some() {
        "acknowledged"
    } else {
        "unacknowledged"
    }
}

/// A severity that a list is narrowed to.
#[must_use]
pub fn severity(word: &str) -> Option<Perceived> {
    word.parse().ok().or(match word {
        "info" => Some(Perceived::Raised(Severity::Warning)),
        _ => None,
    })
}
