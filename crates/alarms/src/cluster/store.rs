//! Clusters and their members as rows.

use std::collections::HashMap;

use serde_json::json;
use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError, RowRef, Value};

use super::{Cluster, Edge};
use crate::Severity;
use crate::correlate::Link;
use crate::rows::{among, by, insert, limit, list as texts, opt_text, time};

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

/// A cluster's own row, as it is written.
#[derive(Debug, Clone)]
pub struct Head {
    /// Its id.
    pub id: String,
    /// The probable root.
    pub root: String,
    /// How much the root explains.
    pub confidence: f64,
    /// The closed one that it goes on from.
    pub continues: Option<String>,
}

/// What a cluster's members come to.
#[derive(Debug, Clone, Copy)]
pub struct Sum {
    /// Occurrences.
    pub count: u64,
    /// The most severe.
    pub severity: Severity,
    /// Whether an emergency service is among them.
    pub is_emergency: bool,
    /// The earliest.
    pub started_at: Timestamp,
    /// The latest.
    pub ended_at: Timestamp,
}

impl Sum {
    /// One occurrence.
    #[must_use]
    pub fn of(fact: &Fact) -> Self {
        Self {
            count: 1,
            severity: fact.severity,
            is_emergency: fact.is_emergency,
            started_at: fact.raised_at,
            ended_at: fact.raised_at,
        }
    }

    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            severity: self.severity.max(other.severity),
            is_emergency: self.is_emergency || other.is_emergency,
            started_at: self.started_at.min(other.started_at),
            ended_at: self.ended_at.max(other.ended_at),
        }
    }
}

fn rank(severity: Severity) -> i64 {
    Severity::ALL
        .iter()
        .zip(0..)
        .find(|(s, _)| **s == severity)
        .map_or(0, |(_, rank)| rank)
}

fn severity(rank: i64) -> Severity {
    let found = usize::try_from(rank)
        .ok()
        .and_then(|rank| Severity::ALL.get(rank));
    found.copied().unwrap_or(Severity::Indeterminate)
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Stores members, or puts them in place of what they were.
pub fn put_members(conn: &mut Conn, tenant: i64, members: &[&MemberRow]) -> Result<(), DbError> {
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

/// Makes one cluster a part of another: its members that are still there go over, and it points on.
pub fn merge(conn: &mut Conn, tenant: i64, from: &str, into: &str) -> Result<(), DbError> {
    let params = [tenant.into(), from.into(), into.into()];
    let by_event = by(conn, "alarm_occurrences_by_event");
    for sql in [
        &format!(
            "UPDATE alarm_occurrences{by_event} SET cluster_id = $3 WHERE tenant = $1 AND cluster_id = $2 AND event_id IN \
             (SELECT event_id FROM cluster_members WHERE tenant = $1 AND cluster_id = $2)"
        ),
        "UPDATE alarms SET cluster_id = $3 WHERE tenant = $1 AND cluster_id = $2 AND id IN \
         (SELECT alarm_id FROM cluster_members WHERE tenant = $1 AND cluster_id = $2)",
        "UPDATE cluster_members SET cluster_id = $3 WHERE tenant = $1 AND cluster_id = $2",
        "UPDATE clusters SET merged_into = $3, alarm_count = 0 WHERE tenant = $1 AND id = $2",
        "UPDATE clusters SET merged_into = $3 WHERE tenant = $1 AND merged_into = $2",
    ] {
        conn.execute(sql, &params)?;
    }
    Ok(())
}

/// What each of these clusters comes to by its own row.
pub fn sums(conn: &mut Conn, tenant: i64, ids: &[&str]) -> Result<HashMap<String, Sum>, DbError> {
    let of = "SELECT id, alarm_count, severity, is_emergency, started_at, ended_at FROM clusters \
              WHERE tenant = $1 AND id IN";
    read_sums(conn, tenant, ids, (of, ""))
}

/// What each of these clusters comes to by its members: for one that has lost some.
pub fn count_members(
    conn: &mut Conn,
    tenant: i64,
    ids: &[&str],
) -> Result<HashMap<String, Sum>, DbError> {
    let of = "SELECT cluster_id, COUNT(*), MAX(severity), MAX(is_emergency), MIN(raised_at), MAX(raised_at) \
              FROM cluster_members WHERE tenant = $1 AND cluster_id IN";
    read_sums(conn, tenant, ids, (of, "GROUP BY cluster_id"))
}

fn read_sums(
    conn: &mut Conn,
    tenant: i64,
    ids: &[&str],
    (of, by): (&str, &str),
) -> Result<HashMap<String, Sum>, DbError> {
    let mut sums = HashMap::new();
    for chunk in ids.chunks(500) {
        let sql = format!("{of} {} {by}", among(conn, 2));
        let found = conn.rows(&sql, &[tenant.into(), (&texts(chunk)).into()], |row| {
            let sum = Sum {
                count: count(row.int(1)?),
                severity: severity(row.int(2)?),
                is_emergency: row.int(3)? != 0,
                started_at: time(&row, 4)?,
                ended_at: time(&row, 5)?,
            };
            Ok((row.text(0)?.to_owned(), sum))
        })?;
        sums.extend(found);
    }
    Ok(sums)
}

/// Stores clusters, or puts them in place of what they were.
pub fn put(
    conn: &mut Conn,
    tenant: i64,
    heads: &[(Head, Sum)],
    now: Timestamp,
) -> Result<(), DbError> {
    let mut values: Vec<Value<'_>> = Vec::with_capacity(heads.len() * 12);
    for (head, sum) in heads {
        values.extend([
            Value::Int(tenant),
            (&head.id).into(),
            i64::try_from(sum.count).unwrap_or(i64::MAX).into(),
            (&head.root).into(),
            head.confidence.into(),
            rank(sum.severity).into(),
            i64::from(sum.is_emergency).into(),
            sum.started_at.as_micros().into(),
            sum.ended_at.as_micros().into(),
            now.as_micros().into(),
            now.as_micros().into(),
            head.continues.as_ref().into(),
        ]);
    }
    let into = "INSERT INTO clusters (tenant, id, alarm_count, root_entity_id, confidence, severity, is_emergency, \
                started_at, ended_at, created_at, updated_at, continues) VALUES";
    let tail = "ON CONFLICT (tenant, id) DO UPDATE SET alarm_count = excluded.alarm_count, \
                root_entity_id = excluded.root_entity_id, confidence = excluded.confidence, severity = excluded.severity, \
                is_emergency = excluded.is_emergency, started_at = excluded.started_at, ended_at = excluded.ended_at, \
                updated_at = excluded.updated_at";
    insert(conn, (into, 12, tail), &values, |_| Ok(()))
}

/// Members that came in since a time, with their clusters.
pub fn members_since(
    conn: &mut Conn,
    tenant: i64,
    since: Timestamp,
) -> Result<Vec<MemberRow>, DbError> {
    let sql = format!("{MEMBERS} WHERE tenant = $1 AND arrived_at >= $2");
    conn.rows(&sql, &[tenant.into(), since.as_micros().into()], member)
}

/// These members, with their clusters.
pub fn members(
    conn: &mut Conn,
    tenant: i64,
    event_ids: &[String],
) -> Result<Vec<MemberRow>, DbError> {
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

const MEMBERS: &str = "SELECT event_id, cluster_id, alarm_id, entity_id, alarm_type, severity, is_emergency, raised_at, \
     arrived_at, cause_id, cause_rule, kin_id FROM cluster_members";

fn member(row: RowRef<'_>) -> Result<MemberRow, DbError> {
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

/// How far a tenant's log has been correlated.
pub fn cursor(conn: &mut Conn, tenant: i64) -> Result<u64, DbError> {
    let sql = "SELECT seq FROM correlated WHERE tenant = $1";
    Ok(conn
        .row(sql, &[tenant.into()], |row| row.int(0))?
        .map_or(0, count))
}

/// Notes how far.
pub fn set_cursor(conn: &mut Conn, tenant: i64, seq: u64) -> Result<(), DbError> {
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    conn.execute(
        "INSERT INTO correlated (tenant, seq) VALUES ($1, $2) ON CONFLICT (tenant) DO UPDATE SET seq = excluded.seq",
        &[tenant.into(), seq.into()],
    )
    .map(drop)
}

/// One cluster with all that is in it.
pub fn get(conn: &mut Conn, tenant: i64, id: &str) -> Result<Option<Cluster>, DbError> {
    let sql = format!("{CLUSTERS} WHERE tenant = $1 AND id = $2");
    let found = conn.rows(&sql, &[tenant.into(), id.into()], cluster)?;
    Ok(fill(conn, tenant, found)?.into_iter().next())
}

/// A tenant's clusters that stand, the newest first, older than `after`; merged ones are found by their id alone.
pub fn list(
    conn: &mut Conn,
    tenant: i64,
    after: Option<&str>,
    rows: usize,
) -> Result<Vec<Cluster>, DbError> {
    let sql = format!(
        "{CLUSTERS} WHERE tenant = $1 AND id < $2 AND merged_into IS NULL ORDER BY id DESC LIMIT $3"
    );
    let found = conn.rows(
        &sql,
        &[tenant.into(), after.unwrap_or("~").into(), limit(rows)],
        cluster,
    )?;
    fill(conn, tenant, found)
}

/// How many clusters began within a time, `from <= started_at < to`; merged ones count with what they are part of.
pub fn number(
    conn: &mut Conn,
    tenant: i64,
    from: Timestamp,
    to: Timestamp,
) -> Result<u64, DbError> {
    let sql = "SELECT COUNT(*) FROM clusters WHERE tenant = $1 AND started_at >= $2 AND started_at < $3 AND merged_into IS NULL";
    let params = [
        tenant.into(),
        from.as_micros().into(),
        to.as_micros().into(),
    ];
    Ok(conn.row(sql, &params, |row| row.int(0))?.map_or(0, count))
}

const CLUSTERS: &str = "SELECT id, alarm_count, root_entity_id, confidence, severity, is_emergency, started_at, ended_at, \
     merged_into, continues FROM clusters";

fn cluster(row: RowRef<'_>) -> Result<Cluster, DbError> {
    Ok(Cluster {
        cluster_id: row.text(0)?.to_owned(),
        alarm_count: count(row.int(1)?),
        open_alarm_count: 0,
        event_ids: Vec::new(),
        alarm_ids: Vec::new(),
        entity_ids: Vec::new(),
        root_cause_entity_id: Some(row.text(2)?.to_owned()),
        confidence: row.real(3)?,
        // An emergency makes a cluster critical, whatever its alarms say.
        severity: if row.int(5)? != 0 {
            Severity::Critical
        } else {
            severity(row.int(4)?)
        },
        is_emergency_service: row.int(5)? != 0,
        started_at: time(&row, 6)?,
        ended_at: time(&row, 7)?,
        edges: Vec::new(),
        merged_into: opt_text(&row, 8)?,
        continues: opt_text(&row, 9)?,
    })
}

/// Puts members into their clusters: two statements for all of 500 clusters.
fn fill(conn: &mut Conn, tenant: i64, mut clusters: Vec<Cluster>) -> Result<Vec<Cluster>, DbError> {
    for chunk in clusters.chunks_mut(500) {
        let ids: Vec<&str> = chunk.iter().map(|c| c.cluster_id.as_str()).collect();
        let ids = texts(&ids);
        let params = [tenant.into(), (&ids).into()];
        let sql = format!(
            "{MEMBERS} WHERE tenant = $1 AND cluster_id IN {} ORDER BY raised_at, event_id",
            among(conn, 2)
        );
        let mut of: HashMap<String, Vec<MemberRow>> = HashMap::new();
        for member in conn.rows(&sql, &params, member)? {
            of.entry(member.cluster_id.clone())
                .or_default()
                .push(member);
        }
        // Not as a join: before PostgreSQL knows how many alarms there are, it would read all of them for each member.
        let sql = format!(
            "SELECT m.cluster_id, COUNT(DISTINCT m.alarm_id) FROM cluster_members m WHERE m.tenant = $1 \
             AND m.cluster_id IN {} AND 'raised' = \
             (SELECT a.condition FROM alarms a WHERE a.tenant = m.tenant AND a.id = m.alarm_id) GROUP BY m.cluster_id",
            among(conn, 2)
        );
        let open = conn.rows(&sql, &params, |row| {
            Ok((row.text(0)?.to_owned(), count(row.int(1)?)))
        })?;
        let open: HashMap<String, u64> = open.into_iter().collect();
        for cluster in chunk {
            cluster.open_alarm_count = open.get(&cluster.cluster_id).copied().unwrap_or(0);
            take(cluster, of.remove(&cluster.cluster_id).unwrap_or_default());
        }
    }
    Ok(clusters)
}

fn take(cluster: &mut Cluster, members: Vec<MemberRow>) {
    let at: HashMap<&str, (usize, i64)> = members
        .iter()
        .enumerate()
        .map(|(i, m)| (m.event_id.as_str(), (i, m.fact.raised_at.as_micros())))
        .collect();
    let mut sets: Vec<usize> = (0..members.len()).collect();
    for member in &members {
        let cause = member.cause.as_ref().map(|(id, rule)| (id, *rule));
        let kin = member.kin.as_ref().map(|id| (id, Link::SameType.as_str()));
        for (from, rule) in cause.into_iter().chain(kin) {
            let (Some(&(a, first)), Some(&(b, then))) =
                (at.get(from.as_str()), at.get(member.event_id.as_str()))
            else {
                continue;
            };
            let (a, b) = (find(&mut sets, a), find(&mut sets, b));
            if a != b {
                sets[a.max(b)] = a.min(b);
                cluster.edges.push(Edge {
                    from: from.clone(),
                    to: member.event_id.clone(),
                    rule: rule.to_owned(),
                    seconds: super::seconds(then - first),
                });
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    for member in &members {
        if seen.insert((false, member.fact.alarm_id.clone())) {
            cluster.alarm_ids.push(member.fact.alarm_id.clone());
        }
        if seen.insert((true, member.fact.entity_id.clone())) {
            cluster.entity_ids.push(member.fact.entity_id.clone());
        }
    }
    cluster.event_ids = members.into_iter().map(|m| m.event_id).collect();
}

fn find(sets: &mut [usize], mut of: usize) -> usize {
    while sets[of] != of {
        sets[of] = sets[sets[of]];
        of = sets[of];
    }
    of
}

/// Clusters with members since a time whose incident is over.
pub fn over(conn: &mut Conn, tenant: i64, since: Timestamp) -> Result<Vec<String>, DbError> {
    conn.rows(
        "SELECT cluster_id FROM incidents WHERE tenant = $1 AND status IN ('resolved', 'closed') AND cluster_id IN \
         (SELECT cluster_id FROM cluster_members WHERE tenant = $1 AND arrived_at >= $2)",
        &[tenant.into(), since.as_micros().into()],
        |row| Ok(row.text(0)?.to_owned()),
    )
}
