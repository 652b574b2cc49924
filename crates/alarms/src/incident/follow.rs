//! What clusters and clears do to incidents, inside of the transaction that brings those.

use std::collections::{HashMap, HashSet};

use tidings_core::db::{Conn, DbError};
use tidings_core::event::EventId;
use tidings_core::log::Tx;

use super::entry::{self, What};
use super::{Actor, Incident, Mark, SYSTEM, Severity, Status, count, store, tell};
use crate::Config;
use crate::alarm;
use crate::cluster::{self, Change, Cluster};
use crate::entity::{self, emergency_rule};

/// What stands of the incidents that changes of clusters are about, read at once.
struct Standing {
    /// By cluster.
    incidents: HashMap<String, Incident>,
    /// External ids of the clusters' roots.
    external_ids: HashMap<String, String>,
    /// Those of the clusters' alarms that are raised.
    raised: HashSet<String>,
}

impl Standing {
    fn read(conn: &mut Conn, tenant: i64, changes: &[Change]) -> Result<Self, DbError> {
        let clusters = changes.iter().flat_map(|change| {
            let own = std::iter::once(&change.cluster.cluster_id).filter(|_| !change.is_new);
            own.chain(&change.merged).map(String::as_str)
        });
        let clusters: Vec<&str> = clusters.collect();
        let roots = changes
            .iter()
            .filter_map(|c| c.cluster.root_cause_entity_id.as_deref());
        let roots: Vec<&str> = roots.collect();
        let alarms = changes.iter().flat_map(|c| &c.cluster.alarm_ids);
        let alarms: Vec<&str> = alarms.map(String::as_str).collect();
        let stored = entity::store::many(conn, tenant, &roots)?.into_iter();
        Ok(Self {
            incidents: store::of_clusters(conn, tenant, &clusters)?,
            external_ids: stored
                .filter_map(|e| Some((e.id, e.external_id?)))
                .collect(),
            raised: alarm::store::raised_among(conn, tenant, &alarms)?,
        })
    }
}

/// Brings the incidents of clusters up to what those are now.
///
/// One opens where a cluster is worth it, one a cluster; those of clusters that have become part of another do so, too, each
/// with a pointer to the one that stays. One that is over stays as it is.
pub fn follow(tx: &mut Tx<'_>, config: &Config, changes: &[Change]) -> Result<(), DbError> {
    let tenant = tx.tenant_number();
    let mut standing = Standing::read(tx, tenant, changes)?;
    for change in changes {
        for from in &change.merged {
            merge_from(tx, &mut standing.incidents, from, &change.cluster)?;
        }
        match standing.incidents.remove(&change.cluster.cluster_id) {
            Some(incident) => update(tx, config, (&change.cluster, incident), &standing.raised)?,
            None => open(tx, config, &change.cluster, &standing)?,
        }
    }
    Ok(())
}

/// Opens the incident of a cluster, unless that is too mild or too small.
fn open(
    tx: &mut Tx<'_>,
    config: &Config,
    cluster: &Cluster,
    standing: &Standing,
) -> Result<(), DbError> {
    let tenant = tx.tenant_number();
    let is_severe = cluster.severity >= config.incident_min_severity;
    // One that was too mild or too small until now has more than what is new in it.
    let is_older = cluster.alarm_count > cluster.event_ids.len() as u64;
    let whole = match is_older {
        true => cluster::store::get(tx, tenant, &cluster.cluster_id)?,
        false => None,
    };
    let cluster = whole.as_ref().unwrap_or(cluster);
    let emergency = emergency_in(tx, tenant, cluster)?;
    // An emergency is critical, whatever its alarms say; what is too small is too small all the same.
    if !(is_severe || emergency.is_some()) || cluster.alarm_count < config.incident_min_alarms {
        return Ok(());
    }
    let now = tx.now();
    let title = format!("Auto-created incident from cluster {}", cluster.cluster_id);
    let severity = Severity::from(cluster.severity);
    let mut incident = Incident::new(EventId::random(now).to_string(), title, severity, now);
    incident.cluster_id = Some(cluster.cluster_id.clone());
    incident.entity_id.clone_from(&cluster.root_cause_entity_id);
    if let Some(root) = &cluster.root_cause_entity_id {
        incident.entity_external_id = standing.external_ids.get(root).cloned();
    }
    take_in(&mut incident, cluster);
    force(&mut incident, emergency);
    let mut details = format!(
        "Opened with severity {} for {} on {}.",
        incident.severity,
        count(cluster.alarm_count, "alarm", "alarms"),
        count(cluster.entity_ids.len() as u64, "entity", "entities"),
    );
    if let Some(reason) = &incident.severity_reason {
        details.push_str(&format!(" {reason}."));
    }
    if let Some(earlier) = &cluster.continues {
        details.push_str(&format!(
            " It goes on from cluster {earlier}, whose incident is over."
        ));
    }
    start(tx, &incident, &Actor::system(), &details)?;
    store::add_alarms(tx, tenant, &incident.id, &refs(&cluster.alarm_ids))?;
    settle_unless_raised(tx, config, (&mut incident, cluster), &standing.raised)
}

/// Brings an incident up to what its cluster is now.
fn update(
    tx: &mut Tx<'_>,
    config: &Config,
    (cluster, mut incident): (&Cluster, Incident),
    raised: &HashSet<String>,
) -> Result<(), DbError> {
    let tenant = tx.tenant_number();
    if incident.status.is_over() {
        return Ok(());
    }
    let before = incident.clone();
    let new = store::add_alarms(tx, tenant, &incident.id, &refs(&cluster.alarm_ids))?;
    take_in(&mut incident, cluster);
    if !incident.is_emergency {
        let emergency = emergency_in(tx, tenant, cluster)?;
        force(&mut incident, emergency);
    }
    if incident == before && new == 0 {
        return Ok(());
    }
    let (now, actor) = (tx.now(), Actor::system());
    incident.touch(now);
    store::save(tx, tenant, &incident)?;
    let joined = incident.alarm_count.saturating_sub(before.alarm_count);
    if joined > 0 || new > 0 {
        let details = format!(
            "{} joined; {} now.",
            count(joined, "alarm", "alarms"),
            incident.alarm_count
        );
        let what = (What::AlarmsJoined, &actor, details.as_str());
        entry::add(tx, tenant, &incident.id, now, what)?;
    }
    note_severity(tx, &before, &incident)?;
    tell::updated(tx, &incident, "alarms_joined", &actor)?;
    settle_unless_raised(tx, config, (&mut incident, cluster), raised)
}

/// A cluster has become part of another: so does its incident, with a pointer to the one that stays, unless it is over.
fn merge_from(
    tx: &mut Tx<'_>,
    incidents: &mut HashMap<String, Incident>,
    from: &str,
    into: &Cluster,
) -> Result<(), DbError> {
    let Some(gone) = incidents.remove(from).filter(|i| !i.status.is_over()) else {
        return Ok(());
    };
    match incidents.get_mut(&into.cluster_id) {
        Some(target) if !target.status.is_over() => merge(tx, target, gone),
        // What goes on has an incident that is over: the one that is not keeps its own.
        Some(_) => Ok(()),
        None => {
            let incident = hand_over(tx, gone, into)?;
            incidents.insert(into.cluster_id.clone(), incident);
            Ok(())
        }
    }
}

/// Puts an incident into another.
fn merge(tx: &mut Tx<'_>, target: &mut Incident, mut gone: Incident) -> Result<(), DbError> {
    let (tenant, now, actor) = (tx.tenant_number(), tx.now(), Actor::system());
    let before = target.clone();
    if gone.severity.outweighs(target.severity) {
        target.severity = gone.severity;
        target.severity_reason.clone_from(&gone.severity_reason);
    }
    if gone.is_emergency && !target.is_emergency {
        force(target, gone.severity_reason.clone());
    }
    for id in gone
        .entity_ids
        .iter()
        .filter(|id| !before.entity_ids.contains(id))
    {
        target.entity_ids.push(id.clone());
    }
    target.touch(now);
    gone.merged_into = Some(target.id.clone());
    gone.resolution_summary = Some(format!("Merged into incident {}", target.id));
    let mark = Mark {
        by: SYSTEM.to_owned(),
        at: now,
    };
    gone.enter(Status::Closed, mark);
    store::save(tx, tenant, &gone)?;
    store::save(tx, tenant, target)?;
    store::copy_alarms(tx, tenant, &gone.id, &target.id)?;
    let details = format!("Has become part of incident {}.", target.id);
    entry::add(tx, tenant, &gone.id, now, (What::Merged, &actor, &details))?;
    let taken_on = gone
        .acknowledged
        .as_ref()
        .map(|m| format!(", acknowledged by {},", m.by));
    let details = format!(
        "Incident {}{} is part of this one.",
        gone.id,
        taken_on.unwrap_or_default()
    );
    entry::add(
        tx,
        tenant,
        &target.id,
        now,
        (What::Merged, &actor, &details),
    )?;
    note_severity(tx, &before, target)?;
    tell::updated(tx, &gone, "merged", &actor)?;
    tell::updated(tx, target, "merged", &actor)
}

/// Lets an incident go on with the cluster that its own has become part of, and that has none.
fn hand_over(tx: &mut Tx<'_>, mut incident: Incident, into: &Cluster) -> Result<Incident, DbError> {
    let (tenant, now, actor) = (tx.tenant_number(), tx.now(), Actor::system());
    incident.cluster_id = Some(into.cluster_id.clone());
    incident.touch(now);
    store::save(tx, tenant, &incident)?;
    let details = format!(
        "Its cluster has become part of cluster {}.",
        into.cluster_id
    );
    entry::add(
        tx,
        tenant,
        &incident.id,
        now,
        (What::Merged, &actor, &details),
    )?;
    Ok(incident)
}

/// Whether the incident of a cluster is resolved or closed: then it must not absorb new alarms.
pub fn is_over(conn: &mut Conn, tenant: i64, cluster_id: &str) -> Result<bool, DbError> {
    let sql = "SELECT status FROM incidents WHERE tenant = $1 AND cluster_id = $2";
    let status = conn.row(sql, &[tenant.into(), cluster_id.into()], |row| {
        Ok(row.text(0)?.parse::<Status>().is_ok_and(Status::is_over))
    })?;
    Ok(status.unwrap_or(false))
}

/// An alarm has cleared, and its row says so: resolves the incidents whose last raised alarm it was.
pub fn on_alarm_cleared(tx: &mut Tx<'_>, config: &Config, alarm_id: &str) -> Result<(), DbError> {
    on_alarms_cleared(tx, config, &[alarm_id])
}

/// The same for many: a statement for 500 of them, and what their incidents need.
pub fn on_alarms_cleared(
    tx: &mut Tx<'_>,
    config: &Config,
    alarm_ids: &[&str],
) -> Result<(), DbError> {
    let tenant = tx.tenant_number();
    for mut incident in store::with_alarms(tx, tenant, alarm_ids)? {
        settle(tx, config, &mut incident)?;
    }
    Ok(())
}

/// As [`settle`], where what has joined may have cleared before: an alarm of it that is raised says enough.
fn settle_unless_raised(
    tx: &mut Tx<'_>,
    config: &Config,
    (incident, cluster): (&mut Incident, &Cluster),
    raised: &HashSet<String>,
) -> Result<(), DbError> {
    if cluster.alarm_ids.iter().any(|id| raised.contains(id)) {
        return Ok(());
    }
    settle(tx, config, incident)
}

/// Resolves an incident none of whose alarms is raised any more, or only notes it.
fn settle(tx: &mut Tx<'_>, config: &Config, incident: &mut Incident) -> Result<(), DbError> {
    let tenant = tx.tenant_number();
    let (is_raised, is_known) = store::standing(tx, tenant, &incident.id)?;
    if is_raised || !is_known || incident.status.is_over() {
        return Ok(());
    }
    let (now, actor) = (tx.now(), Actor::system());
    if config.auto_resolve && !config.require_approval {
        incident.enter(
            Status::Resolved,
            Mark {
                by: SYSTEM.to_owned(),
                at: now,
            },
        );
        store::save(tx, tenant, incident)?;
        let details = "Resolved: none of its alarms is raised any more.";
        entry::add(
            tx,
            tenant,
            &incident.id,
            now,
            (What::Resolved, &actor, details),
        )?;
        return tell::updated(tx, incident, "resolved", &actor);
    }
    incident.touch(now);
    store::save(tx, tenant, incident)?;
    let details = "None of its alarms is raised any more. It waits for a person to resolve it.";
    entry::add(
        tx,
        tenant,
        &incident.id,
        now,
        (What::AlarmsCleared, &actor, details),
    )?;
    tell::updated(tx, incident, "alarms_cleared", &actor)
}

/// Stores a new incident, with its first entry and its event.
pub(super) fn start(
    tx: &mut Tx<'_>,
    incident: &Incident,
    actor: &Actor,
    details: &str,
) -> Result<(), DbError> {
    let (tenant, now) = (tx.tenant_number(), tx.now());
    store::save(tx, tenant, incident)?;
    entry::add(
        tx,
        tenant,
        &incident.id,
        now,
        (What::Opened, actor, details),
    )?;
    tell::created(tx, incident, actor)
}

fn note_severity(tx: &mut Tx<'_>, before: &Incident, after: &Incident) -> Result<(), DbError> {
    if after.severity == before.severity && after.is_emergency == before.is_emergency {
        return Ok(());
    }
    let mut details = format!(
        "Severity rose from {} to {}.",
        before.severity, after.severity
    );
    if let Some(reason) = &after.severity_reason {
        details.push_str(&format!(" {reason}."));
    }
    let (tenant, now) = (tx.tenant_number(), tx.now());
    entry::add(
        tx,
        tenant,
        &after.id,
        now,
        (What::SeverityRaised, &Actor::system(), &details),
    )
}

/// Takes over what a cluster says. Severity only rises.
pub(super) fn take_in(incident: &mut Incident, cluster: &Cluster) {
    let severity = Severity::from(cluster.severity);
    if severity.outweighs(incident.severity) {
        incident.severity = severity;
    }
    incident.alarm_count = incident.alarm_count.max(cluster.alarm_count);
    incident
        .root_entity_id
        .clone_from(&cluster.root_cause_entity_id);
    incident.confidence = Some(cluster.confidence).filter(|c| c.is_finite());
    let mut known: HashSet<String> = incident.entity_ids.iter().cloned().collect();
    for id in &cluster.entity_ids {
        if known.insert(id.clone()) {
            incident.entity_ids.push(id.clone());
        }
    }
}

/// Makes an incident critical for good, where a rule says so.
pub(super) fn force(incident: &mut Incident, rule: Option<String>) {
    if let Some(rule) = rule {
        incident.is_emergency = true;
        incident.severity = Severity::Critical;
        incident.severity_reason = Some(rule);
    }
}

/// As [`emergency_of`] for a cluster that has just been published: what is stored was asked then.
fn emergency_in(
    conn: &mut Conn,
    tenant: i64,
    cluster: &Cluster,
) -> Result<Option<String>, DbError> {
    if cluster.is_emergency_service {
        return emergency_of(conn, tenant, cluster);
    }
    let mut ids = cluster.entity_ids.iter();
    Ok(ids.find_map(|id| emergency_rule(id, None, None)))
}

/// Why an emergency service has an alarm in a cluster, where one has.
pub(super) fn emergency_of(
    conn: &mut Conn,
    tenant: i64,
    cluster: &Cluster,
) -> Result<Option<String>, DbError> {
    let ids = refs(&cluster.entity_ids);
    if let Some(rule) = ids.iter().find_map(|id| emergency_rule(id, None, None)) {
        return Ok(Some(rule));
    }
    for stored in entity::store::many(conn, tenant, &ids)? {
        let external = stored.external_id.as_deref();
        let rule = emergency_rule(&stored.id, external, stored.entity_type.as_deref());
        if rule.is_some() {
            return Ok(rule);
        }
    }
    let by_alarm = store::emergency_alarm(conn, tenant, &cluster.alarm_ids)?;
    if by_alarm.is_some() {
        return Ok(by_alarm);
    }
    let told = "an emergency service has an alarm in the cluster";
    Ok(cluster.is_emergency_service.then(|| told.to_owned()))
}

fn refs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}
