//! What people do to incidents.

use serde_json::Value;
use tidings_core::db::DbError;
use tidings_core::event::EventId;
use tidings_core::log::Tx;
use tidings_core::tenant::Tenant;

use super::entry::{self, What};
use super::{Actor, Entry, Gate, Incident, Mark, Severity, Status, follow, store, tell};
use crate::entity::{self, emergency_rule};
use crate::reading::{self, Reading};
use crate::{Alarms, Config, Error, Invalid, cluster};

/// The longest title, in bytes: it is one line on a screen, and the key of an index.
const MAX_TITLE_BYTES: usize = 512;
/// The longest summary or reason, in bytes.
const MAX_TEXT_BYTES: usize = 16 * 1024;
/// Pointers from merged cluster to merged cluster that are followed.
const MAX_MERGES: usize = 100;

/// An incident as a person opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIncident {
    /// What is wrong, in a line.
    pub title: String,
    /// How bad.
    pub severity: Severity,
    /// Where.
    pub entity_id: Option<String>,
    /// Where, by another system's name.
    pub entity_external_id: Option<String>,
    /// The cluster that it is about.
    pub cluster_id: Option<String>,
}

impl NewIncident {
    /// Reads a body.
    pub fn read(body: Value) -> Result<Self, Error> {
        reading::object(body, |r| {
            // The server knows whose it is.
            r.ignore("tenant_id");
            let title = r.required("title", title);
            let severity = r.word("severity");
            let new = Self {
                title: String::new(),
                severity: Severity::Indeterminate,
                entity_id: r.optional_text("entity_id"),
                entity_external_id: r.optional_text("entity_external_id"),
                cluster_id: r.optional_text("cluster_id"),
            };
            Some(Self {
                title: title?,
                severity: severity?,
                ..new
            })
        })
    }
}

/// What a person changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// The next step.
    pub status: Option<Status>,
    /// Another title.
    pub title: Option<String>,
    /// How it ended.
    pub resolution_summary: Option<String>,
}

impl Change {
    /// Reads a body.
    pub fn read(body: Value) -> Result<Self, Error> {
        reading::object(body, |r| {
            r.ignore("tenant_id");
            Some(Self {
                status: r.optional_word("status"),
                title: r.optional("title", title),
                resolution_summary: r.optional("resolution_summary", long_text),
            })
        })
    }
}

/// Reads the body of the paths that approve and close: a reason at most. Who approves is the principal, whatever it says.
pub fn read_reason(body: Value) -> Result<Option<String>, Error> {
    reading::object(body, |r: &mut Reading| {
        r.ignore("approved_by");
        r.ignore("tenant_id");
        Some(r.optional("reason", long_text))
    })
}

fn title(value: Value) -> Result<String, reading::Fault> {
    let title = reading::text_up_to(MAX_TITLE_BYTES)(value)?;
    if title.trim().is_empty() || title.chars().any(char::is_control) {
        return Err(("string_type", "must be one line that is not blank".into()));
    }
    Ok(title)
}

fn long_text(value: Value) -> Result<String, reading::Fault> {
    reading::text_up_to(MAX_TEXT_BYTES)(value)
}

fn not_found(id: &str) -> Error {
    Error::NotFound {
        what: "incident",
        id: id.to_owned(),
    }
}

impl Alarms {
    /// Opens an incident by hand. One of the same title and entity that is not over, or of the same cluster, is given
    /// instead. Says whether it is new.
    pub async fn open_incident(
        &self,
        tenant: &Tenant,
        new: NewIncident,
        actor: Actor,
    ) -> Result<(Incident, bool), Error> {
        let write = self.log.write(tenant, move |tx| open(tx, new, &actor));
        Ok(write.await?.value)
    }

    /// One incident.
    pub async fn incident(&self, tenant: &Tenant, id: &str) -> Result<Incident, Error> {
        let (number, of) = (self.log.tenant(tenant).await?.number, id.to_owned());
        let read = move |conn: &mut _| store::get(conn, number, &of);
        self.log.db().read(read).await?.ok_or_else(|| not_found(id))
    }

    /// What happened to it, in order.
    pub async fn incident_entries(&self, tenant: &Tenant, id: &str) -> Result<Vec<Entry>, Error> {
        let (number, of) = (self.log.tenant(tenant).await?.number, id.to_owned());
        let entries = self
            .log
            .db()
            .read(move |conn| entry::all(conn, number, &of))
            .await?;
        // Every incident has the entry of its opening.
        if entries.is_empty() {
            Err(not_found(id))
        } else {
            Ok(entries)
        }
    }

    /// Changes it as a person asks.
    pub async fn change_incident(
        &self,
        tenant: &Tenant,
        id: &str,
        change: Change,
        actor: Actor,
    ) -> Result<Incident, Error> {
        self.act(tenant, id, move |tx, config, incident| {
            edit(tx, config, incident, change, &actor)
        })
        .await
    }

    /// Moves it to its next step, but for closing, which is a decision of its own.
    pub async fn advance_incident(
        &self,
        tenant: &Tenant,
        id: &str,
        actor: Actor,
    ) -> Result<Incident, Error> {
        self.act(tenant, id, move |tx, config, incident| {
            match incident.status.next() {
                Some(to) if to != Status::Closed => go(tx, config, incident, to, (None, &actor)),
                next => Err(Error::Illegal {
                    from: incident.status.to_string(),
                    to: match next {
                        Some(to) => format!("{to} by this path"),
                        None => "anything else".to_owned(),
                    },
                    legal: next.into_iter().map(Status::as_str).collect(),
                }),
            }
        })
        .await
    }

    /// Moves it to a step, with a person's reason.
    pub async fn move_incident(
        &self,
        tenant: &Tenant,
        id: &str,
        to: Status,
        (reason, actor): (Option<String>, Actor),
    ) -> Result<Incident, Error> {
        self.act(tenant, id, move |tx, config, incident| {
            go(tx, config, incident, to, (reason.as_deref(), &actor))
        })
        .await
    }

    /// Passes a gate. The actor is who approves.
    pub async fn approve_incident(
        &self,
        tenant: &Tenant,
        id: &str,
        gate: Gate,
        (reason, actor): (Option<String>, Actor),
    ) -> Result<Incident, Error> {
        self.act(tenant, id, move |tx, _, incident| {
            incident.approve(gate, mark(tx, &actor))?;
            let what = match gate {
                Gate::Sitrep => What::SitrepApproved,
                Gate::Action => What::ActionApproved,
            };
            let details = told(&format!("Approved {}", gate.words()), reason.as_deref());
            note(tx, incident, (what, &actor, &details), gate.as_str())
        })
        .await
    }

    /// Notes that somebody asked for a situation report.
    pub(crate) async fn note_sitrep(
        &self,
        tenant: &Tenant,
        id: &str,
        actor: Actor,
    ) -> Result<Incident, Error> {
        self.act(tenant, id, move |tx, _, incident| {
            let what = (
                What::SitrepGenerated,
                &actor,
                "A situation report was made from the facts.",
            );
            note(tx, incident, what, "sitrep_generated")
        })
        .await
    }

    async fn act(
        &self,
        tenant: &Tenant,
        id: &str,
        run: impl FnOnce(&mut Tx<'_>, &Config, &mut Incident) -> Result<(), Error> + Send + 'static,
    ) -> Result<Incident, Error> {
        let (config, id) = (self.config.clone(), id.to_owned());
        let write = self.log.write(tenant, move |tx| {
            let tenant = tx.tenant_number();
            let mut incident = store::get(tx, tenant, &id)?.ok_or_else(|| not_found(&id))?;
            run(tx, &config, &mut incident)?;
            Ok::<_, Error>(incident)
        });
        Ok(write.await?.value)
    }
}

fn mark(tx: &Tx<'_>, actor: &Actor) -> Mark {
    Mark {
        by: actor.name.clone(),
        at: tx.now(),
    }
}

fn told(what: &str, reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("{what}: {reason}"),
        None => format!("{what}."),
    }
}

/// Stores an incident that has changed, with its entry and its event.
fn note(
    tx: &mut Tx<'_>,
    incident: &mut Incident,
    entry: (What, &Actor, &str),
    change: &str,
) -> Result<(), Error> {
    let (tenant, now) = (tx.tenant_number(), tx.now());
    incident.touch(now);
    store::save(tx, tenant, incident)?;
    entry::add(tx, tenant, &incident.id, now, entry)?;
    Ok(tell::updated(tx, incident, change, entry.1)?)
}

fn go(
    tx: &mut Tx<'_>,
    config: &Config,
    incident: &mut Incident,
    to: Status,
    (reason, actor): (Option<&str>, &Actor),
) -> Result<(), Error> {
    let from = incident.status;
    incident.step(to, config.require_approval, mark(tx, actor))?;
    let what = match to {
        Status::Open | Status::Acknowledged => What::Acknowledged,
        Status::InProgress => What::Started,
        Status::Resolved => What::Resolved,
        Status::Closed => What::Closed,
    };
    let details = told(&format!("From {from} to {to}"), reason);
    note(tx, incident, (what, actor, &details), to.as_str())
}

fn edit(
    tx: &mut Tx<'_>,
    config: &Config,
    incident: &mut Incident,
    change: Change,
    actor: &Actor,
) -> Result<(), Error> {
    let mut details = Vec::new();
    if let Some(title) = change.title.filter(|t| *t != incident.title) {
        details.push(format!("Title, before: {}", incident.title));
        incident.title = title;
    }
    let summary = change.resolution_summary;
    if let Some(summary) = summary.filter(|s| incident.resolution_summary.as_ref() != Some(s)) {
        details.push(format!("Resolution summary: {summary}"));
        incident.resolution_summary = Some(summary);
    }
    if !details.is_empty() {
        note(
            tx,
            incident,
            (What::Edited, actor, &details.join("; ")),
            "edited",
        )?;
    }
    match change.status {
        Some(to) => go(tx, config, incident, to, (None, actor)),
        None => Ok(()),
    }
}

fn open(tx: &mut Tx<'_>, new: NewIncident, actor: &Actor) -> Result<(Incident, bool), Error> {
    let (tenant, now) = (tx.tenant_number(), tx.now());
    let cluster = match &new.cluster_id {
        Some(id) => Some(stays(tx, tenant, id)?),
        None => None,
    };
    let stands = match &cluster {
        Some(cluster) => store::of_cluster(tx, tenant, &cluster.cluster_id)?,
        None => {
            let (id, external) = (new.entity_id.as_deref(), new.entity_external_id.as_deref());
            store::alike(tx, tenant, &new.title, id, external)?
        }
    };
    if let Some(stands) = stands {
        return Ok((stands, false));
    }
    let id = EventId::random(now).to_string();
    let mut incident = Incident::new(id, new.title, new.severity, now);
    incident.entity_id = new.entity_id;
    incident.entity_external_id = new.entity_external_id;
    let rule = emergency(tx, tenant, &incident)?;
    follow::force(&mut incident, rule);
    let mut alarms = Vec::new();
    if let Some(cluster) = cluster {
        follow::take_in(&mut incident, &cluster);
        if incident.entity_id.is_none() && incident.entity_external_id.is_none() {
            incident.entity_id.clone_from(&cluster.root_cause_entity_id);
        }
        if !incident.is_emergency {
            let rule = follow::emergency_of(tx, tenant, &cluster)?;
            follow::force(&mut incident, rule);
        }
        incident.cluster_id = Some(cluster.cluster_id);
        alarms = cluster.alarm_ids;
    }
    let rule = incident
        .severity_reason
        .as_ref()
        .map(|rule| format!("; {rule}"));
    let details = format!(
        "Opened with severity {}{}.",
        incident.severity,
        rule.unwrap_or_default()
    );
    follow::start(tx, &incident, actor, &details)?;
    let refs: Vec<&str> = alarms.iter().map(String::as_str).collect();
    store::add_alarms(tx, tenant, &incident.id, &refs)?;
    incident.alarm_ids = alarms;
    Ok((incident, true))
}

/// The cluster that is meant, by its pointers where it has become part of another.
fn stays(tx: &mut Tx<'_>, tenant: i64, id: &str) -> Result<cluster::Cluster, Error> {
    let mut id = id.to_owned();
    for _ in 0..MAX_MERGES {
        let Some(found) = cluster::store::get(tx, tenant, &id)? else {
            break;
        };
        match found.merged_into {
            Some(into) => id = into,
            None => return Ok(found),
        }
    }
    Err(Invalid::member("cluster_id", "value_error", "names no cluster").into())
}

/// Why what was named by hand is an emergency service, where it is.
fn emergency(tx: &mut Tx<'_>, tenant: i64, incident: &Incident) -> Result<Option<String>, DbError> {
    let (id, external) = (
        incident.entity_id.as_deref(),
        incident.entity_external_id.as_deref(),
    );
    let by_name = emergency_rule(id.unwrap_or_default(), external, None);
    if by_name.is_some() {
        return Ok(by_name);
    }
    let stored = match (id, external) {
        (Some(id), _) => entity::store::get(tx, tenant, id)?,
        (None, Some(external)) => {
            let filter = entity::Filter {
                external_id: Some(external.to_owned()),
                entity_type: None,
            };
            entity::store::list(tx, tenant, &filter, None, 1)?.pop()
        }
        (None, None) => None,
    };
    Ok(stored
        .and_then(|e| emergency_rule(&e.id, e.external_id.as_deref(), e.entity_type.as_deref())))
}
