//! What clusters and clears do to incidents, inside of the transaction that brings those.

use tidings_core::db::{Conn, DbError};
use tidings_core::event::EventId;
use tidings_core::log::Tx;

use super::entry::{self, What};
use super::{Actor, Incident, Mark, SYSTEM, Severity, Status, count, store, tell};
use crate::Config;
use crate::cluster::Cluster;
use crate::entity::{self, emergency_rule};

/// Opens the incident of a published cluster and gives its id: one a cluster, however often this is called. None where the
/// cluster is too mild or too small.
pub fn open_for_cluster(
    tx: &mut Tx<'_>,
    config: &Config,
    cluster: &Cluster,
) -> Result<Option<String>, DbError> {
    let tenant = tx.tenant_number();
    if let Some(stands) = store::of_cluster(tx, tenant, &cluster.cluster_id)? {
        return Ok(Some(stands.id));
    }
    let is_severe = cluster.severity >= config.incident_min_severity;
    let is_worth_it = is_severe && cluster.alarm_count >= config.incident_min_alarms;
    let emergency = emergency_of(tx, tenant, cluster)?;
    // An emergency is critical, whatever its alarms say; what is too small is too small all the same.
    if !is_worth_it && (emergency.is_none() || cluster.alarm_count < config.incident_min_alarms) {
        return Ok(None);
    }
    let now = tx.now();
    let title = format!("Auto-created incident from cluster {}", cluster.cluster_id);
    let severity = Severity::from(cluster.severity);
    let mut incident = Incident::new(EventId::random(now).to_string(), title, severity, now);
    incident.cluster_id = Some(cluster.cluster_id.clone());
    incident.entity_id.clone_from(&cluster.root_cause_entity_id);
    if let Some(root) = &cluster.root_cause_entity_id {
        let root = entity::store::get(tx, tenant, root)?;
        incident.entity_external_id = root.and_then(|e| e.external_id);
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
    settle(tx, config, &mut incident)?;
    Ok(Some(incident.id))
}

/// Brings the incident of a cluster up to what the cluster is now, or opens it where only now it is worth it. One that is
/// over stays as it is.
pub fn update_for_cluster(
    tx: &mut Tx<'_>,
    config: &Config,
    cluster: &Cluster,
) -> Result<Option<String>, DbError> {
    let tenant = tx.tenant_number();
    let Some(mut incident) = store::of_cluster(tx, tenant, &cluster.cluster_id)? else {
        return open_for_cluster(tx, config, cluster);
    };
    if incident.status.is_over() {
        return Ok(Some(incident.id));
    }
    let before = incident.clone();
    let known: std::collections::HashSet<&str> =
        before.alarm_ids.iter().map(String::as_str).collect();
    let new = cluster
        .alarm_ids
        .iter()
        .map(String::as_str)
        .filter(|id| !known.contains(id));
    let new: Vec<&str> = new.collect();
    take_in(&mut incident, cluster);
    if !incident.is_emergency {
        let emergency = emergency_of(tx, tenant, cluster)?;
        force(&mut incident, emergency);
    }
    if incident == before && new.is_empty() {
        return Ok(Some(incident.id));
    }
    let (now, actor) = (tx.now(), Actor::system());
    incident.touch(now);
    store::save(tx, tenant, &incident)?;
    store::add_alarms(tx, tenant, &incident.id, &new)?;
    let joined = incident.alarm_count.saturating_sub(before.alarm_count);
    if joined > 0 || !new.is_empty() {
        let details = format!(
            "{} joined; {} now.",
            count(joined, "alarm", "alarms"),
            incident.alarm_count
        );
        entry::add(
            tx,
            tenant,
            &incident.id,
            now,
            (What::AlarmsJoined, &actor, &details),
        )?;
    }
    note_severity(tx, &before, &incident)?;
    tell::updated(tx, &incident, "alarms_joined", &actor)?;
    settle(tx, config, &mut incident)?;
    Ok(Some(incident.id))
}

/// Clusters have become part of another: so do their incidents, each with a pointer to the one that stays. Incidents that
/// are over stay as they are.
pub fn merge_for_clusters(
    tx: &mut Tx<'_>,
    config: &Config,
    into: &Cluster,
    from_ids: &[&str],
) -> Result<(), DbError> {
    let tenant = tx.tenant_number();
    for from in from_ids {
        let Some(gone) = store::of_cluster(tx, tenant, from)? else {
            continue;
        };
        if gone.status.is_over() {
            continue;
        }
        match store::of_cluster(tx, tenant, &into.cluster_id)? {
            Some(target) if !target.status.is_over() => merge(tx, target, gone)?,
            // What goes on has an incident that is over: the one that is not keeps its own.
            Some(_) => {}
            None => hand_over(tx, gone, into)?,
        }
    }
    update_for_cluster(tx, config, into).map(drop)
}

/// Puts an incident into another.
fn merge(tx: &mut Tx<'_>, mut target: Incident, mut gone: Incident) -> Result<(), DbError> {
    let (tenant, now, actor) = (tx.tenant_number(), tx.now(), Actor::system());
    let before = target.clone();
    if gone.severity.outweighs(target.severity) {
        target.severity = gone.severity;
        target.severity_reason.clone_from(&gone.severity_reason);
    }
    if gone.is_emergency && !target.is_emergency {
        force(&mut target, gone.severity_reason.clone());
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
    store::save(tx, tenant, &target)?;
    store::add_alarms(tx, tenant, &target.id, &refs(&gone.alarm_ids))?;
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
    note_severity(tx, &before, &target)?;
    tell::updated(tx, &gone, "merged", &actor)?;
    tell::updated(tx, &target, "merged", &actor)
}

/// Lets an incident go on with the cluster that its own has become part of, and that has none.
fn hand_over(tx: &mut Tx<'_>, mut incident: Incident, into: &Cluster) -> Result<(), DbError> {
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
    )
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
    let mut known: std::collections::HashSet<String> =
        incident.entity_ids.iter().cloned().collect();
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
