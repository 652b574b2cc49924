//! What happened to an incident: its timeline, and where an action is named, its audit trail.

use serde_json::{Value, json};
use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError, RowRef};

use super::SYSTEM;

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The principal's subject, or [`SYSTEM`].
    pub name: String,
    /// Whether a rule acts and no person.
    pub is_automated: bool,
    /// The trace of the request.
    pub trace_id: Option<String>,
}

impl Actor {
    /// A person or a service that called.
    #[must_use]
    pub fn caller(subject: &str, trace_id: Option<String>) -> Self {
        Self {
            name: subject.to_owned(),
            is_automated: false,
            trace_id,
        }
    }

    /// A rule.
    #[must_use]
    pub fn system() -> Self {
        Self {
            name: SYSTEM.to_owned(),
            is_automated: true,
            trace_id: None,
        }
    }

    fn action_type(&self) -> &'static str {
        if self.is_automated {
            "automated"
        } else {
            "human"
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It was opened.
    Opened,
    /// It was taken on.
    Acknowledged,
    /// Work began.
    Started,
    /// The fault is gone.
    Resolved,
    /// It was put away.
    Closed,
    /// A situation report was asked for.
    SitrepGenerated,
    /// The first gate.
    SitrepApproved,
    /// The second gate.
    ActionApproved,
    /// Title or summary were changed.
    Edited,
    /// Alarms joined it.
    AlarmsJoined,
    /// None of its alarms is raised any more.
    AlarmsCleared,
    /// It became worse.
    SeverityRaised,
    /// It took in another incident, or was taken in.
    Merged,
    /// Customers were told.
    CustomersTold,
}

impl What {
    /// The kind on the timeline, and the action in the audit trail where it belongs there.
    const fn names(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Opened => ("opened", Some("ANOMALY_DETECTED")),
            Self::Acknowledged => ("acknowledged", Some("ACKNOWLEDGED")),
            Self::Started => ("in_progress", Some("WORK_STARTED")),
            Self::Resolved => ("resolved", Some("RESOLVED")),
            Self::Closed => ("closed", Some("CLOSED")),
            Self::SitrepGenerated => ("sitrep_generated", Some("SITREP_GENERATED")),
            Self::SitrepApproved => ("sitrep_approved", Some("SITREP_APPROVED")),
            Self::ActionApproved => ("action_approved", Some("ACTION_APPROVED")),
            Self::Edited => ("edited", Some("EDITED")),
            Self::AlarmsJoined => ("alarms_joined", None),
            Self::AlarmsCleared => ("alarms_cleared", Some("ALARMS_CLEARED")),
            Self::SeverityRaised => ("severity_raised", Some("SEVERITY_RAISED")),
            Self::Merged => ("merged", Some("MERGED")),
            Self::CustomersTold => ("customers_told", Some("PROACTIVE_CARE")),
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What, as the timeline names it.
    pub kind: String,
    /// What, as the audit trail names it, where it belongs there.
    pub action: Option<String>,
    /// `human` or `automated`.
    pub action_type: String,
    /// Who.
    pub actor: String,
    /// In words.
    pub details: String,
    /// The trace of the request that did it.
    pub trace_id: Option<String>,
}

impl Entry {
    /// As the timeline shows it.
    #[must_use]
    pub fn timeline(&self) -> Value {
        json!({ "timestamp": self.at.to_string(), "kind": self.kind, "actor": self.actor, "details": self.details })
    }

    /// As the audit trail shows it, where it belongs there.
    #[must_use]
    pub fn audit(&self) -> Option<Value> {
        let action = self.action.as_ref()?;
        Some(json!({
            "timestamp": self.at.to_string(), "action": action, "action_type": self.action_type, "actor": self.actor,
            "details": self.details, "trace_id": self.trace_id, "llm_model_version": null, "llm_prompt_hash": null,
        }))
    }
}

/// Adds what happened.
pub(crate) fn add(
    conn: &mut Conn,
    tenant: i64,
    incident_id: &str,
    at: Timestamp,
    (what, actor, details): (What, &Actor, &str),
) -> Result<(), DbError> {
    let (kind, action) = what.names();
    conn.execute(
        "INSERT INTO incident_entries (tenant, incident_id, n, at, kind, action, action_type, actor, details, trace_id) \
         VALUES ($1, $2, (SELECT COALESCE(MAX(e.n), 0) + 1 FROM incident_entries e WHERE e.tenant = $1 AND e.incident_id = $2), \
         $3, $4, $5, $6, $7, $8, $9)",
        &[
            tenant.into(),
            incident_id.into(),
            at.as_micros().into(),
            kind.into(),
            action.into(),
            actor.action_type().into(),
            (&actor.name).into(),
            details.into(),
            actor.trace_id.as_ref().into(),
        ],
    )?;
    Ok(())
}

/// All that happened to an incident, in order.
pub(crate) fn all(conn: &mut Conn, tenant: i64, incident_id: &str) -> Result<Vec<Entry>, DbError> {
    conn.rows(
        "SELECT at, kind, action, action_type, actor, details, trace_id FROM incident_entries \
         WHERE tenant = $1 AND incident_id = $2 ORDER BY n",
        &[tenant.into(), incident_id.into()],
        read,
    )
}

fn read(row: RowRef<'_>) -> Result<Entry, DbError> {
    let text = |at| row.opt_text(at).map(|t| t.map(str::to_owned));
    Ok(Entry {
        at: Timestamp::from_micros(row.int(0)?),
        kind: row.text(1)?.to_owned(),
        action: text(2)?,
        action_type: row.text(3)?.to_owned(),
        actor: row.text(4)?.to_owned(),
        details: row.text(5)?.to_owned(),
        trace_id: text(6)?,
    })
}

/// The audit trail as CSV (RFC 4180). A cell that a spreadsheet would take for a formula gets an apostrophe before it.
#[must_use]
pub fn csv(entries: &[Entry]) -> String {
    let mut out = String::from(
        "timestamp,action,action_type,actor,details,trace_id,llm_model_version,llm_prompt_hash\r\n",
    );
    for entry in entries {
        let Some(action) = &entry.action else {
            continue;
        };
        let at = entry.at.to_string();
        let trace = entry.trace_id.as_deref().unwrap_or_default();
        let cells = [
            &at,
            action,
            &entry.action_type,
            &entry.actor,
            &entry.details,
            trace,
            "",
            "",
        ];
        let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
        out.push_str(&cells.join(","));
        out.push_str("\r\n");
    }
    out
}

fn quoted(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let cell = if is_formula {
        format!("'{cell}")
    } else {
        cell.to_owned()
    };
    if cell.contains([',', '"', '\r', '\n', '\'', ';']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell
    }
}
