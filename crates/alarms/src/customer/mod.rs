//! Customers: whom the network serves, what they consented to, what they were told, and how they are forgotten.
//!
//! - `store`: the rows
//! - `care`: telling those who consented
//! - `erase`: forgetting a person, in the rows and in the log

mod care;
mod erase;
pub mod store;

use std::collections::HashSet;

use serde_json::{Value, json};
use tidings_core::clock::Timestamp;
use tidings_core::db::Conn;
use tidings_core::tenant::Tenant;
use tidings_core::topic::Topic;

use crate::reading;
use crate::{Alarms, Error, Invalid};

pub use care::{Blocked, Care, NewCare, Record, Whom};
pub use erase::Erased;

/// Entities that one customer may be served by: each is looked at in every impact.
const MAX_ENTITIES: usize = 1_000;
/// The longest entity id, in bytes.
const MAX_ENTITY_BYTES: usize = 256;

/// A customer.
#[derive(Debug, Clone, PartialEq)]
pub struct Customer {
    /// Unique in its tenant; a segment of a topic.
    pub id: String,
    /// For people.
    pub name: Option<String>,
    /// What serves them.
    pub entity_ids: Vec<String>,
    /// Whether they may be told of problems before they ask.
    pub consents_to_care: bool,
    /// How likely they are to leave, from 0 to 1.
    pub churn_risk: Option<f64>,
    /// When they were first stored.
    pub created_at: Timestamp,
    /// When they were last stored.
    pub updated_at: Timestamp,
}

impl Customer {
    /// Reads a body.
    pub fn read(id: &str, body: Value, now: Timestamp) -> Result<Self, Error> {
        if !is_id(id) {
            let message = "a customer's id is 1 to 64 of [A-Za-z0-9_.:@=+~-]";
            return Err(Invalid::member("id", "value_error", message).into());
        }
        reading::object(body, |r| {
            for stamped in ["tenant_id", "created_at", "updated_at"] {
                r.ignore(stamped);
            }
            let given = r.optional_text("id");
            if given.is_some_and(|given| given != id) {
                r.fault("id", "value_error", "is not the id in the path");
            }
            let mut entity_ids = r
                .optional_texts("entity_ids", MAX_ENTITIES)
                .unwrap_or_default();
            if entity_ids.iter().any(|id| id.len() > MAX_ENTITY_BYTES) {
                let message = format!("an id is at most {MAX_ENTITY_BYTES} bytes");
                r.fault("entity_ids", "string_too_long", message);
            }
            let mut seen = HashSet::new();
            entity_ids.retain(|id| seen.insert(id.clone()));
            let consents = r.optional_object("consents", |r| {
                Some(r.optional_flag("consent_proactive_comms"))
            });
            Some(Self {
                id: id.to_owned(),
                name: r.optional_text("name"),
                entity_ids,
                consents_to_care: consents.flatten().unwrap_or(false),
                churn_risk: r.optional_number("churn_risk", 0.0..=1.0),
                created_at: now,
                updated_at: now,
            })
        })
    }

    /// The outside form.
    #[must_use]
    pub fn json(&self, tenant: &Tenant) -> Value {
        json!({
            "id": self.id, "tenant_id": tenant.as_str(), "name": self.name, "entity_ids": self.entity_ids,
            "consents": { "consent_proactive_comms": self.consents_to_care }, "churn_risk": self.churn_risk,
            "created_at": self.created_at.to_string(), "updated_at": self.updated_at.to_string(),
        })
    }
}

/// Whether a text can be a customer's id: what can stand in a topic.
#[must_use]
pub fn is_id(text: &str) -> bool {
    !text.contains('/') && Topic::new(text).is_ok()
}

/// A place in the list: the customer there, by when they were first stored and their id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(pub Timestamp, pub String);

impl Place {
    /// Reads what [`Place::to_string`](ToString::to_string) wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (micros, id) = text.split_once('.')?;
        let at = Timestamp::from_micros(micros.parse().ok()?);
        is_id(id).then(|| Self(at, id.to_owned()))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0.as_micros(), self.1)
    }
}

/// That no customer of the tenant has this id.
fn unknown(id: &str) -> Error {
    Error::NotFound {
        what: "customer",
        id: id.to_owned(),
    }
}

impl Alarms {
    /// Stores a customer in place of the one with this id. Says whether there was none.
    pub async fn put_customer(
        &self,
        tenant: &Tenant,
        id: &str,
        body: Value,
    ) -> Result<(Customer, bool), Error> {
        let mut customer = Customer::read(id, body, self.clock.now())?;
        let write = self.log.write(tenant, move |tx| -> Result<_, Error> {
            let number = tx.tenant_number();
            let before = store::get(tx, number, &customer.id)?;
            let now = tx.now();
            (customer.created_at, customer.updated_at) =
                (before.as_ref().map_or(now, |c| c.created_at), now);
            store::put(tx, number, &customer)?;
            Ok((customer, before.is_none()))
        });
        Ok(write.await?.value)
    }

    /// One customer.
    pub async fn customer(&self, tenant: &Tenant, id: &str) -> Result<Customer, Error> {
        if !is_id(id) {
            return Err(unknown(id));
        }
        let (number, of) = (self.log.tenant(tenant).await?.number, id.to_owned());
        let read = move |conn: &mut Conn| store::get(conn, number, &of);
        self.log.db().read(read).await?.ok_or_else(|| unknown(id))
    }

    /// Customers after a place in the list, newest first.
    pub async fn customers(
        &self,
        tenant: &Tenant,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Customer>, Error> {
        let number = self.log.tenant(tenant).await?.number;
        let read = move |conn: &mut Conn| store::list(conn, number, after.as_ref(), limit);
        Ok(self.log.db().read(read).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consent_is_given_by_true_alone() {
        let now = Timestamp::from_secs(1);
        for (body, consents) in [
            (json!({}), false),
            (json!({"consents": {}}), false),
            (json!({"consents": null}), false),
            (
                json!({"consents": {"consent_proactive_comms": null}}),
                false,
            ),
            (
                json!({"consents": {"consent_proactive_comms": false}}),
                false,
            ),
            (json!({"consents": {"consent_proactive_comms": true}}), true),
        ] {
            let customer = Customer::read("c", body.clone(), now).unwrap();
            assert_eq!(customer.consents_to_care, consents, "{body}");
        }
        for body in [
            json!({"consents": {"consent_proactive_comms": "true"}}),
            json!({"consents": {"consent_proactive_comms": 1}}),
            json!({"consents": {"consent_marketing": true}}),
            json!({"consents": true}),
            json!({"consent_proactive_comms": true}),
            json!({"churn_risk": 1.5}),
            json!({"entity_ids": "a"}),
        ] {
            assert!(Customer::read("c", body.clone(), now).is_err(), "{body}");
        }
    }

    #[test]
    fn an_id_is_what_a_topic_can_hold() {
        for id in ["c-1", "A.b:c@d=e+f~g", &"x".repeat(64)] {
            assert!(is_id(id), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "ü", "*", "**", &"x".repeat(65)] {
            assert!(!is_id(id), "{id}");
        }
    }
}
