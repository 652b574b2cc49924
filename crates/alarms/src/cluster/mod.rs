//! Clusters: occurrences that have one cause.
//!
//! - `store`: clusters as rows
//! - `members`: the occurrences in them as rows
//! - `publish`: what a plan of the correlation's comes to, in one transaction
//! - `demand`: correlation on demand, which stores nothing

pub mod demand;
pub mod members;
pub(crate) mod publish;
pub mod store;

use serde::{Serialize, Serializer};
use tidings_core::clock::Timestamp;

use crate::Severity;

pub use publish::Change;

/// Occurrences that have one cause, most probably, and why they stand together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cluster {
    /// Never changes once it is published.
    pub cluster_id: String,
    /// Occurrences in it.
    pub alarm_count: u64,
    /// Alarms in it that are raised now.
    pub open_alarm_count: u64,
    /// Its occurrences.
    pub event_ids: Vec<String>,
    /// The alarms that they are occurrences of.
    pub alarm_ids: Vec<String>,
    /// Where.
    pub entity_ids: Vec<String>,
    /// Where it began, most probably.
    pub root_cause_entity_id: Option<String>,
    /// How probable that is, from 0 to 1.
    pub confidence: f64,
    /// The most severe in it.
    pub severity: Severity,
    /// Whether an emergency service has an alarm in it.
    pub is_emergency_service: bool,
    /// The earliest `raised_at` in it.
    #[serde(serialize_with = "text")]
    pub started_at: Timestamp,
    /// The latest `raised_at` in it.
    #[serde(serialize_with = "text")]
    pub ended_at: Timestamp,
    /// Why its occurrences stand together.
    pub edges: Vec<Edge>,
    /// The cluster that it has become a part of.
    pub merged_into: Option<String>,
    /// The cluster, whose incident was over, that it goes on from.
    pub continues: Option<String>,
}

/// Why one occurrence joined another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Edge {
    /// The event id of the occurrence that was joined.
    pub from: String,
    /// The event id of the one that joined.
    pub to: String,
    /// By which rule.
    pub rule: String,
    /// How long after the first the second was raised.
    pub seconds: f64,
}

fn text<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(at)
}

/// Microseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "a delay is far below 2^52 µs")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

impl crate::Alarms {
    /// One cluster, also one that has become a part of another.
    pub async fn cluster(
        &self,
        tenant: &tidings_core::tenant::Tenant,
        id: &str,
    ) -> Result<Cluster, crate::Error> {
        let (number, wanted) = (self.log.tenant(tenant).await?.number, id.to_owned());
        let found = self
            .log
            .db()
            .read(move |conn| store::get(conn, number, &wanted))
            .await?;
        found.ok_or_else(|| crate::Error::NotFound {
            what: "cluster",
            id: id.to_owned(),
        })
    }

    /// Clusters that stand, the newest first, older than `after`.
    pub async fn clusters(
        &self,
        tenant: &tidings_core::tenant::Tenant,
        after: Option<String>,
        rows: usize,
    ) -> Result<Vec<Cluster>, crate::Error> {
        let number = self.log.tenant(tenant).await?.number;
        let found = self
            .log
            .db()
            .read(move |conn| store::list(conn, number, after.as_deref(), rows));
        Ok(found.await?)
    }
}
