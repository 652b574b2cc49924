//! Entities: the network's sites, cells, routers and services, and what each depends on.

pub mod store;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tidings_core::clock::Timestamp;
use tidings_core::tenant::Tenant;

use crate::error::{Invalid, Step};
use crate::reading::{self, Reading, text_up_to};
use crate::{Alarms, Error, Topology, kpi, rows, sleeping};

/// The type of an entity that an outage must never leave waiting.
pub const EMERGENCY_SERVICE: &str = "EMERGENCY_SERVICE";
/// The longest id, in bytes: it stands in index keys and in paths.
pub const MAX_ID_BYTES: usize = 256;
/// Relations of each kind that one entity may have: each is walked for every alarm.
const MAX_RELATIONS: usize = 1_000;
/// The largest revenue weight: sums of them stay exact enough.
const MAX_WEIGHT: f64 = 1e15;

/// A thing of the network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entity {
    /// Unique in its tenant.
    pub id: String,
    /// What it is, as `CELL`.
    pub entity_type: Option<String>,
    /// For people; its id where none was given.
    pub name: String,
    /// Its name in another system.
    pub external_id: Option<String>,
    /// Degrees north.
    pub geo_lat: Option<f64>,
    /// Degrees east.
    pub geo_lon: Option<f64>,
    /// How much hangs on it.
    pub revenue_weight: Option<f64>,
    /// As `GOLD`.
    pub sla_tier: Option<String>,
    /// Who made its embedding.
    pub embedding_provider: Option<String>,
    /// With which model.
    pub embedding_model: Option<String>,
    /// When its source last saw it.
    #[serde(serialize_with = "rows::show_opt_time")]
    pub last_seen_at: Option<Timestamp>,
    /// When it was first stored.
    #[serde(serialize_with = "rows::show_time")]
    pub created_at: Timestamp,
    /// When it was last stored.
    #[serde(serialize_with = "rows::show_time")]
    pub updated_at: Timestamp,
    /// Ids of what it depends on.
    pub depends_on: Vec<String>,
    /// Ids of what it is part of.
    pub part_of: Vec<String>,
}

/// Which entities a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this type.
    pub entity_type: Option<String>,
    /// With this name in another system.
    pub external_id: Option<String>,
}

/// A place in the list: the entity there, by when it was first stored and its id.
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

/// Why an entity counts as an emergency service, in words; none if it does not.
#[must_use]
pub fn emergency_rule(
    entity_id: &str,
    external_id: Option<&str>,
    entity_type: Option<&str>,
) -> Option<String> {
    let names_it = |id: &str| id.to_ascii_uppercase().contains("EMERGENCY");
    if entity_type.is_some_and(|t| t.eq_ignore_ascii_case(EMERGENCY_SERVICE)) {
        return Some(format!("entity {entity_id} is of type {EMERGENCY_SERVICE}"));
    }
    if names_it(entity_id) {
        return Some(format!(
            "entity {entity_id} names an emergency service in its id"
        ));
    }
    let external_id = external_id.filter(|id| names_it(id))?;
    Some(format!(
        "entity {entity_id} names an emergency service in its external id {external_id}"
    ))
}

/// Whether a text can be an entity's id.
#[must_use]
pub fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_ID_BYTES && !text.contains('\0')
}

/// Reads an entity whose id is in the path, or else in the body.
fn read(r: &mut Reading, path: Option<&str>, now: Timestamp) -> Option<Entity> {
    for stamped in ["tenant_id", "created_at", "updated_at"] {
        r.ignore(stamped);
    }
    let id = match path {
        None => r.required("id", text_up_to(MAX_ID_BYTES)),
        Some(path) => {
            let given = r.optional("id", text_up_to(MAX_ID_BYTES));
            if given.is_some_and(|given| given != path) {
                r.fault("id", "value_error", "is not the id in the path");
            }
            Some(path.to_owned())
        }
    };
    let name = r.optional_text("name");
    Some(Entity {
        entity_type: r.optional_text("entity_type"),
        external_id: r.optional_text("external_id"),
        geo_lat: r.optional_number("geo_lat", -90.0..=90.0),
        geo_lon: r.optional_number("geo_lon", -180.0..=180.0),
        revenue_weight: r.optional_number("revenue_weight", 0.0..=MAX_WEIGHT),
        sla_tier: r.optional_text("sla_tier"),
        embedding_provider: r.optional_text("embedding_provider"),
        embedding_model: r.optional_text("embedding_model"),
        last_seen_at: r.optional_time("last_seen_at"),
        created_at: now,
        updated_at: now,
        depends_on: relations(r, "depends_on"),
        part_of: relations(r, "part_of"),
        name: name.or_else(|| id.clone())?,
        id: id?,
    })
}

/// Ids, each once, in the order in which they came.
fn relations(r: &mut Reading, name: &str) -> Vec<String> {
    let mut targets = r.optional_texts(name, MAX_RELATIONS).unwrap_or_default();
    if targets.iter().any(|t| t.len() > MAX_ID_BYTES) {
        let message = format!("an id is at most {MAX_ID_BYTES} bytes");
        r.fault(name, "string_too_long", message);
    }
    let mut seen = HashSet::new();
    targets.retain(|target| seen.insert(target.clone()));
    targets
}

/// The first item whose id an earlier one has.
fn repeated(entities: &[Entity]) -> Option<Invalid> {
    let mut seen = HashSet::new();
    let index = entities.iter().position(|e| !seen.insert(&e.id))?;
    Some(Invalid {
        at: vec![Step::Index(index), Step::Member("id".into())],
        message: format!("{} stands twice in this batch", entities[index].id),
        kind: "value_error",
    })
}

/// Topologies that have been read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Topologies(Arc<Mutex<HashMap<Tenant, Held>>>);

/// A topology, and the version that it is of.
type Held = (i64, Arc<Topology>);

impl Alarms {
    /// Stores an entity in place of the one with this id. Says whether there was none.
    pub async fn put_entity(
        &self,
        tenant: &Tenant,
        id: &str,
        body: Value,
    ) -> Result<(Entity, bool), Error> {
        let now = self.clock().now();
        if !is_id(id) {
            let message = format!("an id is 1 to {MAX_ID_BYTES} bytes without NUL");
            return Err(Invalid::member("id", "value_error", message).into());
        }
        let mut entity = reading::object(body, |r| read(r, Some(id), now))?;
        let written = self.log().write(tenant, move |tx| -> Result<_, Error> {
            let number = tx.tenant_number();
            let before = store::created_at(tx, number, &entity.id)?;
            entity.created_at = before.unwrap_or(now);
            store::put(tx, number, std::slice::from_ref(&entity))?;
            Ok((entity, before.is_none()))
        });
        Ok(written.await?.value)
    }

    /// Stores many entities, all or none. Says how many.
    pub async fn put_entities(&self, tenant: &Tenant, items: Vec<Value>) -> Result<usize, Error> {
        let now = self.clock().now();
        let entities = reading::each(items, |r| read(r, None, now))?;
        if let Some(fault) = repeated(&entities) {
            return Err(fault.into());
        }
        let count = entities.len();
        let written = self.log().write(tenant, move |tx| -> Result<_, Error> {
            let number = tx.tenant_number();
            Ok(store::put(tx, number, &entities)?)
        });
        written.await?;
        Ok(count)
    }

    /// The entity with this id.
    pub async fn entity(&self, tenant: &Tenant, id: &str) -> Result<Entity, Error> {
        let number = self.log().tenant(tenant).await?.number;
        let wanted = id.to_owned();
        let read = move |conn: &mut _| {
            if is_id(&wanted) {
                store::get(conn, number, &wanted)
            } else {
                Ok(None)
            }
        };
        let entity = self.log().db().read(read).await?;
        entity.ok_or_else(|| unknown(id))
    }

    /// Removes an entity, its own relations, its samples, and what it sleeps through.
    pub async fn delete_entity(&self, tenant: &Tenant, id: &str) -> Result<(), Error> {
        let wanted = id.to_owned();
        let written = self.log().write(tenant, move |tx| -> Result<_, Error> {
            let number = tx.tenant_number();
            if !is_id(&wanted) || !store::delete(tx, number, &wanted)? {
                return Err(unknown(&wanted));
            }
            kpi::store::drop_entity(tx, number, &wanted)?;
            sleeping::store::drop_entity(tx, number, &wanted)?;
            Ok(())
        });
        written.await?;
        Ok(())
    }

    /// Entities after a place in the list, newest first.
    pub async fn entities(
        &self,
        tenant: &Tenant,
        filter: Filter,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Entity>, Error> {
        let number = self.log().tenant(tenant).await?.number;
        let read = move |conn: &mut _| store::list(conn, number, &filter, after.as_ref(), limit);
        Ok(self.log().db().read(read).await?)
    }

    /// The tenant's relations as they are now. Read anew only after they have changed.
    pub async fn topology(&self, tenant: &Tenant) -> Result<Arc<Topology>, Error> {
        let number = self.log().tenant(tenant).await?.number;
        let held = self.topologies.0.lock().get(tenant).cloned();
        let known = held.as_ref().map(|(version, _)| *version);
        let read = move |conn: &mut _| {
            // The version is read first: relations that are newer than it are only read once more.
            let version = store::topology_version(conn, number)?;
            if known == Some(version) {
                return Ok(None);
            }
            Ok(Some((version, Arc::new(store::topology(conn, number)?))))
        };
        match (self.log().db().read(read).await?, held) {
            (None, Some((_, topology))) => Ok(topology),
            (None, None) => Ok(Arc::default()),
            (Some((version, topology)), _) => {
                let mut held = self.topologies.0.lock();
                held.insert(tenant.clone(), (version, topology.clone()));
                Ok(topology)
            }
        }
    }
}

/// That no entity of the tenant has this id.
pub(crate) fn unknown(id: &str) -> Error {
    Error::NotFound {
        what: "entity",
        id: id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_emergency_service_is_one_by_type_or_by_name_in_any_case() {
        let rule = |id, external, kind| emergency_rule(id, external, kind).is_some();
        assert!(rule("cell-1", None, Some("emergency_service")));
        assert!(rule("Emergency-hub", None, Some("CELL")));
        assert!(rule("cell-1", Some("EMERGENCY_SERVICE_999"), None));
        assert!(!rule("cell-1", Some("site-9"), Some("CELL")));
        assert!(!rule("cell-1", None, Some("EMERGENCY_SERVICE_BACKUP")));
        let why = emergency_rule("c", Some("x-emergency"), None).unwrap();
        assert!(why.contains("external id x-emergency"), "{why}");
    }

    #[test]
    fn an_entity_reads_what_it_shows() {
        let now = Timestamp::from_secs(1_790_000_000);
        let body = json!({
            "id": "c", "entity_type": "CELL", "geo_lat": 50.1, "geo_lon": 8, "depends_on": ["s", "s", "t"],
            "last_seen_at": "2026-02-23T21:20:00+02:00", "tenant_id": "other", "created_at": "never", "name": null
        });
        let entity = reading::object(body, |r| read(r, None, now)).unwrap();
        assert_eq!(entity.depends_on, ["s", "t"]);
        assert_eq!(entity.name, "c");
        let shown = serde_json::to_value(&entity).unwrap();
        assert_eq!(shown["last_seen_at"], "2026-02-23T19:20:00Z");
        assert_eq!(shown["sla_tier"], Value::Null);
        let again = reading::object(shown, |r| read(r, Some("c"), now)).unwrap();
        assert_eq!(again, entity);
    }

    #[test]
    fn what_is_no_entity_is_refused_by_the_member() {
        let now = Timestamp::default();
        for (body, member) in [
            (json!({}), "id"),
            (json!({"id": ""}), "id"),
            (json!({"id": "x".repeat(MAX_ID_BYTES + 1)}), "id"),
            (json!({"id": "a", "geo_lat": 90.5}), "geo_lat"),
            (json!({"id": "a", "geo_lon": "8"}), "geo_lon"),
            (json!({"id": "a", "revenue_weight": -1}), "revenue_weight"),
            (json!({"id": "a", "depends_on": "b"}), "depends_on"),
            (json!({"id": "a", "part_of": [1]}), "part_of"),
            (json!({"id": "a", "part_of": ["x".repeat(257)]}), "part_of"),
            (
                json!({"id": "a", "last_seen_at": "2026-02-23"}),
                "last_seen_at",
            ),
            (json!({"id": "a", "sla_tier": {}}), "sla_tier"),
            (json!({"id": "a", "color": "red"}), "color"),
        ] {
            let Err(Error::Invalid(faults)) = reading::object(body, |r| read(r, None, now)) else {
                panic!("{member} was taken");
            };
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert_eq!(faults[0].at[0], Step::Member(member.into()));
        }
        let other = reading::object(json!({"id": "b"}), |r| read(r, Some("a"), now));
        assert!(other.is_err(), "another id than in the path");
    }

    #[test]
    fn a_place_reads_back_and_nothing_else_does() {
        let place = Place(Timestamp::from_micros(-5), "a.b/ü".into());
        assert_eq!(Place::parse(&place.to_string()), Some(place));
        for text in ["", "5", "5.", "x.a", ".a", "5.\0"] {
            assert_eq!(Place::parse(text), None, "{text:?}");
        }
    }
}
