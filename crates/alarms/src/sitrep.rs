//! The situation report: plain words made from facts alone. Pure; the same facts make the same words.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};
use tidings_core::clock::Timestamp;
use tidings_core::db::Conn;
use tidings_core::tenant::Tenant;

use crate::entity::{self, Entity};
use crate::incident::{Actor, Entry, Gate, Impact, Incident, Status, count, entry, store};
use crate::{Alarms, Error};

/// Alarm types that a report names; of the others it says how many they are.
const TYPES: usize = 5;
/// Things done that a report tells, the latest.
const DONE: usize = 20;

/// How the alarms of an incident stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlarmFacts {
    /// How many alarms.
    pub total: u64,
    /// How many of them are raised.
    pub raised: u64,
    /// When the first was raised.
    pub since: Option<Timestamp>,
    /// How many of each type, the most frequent first.
    pub types: Vec<(String, u64)>,
}

/// All that a report is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// What it is about.
    pub incident: Incident,
    /// Its alarms.
    pub alarms: AlarmFacts,
    /// What is stored of the entity where it began, or that was named.
    pub place: Option<Entity>,
    /// Whom and what it affects.
    pub impact: Impact,
    /// What happened, in order.
    pub entries: Vec<Entry>,
    /// Whether both gates must be passed.
    pub needs_approval: bool,
}

/// A situation report.
#[derive(Debug, Clone, PartialEq)]
pub struct Sitrep {
    /// In plain words.
    pub text: String,
    /// When it was made.
    pub generated_at: Timestamp,
    /// What it was made from.
    pub facts: Value,
}

impl Sitrep {
    /// The outside form.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({ "sitrep": self.text, "generated_at": self.generated_at.to_string(), "facts": self.facts })
    }
}

impl Alarms {
    /// The situation report of an incident as it stands now.
    pub async fn sitrep(&self, tenant: &Tenant, id: &str) -> Result<Sitrep, Error> {
        let incident = self.incident(tenant, id).await?;
        let impact = self.impact_of(tenant, &incident).await?;
        let number = self.log.tenant(tenant).await?.number;
        let needs_approval = self.config.require_approval;
        let read = move |conn: &mut Conn| {
            let place = match incident
                .root_entity_id
                .as_ref()
                .or(incident.entity_id.as_ref())
            {
                Some(id) => entity::store::get(conn, number, id)?,
                None => None,
            };
            Ok(Facts {
                alarms: store::alarm_facts(conn, number, &incident.id)?,
                entries: entry::all(conn, number, &incident.id)?,
                place,
                impact,
                needs_approval,
                incident,
            })
        };
        let facts = self.log.db().read(read).await?;
        Ok(Sitrep {
            text: write(&facts),
            generated_at: self.clock.now(),
            facts: facts.json(),
        })
    }

    /// The same, noted in the audit trail.
    pub async fn generate_sitrep(
        &self,
        tenant: &Tenant,
        id: &str,
        actor: Actor,
    ) -> Result<(Incident, Sitrep), Error> {
        let sitrep = self.sitrep(tenant, id).await?;
        let incident = self.note_sitrep(tenant, id, actor).await?;
        Ok((incident, sitrep))
    }
}

impl Facts {
    fn since(&self) -> Timestamp {
        self.alarms.since.unwrap_or(self.incident.created_at)
    }

    fn json(&self) -> Value {
        let i = &self.incident;
        let types: BTreeMap<&str, u64> = self
            .alarms
            .types
            .iter()
            .map(|(name, n)| (name.as_str(), *n))
            .collect();
        json!({
            "incident_id": i.id, "title": i.title, "severity": i.severity.as_str(),
            "priority": i.severity.weight().priority, "severity_reason": i.severity_reason, "status": i.status.as_str(),
            "since": self.since().to_string(), "created_at": i.created_at.to_string(),
            "alarm_count": i.alarm_count, "alarms": self.alarms.total, "alarms_raised": self.alarms.raised,
            "alarm_types": types, "probable_root": i.root_entity_id, "confidence": i.confidence,
            "entity_id": i.entity_id, "entity_external_id": i.entity_external_id, "entity_ids": i.entity_ids,
            "affected": {
                "entities": self.impact.entity_ids.len(), "customers": self.impact.customers.len(),
                "revenue_weight": self.impact.revenue_weight, "sla_tiers": self.impact.sla_tiers,
            },
            "done": self.entries.iter().map(Entry::timeline).collect::<Vec<_>>(),
            "advised": advice(self),
        })
    }
}

/// Writes the report.
#[must_use]
pub fn write(facts: &Facts) -> String {
    let i = &facts.incident;
    let mut out = format!("Situation report: {}\n", i.title);
    let status = i.status.as_str().replace('_', " ");
    let priority = i.severity.weight().priority;
    line(
        &mut out,
        &format!(
            "Incident {}, severity {} ({priority}), status {status}.",
            i.id, i.severity
        ),
    );
    out.push('\n');
    line(&mut out, &format!("What: {}", what(facts)));
    let opened = format!("The incident was opened {}.", minute(i.created_at));
    line(
        &mut out,
        &format!("Since: {}. {opened}", minute(facts.since())),
    );
    line(&mut out, &format!("Probable root: {}", root(facts)));
    line(&mut out, &format!("Affected: {}", affected(&facts.impact)));
    if let Some(reason) = i.severity_reason.as_ref().filter(|_| i.is_emergency) {
        line(
            &mut out,
            &format!("Emergency service: {reason}. The severity stays critical."),
        );
    }
    if let Some(into) = &i.merged_into {
        line(
            &mut out,
            &format!("It has become part of incident {into}: read on there."),
        );
    }
    if let Some(summary) = &i.resolution_summary {
        line(&mut out, &format!("Resolution: {summary}"));
    }
    line(&mut out, "\nDone so far:");
    let earlier = facts.entries.len().saturating_sub(DONE);
    if earlier > 0 {
        line(
            &mut out,
            &format!("- {} before.", count(earlier as u64, "thing", "things")),
        );
    }
    for entry in facts.entries.iter().skip(earlier) {
        let kind = entry.kind.replace('_', " ");
        line(
            &mut out,
            &format!(
                "- {}, {kind} by {}: {}",
                minute(entry.at),
                entry.actor,
                entry.details
            ),
        );
    }
    line(&mut out, "\nAdvised next:");
    for step in advice(facts) {
        line(&mut out, &format!("- {step}"));
    }
    line(
        &mut out,
        "\nThis report advises. Nothing was or will be changed on the network by it.",
    );
    out
}

fn line(out: &mut String, text: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}

/// A moment to the minute, for people.
fn minute(at: Timestamp) -> String {
    let text = at.to_string();
    let to_the_minute = text.get(..16).unwrap_or(&text);
    format!("{} UTC", to_the_minute.replace('T', " "))
}

fn what(facts: &Facts) -> String {
    let (i, alarms) = (&facts.incident, &facts.alarms);
    let place = i.entity_id.as_deref().or(i.entity_external_id.as_deref());
    if alarms.total == 0 && i.alarm_count == 0 {
        let place = place.map_or("no entity was named".to_owned(), |id| {
            format!("it is about {id}")
        });
        return format!("opened by hand; no alarms belong to it, {place}.");
    }
    let entities = i.entity_ids.len().max(usize::from(i.entity_id.is_some()));
    let mut text = format!(
        "{} on {}",
        count(
            i.alarm_count.max(alarms.total),
            "alarm occurrence",
            "alarm occurrences"
        ),
        count(entities as u64, "entity", "entities"),
    );
    if alarms.total > 0 {
        let all = count(alarms.total, "alarm", "alarms");
        text += &match alarms.raised {
            0 => format!("; none of the {all} is raised any more"),
            raised => format!("; {raised} of {all} still raised"),
        };
    }
    let named = alarms
        .types
        .iter()
        .take(TYPES)
        .map(|(name, n)| format!("{n} {name}"));
    let named: Vec<String> = named.collect();
    if !named.is_empty() {
        text += &format!(" ({}", named.join(", "));
        let others = alarms.types.len().saturating_sub(TYPES);
        if others > 0 {
            text += &format!(
                ", and {}",
                count(others as u64, "other type", "other types")
            );
        }
        text.push(')');
    }
    text.push('.');
    text
}

fn root(facts: &Facts) -> String {
    let Some(id) = &facts.incident.root_entity_id else {
        return "not known.".into();
    };
    let mut text = place(id, facts.place.as_ref());
    if let Some(confidence) = facts.incident.confidence {
        text += &format!(", with {:.0} % confidence", confidence * 100.0);
    }
    text.push('.');
    text
}

/// An entity for people: its name where it has one of its own, its id, its type.
fn place(id: &str, stored: Option<&Entity>) -> String {
    let Some(stored) = stored.filter(|e| e.id == id) else {
        return id.to_owned();
    };
    let mut known = Vec::new();
    if stored.name != stored.id {
        known.push(id);
    }
    known.extend(stored.entity_type.as_deref());
    let name = &stored.name;
    if known.is_empty() {
        name.clone()
    } else {
        format!("{name} ({})", known.join(", "))
    }
}

fn affected(impact: &Impact) -> String {
    let entities = count(impact.entity_ids.len() as u64, "entity", "entities");
    let customers = count(impact.customers.len() as u64, "customer", "customers");
    let mut text = format!("{entities}, {customers}");
    if let Some(weight) = impact.revenue_weight {
        text += &format!(", revenue weight {weight}");
    }
    if !impact.sla_tiers.is_empty() {
        let tiers = impact
            .sla_tiers
            .iter()
            .map(|(tier, n)| format!("{n} {tier}"));
        text += &format!("; SLA tiers: {}", tiers.collect::<Vec<_>>().join(", "));
    }
    text.push('.');
    text
}

/// What a person may do next. Never more than advice.
#[must_use]
pub fn advice(facts: &Facts) -> Vec<String> {
    let i = &facts.incident;
    if let Some(into) = &i.merged_into {
        return vec![format!("Go on with incident {into}.")];
    }
    match i.status {
        Status::Closed => return vec!["Nothing: it is closed.".into()],
        Status::Resolved => {
            let mut steps =
                vec!["Confirm with those who were affected, then close the incident.".into()];
            if i.resolution_summary.is_none() {
                steps.insert(
                    0,
                    "Write down how it ended, for who meets the same again.".into(),
                );
            }
            return steps;
        }
        Status::Open | Status::Acknowledged | Status::InProgress => {}
    }
    let mut steps = Vec::new();
    if i.is_emergency {
        steps
            .push("Tell the emergency service's contact at once, and before anything else.".into());
    }
    let step = match i.status {
        Status::Open => Some("Acknowledge the incident, so that others see who has it."),
        Status::Acknowledged => Some("Set it in progress when work begins."),
        Status::InProgress | Status::Resolved | Status::Closed => None,
    };
    steps.extend(step.map(str::to_owned));
    if facts.alarms.total > 0 && facts.alarms.raised == 0 {
        steps.push("Check that service is back: none of its alarms is raised any more.".into());
    } else if let Some(root) = &i.root_entity_id {
        steps.push(format!(
            "Look at {} first.",
            place(root, facts.place.as_ref())
        ));
    } else if let Some(id) = i.entity_id.as_ref().or(i.entity_external_id.as_ref()) {
        steps.push(format!("Look at {id} first."));
    }
    if !facts.impact.customers.is_empty() {
        let customers = count(facts.impact.customers.len() as u64, "customer", "customers");
        steps.push(format!(
            "Consider telling the {customers} affected, as far as they consented."
        ));
    }
    match i.open_gate().filter(|_| facts.needs_approval) {
        Some(Gate::Sitrep) => steps.push("Have this report approved.".into()),
        Some(Gate::Action) => steps.push("Have the action plan approved.".into()),
        None => {}
    }
    if i.status == Status::InProgress && (!facts.needs_approval || i.open_gate().is_none()) {
        steps.push("Resolve the incident when the fault is gone.".into());
    }
    steps
}
