//! Correlation on demand: of what is stored, or of what is given. Nothing is stored, and nothing is opened.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tidings_core::clock::Timestamp;
use tidings_core::tenant::Tenant;

use super::{Cluster, Edge};
use crate::correlate::{self, Occurrence, Rules, correlate};
use crate::entity::{self, emergency_rule};
use crate::ingest::{Context, native};
use crate::topology::Topology;
use crate::{Alarms, Error, Invalid, Perceived, Severity, alarm, reading};

/// Occurrences that one request may correlate: what an answer may cost.
const MOST: usize = 200_000;

/// An occurrence, and what a cluster says of it.
struct Given {
    occurrence: Occurrence,
    alarm_id: String,
    entity_external_id: Option<String>,
    severity: Severity,
}

/// What is asked for.
pub struct Demand {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    alarms: Option<Vec<Given>>,
}

impl std::fmt::Debug for Demand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Demand")
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// The cluster that began first at the front.
    pub clusters: Vec<Cluster>,
    /// Occurrences in them.
    pub alarm_count: usize,
    /// How many fewer things there are to look at, in per cent.
    pub noise_reduction_pct: f64,
}

impl Demand {
    /// Reads `{"from"?,"to"?,"alarms"?}`. Clears among the alarms are passed over.
    pub fn read(value: Value, context: Context<'_>) -> Result<Self, Error> {
        reading::object(value, |r| {
            let (from, to) = (r.optional_time("from"), r.optional_time("to"));
            let alarms = r.optional_objects("alarms", MOST, |r| {
                let id = r.text("id");
                let given = native::alarm(r, context)?;
                let id = id?;
                let Perceived::Raised(severity) = given.perceived else {
                    return Some(None);
                };
                Some(Some(Given {
                    alarm_id: id.clone(),
                    entity_external_id: given.entity_external_id,
                    severity,
                    occurrence: Occurrence {
                        event_id: id,
                        entity_id: given.identity.entity_id,
                        alarm_type: given.identity.alarm_type,
                        raised_at: given.at,
                    },
                }))
            });
            let alarms = alarms.map(|all| all.into_iter().flatten().collect::<Vec<_>>());
            Some(Self { from, to, alarms })
        })
    }
}

impl Alarms {
    /// Correlates what is given, or what is stored of a time.
    pub async fn correlate(&self, tenant: &Tenant, demand: Demand) -> Result<Answer, Error> {
        let (from, to) = (demand.from, demand.to);
        let is_within =
            move |at: Timestamp| from.is_none_or(|from| at >= from) && to.is_none_or(|to| at < to);
        let mut given = match demand.alarms {
            Some(given) => given,
            None => self.stored(tenant, from, to).await?,
        };
        given.retain(|g| is_within(g.occurrence.raised_at));
        // The same id twice is the same occurrence.
        let mut seen = HashSet::new();
        given.retain(|g| seen.insert(g.occurrence.event_id.clone()));
        let (given, topology) = (Arc::new(given), self.topology(tenant).await?);
        let (number, of) = (self.log.tenant(tenant).await?.number, given.clone());
        let facts = self.log.db().read(move |conn| {
            let mut entities: Vec<&str> =
                of.iter().map(|g| g.occurrence.entity_id.as_str()).collect();
            entities.sort_unstable();
            entities.dedup();
            let stored = entity::store::many(conn, number, &entities)?;
            let mut ids: Vec<&str> = of.iter().map(|g| g.alarm_id.as_str()).collect();
            ids.sort_unstable();
            ids.dedup();
            let alarms = alarm::store::many(conn, number, ids)?;
            let is_emergency = |e: &entity::Entity| {
                emergency_rule(&e.id, e.external_id.as_deref(), e.entity_type.as_deref()).is_some()
            };
            let emergencies: HashSet<String> = stored
                .into_iter()
                .filter(is_emergency)
                .map(|e| e.id)
                .collect();
            Ok((emergencies, alarms))
        });
        let (emergencies, alarms) = facts.await?;
        let open: HashSet<String> = alarms
            .into_iter()
            .filter(|(_, a)| a.condition == alarm::Condition::Raised)
            .map(|(id, _)| id)
            .collect();
        let rules = Rules {
            type_rule: self.config.type_rule,
        };
        let work = move || answer(&given, &topology, &rules, &emergencies, &open);
        let answer = tokio::task::spawn_blocking(work).await;
        answer.map_err(|e| Error::Unavailable(tidings_core::db::DbError::Fault(e.to_string())))
    }

    async fn stored(
        &self,
        tenant: &Tenant,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<Vec<Given>, Error> {
        let number = self.log.tenant(tenant).await?.number;
        let (from, to) = (
            from.unwrap_or(Timestamp::from_micros(i64::MIN)),
            to.unwrap_or(Timestamp::from_micros(i64::MAX)),
        );
        let rows = self
            .log
            .db()
            .read(move |conn| alarm::store::raises(conn, number, from, to, MOST + 1))
            .await?;
        if rows.len() > MOST {
            let message =
                format!("more than {MOST} occurrences; ask for a shorter time by from and to");
            return Err(Invalid::member("from", "too_long", message).into());
        }
        let given = rows.into_iter().map(|(row, identity)| Given {
            alarm_id: row.alarm_id,
            entity_external_id: None,
            severity: row.severity,
            occurrence: Occurrence {
                event_id: row.event_id,
                entity_id: identity.entity_id,
                alarm_type: identity.alarm_type,
                raised_at: row.raised_at,
            },
        });
        Ok(given.collect())
    }
}

fn answer(
    given: &[Given],
    topology: &Topology,
    rules: &Rules,
    emergencies: &HashSet<String>,
    open: &HashSet<String>,
) -> Answer {
    let occurrences: Vec<Occurrence> = given.iter().map(|g| g.occurrence.clone()).collect();
    let found = correlate(&occurrences, topology, rules);
    let clusters: Vec<Cluster> = found
        .into_iter()
        .map(|cluster| shown(given, cluster, emergencies, open))
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "counts of alarms")]
    let (raw, left) = (given.len() as f64, clusters.len() as f64);
    let reduction = if given.is_empty() {
        0.0
    } else {
        (raw - left) / raw * 100.0
    };
    Answer {
        clusters,
        alarm_count: given.len(),
        noise_reduction_pct: (reduction * 100.0).round() / 100.0,
    }
}

fn shown(
    given: &[Given],
    cluster: correlate::Cluster,
    emergencies: &HashSet<String>,
    open: &HashSet<String>,
) -> Cluster {
    let members: Vec<&Given> = cluster
        .members
        .iter()
        .map(|&i| &given[i as usize])
        .collect();
    let id = |i: u32| given[i as usize].occurrence.event_id.clone();
    let times = || members.iter().map(|g| g.occurrence.raised_at);
    let distinct = |of: &dyn Fn(&Given) -> String| {
        let mut known = HashSet::new();
        let all = members.iter().map(|g| of(g));
        all.filter(|id| known.insert(id.clone()))
            .collect::<Vec<String>>()
    };
    let alarm_ids = distinct(&|g| g.alarm_id.clone());
    let is_emergency = members.iter().any(|g| {
        let id = &g.occurrence.entity_id;
        emergencies.contains(id)
            || emergency_rule(id, g.entity_external_id.as_deref(), None).is_some()
    });
    let severity = members
        .iter()
        .map(|g| g.severity)
        .max()
        .unwrap_or(Severity::Indeterminate);
    Cluster {
        // Of this answer alone: nothing is stored under it.
        cluster_id: members
            .first()
            .map(|g| g.occurrence.event_id.clone())
            .unwrap_or_default(),
        alarm_count: members.len() as u64,
        open_alarm_count: alarm_ids.iter().filter(|id| open.contains(*id)).count() as u64,
        event_ids: cluster.members.iter().map(|&i| id(i)).collect(),
        entity_ids: distinct(&|g| g.occurrence.entity_id.clone()),
        alarm_ids,
        root_cause_entity_id: Some(cluster.root),
        confidence: cluster.confidence,
        severity: if is_emergency {
            Severity::Critical
        } else {
            severity
        },
        is_emergency_service: is_emergency,
        started_at: times().min().unwrap_or_default(),
        ended_at: times().max().unwrap_or_default(),
        edges: cluster
            .edges
            .iter()
            .map(|e| Edge {
                from: id(e.from),
                to: id(e.to),
                rule: e.link.as_str().to_owned(),
                seconds: e.seconds,
            })
            .collect(),
        merged_into: None,
        continues: None,
    }
}
