//! The events that tell of incidents.

use serde_json::json;
use tidings_core::db::DbError;
use tidings_core::event::{EventId, EventType, Json, NewEvent};
use tidings_core::log::Tx;
use tidings_core::topic::Topic;

use super::{Actor, Incident};

/// Where incidents are told of.
pub const TOPIC: &str = "incidents";

/// Appends `incident_created`.
pub(super) fn created(tx: &mut Tx<'_>, incident: &Incident, actor: &Actor) -> Result<(), DbError> {
    append(tx, "incident_created", incident, ("opened", actor))
}

/// Appends `incident_updated`, naming what changed as the timeline does.
pub(super) fn updated(
    tx: &mut Tx<'_>,
    incident: &Incident,
    change: &str,
    actor: &Actor,
) -> Result<(), DbError> {
    append(tx, "incident_updated", incident, (change, actor))
}

fn append(
    tx: &mut Tx<'_>,
    kind: &str,
    incident: &Incident,
    (change, actor): (&str, &Actor),
) -> Result<(), DbError> {
    let now = tx.now();
    let id = EventId::random(now);
    let data = json!({
        "event_id": id.as_str(), "event_type": kind, "tenant_id": tx.tenant().as_str(), "timestamp": now.to_string(),
        "trace_id": actor.trace_id, "incident_id": incident.id, "severity": incident.severity.as_str(),
        "entity_id": incident.entity_id, "cluster_id": incident.cluster_id, "title": incident.title,
        "status": incident.status.as_str(), "priority": incident.severity.weight().priority,
        "alarm_count": incident.alarm_count, "merged_into": incident.merged_into, "change": change, "actor": actor.name,
        "created_at": incident.created_at.to_string(), "updated_at": incident.updated_at.to_string(),
    });
    let mut event = event(TOPIC, kind, &data)?;
    event.given = Some(id);
    tx.append(event);
    Ok(())
}

/// An event of ours.
pub(crate) fn event(
    topic: &str,
    kind: &str,
    data: &serde_json::Value,
) -> Result<NewEvent, DbError> {
    fn fault(e: &impl std::fmt::Display) -> DbError {
        DbError::Fault(format!("an event cannot be made: {e}"))
    }
    Ok(NewEvent::new(
        Topic::new(topic).map_err(|e| fault(&e))?,
        EventType::new(kind).map_err(|e| fault(&e))?,
        Json::encode(data).map_err(|e| fault(&e))?,
    ))
}
