//! The occurrences that are in clusters, as rows.

use serde_json::json;
use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError, RowRef, Value};

use super::store::{rank, severity};
use crate::Severity;
use crate::correlate::Link;
use crate::rows::{among, insert, list as texts, opt_text, time};

/// An occurrence in a cluster.
#[derive(Debug, Clone)]
pub struct MemberRow {
    /// The occurrence.
    pub event_id: String,
    /// Its cluster.
    pub cluster_id: String,
    /// What is known of it.
    pub fact: Fact,
    /// What it joined, and by which rule.
    pub cause: Option<(String, &'static str)>,
    /// The one of the same type that it joined.
    pub kin: Option<String>,
}

/// What is known of an occurrence.
#[derive(Debug, Clone)]
pub struct Fact {
    /// The alarm that it is one of.
    pub alarm_id: String,
    /// What raised it.
    pub entity_id: String,
    /// The alarm's type.
    pub alarm_type: String,
    /// How bad it is.
    pub severity: Severity,
    /// Whether an emergency service raised it.
    pub is_emergency: bool,
    /// When.
    pub raised_at: Timestamp,
    /// When it came in.
    pub arrived_at: Timestamp,
}

/// Stores members, or puts them in place of what they were.
pub fn put(conn: &mut Conn, tenant: i64, members: &[&MemberRow]) -> Result<(), DbError> {
    let mut values: Vec<Value<'_>> = Vec::with_capacity(members.len() * 13);
    for m in members {
        let cause = m.cause.as_ref();
        values.extend([
            Value::Int(tenant),
            (&m.event_id).into(),
            (&m.cluster_id).into(),
            (&m.fact.alarm_id).into(),
            (&m.fact.entity_id).into(),
            (&m.fact.alarm_type).into(),
            rank(m.fact.severity).into(),
            i64::from(m.fact.is_emergency).into(),
            m.fact.raised_at.as_micros().into(),
            m.fact.arrived_at.as_micros().into(),
            cause.map(|(id, _)| id).into(),
            cause.map(|(_, rule)| *rule).into(),
            m.kin.as_ref().into(),
        ]);
    }
    let into = "INSERT INTO cluster_members (tenant, event_id, cluster_id, alarm_id, entity_id, alarm_type, severity, \
                is_emergency, raised_at, arrived_at, cause_id, cause_rule, kin_id) VALUES";
    let tail = "ON CONFLICT (tenant, event_id) DO UPDATE SET cluster_id = excluded.cluster_id, \
                cause_id = excluded.cause_id, cause_rule = excluded.cause_rule, kin_id = excluded.kin_id";
    insert(conn, (into, 13, tail), &values, |_| Ok(()))
}

/// Writes on the alarms and occurrences of these members which cluster they are in: of an alarm, its latest one's.
pub fn mark(conn: &mut Conn, tenant: i64, members: &[&MemberRow]) -> Result<(), DbError> {
    if let Conn::Postgres(_) = conn {
        return members
            .chunks(500)
            .try_for_each(|some| mark_at_once(conn, tenant, some));
    }
    for m in members {
        conn.execute(
            "UPDATE alarm_occurrences SET cluster_id = $3 WHERE tenant = $1 AND event_id = $2",
            &[tenant.into(), (&m.event_id).into(), (&m.cluster_id).into()],
        )?;
        let raised_at = m.fact.raised_at.as_micros();
        conn.execute(
            "UPDATE alarms SET cluster_id = $4 WHERE tenant = $1 AND id = $2 AND raised_at = $3",
            &[
                tenant.into(),
                (&m.fact.alarm_id).into(),
                raised_at.into(),
                (&m.cluster_id).into(),
            ],
        )?;
    }
    Ok(())
}

/// The same by two statements, for a database that is far away. Each row is found by its key: a plain join would leave it to
/// the planner, which, before it has seen how many rows a tenant has, reads all of them.
fn mark_at_once(conn: &mut Conn, tenant: i64, members: &[&MemberRow]) -> Result<(), DbError> {
    let wanted = members.iter().map(|m| {
        json!([
            m.event_id,
            m.fact.alarm_id,
            m.fact.raised_at.as_micros(),
            m.cluster_id
        ])
    });
    let wanted = serde_json::Value::from_iter(wanted).to_string();
    let from = "(SELECT e->>0 AS event_id, e->>1 AS alarm_id, CAST(e->>2 AS BIGINT) AS raised_at, e->>3 AS cluster_id \
                FROM json_array_elements(CAST(CAST($2 AS TEXT) AS JSON)) AS e) AS wanted";
    for (table, key) in [
        ("alarm_occurrences", "event_id = wanted.event_id"),
        (
            "alarms",
            "id = wanted.alarm_id AND raised_at = wanted.raised_at",
        ),
    ] {
        let sql = format!(
            "UPDATE {table} SET cluster_id = wanted.cluster_id FROM {from}, \
             LATERAL (SELECT ctid AS at FROM {table} WHERE tenant = $1 AND {key} LIMIT 1) AS found \
             WHERE {table}.ctid = found.at"
        );
        conn.execute(&sql, &[tenant.into(), (&wanted).into()])?;
    }
    Ok(())
}

/// Members that came in since a time, with their clusters.
pub fn since(conn: &mut Conn, tenant: i64, since: Timestamp) -> Result<Vec<MemberRow>, DbError> {
    let sql = format!("{MEMBERS} WHERE tenant = $1 AND arrived_at >= $2");
    conn.rows(&sql, &[tenant.into(), since.as_micros().into()], member)
}

/// These members, with their clusters.
pub fn many(conn: &mut Conn, tenant: i64, event_ids: &[String]) -> Result<Vec<MemberRow>, DbError> {
    let mut found = Vec::new();
    for chunk in event_ids.chunks(500) {
        let sql = format!(
            "{MEMBERS} WHERE tenant = $1 AND event_id IN {}",
            among(conn, 2)
        );
        found.extend(conn.rows(&sql, &[tenant.into(), (&texts(chunk)).into()], member)?);
    }
    Ok(found)
}

pub(super) const MEMBERS: &str = "SELECT event_id, cluster_id, alarm_id, entity_id, alarm_type, severity, is_emergency, raised_at, \
     arrived_at, cause_id, cause_rule, kin_id FROM cluster_members";

/// Reads one of [`MEMBERS`].
pub(super) fn member(row: RowRef<'_>) -> Result<MemberRow, DbError> {
    let rule = |word: &str| {
        Link::ALL
            .into_iter()
            .map(Link::as_str)
            .find(|w| *w == word)
            .unwrap_or("unknown")
    };
    let cause = opt_text(&row, 9)?;
    let rule = row.opt_text(10)?.map(rule);
    Ok(MemberRow {
        event_id: row.text(0)?.to_owned(),
        cluster_id: row.text(1)?.to_owned(),
        fact: Fact {
            alarm_id: row.text(2)?.to_owned(),
            entity_id: row.text(3)?.to_owned(),
            alarm_type: row.text(4)?.to_owned(),
            severity: severity(row.int(5)?),
            is_emergency: row.int(6)? != 0,
            raised_at: time(&row, 7)?,
            arrived_at: time(&row, 8)?,
        },
        cause: cause.zip(rule),
        kin: opt_text(&row, 11)?,
    })
}
