//! What a plan of the correlation's comes to: members, clusters, marks on the alarms, incidents, events, the cursor and
//! what was set aside, all in one transaction.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::json;
use tidings_core::db::{Conn, DbError};
use tidings_core::event::{EventId, EventType, Json, NewEvent};
use tidings_core::log::{Tx, dead_letter};
use tidings_core::topic::Topic;

use super::Cluster;
use super::members::{self, Fact, MemberRow};
use super::store::{self, Head, Sum};
use crate::correlate::{Component, Member, givers};
use crate::entity::{self, emergency_rule};
use crate::rows::{among, list};
use crate::{Config, incident};

/// Where dead letters of the correlation come from.
pub(crate) const SOURCE: &str = "correlation";

/// An occurrence that waits for its cluster.
#[derive(Debug, Clone)]
pub(crate) struct New {
    pub(crate) fact: Fact,
    pub(crate) entity_external_id: Option<String>,
}

/// What is to be written.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) plan: Arc<Vec<Component>>,
    /// The ids of the clusters that the plan names.
    pub(crate) ids: HashMap<u64, String>,
    /// By event, what is known of those that are new.
    pub(crate) new: Arc<HashMap<String, New>>,
    /// How far the log has been read with this; none where more of the same is to come.
    pub(crate) cursor: Option<u64>,
    /// What could not be read: the event, and why.
    pub(crate) aside: Vec<(String, String)>,
}

/// A cluster that is new or has grown.
#[derive(Debug, Clone)]
pub struct Change {
    /// As it is, but with the members alone that are new in it.
    pub cluster: Cluster,
    /// Clusters that have become a part of it.
    pub merged: Vec<String>,
    /// Whether it was not there before.
    pub is_new: bool,
}

/// Why it was not written.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// These clusters take nothing more: their incidents are over.
    Closed(Vec<String>),
    /// Somebody else has placed an occurrence that was in no cluster.
    Placed,
    /// The database.
    Database(DbError),
}

impl From<DbError> for Refusal {
    fn from(e: DbError) -> Self {
        Self::Database(e)
    }
}

/// Writes all of it, and gives the id of each component's cluster.
pub(crate) fn publish(
    tx: &mut Tx<'_>,
    config: &Config,
    of: &Publication,
) -> Result<Vec<String>, Refusal> {
    let tenant = tx.tenant_number();
    refuse_closed(tx, tenant, of)?;
    let ids: Vec<String> = of
        .plan
        .iter()
        .map(|c| match c.cluster {
            Some(number) => of.id(number).to_owned(),
            None => EventId::random(tx.now()).to_string(),
        })
        .collect();
    let rows = rows(tx, tenant, of, &ids)?;
    let stood = store::sums(tx, tenant, &of.named())?;
    let all: Vec<&MemberRow> = rows.iter().flatten().collect();
    members::put(tx, tenant, &all)?;
    for (component, id) in of.plan.iter().zip(&ids) {
        for &merged in &component.merged {
            store::merge(tx, tenant, of.id(merged), id)?;
        }
    }
    let sums = sums(tx, tenant, of, &rows, &stood)?;
    let heads: Vec<(Head, Sum)> = of
        .plan
        .iter()
        .zip(&ids)
        .zip(&sums)
        .filter_map(|((component, id), sum)| Some((of.head(component, id), (*sum)?)))
        .collect();
    let now = tx.now();
    store::put(tx, tenant, &heads, now)?;
    let left = store::recount(tx, tenant, &of.left(), now)?;
    members::mark(tx, tenant, &all)?;
    let mut changes = Vec::with_capacity(rows.len());
    for (((component, id), rows), sum) in of.plan.iter().zip(&ids).zip(rows).zip(sums) {
        let change = sum.and_then(|sum| of.change(component, id, &sum, rows));
        changes.extend(change);
    }
    for change in &changes {
        tell_all(tx, change)?;
    }
    for cluster in &left {
        tell(tx, "alarm_cluster_updated", cluster, None)?;
    }
    incident::follow(tx, config, &changes)?;
    for (event, reason) in &of.aside {
        dead_letter::insert(tx, tenant, SOURCE, reason, event, now)?;
    }
    if let Some(cursor) = of.cursor {
        store::set_cursor(tx, tenant, cursor)?;
    }
    Ok(ids)
}

impl Publication {
    fn id(&self, number: u64) -> &str {
        self.ids.get(&number).map_or("", String::as_str)
    }

    /// The clusters that stand and are changed.
    fn named(&self) -> Vec<&str> {
        let named = self.plan.iter().flat_map(stands);
        named.map(|number| self.id(number)).collect()
    }

    /// Those that others have taken members from, and that nothing else happens to here.
    fn left(&self) -> Vec<&str> {
        let standing: HashSet<u64> = self.plan.iter().flat_map(stands).collect();
        let mut left: Vec<u64> = self.plan.iter().flat_map(givers).collect();
        left.retain(|number| !standing.contains(number));
        left.sort_unstable();
        left.dedup();
        left.into_iter().map(|number| self.id(number)).collect()
    }

    /// What others have to hear of: not where members are joined otherwise, but together as before.
    fn change(
        &self,
        component: &Component,
        id: &str,
        sum: &Sum,
        rows: Vec<MemberRow>,
    ) -> Option<Change> {
        let is_same = |m: &Member| m.was.is_some() && m.was == component.cluster;
        if component.merged.is_empty()
            && !component.changed.is_empty()
            && component.changed.iter().all(is_same)
        {
            return None;
        }
        let merged = component.merged.iter().map(|&m| self.id(m).to_owned());
        Some(Change {
            cluster: cluster(&self.head(component, id), sum, rows),
            merged: merged.collect(),
            is_new: component.cluster.is_none(),
        })
    }

    fn head(&self, component: &Component, id: &str) -> Head {
        Head {
            id: id.to_owned(),
            root: component.root.clone(),
            confidence: component.confidence,
            continues: component.continues.map(|c| self.id(c).to_owned()),
        }
    }
}

/// Those that would take in something new must not be over.
fn refuse_closed(conn: &mut Conn, tenant: i64, of: &Publication) -> Result<(), Refusal> {
    let mut taking: Vec<&str> = Vec::new();
    for component in of.plan.iter() {
        let is_growing = component.changed.iter().any(|m| m.was != component.cluster);
        if is_growing || !component.merged.is_empty() {
            let numbers = component.cluster.iter().chain(&component.merged);
            taking.extend(numbers.map(|&number| of.id(number)));
        }
    }
    let mut over = Vec::new();
    for chunk in taking.chunks(500) {
        let sql = format!(
            "SELECT cluster_id FROM incidents WHERE tenant = $1 AND status IN ('resolved', 'closed') AND cluster_id IN {}",
            among(conn, 2)
        );
        over.extend(
            conn.rows(&sql, &[tenant.into(), (&list(chunk)).into()], |row| {
                Ok(row.text(0)?.to_owned())
            })?,
        );
    }
    if over.is_empty() {
        Ok(())
    } else {
        Err(Refusal::Closed(over))
    }
}

/// The clusters that stood where a component is.
fn stands(of: &Component) -> impl Iterator<Item = u64> {
    of.cluster.into_iter().chain(of.merged.iter().copied())
}

/// What each component's cluster comes to: what it and those that became a part of it came to, and what is new in it. Only
/// those that gave members away are counted anew.
fn sums(
    conn: &mut Conn,
    tenant: i64,
    of: &Publication,
    rows: &[Vec<MemberRow>],
    stood: &HashMap<String, Sum>,
) -> Result<Vec<Option<Sum>>, DbError> {
    let giving: HashSet<u64> = of.plan.iter().flat_map(givers).collect();
    let is_giving = |c: &Component| stands(c).any(|number| giving.contains(&number));
    let given = of.plan.iter().filter(|c| is_giving(c));
    let ids: Vec<&str> = given.filter_map(|c| c.cluster).map(|c| of.id(c)).collect();
    let counted = store::count_members(conn, tenant, &ids)?;
    let sum = |(component, rows): (&Component, &Vec<MemberRow>)| {
        if is_giving(component) {
            return counted.get(of.id(component.cluster?)).copied();
        }
        let is_new = |m: &&Member| m.was.is_none_or(|was| !stands(component).any(|c| c == was));
        let new = component.changed.iter().filter(is_new);
        let new: HashSet<&str> = new.map(|m| m.event_id.as_str()).collect();
        let new = rows
            .iter()
            .filter(|row| new.contains(row.event_id.as_str()));
        let stood = stands(component).filter_map(|number| stood.get(of.id(number)).copied());
        stood
            .chain(new.map(|row| Sum::of(&row.fact)))
            .reduce(Sum::with)
    };
    Ok(of.plan.iter().zip(rows).map(sum).collect())
}

/// The rows of what is new, was moved, or is joined otherwise, component by component.
fn rows(
    conn: &mut Conn,
    tenant: i64,
    of: &Publication,
    ids: &[String],
) -> Result<Vec<Vec<MemberRow>>, Refusal> {
    let changed = || of.plan.iter().flat_map(|c| &c.changed);
    let all: Vec<String> = changed().map(|m| m.event_id.clone()).collect();
    let old = members::many(conn, tenant, &all)?;
    let mut facts: HashMap<String, Fact> = old.into_iter().map(|m| (m.event_id, m.fact)).collect();
    if changed().any(|m| m.was.is_none() && facts.contains_key(&m.event_id)) {
        return Err(Refusal::Placed);
    }
    let new: Vec<(&String, &New)> = changed()
        .filter(|m| m.was.is_none())
        .filter_map(|m| of.new.get_key_value(&m.event_id))
        .collect();
    let emergencies = emergencies(conn, tenant, &new)?;
    for (id, new) in new {
        let mut fact = new.fact.clone();
        fact.is_emergency = emergencies.contains(fact.entity_id.as_str())
            || emergency_rule(&fact.entity_id, new.entity_external_id.as_deref(), None).is_some();
        facts.insert(id.clone(), fact);
    }
    let row = |member: &Member, cluster: &String| {
        Some(MemberRow {
            event_id: member.event_id.clone(),
            cluster_id: cluster.clone(),
            fact: facts.get(&member.event_id)?.clone(),
            cause: member
                .cause
                .as_ref()
                .map(|(id, link)| (id.clone(), link.as_str())),
            kin: member.kin.clone(),
        })
    };
    let rows = of.plan.iter().zip(ids);
    Ok(rows
        .map(|(c, id)| c.changed.iter().filter_map(|m| row(m, id)).collect())
        .collect())
}

/// Which of the entities are emergency services by what is stored of them.
fn emergencies(
    conn: &mut Conn,
    tenant: i64,
    new: &[(&String, &New)],
) -> Result<HashSet<String>, DbError> {
    let mut ids: Vec<&str> = new
        .iter()
        .map(|(_, new)| new.fact.entity_id.as_str())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let stored = entity::store::many(conn, tenant, &ids)?;
    let is_one = |e: &entity::Entity| {
        emergency_rule(&e.id, e.external_id.as_deref(), e.entity_type.as_deref()).is_some()
    };
    Ok(stored.into_iter().filter(is_one).map(|e| e.id).collect())
}

/// Tells of a cluster's change, and of those that became a part of it.
fn tell_all(tx: &mut Tx<'_>, change: &Change) -> Result<(), DbError> {
    let kind = if change.is_new {
        "alarm_cluster_created"
    } else {
        "alarm_cluster_updated"
    };
    tell(tx, kind, &change.cluster, None)?;
    for merged in &change.merged {
        let gone = Cluster {
            cluster_id: merged.clone(),
            alarm_count: 0,
            ..change.cluster.clone()
        };
        let into = Some(change.cluster.cluster_id.as_str());
        tell(tx, "alarm_cluster_updated", &gone, into)?;
    }
    Ok(())
}

/// The cluster with what is new in it alone: incidents know the rest, and a large cluster is not read for each alarm.
fn cluster(head: &Head, sum: &Sum, rows: Vec<MemberRow>) -> Cluster {
    let (mut alarms, mut entities) = (HashSet::new(), HashSet::new());
    let mut cluster = Cluster {
        cluster_id: head.id.clone(),
        alarm_count: sum.count,
        open_alarm_count: 0,
        event_ids: Vec::new(),
        alarm_ids: Vec::new(),
        entity_ids: Vec::new(),
        root_cause_entity_id: Some(head.root.clone()),
        confidence: head.confidence,
        severity: sum.severity,
        is_emergency_service: sum.is_emergency,
        started_at: sum.started_at,
        ended_at: sum.ended_at,
        edges: Vec::new(),
        merged_into: None,
        continues: head.continues.clone(),
    };
    for row in rows {
        if alarms.insert(row.fact.alarm_id.clone()) {
            cluster.alarm_ids.push(row.fact.alarm_id);
        }
        if entities.insert(row.fact.entity_id.clone()) {
            cluster.entity_ids.push(row.fact.entity_id);
        }
        cluster.event_ids.push(row.event_id);
    }
    cluster.open_alarm_count = cluster.alarm_ids.len() as u64;
    cluster
}

/// An emergency makes a cluster critical, whatever its alarms say.
pub(super) fn severity_of(cluster: &Cluster) -> crate::Severity {
    if cluster.is_emergency_service {
        crate::Severity::Critical
    } else {
        cluster.severity
    }
}

fn tell(
    tx: &mut Tx<'_>,
    kind: &str,
    cluster: &Cluster,
    merged_into: Option<&str>,
) -> Result<(), DbError> {
    let fault = |e: &dyn std::fmt::Display| DbError::Fault(format!("an event cannot be made: {e}"));
    let now = tx.now();
    let id = EventId::random(now);
    let data = json!({
        "event_id": id.as_str(), "event_type": kind, "tenant_id": tx.tenant().as_str(), "timestamp": now.to_string(),
        "cluster_id": cluster.cluster_id, "alarm_count": cluster.alarm_count,
        "root_cause_entity_id": cluster.root_cause_entity_id, "confidence": cluster.confidence,
        "severity": severity_of(cluster).as_str(), "is_emergency_service": cluster.is_emergency_service,
        "started_at": cluster.started_at.to_string(), "ended_at": cluster.ended_at.to_string(),
        "merged_into": merged_into, "continues": cluster.continues,
    });
    let mut event = NewEvent::new(
        Topic::new("alarms").map_err(|e| fault(&e))?,
        EventType::new(kind).map_err(|e| fault(&e))?,
        Json::encode(&data).map_err(|e| fault(&e))?,
    );
    event.given = Some(id);
    tx.append(event);
    Ok(())
}
