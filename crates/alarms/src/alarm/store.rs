//! The rows of alarms and of their occurrences.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError, RowRef, Value};

use super::{Alarm, Condition, Identity, OperatorState, time_key};
use crate::{Severity, rows};

/// Parameters that a statement is given at once.
const CHUNK: usize = 64;

pub(super) const COLUMNS: &str = "id, entity_id, entity_external_id, alarm_type, specific_problem, probable_cause, severity, condition, \
     operator_state, acknowledged_by, acknowledged_at, shelved_by, shelve_reason, shelve_expires_at, raised_at, cleared_at, \
     first_raised_at, updated_at, raise_count, flap_count, flaps, cluster_id, source_system, attributes, ends_at, may_return";

pub(super) fn read(row: RowRef<'_>) -> Result<Alarm, DbError> {
    let text = |at| row.text(at).map(str::to_owned);
    let opt = |at| row.opt_text(at).map(|t| t.map(str::to_owned));
    let time = |at| row.opt_int(at).map(|t| t.map(Timestamp::from_micros));
    Ok(Alarm {
        id: text(0)?,
        identity: Identity {
            entity_id: text(1)?,
            alarm_type: text(3)?,
            specific_problem: opt(4)?,
        },
        entity_external_id: opt(2)?,
        probable_cause: opt(5)?,
        severity: word::<Severity>(row.text(6)?)?,
        condition: word::<Condition>(row.text(7)?)?,
        operator_state: match row.opt_text(8)? {
            Some(state) => word::<OperatorState>(state)?,
            None => OperatorState::None,
        },
        acknowledged_by: opt(9)?,
        acknowledged_at: time(10)?,
        shelved_by: opt(11)?,
        shelve_reason: opt(12)?,
        shelve_expires_at: time(13)?,
        raised_at: time(14)?,
        cleared_at: time(15)?,
        first_raised_at: time(16)?,
        updated_at: Timestamp::from_micros(row.int(17)?),
        raise_count: row.int(18)?,
        flap_count: row.int(19)?,
        flaps: times(row.opt_text(20)?.unwrap_or_default()),
        cluster_id: opt(21)?,
        source_system: text(22)?,
        attributes: text(23)?,
        ends_at: time(24)?,
        may_return: row.int(25)? != 0,
    })
}

fn word<T: std::str::FromStr>(text: &str) -> Result<T, DbError> {
    text.parse()
        .map_err(|_| DbError::Fault(format!("an alarm's row says {text}")))
}

fn times(text: &str) -> Vec<Timestamp> {
    let numbers = text.split_ascii_whitespace();
    numbers
        .filter_map(|n| n.parse().ok())
        .map(Timestamp::from_micros)
        .collect()
}

/// One alarm.
pub fn get(conn: &mut Conn, tenant: i64, id: &str) -> Result<Option<Alarm>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM alarms WHERE tenant = $1 AND id = $2");
    conn.row(&sql, &[tenant.into(), id.into()], read)
}

/// Those of many alarms that are there, by id.
pub fn many<'a>(
    conn: &mut Conn,
    tenant: i64,
    ids: impl IntoIterator<Item = &'a str>,
) -> Result<HashMap<String, Alarm>, DbError> {
    let from = ("alarms", "id");
    let found = select_in(conn, COLUMNS, from, tenant, &Vec::from_iter(ids), read)?;
    Ok(found.into_iter().map(|a| (a.id.clone(), a)).collect())
}

/// The rows of a table whose column, unique in a tenant, is one of many texts.
fn select_in<T>(
    conn: &mut Conn,
    columns: &str,
    (table, column): (&str, &str),
    tenant: i64,
    texts: &[&str],
    read: impl Fn(RowRef<'_>) -> Result<T, DbError>,
) -> Result<Vec<T>, DbError> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    if matches!(conn, Conn::Postgres(_)) {
        let found = one_by_one(columns, (table, column));
        let sql = format!("SELECT found.* FROM {found}");
        return conn.rows(
            &sql,
            &[tenant.into(), rows::list(texts).as_str().into()],
            read,
        );
    }
    let sql = format!("SELECT {columns} FROM {table} WHERE tenant = $1 AND {column} IN");
    let mut found = Vec::with_capacity(texts.len());
    for chunk in texts.chunks(CHUNK) {
        let (sql, params) = with_in(&sql, tenant, chunk);
        found.extend(conn.rows(&sql, &params, &read)?);
    }
    Ok(found)
}

/// On PostgreSQL: the row of each text of `$2` in tenant `$1`, found by the key's index. A plain IN would leave it to the
/// planner, which, before it has seen how many rows a tenant has, reads all of them.
fn one_by_one(columns: &str, (table, column): (&str, &str)) -> String {
    format!(
        "json_array_elements_text(CAST(CAST($2 AS TEXT) AS JSON)) AS wanted (key), \
         LATERAL (SELECT {columns} FROM {table} WHERE tenant = $1 AND {column} = wanted.key LIMIT 1) AS found"
    )
}

/// A statement with a list of texts at its end: filled up to [`CHUNK`] with its last, so that one text is prepared.
fn with_in<'a>(sql: &str, tenant: i64, texts: &[&'a str]) -> (String, Vec<Value<'a>>) {
    let mut params = vec![tenant.into()];
    let size = if texts.len() <= 4 { 4 } else { CHUNK };
    let mut sql = format!("{sql} (");
    for at in 0..size {
        let text = texts.get(at).or(texts.last()).copied().unwrap_or_default();
        params.push(text.into());
        let comma = if at == 0 { "" } else { ", " };
        let _ = write!(sql, "{comma}${}", params.len());
    }
    sql.push(')');
    (sql, params)
}

fn micros(at: Option<Timestamp>) -> Value<'static> {
    at.map(Timestamp::as_micros).into()
}

/// Puts alarms in place of what was there of them.
pub fn put(conn: &mut Conn, tenant: i64, alarms: &[&Alarm]) -> Result<(), DbError> {
    let texts: Vec<(String, String)> = alarms
        .iter()
        .map(|alarm| {
            let flaps = alarm.flaps.iter().map(|at| at.as_micros().to_string());
            (alarm.words(), flaps.collect::<Vec<_>>().join(" "))
        })
        .collect();
    let rows: Vec<Vec<Value<'_>>> = alarms
        .iter()
        .zip(&texts)
        .map(|(alarm, (words, flaps))| values(tenant, alarm, words, flaps))
        .collect();
    let sets: Vec<_> = COLUMNS
        .split(", ")
        .skip(1)
        .chain(["event_at", "words"])
        .map(|column| column.trim())
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    conn.insert_rows(
        &format!("INSERT INTO alarms ({COLUMNS}, tenant, event_at, words)"),
        &rows,
        &format!("ON CONFLICT (tenant, id) DO UPDATE SET {}", sets.join(", ")),
    )
}

fn values<'a>(tenant: i64, alarm: &'a Alarm, words: &'a str, flaps: &'a str) -> Vec<Value<'a>> {
    let state = match alarm.operator_state {
        OperatorState::None => None,
        state => Some(state.as_str()),
    };
    vec![
        (&alarm.id).into(),
        (&alarm.identity.entity_id).into(),
        alarm.entity_external_id.as_ref().into(),
        (&alarm.identity.alarm_type).into(),
        alarm.identity.specific_problem.as_ref().into(),
        alarm.probable_cause.as_ref().into(),
        alarm.severity.as_str().into(),
        alarm.condition.as_str().into(),
        state.into(),
        alarm.acknowledged_by.as_ref().into(),
        micros(alarm.acknowledged_at),
        alarm.shelved_by.as_ref().into(),
        alarm.shelve_reason.as_ref().into(),
        micros(alarm.shelve_expires_at),
        micros(alarm.raised_at),
        micros(alarm.cleared_at),
        micros(alarm.first_raised_at),
        alarm.updated_at.as_micros().into(),
        alarm.raise_count.into(),
        alarm.flap_count.into(),
        flaps.into(),
        alarm.cluster_id.as_ref().into(),
        (&alarm.source_system).into(),
        (&alarm.attributes).into(),
        micros(alarm.ends_at),
        i64::from(alarm.may_return).into(),
        tenant.into(),
        alarm.event_at().as_micros().into(),
        words.into(),
    ]
}

/// Where an alarm stands on its three axes.
pub type Place = (Condition, Severity, OperatorState);

/// Where an alarm stands.
#[must_use]
pub fn place(alarm: &Alarm) -> Place {
    (alarm.condition, alarm.severity, alarm.operator_state)
}

/// How many alarms more or fewer stand where.
#[derive(Debug, Default)]
pub struct Moves(HashMap<Place, i64>);

impl Moves {
    /// Notes that an alarm went from one place to another.
    pub fn note(&mut self, from: Option<Place>, to: Place) {
        if let Some(from) = from {
            *self.0.entry(from).or_default() -= 1;
        }
        *self.0.entry(to).or_default() += 1;
    }

    /// Writes it down.
    pub fn store(self, conn: &mut Conn, tenant: i64) -> Result<(), DbError> {
        let moves = self.0.into_iter().filter(|(_, by)| *by != 0);
        let rows: Vec<Vec<Value<'_>>> = moves
            .map(|((condition, severity, state), by)| {
                vec![
                    tenant.into(),
                    condition.as_str().into(),
                    severity.as_str().into(),
                    state.as_str().into(),
                    by.into(),
                ]
            })
            .collect();
        conn.insert_rows(
            "INSERT INTO alarm_counts (tenant, condition, severity, operator_state, alarms)",
            &rows,
            "ON CONFLICT (tenant, condition, severity, operator_state) \
             DO UPDATE SET alarms = alarm_counts.alarms + excluded.alarms",
        )
    }
}

/// An accepted raise or clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OccurrenceRow {
    /// What the same occurrence has the same of.
    pub key: String,
    /// The event that tells of it.
    pub event_id: String,
    /// The alarm.
    pub alarm_id: String,
    /// Whether it raised.
    pub is_raise: bool,
    /// How bad, where it raised.
    pub severity: Severity,
    /// Its own time.
    pub raised_at: Timestamp,
    /// When it came in.
    pub arrived_at: Timestamp,
    /// A digest of the publisher's own key.
    pub source_key: Option<String>,
}

/// Stores occurrences.
pub fn insert_occurrences(
    conn: &mut Conn,
    tenant: i64,
    occurrences: &[OccurrenceRow],
) -> Result<(), DbError> {
    let rows: Vec<Vec<Value<'_>>> = occurrences
        .iter()
        .map(|o| {
            vec![
                tenant.into(),
                (&o.key).into(),
                (&o.event_id).into(),
                (&o.alarm_id).into(),
                i64::from(o.is_raise).into(),
                o.severity.as_str().into(),
                o.raised_at.as_micros().into(),
                o.arrived_at.as_micros().into(),
                o.source_key.as_ref().into(),
            ]
        })
        .collect();
    conn.insert_rows(
        "INSERT INTO alarm_occurrences \
         (tenant, key, event_id, alarm_id, is_raise, severity, raised_at, arrived_at, source_key)",
        &rows,
        "",
    )
}

/// What is known of an occurrence: its key, event and alarm, and the digest of the publisher's own key.
#[derive(Debug, Clone)]
pub struct Known {
    /// What the same occurrence has the same of.
    pub key: String,
    /// The event that tells of it.
    pub event_id: String,
    /// The alarm.
    pub alarm_id: String,
}

/// Those of many occurrences that stand, by their key, or by the publisher's.
pub fn known(
    conn: &mut Conn,
    tenant: i64,
    keys: &[&str],
    is_source: bool,
) -> Result<HashMap<String, Known>, DbError> {
    // The index must be named: SQLite would rather look at all of a tenant's than use one that holds only some.
    let (column, index) = match is_source {
        true => ("source_key", rows::by(conn, "alarm_occurrences_by_source")),
        false => ("key", String::new()),
    };
    let columns = format!("{column} AS asked, key, event_id, alarm_id");
    let table = format!("alarm_occurrences{index}");
    let from = (table.as_str(), column);
    let found = select_in(conn, &columns, from, tenant, keys, |row| {
        let known = Known {
            key: row.text(1)?.to_owned(),
            event_id: row.text(2)?.to_owned(),
            alarm_id: row.text(3)?.to_owned(),
        };
        Ok((row.text(0)?.to_owned(), known))
    })?;
    Ok(found.into_iter().collect())
}

/// Raises of a span of time, `from <= raised_at < to`, oldest first, with their alarms' identities.
pub fn raises(
    conn: &mut Conn,
    tenant: i64,
    from: Timestamp,
    to: Timestamp,
    limit: usize,
) -> Result<Vec<(OccurrenceRow, Identity)>, DbError> {
    let (from, to) = (time_key(from), time_key(to));
    conn.rows(
        "SELECT o.key, o.event_id, o.alarm_id, o.severity, o.raised_at, o.arrived_at, \
         a.entity_id, a.alarm_type, a.specific_problem FROM alarm_occurrences o \
         JOIN alarms a ON a.tenant = o.tenant AND a.id = o.alarm_id \
         WHERE o.tenant = $1 AND o.key >= $2 AND o.key < $3 AND o.is_raise = 1 ORDER BY o.key LIMIT $4",
        &[
            tenant.into(),
            (&from).into(),
            (&to).into(),
            i64::try_from(limit).unwrap_or(i64::MAX).into(),
        ],
        |row| {
            let occurrence = OccurrenceRow {
                key: row.text(0)?.to_owned(),
                event_id: row.text(1)?.to_owned(),
                alarm_id: row.text(2)?.to_owned(),
                is_raise: true,
                severity: word(row.text(3)?)?,
                raised_at: Timestamp::from_micros(row.int(4)?),
                arrived_at: Timestamp::from_micros(row.int(5)?),
                source_key: None,
            };
            let identity = Identity {
                entity_id: row.text(6)?.to_owned(),
                alarm_type: row.text(7)?.to_owned(),
                specific_problem: row.opt_text(8)?.map(str::to_owned),
            };
            Ok((occurrence, identity))
        },
    )
}

/// Those of these alarms that are raised.
pub fn raised_among(
    conn: &mut Conn,
    tenant: i64,
    alarm_ids: &[&str],
) -> Result<HashSet<String>, DbError> {
    let table = format!("alarms{}", rows::by(conn, "sqlite_autoindex_alarms_1"));
    let from = (table.as_str(), "id");
    let found = select_in(conn, "id, condition", from, tenant, alarm_ids, |row| {
        Ok((row.text(1)? == Condition::Raised.as_str()).then(|| row.text(0).map(str::to_owned)))
    })?;
    found.into_iter().flatten().collect()
}

/// Alarms whose end, or whose shelving's, has come: the tenant's number and the alarm's id, soonest first.
pub fn due(conn: &mut Conn, now: Timestamp, limit: i64) -> Result<Vec<(i64, String)>, DbError> {
    let mut all = Vec::new();
    for column in ["ends_at", "shelve_expires_at"] {
        let sql = format!(
            "SELECT tenant, id FROM alarms WHERE {column} <= $1 ORDER BY {column} LIMIT $2"
        );
        let params = [now.as_micros().into(), limit.into()];
        all.extend(conn.rows(&sql, &params, |row| {
            Ok((row.int(0)?, row.text(1)?.to_owned()))
        })?);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// When the next end, or shelving's end, is due.
pub fn next_due(conn: &mut Conn) -> Result<Option<Timestamp>, DbError> {
    let sql = "SELECT MIN(at) FROM (SELECT MIN(ends_at) AS at FROM alarms WHERE ends_at IS NOT NULL \
               UNION ALL SELECT MIN(shelve_expires_at) FROM alarms WHERE shelve_expires_at IS NOT NULL) AS dues";
    let at = conn.row(sql, &[], |row| row.opt_int(0))?;
    Ok(at.flatten().map(Timestamp::from_micros))
}

/// Forgets occurrences that lie before a time and came in before it, at most `limit`. Says how many.
pub fn forget(conn: &mut Conn, tenant: i64, before: Timestamp, limit: i64) -> Result<u64, DbError> {
    conn.execute(
        "DELETE FROM alarm_occurrences WHERE tenant = $1 AND key IN (SELECT key FROM alarm_occurrences \
         WHERE tenant = $1 AND key < $2 AND arrived_at < $3 ORDER BY key LIMIT $4)",
        &[
            tenant.into(),
            time_key(before).as_str().into(),
            before.as_micros().into(),
            limit.into(),
        ],
    )
}
