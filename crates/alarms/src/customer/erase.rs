//! Erasure: a person is taken out of the rows, and out of what the log has told of them. That something happened stays.

use serde_json::{Value, json};
use tidings_core::event::{EventId, Json};
use tidings_core::tenant::Tenant;

use super::care::{self, AUDIT, SOURCE};
use super::{store, unknown};
use crate::incident::Actor;
use crate::{Alarms, Error};

/// What an erasure came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erased {
    /// Names the erasure where nothing may name the person.
    pub id: String,
    /// Care records that were kept without the person.
    pub records: u64,
    /// Events whose `data` was taken out.
    pub events: u64,
}

impl Erased {
    /// The outside form.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({ "erasure_id": self.id, "records": self.records, "events": self.events })
    }
}

impl Alarms {
    /// Erases a customer. Events that told of them stay in their places, with `data` redacted.
    pub async fn erase_customer(
        &self,
        tenant: &Tenant,
        id: &str,
        actor: Actor,
    ) -> Result<Erased, Error> {
        let id = id.to_owned();
        let write = self.log.write(tenant, move |tx| -> Result<_, Error> {
            let (number, now) = (tx.tenant_number(), tx.now());
            if store::get(tx, number, &id)?.is_none() {
                return Err(unknown(&id));
            }
            let events = store::events_of(tx, number, &id)?;
            let erased = Erased {
                id: EventId::random(now).to_string(),
                records: 0,
                events: events.len() as u64,
            };
            // First, because from then on what is removed is written over.
            let redacted = json!({ "redacted": true, "tenant_id": tx.tenant().as_str(), "erasure_id": erased.id });
            let redacted = Json::encode(&redacted).map_err(fault)?;
            tx.redact(SOURCE, events, &redacted)?;
            let records = store::erase(tx, number, &id)?.unwrap_or(0);
            let erased = Erased { records, ..erased };
            let mut data = erased.json();
            data["actor"] = actor.name.clone().into();
            care::append(tx, (AUDIT, "customer_erased"), data, &actor)?;
            Ok(erased)
        });
        Ok(write.await?.value)
    }
}

fn fault(e: impl std::fmt::Display) -> tidings_core::db::DbError {
    tidings_core::db::DbError::Fault(e.to_string())
}
