//! Proactive care: telling customers of a problem before they ask. Only those who consented are told.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};
use tidings_core::clock::Timestamp;
use tidings_core::db::DbError;
use tidings_core::event::EventId;
use tidings_core::log::Tx;
use tidings_core::tenant::Tenant;

use super::store;
use crate::incident::entry::{self, What};
use crate::incident::{Actor, count, event};
use crate::reading;
use crate::{Alarms, Error, Invalid};

/// How a customer is told. The name is that of existing clients: no channel leads out of tidings.
pub(super) const CHANNEL: &str = "simulation";
/// That a record and its notification are stored.
pub(super) const SENT: &str = "sent";
/// The source of the events that tell of customers: with their ids, what an erasure finds them by.
pub(super) const SOURCE: &str = "tidings/proactive-care";
/// Customers whom one call may name.
const MAX_CUSTOMERS: usize = 10_000;
/// The longest message, in bytes.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;
/// How far down from an incident's entities its customers are looked for: everything that hangs on them.
const DEPTH: usize = 64;
/// The same in entities: more than a network has, few enough to hold in memory.
const NODES: usize = 200_000;

/// Whom to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// These.
    Customers(Vec<String>),
    /// Those whom an incident affects: its entities serve them, or something below those does.
    Incident(String),
}

/// What to tell whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCare {
    /// Whom.
    pub whom: Whom,
    /// What.
    pub message: String,
    /// What it is about, where whom it is about is named one by one.
    pub about: Option<String>,
}

impl NewCare {
    /// Reads a body.
    pub fn read(body: Value) -> Result<Self, Error> {
        let (customers, incident, message) = reading::object(body, |r| {
            r.ignore("tenant_id");
            let customers = r.optional_texts("customer_ids", MAX_CUSTOMERS);
            let incident = r.optional_text("incident_id");
            let message = r.required("message", reading::text_up_to(MAX_MESSAGE_BYTES));
            Some((customers, incident, message?))
        })?;
        let whom = match (customers, incident) {
            (Some(ids), None) if ids.is_empty() => {
                let fault = Invalid::member("customer_ids", "too_short", "names nobody");
                return Err(fault.into());
            }
            (Some(ids), None) => Whom::Customers(ids),
            (None, Some(id)) => Whom::Incident(id),
            (None, None) => {
                let message = "customer_ids or incident_id is required";
                return Err(Invalid::member("customer_ids", "missing", message).into());
            }
            (Some(_), Some(_)) => {
                let message = "stands beside customer_ids: only one of them is taken";
                return Err(Invalid::member("incident_id", "value_error", message).into());
            }
        };
        Ok(Self {
            whom,
            message,
            about: None,
        })
    }
}

/// What a customer was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its own id.
    pub id: String,
    /// Whom.
    pub customer_id: String,
    /// What it was about.
    pub incident_id: Option<String>,
    /// What.
    pub message: Arc<str>,
    /// When.
    pub created_at: Timestamp,
}

impl Record {
    /// The outside form.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "id": self.id, "customer_id": self.customer_id, "incident_id": self.incident_id,
            "anomaly_id": self.incident_id, "channel": CHANNEL, "status": SENT, "message_content": &*self.message,
            "created_at": self.created_at.to_string(),
        })
    }
}

/// A customer who was not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Who.
    pub customer_id: String,
    /// `no_consent` or `not_found`.
    pub reason: &'static str,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Care {
    /// What was told to whom.
    pub sent: Vec<Record>,
    /// Who was not told, and why.
    pub blocked: Vec<Blocked>,
}

impl Care {
    /// The outside form.
    #[must_use]
    pub fn json(&self) -> Value {
        let blocked = |b: &Blocked| json!({ "customer_id": b.customer_id, "reason": b.reason });
        json!({
            "sent": self.sent.iter().map(Record::json).collect::<Vec<_>>(),
            "blocked": self.blocked.iter().map(blocked).collect::<Vec<_>>(),
            "sent_count": self.sent.len(), "blocked_count": self.blocked.len(),
        })
    }
}

impl Alarms {
    /// Tells customers, and keeps that it did. Consent is read in the transaction that acts on it.
    pub async fn care(&self, tenant: &Tenant, new: NewCare, actor: Actor) -> Result<Care, Error> {
        let NewCare {
            whom,
            message,
            about,
        } = new;
        let (whom, about) = match whom {
            Whom::Customers(ids) => (Found::Customers(ids), about),
            Whom::Incident(id) => {
                let incident = self.incident(tenant, &id).await?;
                let topology = self.topology(tenant).await?;
                let places = self.places_of(tenant, &incident).await?;
                let from = places.iter().map(String::as_str);
                let below = topology.downstream(from, DEPTH, NODES);
                (
                    Found::Entities(below.into_iter().map(str::to_owned).collect()),
                    Some(id),
                )
            }
        };
        let write = self.log.write(tenant, move |tx| -> Result<_, Error> {
            Ok(tell(
                tx,
                &whom,
                &message.into(),
                (about.as_deref(), &actor),
            )?)
        });
        Ok(write.await?.value)
    }

    /// Tells the customers whom an incident affects and who are likely to leave, as clients of the old path ask. None where
    /// there are none.
    pub async fn care_at_risk(
        &self,
        tenant: &Tenant,
        incident_id: &str,
        actor: Actor,
    ) -> Result<Option<Care>, Error> {
        let impact = self.incident_impact(tenant, incident_id).await?;
        let ids: Vec<String> = impact.at_risk().iter().map(|c| c.id.clone()).collect();
        if ids.is_empty() {
            return Ok(None);
        }
        let message = "We know of a problem in the network that may affect your service, and are working on it.";
        let new = NewCare {
            whom: Whom::Customers(ids),
            message: message.to_owned(),
            about: Some(incident_id.to_owned()),
        };
        self.care(tenant, new, actor).await.map(Some)
    }
}

/// Whom a call is about, as the transaction looks for them.
enum Found {
    Customers(Vec<String>),
    Entities(Vec<String>),
}

fn tell(
    tx: &mut Tx<'_>,
    whom: &Found,
    message: &Arc<str>,
    (about, actor): (Option<&str>, &Actor),
) -> Result<Care, DbError> {
    let (tenant, now) = (tx.tenant_number(), tx.now());
    let ids = match whom {
        Found::Customers(ids) => ids.clone(),
        Found::Entities(ids) => {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            store::ids_served_by(tx, tenant, &ids)?
        }
    };
    let known: Vec<&str> = ids
        .iter()
        .map(String::as_str)
        .filter(|id| super::is_id(id))
        .collect();
    let customers = store::many(tx, tenant, &known)?;
    let consents = |id: &str| {
        let found = customers.binary_search_by(|c| c.id.as_str().cmp(id)).ok()?;
        customers.get(found).map(|c| c.consents_to_care)
    };
    let mut care = Care::default();
    let mut seen = HashSet::new();
    for id in ids.iter().filter(|id| seen.insert(id.as_str())) {
        let reason = match consents(id) {
            Some(true) => {
                care.sent.push(Record {
                    id: EventId::random(now).to_string(),
                    customer_id: id.clone(),
                    incident_id: about.map(str::to_owned),
                    message: message.clone(),
                    created_at: now,
                });
                continue;
            }
            Some(false) => "no_consent",
            None => "not_found",
        };
        care.blocked.push(Blocked {
            customer_id: id.clone(),
            reason,
        });
    }
    keep(tx, &care, (about, actor))?;
    Ok(care)
}

/// Keeps the records, and tells of what was sent and of what was blocked.
fn keep(
    tx: &mut Tx<'_>,
    care: &Care,
    (about, actor): (Option<&str>, &Actor),
) -> Result<(), DbError> {
    let (tenant, now) = (tx.tenant_number(), tx.now());
    store::add_records(tx, tenant, &care.sent)?;
    let mut events = Vec::with_capacity(care.sent.len() + care.blocked.len());
    for record in &care.sent {
        let data = json!({
            "care_id": record.id, "customer_id": record.customer_id, "incident_id": about, "channel": CHANNEL,
            "type": "proactive_care", "title": "Proactive care", "message": &*record.message,
        });
        let topic = format!("notifications/users/{}", record.customer_id);
        let id = append(tx, (&topic, "notification"), data, actor)?;
        events.push((record.customer_id.clone(), id));
    }
    for blocked in &care.blocked {
        let data = json!({
            "customer_id": blocked.customer_id, "reason": blocked.reason, "incident_id": about, "actor": actor.name,
        });
        let id = append(tx, (AUDIT, "proactive_care_blocked"), data, actor)?;
        events.push((blocked.customer_id.clone(), id));
    }
    store::add_events(tx, tenant, &events)?;
    if let Some(incident) = about {
        let told = count(care.sent.len() as u64, "customer", "customers");
        let details = format!("Told {told}; {} blocked.", care.blocked.len());
        entry::add(
            tx,
            tenant,
            incident,
            now,
            (What::CustomersTold, actor, &details),
        )?;
    }
    Ok(())
}

/// Where what was refused or erased is told of.
pub(super) const AUDIT: &str = "audit/alarms";

/// Appends an event that tells of a customer, and gives its id.
pub(super) fn append(
    tx: &mut Tx<'_>,
    (topic, kind): (&str, &str),
    mut data: Value,
    actor: &Actor,
) -> Result<String, DbError> {
    let now = tx.now();
    let id = EventId::random(now);
    data["event_id"] = id.as_str().into();
    data["event_type"] = kind.into();
    data["tenant_id"] = tx.tenant().as_str().into();
    data["timestamp"] = now.to_string().into();
    data["trace_id"] = actor.trace_id.clone().into();
    let mut event = event(topic, kind, &data)?;
    // Named by id and source, so that an erasure finds it. The id is new: nothing can stand under it.
    event.source = Some(SOURCE.to_owned());
    event.id = Some(id.clone());
    tx.append(event);
    Ok(id.to_string())
}
