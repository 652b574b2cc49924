//! Incidents: what people work on. One for each cluster that is worth it, or opened by hand.
//!
//! - `lifecycle`: which moves are legal, and the two gates; pure
//! - `severity`: how bad, which priority, and what is forced to be critical; pure
//! - `store`, `list`: the rows
//! - `entry`: what happened, as timeline and as audit trail
//! - `tell`: the events on topic `incidents`
//! - `follow`: what clusters and clears do to them, inside the transaction that brings those
//! - `act`: what people do to them
//! - `impact`: who and what is affected

mod act;
pub mod entry;
mod follow;
pub mod impact;
mod lifecycle;
mod list;
mod severity;
pub mod store;
mod tell;

use serde_json::{Value, json};
use tidings_core::clock::Timestamp;
use tidings_core::tenant::Tenant;

pub use act::{Change, NewIncident, read_reason};
pub use entry::{Actor, Entry};
pub use follow::{follow, is_over, on_alarm_cleared, on_alarms_cleared};
pub use impact::Impact;
pub use lifecycle::{Gate, Status};
pub use list::{Found, Query, Sort};
pub use severity::{Severity, Weight};
pub use tell::TOPIC;
pub(crate) use tell::event;

/// Who does what nobody asked for.
pub const SYSTEM: &str = "system";

/// Who did something to an incident, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// A subject, or [`SYSTEM`].
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// One incident.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// Never changes.
    pub id: String,
    /// What is wrong, in a line.
    pub title: String,
    /// How bad. It can only rise.
    pub severity: Severity,
    /// The rule that forced the severity, where one did.
    pub severity_reason: Option<String>,
    /// Whether an emergency service is concerned: critical for good.
    pub is_emergency: bool,
    /// How far the work is.
    pub status: Status,
    /// Where: the root, or what was named by hand.
    pub entity_id: Option<String>,
    /// The same by another system's name.
    pub entity_external_id: Option<String>,
    /// All that have an alarm in it.
    pub entity_ids: Vec<String>,
    /// The cluster that it is about.
    pub cluster_id: Option<String>,
    /// Where it began, most probably.
    pub root_entity_id: Option<String>,
    /// How probable that is.
    pub confidence: Option<f64>,
    /// The incident that has taken its place.
    pub merged_into: Option<String>,
    /// Occurrences in it.
    pub alarm_count: u64,
    /// The alarms in it.
    pub alarm_ids: Vec<String>,
    /// How it ended, in a person's words.
    pub resolution_summary: Option<String>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
    /// Who took it on.
    pub acknowledged: Option<Mark>,
    /// The first gate.
    pub sitrep_approved: Option<Mark>,
    /// The second gate.
    pub action_approved: Option<Mark>,
    /// Who ended it.
    pub resolved: Option<Mark>,
    /// Who put it away.
    pub closed: Option<Mark>,
}

impl Incident {
    /// A new one, with nothing but what must be known.
    fn new(id: String, title: String, severity: Severity, now: Timestamp) -> Self {
        Self {
            id,
            title,
            severity,
            severity_reason: None,
            is_emergency: false,
            status: Status::Open,
            entity_id: None,
            entity_external_id: None,
            entity_ids: Vec::new(),
            cluster_id: None,
            root_entity_id: None,
            confidence: None,
            merged_into: None,
            alarm_count: 0,
            alarm_ids: Vec::new(),
            resolution_summary: None,
            created_at: now,
            updated_at: now,
            acknowledged: None,
            sitrep_approved: None,
            action_approved: None,
            resolved: None,
            closed: None,
        }
    }

    /// The entities that it is about: those with an alarm in it, else the one that was named.
    #[must_use]
    pub fn places(&self) -> Vec<&str> {
        let mut places: Vec<&str> = self.entity_ids.iter().map(String::as_str).collect();
        if let Some(id) = self.entity_id.as_deref().filter(|id| !places.contains(id)) {
            places.insert(0, id);
        }
        places
    }

    /// Why tidings thinks what it thinks, step by step; nothing where it was opened by hand.
    #[must_use]
    pub fn reasoning(&self) -> Vec<Value> {
        let mut steps: Vec<(String, Option<String>, f64, &str)> = Vec::new();
        if let Some(cluster) = &self.cluster_id {
            let text = format!(
                "{} of {} belong together.",
                count(self.alarm_count, "alarm", "alarms"),
                count(self.entity_ids.len() as u64, "entity", "entities"),
            );
            let confidence = self.confidence.unwrap_or(0.0);
            steps.push((
                text,
                Some(format!("cluster {cluster}")),
                confidence,
                "correlation",
            ));
        }
        if let Some(root) = &self.root_entity_id {
            let text = format!("{root} is where it most probably began.");
            let confidence = self.confidence.unwrap_or(0.0);
            steps.push((text, None, confidence, "topology_graph"));
        }
        if let Some(reason) = self.severity_reason.as_ref().filter(|_| self.is_emergency) {
            let text = "An emergency service is concerned: the severity is critical.".to_owned();
            steps.push((text, Some(reason.clone()), 1.0, "emergency_rule"));
        }
        let steps = steps.into_iter().enumerate();
        let step = |(at, (description, evidence, confidence, source))| {
            json!({
                "step_number": at + 1, "description": description, "evidence": evidence,
                "confidence": confidence, "source": source,
            })
        };
        steps.map(step).collect()
    }

    /// The outside form.
    #[must_use]
    pub fn json(&self, tenant: &Tenant) -> Value {
        let weight = self.severity.weight();
        let mut json = json!({
            "id": self.id, "tenant_id": tenant.as_str(), "title": self.title, "impact": weight.impact,
            "urgency": weight.urgency, "priority": weight.priority, "severity": self.severity.as_str(),
            "severity_reason": self.severity_reason, "status": self.status.as_str(), "entity_id": self.entity_id,
            "entity_external_id": self.entity_external_id, "cluster_id": self.cluster_id,
            "merged_into": self.merged_into, "alarm_ids": self.alarm_ids, "alarm_count": self.alarm_count,
            "root_cause_entity_id": self.root_entity_id, "confidence": self.confidence,
            "resolution_summary": self.resolution_summary, "created_at": self.created_at.to_string(),
            "updated_at": self.updated_at.to_string(),
            "llm_model_version": null, "ai_generated": false, "ai_watermark": null,
        });
        let reasoning = self.reasoning();
        json["reasoning_chain"] = if reasoning.is_empty() {
            Value::Null
        } else {
            reasoning.into()
        };
        for (name, mark) in [
            ("acknowledged", &self.acknowledged),
            ("sitrep_approved", &self.sitrep_approved),
            ("action_approved", &self.action_approved),
            ("resolved", &self.resolved),
            ("closed", &self.closed),
        ] {
            json[format!("{name}_by")] = mark.as_ref().map(|m| m.by.clone()).into();
            json[format!("{name}_at")] = mark.as_ref().map(|m| m.at.to_string()).into();
        }
        json
    }
}

/// A number with its noun.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests;
