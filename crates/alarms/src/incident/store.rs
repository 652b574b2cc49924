//! The rows of incidents and of their alarms.

use std::collections::HashMap;

use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError, RowRef, Value};

use super::{Incident, Mark, Severity};
use crate::entity::emergency_rule;
use crate::rows::{among, by, insert, list};

/// What [`read`] reads, in its order.
pub(super) const COLUMNS: &str = "id, title, severity, severity_reason, is_emergency, status, entity_id, entity_external_id, \
     entity_ids, cluster_id, root_entity_id, confidence, merged_into, alarm_count, resolution_summary, created_at, updated_at, \
     acknowledged_by, acknowledged_at, sitrep_approved_by, sitrep_approved_at, action_approved_by, action_approved_at, \
     resolved_by, resolved_at, closed_by, closed_at";

/// Ids that one statement looks for.
const IDS: usize = 500;
/// Statuses of incidents that are not over, as SQL.
pub(super) const UNDER_WAY: &str = "('open', 'acknowledged', 'in_progress')";

/// A row of [`COLUMNS`]; its alarms are read apart.
pub(super) fn read(row: RowRef<'_>) -> Result<Incident, DbError> {
    let text = |at| row.opt_text(at).map(|t| t.map(str::to_owned));
    let time = |at| row.int(at).map(Timestamp::from_micros);
    let mark = |at| {
        Ok::<_, DbError>(match (row.opt_text(at)?, row.opt_int(at + 1)?) {
            (Some(by), Some(micros)) => Some(Mark {
                by: by.to_owned(),
                at: Timestamp::from_micros(micros),
            }),
            _ => None,
        })
    };
    let unknown =
        |what: &str, word: &str| DbError::Fault(format!("an incident's {what} is {word}"));
    let (severity, status) = (row.text(2)?, row.text(5)?);
    let known = Severity::ALL.into_iter().find(|s| s.as_str() == severity);
    Ok(Incident {
        id: row.text(0)?.to_owned(),
        title: row.text(1)?.to_owned(),
        severity: known.ok_or_else(|| unknown("severity", severity))?,
        severity_reason: text(3)?,
        is_emergency: row.int(4)? != 0,
        status: status.parse().map_err(|_| unknown("status", status))?,
        entity_id: text(6)?,
        entity_external_id: text(7)?,
        entity_ids: serde_json::from_str(row.text(8)?)
            .map_err(|e| DbError::Fault(e.to_string()))?,
        cluster_id: text(9)?,
        root_entity_id: text(10)?,
        confidence: row.opt_real(11)?,
        merged_into: text(12)?,
        alarm_count: u64::try_from(row.int(13)?).unwrap_or(0),
        alarm_ids: Vec::new(),
        resolution_summary: text(14)?,
        created_at: time(15)?,
        updated_at: time(16)?,
        acknowledged: mark(17)?,
        sitrep_approved: mark(19)?,
        action_approved: mark(21)?,
        resolved: mark(23)?,
        closed: mark(25)?,
    })
}

/// One of a tenant's incidents, with its alarms.
pub fn get(conn: &mut Conn, tenant: i64, id: &str) -> Result<Option<Incident>, DbError> {
    one(
        conn,
        tenant,
        "sqlite_autoindex_incidents_1",
        "id = $2",
        &[id.into()],
    )
}

/// The incident of a cluster.
pub(super) fn of_cluster(
    conn: &mut Conn,
    tenant: i64,
    cluster_id: &str,
) -> Result<Option<Incident>, DbError> {
    one(
        conn,
        tenant,
        "incidents_by_cluster",
        "cluster_id = $2",
        &[cluster_id.into()],
    )
}

/// The incidents of these clusters, by cluster. Their alarms are not read.
pub(super) fn of_clusters(
    conn: &mut Conn,
    tenant: i64,
    cluster_ids: &[&str],
) -> Result<HashMap<String, Incident>, DbError> {
    let mut found = HashMap::new();
    for ids in cluster_ids.chunks(IDS) {
        let sql = format!(
            "SELECT {COLUMNS} FROM incidents{} WHERE tenant = $1 AND cluster_id IN {}",
            by(conn, "incidents_by_cluster"),
            among(conn, 2)
        );
        let incidents = conn.rows(&sql, &[tenant.into(), (&list(ids)).into()], read)?;
        found.extend(
            incidents
                .into_iter()
                .filter_map(|i| Some((i.cluster_id.clone()?, i))),
        );
    }
    Ok(found)
}

/// One that is not over, has this title, and is about the same entity.
pub(super) fn alike(
    conn: &mut Conn,
    tenant: i64,
    title: &str,
    entity_id: Option<&str>,
    external_id: Option<&str>,
) -> Result<Option<Incident>, DbError> {
    let which = format!(
        "title = $2 AND COALESCE(entity_id, '') = $3 AND COALESCE(entity_external_id, '') = $4 AND status IN {UNDER_WAY}"
    );
    let (entity_id, external_id) = (entity_id.unwrap_or(""), external_id.unwrap_or(""));
    let params = [title.into(), entity_id.into(), external_id.into()];
    one(conn, tenant, "incidents_by_title", &which, &params)
}

/// Those that are not over and have any of these alarms. Their alarms are not read.
pub(super) fn with_alarms(
    conn: &mut Conn,
    tenant: i64,
    alarm_ids: &[&str],
) -> Result<Vec<Incident>, DbError> {
    let mut found: Vec<Incident> = Vec::new();
    for alarm_ids in alarm_ids.chunks(IDS) {
        let sql = format!(
            "SELECT {COLUMNS} FROM incidents{} WHERE tenant = $1 AND status IN {UNDER_WAY} AND id IN \
             (SELECT incident_id FROM incident_alarms WHERE tenant = $1 AND alarm_id IN {}) ORDER BY created_at, id",
            by(conn, "sqlite_autoindex_incidents_1"),
            among(conn, 2)
        );
        for incident in conn.rows(&sql, &[tenant.into(), (&list(alarm_ids)).into()], read)? {
            if found.iter().all(|known| known.id != incident.id) {
                found.push(incident);
            }
        }
    }
    Ok(found)
}

fn one(
    conn: &mut Conn,
    tenant: i64,
    index: &str,
    which: &str,
    params: &[Value<'_>],
) -> Result<Option<Incident>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM incidents{} WHERE tenant = $1 AND {which} ORDER BY created_at, id LIMIT 1",
        by(conn, index)
    );
    let mut all = vec![tenant.into()];
    all.extend_from_slice(params);
    let Some(mut incident) = conn.row(&sql, &all, read)? else {
        return Ok(None);
    };
    let mut alarms = alarms_of(conn, tenant, &[&incident.id])?;
    incident.alarm_ids = alarms.remove(&incident.id).unwrap_or_default();
    Ok(Some(incident))
}

/// The alarms of several incidents, by incident.
pub(super) fn alarms_of(
    conn: &mut Conn,
    tenant: i64,
    ids: &[&str],
) -> Result<HashMap<String, Vec<String>>, DbError> {
    let sql = format!(
        "SELECT incident_id, alarm_id FROM incident_alarms WHERE tenant = $1 AND incident_id IN {} \
         ORDER BY incident_id, alarm_id",
        among(conn, 2)
    );
    let mut all: HashMap<String, Vec<String>> = HashMap::new();
    for (incident, alarm) in conn.rows(&sql, &[tenant.into(), (&list(ids)).into()], |row| {
        Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()))
    })? {
        all.entry(incident).or_default().push(alarm);
    }
    Ok(all)
}

/// Puts alarms to an incident; those that it has stay. Says how many are new.
pub(super) fn add_alarms(
    conn: &mut Conn,
    tenant: i64,
    id: &str,
    alarm_ids: &[&str],
) -> Result<u64, DbError> {
    const INTO: &str = "INSERT INTO incident_alarms (tenant, incident_id, alarm_id) VALUES";
    const TAIL: &str = "ON CONFLICT (tenant, incident_id, alarm_id) DO NOTHING RETURNING 1";
    let rows = alarm_ids
        .iter()
        .copied()
        .map(|alarm| [tenant.into(), id.into(), Value::Text(alarm)]);
    let values: Vec<Value<'_>> = rows.flatten().collect();
    let mut new = 0;
    insert(conn, (INTO, 3, TAIL), &values, |_| {
        new += 1;
        Ok(())
    })?;
    Ok(new)
}

/// Puts an incident's alarms to another, too.
pub(super) fn copy_alarms(
    conn: &mut Conn,
    tenant: i64,
    from: &str,
    to: &str,
) -> Result<(), DbError> {
    let sql = "INSERT INTO incident_alarms (tenant, incident_id, alarm_id) \
               SELECT tenant, CAST($3 AS TEXT), alarm_id FROM incident_alarms WHERE tenant = $1 AND incident_id = $2 \
               ON CONFLICT (tenant, incident_id, alarm_id) DO NOTHING";
    conn.execute(sql, &[tenant.into(), from.into(), to.into()])
        .map(drop)
}

/// How an incident's alarms stand: whether any is raised, and whether any is known at all.
pub(super) fn standing(conn: &mut Conn, tenant: i64, id: &str) -> Result<(bool, bool), DbError> {
    // Two questions that each end at the first row found: in a storm, counting at every clear would be quadratic. CROSS
    // has SQLite begin with the incident's alarms, and not with all that are raised.
    let mut any = |condition: &str| {
        let sql = format!(
            "SELECT 1 FROM incident_alarms i CROSS JOIN alarms a \
             WHERE i.tenant = $1 AND i.incident_id = $2 AND a.tenant = i.tenant AND a.id = i.alarm_id{condition} LIMIT 1"
        );
        let found = conn.row(&sql, &[tenant.into(), id.into()], |_| Ok(()))?;
        Ok::<_, DbError>(found.is_some())
    };
    Ok((any(" AND a.condition = 'raised'")?, any("")?))
}

/// Stores an incident as it is now, but for its alarms.
pub(super) fn save(conn: &mut Conn, tenant: i64, incident: &Incident) -> Result<(), DbError> {
    const SET: [&str; 28] = [
        "title",
        "severity",
        "severity_rank",
        "severity_reason",
        "is_emergency",
        "status",
        "status_rank",
        "entity_id",
        "entity_external_id",
        "entity_ids",
        "cluster_id",
        "root_entity_id",
        "confidence",
        "merged_into",
        "alarm_count",
        "resolution_summary",
        "created_at",
        "updated_at",
        "acknowledged_by",
        "acknowledged_at",
        "sitrep_approved_by",
        "sitrep_approved_at",
        "action_approved_by",
        "action_approved_at",
        "resolved_by",
        "resolved_at",
        "closed_by",
        "closed_at",
    ];
    let holes: Vec<String> = (1..=SET.len() + 3).map(|n| format!("${n}")).collect();
    let updates: Vec<String> = SET.iter().map(|c| format!("{c} = excluded.{c}")).collect();
    let sql = format!(
        "INSERT INTO incidents (tenant, id, {}, words) VALUES ({}) ON CONFLICT (tenant, id) DO UPDATE SET {}, words = excluded.words",
        SET.join(", "),
        holes.join(", "),
        updates.join(", ")
    );
    let i = incident;
    let entity_ids = list(&i.entity_ids);
    let words = words(incident);
    let text = |text: &'static str| Value::Text(text);
    let marks = [
        &i.acknowledged,
        &i.sitrep_approved,
        &i.action_approved,
        &i.resolved,
        &i.closed,
    ];
    let mut params: Vec<Value<'_>> = vec![
        tenant.into(),
        (&i.id).into(),
        (&i.title).into(),
        text(i.severity.as_str()),
        (i.severity as i64).into(),
        i.severity_reason.as_ref().into(),
        i64::from(i.is_emergency).into(),
        text(i.status.as_str()),
        (i.status as i64).into(),
        i.entity_id.as_ref().into(),
        i.entity_external_id.as_ref().into(),
        (&entity_ids).into(),
        i.cluster_id.as_ref().into(),
        i.root_entity_id.as_ref().into(),
        i.confidence.into(),
        i.merged_into.as_ref().into(),
        i64::try_from(i.alarm_count).unwrap_or(i64::MAX).into(),
        i.resolution_summary.as_ref().into(),
        i.created_at.as_micros().into(),
        i.updated_at.as_micros().into(),
    ];
    for mark in marks {
        params.push(mark.as_ref().map(|m| &m.by).into());
        params.push(mark.as_ref().map(|m| m.at.as_micros()).into());
    }
    params.push((&words).into());
    conn.execute(&sql, &params).map(drop)
}

/// What a search looks through.
fn words(incident: &Incident) -> String {
    let places = [
        &incident.entity_id,
        &incident.entity_external_id,
        &incident.cluster_id,
    ];
    let mut words = format!("{}\n{}", incident.id, incident.title);
    for place in places.into_iter().flatten() {
        words.push('\n');
        words.push_str(place);
    }
    words.to_lowercase()
}

/// Why one of these alarms is on an emergency service by its external id, where one is.
pub(super) fn emergency_alarm(
    conn: &mut Conn,
    tenant: i64,
    alarm_ids: &[String],
) -> Result<Option<String>, DbError> {
    let sql = format!(
        "SELECT entity_id, entity_external_id FROM alarms{} WHERE tenant = $1 AND id IN {} \
         AND UPPER(entity_external_id) LIKE '%EMERGENCY%' ORDER BY entity_external_id, entity_id LIMIT 1",
        by(conn, "sqlite_autoindex_alarms_1"),
        among(conn, 2)
    );
    let alarm_ids = list(alarm_ids);
    let rule = conn.row(&sql, &[tenant.into(), (&alarm_ids).into()], |row| {
        Ok(emergency_rule(row.text(0)?, row.opt_text(1)?, None))
    })?;
    Ok(rule.flatten())
}

/// The facts of an incident's alarms that a situation report tells: how many are raised, since when, of which types.
pub(crate) fn alarm_facts(
    conn: &mut Conn,
    tenant: i64,
    id: &str,
) -> Result<crate::sitrep::AlarmFacts, DbError> {
    let sql = "SELECT a.alarm_type, a.condition, COUNT(*), MIN(a.first_raised_at) FROM incident_alarms i \
               CROSS JOIN alarms a WHERE i.tenant = $1 AND i.incident_id = $2 AND a.tenant = i.tenant AND a.id = i.alarm_id \
               GROUP BY a.alarm_type, a.condition ORDER BY a.alarm_type, a.condition";
    let rows = conn.rows(sql, &[tenant.into(), id.into()], |row| {
        let number = u64::try_from(row.int(2)?).unwrap_or(0);
        let since = row.opt_int(3)?.map(Timestamp::from_micros);
        Ok((
            row.text(0)?.to_owned(),
            row.text(1)? == "raised",
            number,
            since,
        ))
    })?;
    let mut facts = crate::sitrep::AlarmFacts::default();
    for (alarm_type, is_raised, number, since) in rows {
        facts.total += number;
        facts.raised += if is_raised { number } else { 0 };
        facts.since = [facts.since, since].into_iter().flatten().min();
        match facts
            .types
            .last_mut()
            .filter(|(known, _)| *known == alarm_type)
        {
            Some((_, known)) => *known += number,
            None => facts.types.push((alarm_type, number)),
        }
    }
    // The most frequent first; their names decide between equals.
    facts
        .types
        .sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Ok(facts)
}
