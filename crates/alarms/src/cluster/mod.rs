//! Clusters: occurrences that have one cause.

use serde::{Serialize, Serializer};
use tidings_core::clock::Timestamp;

use crate::Severity;

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
