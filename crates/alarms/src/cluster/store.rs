//! Clusters as rows.

use std::collections::HashMap;

use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError, RowRef, Value};

use super::members::{Fact, MEMBERS, MemberRow, member};
use super::{Cluster, Edge};
use crate::Severity;
use crate::correlate::Link;
use crate::rows::{among, by, insert, limit, list as texts, opt_text, time};

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

pub(super) fn rank(severity: Severity) -> i64 {
    Severity::ALL
        .iter()
        .zip(0..)
        .find(|(s, _)| **s == severity)
        .map_or(0, |(_, rank)| rank)
}

pub(super) fn severity(rank: i64) -> Severity {
    let found = usize::try_from(rank)
        .ok()
        .and_then(|rank| Severity::ALL.get(rank));
    found.copied().unwrap_or(Severity::Indeterminate)
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
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

/// Counts clusters anew that have lost members, and gives them as they are now, without what is in them.
pub fn recount(
    conn: &mut Conn,
    tenant: i64,
    ids: &[&str],
    now: Timestamp,
) -> Result<Vec<Cluster>, DbError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let counted = count_members(conn, tenant, ids)?;
    for id in ids {
        let Some(sum) = counted.get(*id) else {
            let sql = "UPDATE clusters SET alarm_count = 0, updated_at = $3 WHERE tenant = $1 AND id = $2";
            conn.execute(sql, &[tenant.into(), (*id).into(), now.as_micros().into()])?;
            continue;
        };
        conn.execute(
            "UPDATE clusters SET alarm_count = $3, severity = $4, is_emergency = $5, started_at = $6, ended_at = $7, \
             updated_at = $8 WHERE tenant = $1 AND id = $2",
            &[
                tenant.into(),
                (*id).into(),
                i64::try_from(sum.count).unwrap_or(i64::MAX).into(),
                rank(sum.severity).into(),
                i64::from(sum.is_emergency).into(),
                sum.started_at.as_micros().into(),
                sum.ended_at.as_micros().into(),
                now.as_micros().into(),
            ],
        )?;
    }
    let sql = format!("{CLUSTERS} WHERE tenant = $1 AND id IN {}", among(conn, 2));
    conn.rows(&sql, &[tenant.into(), (&texts(ids)).into()], cluster)
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
