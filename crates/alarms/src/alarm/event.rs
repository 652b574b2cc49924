//! What the log tells of an alarm, on the topic `alarms`.

use serde::Serialize;
use tidings_core::clock::Timestamp;
use tidings_core::event::{EventId, EventType, Json, NewEvent};
use tidings_core::log::Tx;
use tidings_core::topic::Topic;

use super::{Alarm, Condition, Moment, Object, Occurrence, OperatorState, rules};
use crate::{Error, Perceived, Severity};

/// The topic of the module's events.
pub const TOPIC: &str = "alarms";

/// A raise was accepted.
pub const INGESTED: &str = "alarm_ingested";
/// A clear was accepted, or the alarm was cleared by hand or by time.
pub const CLEARED: &str = "alarm_cleared";
/// Somebody, or time, took it back from where it was put aside.
pub const UNSHELVED: &str = "alarm_unshelved";

/// What all of a transaction's alarm events have in common.
#[derive(Debug)]
pub struct Teller {
    topic: Topic,
    trace: Option<String>,
}

#[derive(Clone, Copy, Serialize)]
struct Data<'a> {
    event_id: &'a str,
    event_type: &'a str,
    tenant_id: &'a str,
    timestamp: Moment,
    alarm_id: &'a str,
    entity_id: &'a str,
    entity_external_id: Option<&'a str>,
    alarm_type: &'a str,
    specific_problem: Option<&'a str>,
    probable_cause: Option<&'a str>,
    severity: Severity,
    condition: Condition,
    operator_state: OperatorState,
    raised_at: Option<Moment>,
    cleared_at: Option<Moment>,
    raise_count: i64,
    flap_count: i64,
    flapping: bool,
    source_system: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged_at: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shelved_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shelve_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shelve_expires_at: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Object<'a>>,
}

impl<'a> Data<'a> {
    fn of(alarm: &'a Alarm, now: Timestamp) -> Self {
        Data {
            event_id: "",
            event_type: "",
            tenant_id: "",
            timestamp: Moment(now),
            alarm_id: &alarm.id,
            entity_id: &alarm.identity.entity_id,
            entity_external_id: alarm.entity_external_id.as_deref(),
            alarm_type: &alarm.identity.alarm_type,
            specific_problem: alarm.identity.specific_problem.as_deref(),
            probable_cause: alarm.probable_cause.as_deref(),
            severity: alarm.severity,
            condition: alarm.condition,
            operator_state: alarm.operator_state,
            raised_at: alarm.raised_at.map(Moment),
            cleared_at: alarm.cleared_at.map(Moment),
            raise_count: alarm.raise_count,
            flap_count: alarm.flap_count,
            flapping: rules::is_flapping(alarm, now),
            source_system: &alarm.source_system,
            actor: None,
            acknowledged_by: alarm.acknowledged_by.as_deref(),
            acknowledged_at: alarm.acknowledged_at.map(Moment),
            shelved_by: alarm.shelved_by.as_deref(),
            shelve_reason: alarm.shelve_reason.as_deref(),
            shelve_expires_at: alarm.shelve_expires_at.map(Moment),
            attributes: None,
        }
    }
}

impl Teller {
    /// For events that came with this `traceparent`.
    pub fn new(trace: Option<String>) -> Result<Self, Error> {
        let topic = Topic::new(TOPIC).map_err(|e| fault(&e))?;
        Ok(Self { topic, trace })
    }

    /// Tells of an accepted raise or clear: what came in, and where the alarm stands with it.
    pub fn occurrence(
        &self,
        tx: &mut Tx<'_>,
        alarm: &Alarm,
        by: &Occurrence,
    ) -> Result<EventId, Error> {
        let mut data = Data::of(alarm, tx.now());
        data.source_system = &by.source_system;
        data.attributes = (by.attributes != "{}").then_some(Object(&by.attributes));
        let kind = match by.perceived {
            Perceived::Raised(severity) => {
                (data.severity, data.raised_at) = (severity, Some(Moment(by.at)));
                INGESTED
            }
            Perceived::Cleared => {
                data.cleared_at = Some(Moment(by.at));
                CLEARED
            }
        };
        self.append(tx, kind, data)
    }

    /// Tells of what a person did, or time.
    pub fn change(
        &self,
        tx: &mut Tx<'_>,
        kind: &'static str,
        alarm: &Alarm,
        actor: &str,
    ) -> Result<EventId, Error> {
        let mut data = Data::of(alarm, tx.now());
        data.actor = Some(actor);
        self.append(tx, kind, data)
    }

    fn append(
        &self,
        tx: &mut Tx<'_>,
        kind: &'static str,
        data: Data<'_>,
    ) -> Result<EventId, Error> {
        let id = EventId::random(tx.now());
        let data = Data {
            event_id: id.as_str(),
            event_type: kind,
            tenant_id: tx.tenant().as_str(),
            ..data
        };
        let data = Json::encode(&data).map_err(|e| fault(&e))?;
        let kind = EventType::new(kind).map_err(|e| fault(&e))?;
        let mut event = NewEvent::new(self.topic.clone(), kind, data);
        event.given = Some(id);
        event.trace.clone_from(&self.trace);
        Ok(tx.append(event))
    }
}

fn fault(e: &dyn std::fmt::Display) -> Error {
    Error::Unavailable(tidings_core::db::DbError::Fault(format!("an event: {e}")))
}
