//! KPI samples: what entities measure, read by range and, where asked, thinned out step by step.

mod steps;
pub mod store;

use serde_json::Value;
use tidings_core::clock::Timestamp;
use tidings_core::log::WriteError;
use tidings_core::tenant::Tenant;

use crate::entity::{self, MAX_ID_BYTES};
use crate::reading::{self, Reading, text_up_to};
use crate::{Alarms, Error};

pub use steps::{Step, Steps};

/// Points that one answer holds; a longer range asks for a step.
pub const MAX_POINTS: usize = 100_000;
/// The longest name of a metric or a source, in bytes: both stand in index keys.
const MAX_NAME_BYTES: usize = 128;

/// One value of a metric of an entity. Another one of the same entity, metric, time and source takes its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Whose.
    pub entity_id: String,
    /// Of what.
    pub metric_name: String,
    /// Finite.
    pub value: f64,
    /// When it was measured.
    pub timestamp: Timestamp,
    /// Who says so, as `RAN_TELEMETRY`.
    pub source: Option<String>,
}

/// Which samples are asked for.
#[derive(Debug, Clone)]
pub struct Range {
    /// Whose.
    pub entity_id: String,
    /// Of what.
    pub metric_name: String,
    /// From this moment on.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub to: Option<Timestamp>,
}

fn read(r: &mut Reading, latest: Timestamp) -> Option<Sample> {
    for stamped in ["id", "tenant_id"] {
        r.ignore(stamped);
    }
    let entity_id = r.required("entity_id", text_up_to(MAX_ID_BYTES));
    let metric_name = r.required("metric_name", text_up_to(MAX_NAME_BYTES));
    let value = r.number("value", f64::MIN..=f64::MAX);
    let timestamp = r.required("timestamp", |value| match reading::time(value)? {
        at if at > latest => Err(("value_error", "lies too far in the future".into())),
        at => Ok(at),
    });
    let source = r.optional("source", text_up_to(MAX_NAME_BYTES));
    Some(Sample {
        entity_id: entity_id?,
        metric_name: metric_name?,
        value: value?,
        timestamp: timestamp?,
        source,
    })
}

impl Alarms {
    /// Stores samples of entities that are stored, all or none. Says how many.
    pub async fn add_samples(&self, tenant: &Tenant, items: Vec<Value>) -> Result<usize, Error> {
        let latest = self.latest();
        let samples = reading::each(items, |r| read(r, latest))?;
        self.store_samples(tenant, samples).await
    }

    /// The same for one that is in no list.
    pub async fn add_sample(&self, tenant: &Tenant, item: Value) -> Result<usize, Error> {
        let latest = self.latest();
        let sample = reading::object(item, |r| read(r, latest))?;
        self.store_samples(tenant, vec![sample]).await
    }

    fn latest(&self) -> Timestamp {
        self.clock().now().plus(self.config().max_future)
    }

    async fn store_samples(&self, tenant: &Tenant, samples: Vec<Sample>) -> Result<usize, Error> {
        let count = samples.len();
        let written = self.log().write(tenant, move |tx| -> Result<_, Error> {
            let number = tx.tenant_number();
            match store::missing(tx, number, &samples)? {
                Some(id) => Err(entity::unknown(&id)),
                None => Ok(store::add(tx, number, &samples)?),
            }
        });
        written.await?;
        Ok(count)
    }

    /// The samples of a range, oldest first; none where there are more than [`MAX_POINTS`].
    pub async fn samples(
        &self,
        tenant: &Tenant,
        range: Range,
    ) -> Result<Option<Vec<(Timestamp, f64)>>, Error> {
        let number = self.of_known_entity(tenant, &range).await?;
        let read = move |conn: &mut _| {
            let mut points = Vec::new();
            store::each(conn, number, &range, |at, value| {
                points.push((at, value));
                points.len() <= MAX_POINTS
            })?;
            Ok((points.len() <= MAX_POINTS).then_some(points))
        };
        Ok(self.log().db().read(read).await?)
    }

    /// The same, one point for each step of so many seconds in which there are samples.
    pub async fn steps(
        &self,
        tenant: &Tenant,
        range: Range,
        seconds: u32,
    ) -> Result<Option<Vec<Step>>, Error> {
        let number = self.of_known_entity(tenant, &range).await?;
        let read = move |conn: &mut _| {
            let mut steps = Steps::of(seconds);
            store::each(conn, number, &range, |at, value| {
                steps.push(at, value);
                steps.len() <= MAX_POINTS
            })?;
            Ok((steps.len() <= MAX_POINTS).then(|| steps.finish()))
        };
        Ok(self.log().db().read(read).await?)
    }

    /// Removes samples that are older than `kpis.max_age`, and those of entities that are gone, a chunk at a time. Says how
    /// many went.
    pub async fn trim_samples(&self) -> Result<u64, WriteError<Error>> {
        let max_age = self.config().kpi_max_age;
        let before = (!max_age.is_zero()).then(|| self.clock().now().minus(max_age));
        let mut removed = 0;
        for tenant in self.log().tenants() {
            let number = tenant.number;
            loop {
                let find = move |conn: &mut _| store::has_old(conn, number, before);
                let is_due = self.log().db().read(find).await;
                if !is_due.map_err(WriteError::Unavailable)? {
                    break;
                }
                let trim = move |tx: &mut tidings_core::log::Tx<'_>| -> Result<_, Error> {
                    Ok(store::trim(tx, number, before)?)
                };
                removed += self.log().write(&tenant.tenant, trim).await?.value;
            }
        }
        Ok(removed)
    }

    async fn of_known_entity(&self, tenant: &Tenant, range: &Range) -> Result<i64, Error> {
        self.entity(tenant, &range.entity_id).await?;
        Ok(self.log().tenant(tenant).await?.number)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_sample_is_refused_by_the_member() {
        let latest = Timestamp::parse("2026-01-01T00:05:00Z").unwrap();
        let good = json!({"entity_id": "c", "metric_name": "m", "value": -0.5, "timestamp": "2026-01-01T00:05:00Z"});
        for (member, wrong, kind) in [
            ("entity_id", json!(null), "missing"),
            ("entity_id", json!(7), "string_type"),
            ("metric_name", json!("x".repeat(129)), "string_too_long"),
            ("metric_name", json!(""), "string_too_short"),
            ("value", json!(null), "missing"),
            ("value", json!("NaN"), "number_type"),
            ("value", json!("Infinity"), "number_type"),
            ("value", json!(true), "number_type"),
            ("timestamp", json!("2026-01-01T00:00:00"), "datetime"),
            ("timestamp", json!(1_790_000_000), "string_type"),
            ("timestamp", json!("2026-01-01T00:05:01Z"), "value_error"),
            ("source", json!([]), "string_type"),
            ("unit", json!("GB"), "extra_forbidden"),
        ] {
            let mut body = good.clone();
            body[member] = wrong;
            let Err(Error::Invalid(faults)) = reading::object(body, |r| read(r, latest)) else {
                panic!("{member} was taken");
            };
            let at = vec![crate::Step::Member(member.into())];
            assert_eq!((&faults[0].at, faults[0].kind), (&at, kind));
        }
        let sample = reading::object(good, |r| read(r, latest)).unwrap();
        assert_eq!((sample.value, sample.source), (-0.5, None));
    }
}
