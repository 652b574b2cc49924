//! How well a network operations centre does. Pure over facts; what they do not support is none, never a guess.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use serde_json::{Value, json};
use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError};
use tidings_core::tenant::Tenant;

use crate::incident::Severity;
use crate::{Alarms, Error, cluster};

/// How far back a scorecard looks where nobody says.
pub const DAYS: u64 = 30;
/// How old the newest incident must be for the old path to look at the data's own range instead.
const STALE: std::time::Duration = std::time::Duration::from_secs(86_400);
const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// When what happened to an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// How bad.
    pub severity: Severity,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When somebody took it on.
    pub acknowledged_at: Option<Timestamp>,
    /// When the fault was gone.
    pub resolved_at: Option<Timestamp>,
    /// When it was put away.
    pub closed_at: Option<Timestamp>,
    /// Whether it has become part of another: then it counts for nothing.
    pub is_merged: bool,
}

/// One raise or clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Of which alarm.
    pub alarm_id: String,
    /// Where.
    pub entity_id: String,
    /// When.
    pub at: Timestamp,
    /// Whether service is affected from then on: raised as critical or major (X.733).
    pub is_down: bool,
}

/// What a scorecard is made from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// From here.
    pub from: Timestamp,
    /// To here, and no further than now.
    pub to: Timestamp,
    /// Every incident that was opened before the end.
    pub incidents: Vec<Course>,
    /// Accepted raises in the window.
    pub alarm_count: u64,
    /// Clusters that began in the window.
    pub cluster_count: u64,
    /// How many entities there are of each type.
    pub entities: BTreeMap<String, u64>,
    /// The type of each entity that ever had an alarm.
    pub types: HashMap<String, String>,
    /// Raises and clears before the end, in order of time.
    pub turns: Vec<Turn>,
}

/// The figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Scorecard {
    /// From here.
    pub from: Timestamp,
    /// To here.
    pub to: Timestamp,
    /// Mean time from opened to acknowledged.
    pub mtta_seconds: Option<f64>,
    /// Mean time from opened to resolved.
    pub mttr_seconds: Option<f64>,
    /// Mean time from opened to closed.
    pub close_seconds: Option<f64>,
    /// Not over at the end, by severity.
    pub open_by_severity: Option<BTreeMap<&'static str, u64>>,
    /// Accepted raises.
    pub alarm_count: Option<u64>,
    /// Clusters.
    pub cluster_count: Option<u64>,
    /// Incidents.
    pub incident_count: Option<u64>,
    /// Those of them that are closed.
    pub closed_count: u64,
    /// How many alarms fewer people see for the clusters, in per cent.
    pub noise_reduction_pct: Option<f64>,
    /// Time without a service-affecting alarm, in per cent, by entity type.
    pub availability: BTreeMap<String, Option<f64>>,
    /// The same over all.
    pub uptime_pct: Option<f64>,
}

impl Scorecard {
    /// Adds the facts up.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let all: Vec<&Course> = facts.incidents.iter().filter(|i| !i.is_merged).collect();
        let opened: Vec<&Course> = all
            .iter()
            .copied()
            .filter(|i| i.created_at >= facts.from)
            .collect();
        let mean_to = |end: fn(&Course) -> Option<Timestamp>| {
            let times = opened
                .iter()
                .filter_map(|i| Some(seconds(i.created_at, end(i)?)));
            mean(&times.collect::<Vec<_>>())
        };
        let is_open = |i: &&&Course| {
            i.resolved_at
                .or(i.closed_at)
                .is_none_or(|at| at >= facts.to)
        };
        let open = (!all.is_empty()).then(|| {
            let mut open: BTreeMap<_, _> = Severity::ALL.iter().map(|s| (s.as_str(), 0)).collect();
            for incident in all.iter().filter(is_open) {
                *open.entry(incident.severity.as_str()).or_default() += 1;
            }
            open
        });
        let has_data = facts.alarm_count > 0 || facts.cluster_count > 0 || !opened.is_empty();
        let counted = |n: u64| has_data.then_some(n);
        let (raw, clusters) = (facts.alarm_count as f64, facts.cluster_count as f64);
        let (availability, uptime_pct) = availability(facts);
        Self {
            from: facts.from,
            to: facts.to,
            mtta_seconds: mean_to(|i| i.acknowledged_at),
            mttr_seconds: mean_to(|i| i.resolved_at),
            close_seconds: mean_to(|i| i.closed_at),
            open_by_severity: open,
            alarm_count: counted(facts.alarm_count),
            cluster_count: counted(facts.cluster_count),
            incident_count: counted(opened.len() as u64),
            closed_count: opened.iter().filter(|i| i.closed_at.is_some()).count() as u64,
            noise_reduction_pct: (facts.alarm_count > 0 && facts.cluster_count > 0)
                .then(|| rounded((raw - clusters) / raw * 100.0, 2)),
            availability,
            uptime_pct,
        }
    }

    /// The outside form.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "from": self.from.to_string(), "to": self.to.to_string(), "mtta_seconds": self.mtta_seconds,
            "mttr_seconds": self.mttr_seconds, "open_by_severity": self.open_by_severity,
            "alarm_count": self.alarm_count, "cluster_count": self.cluster_count,
            "incident_count": self.incident_count, "noise_reduction_pct": self.noise_reduction_pct,
            "availability": self.availability,
        })
    }

    /// The same with what clients of the old path read.
    #[must_use]
    pub fn json_with_old(&self) -> Value {
        let minutes = self.close_seconds.map(|s| rounded(s / 60.0, 1));
        let mut json = self.json();
        let old = json!({
            "pedkai_zone_mttr_minutes": minutes, "avg_mttr": minutes, "non_pedkai_zone_mttr_minutes": null,
            "pedkai_zone_incident_count": self.incident_count.unwrap_or(0),
            "pedkai_zone_closed_count": self.closed_count, "non_pedkai_zone_incident_count": null,
            "improvement_pct": null, "period_start": self.from.to_string(), "period_end": self.to.to_string(),
            "value_protected": {
                "revenue_protected": null, "incidents_prevented": null, "uptime_gained_minutes": null,
                "methodology_doc_url": null, "confidence_interval": null,
            },
            "baseline_status": null, "baseline_note": null, "drift_calibration": null, "uptime_pct": self.uptime_pct,
        });
        if let (Value::Object(json), Value::Object(old)) = (&mut json, old) {
            json.extend(old);
        }
        json
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_secs_f64()
}

fn mean(of: &[f64]) -> Option<f64> {
    (!of.is_empty()).then(|| rounded(of.iter().sum::<f64>() / of.len() as f64, 3))
}

fn rounded(value: f64, places: i32) -> f64 {
    let factor = 10_f64.powi(places);
    (value * factor).round() / factor
}

/// Per cent of time without a service-affecting alarm, by type and over all. A type none of whose entities ever had an
/// alarm is not known to be watched at all.
fn availability(facts: &Facts) -> (BTreeMap<String, Option<f64>>, Option<f64>) {
    let window = seconds(facts.from, facts.to);
    let mut down: BTreeMap<&str, f64> = BTreeMap::new();
    for entity in facts.types.values() {
        down.entry(entity).or_default();
    }
    for (entity, spans) in spans(facts) {
        if let Some(of_type) = facts
            .types
            .get(entity)
            .and_then(|t| down.get_mut(t.as_str()))
        {
            *of_type += united(spans, facts.from, facts.to);
        }
    }
    let pct = |down: f64, entities: u64| {
        let total = window * entities as f64;
        (total > 0.0).then(|| rounded((1.0 - down / total).clamp(0.0, 1.0) * 100.0, 4))
    };
    let of_type = |(kind, entities): (&String, &u64)| {
        let known = down
            .get(kind.as_str())
            .and_then(|down| pct(*down, *entities));
        (kind.clone(), known)
    };
    let watched = facts
        .entities
        .iter()
        .filter(|(kind, _)| down.contains_key(kind.as_str()));
    let (sum, entities) = watched.fold((0.0, 0), |(sum, n), (kind, entities)| {
        (
            sum + down.get(kind.as_str()).copied().unwrap_or(0.0),
            n + entities,
        )
    });
    (
        facts.entities.iter().map(of_type).collect(),
        pct(sum, entities),
    )
}

/// When each entity was down, from the turns of its alarms; what has no end goes on.
fn spans(facts: &Facts) -> HashMap<&str, Vec<(Timestamp, Timestamp)>> {
    let mut since: HashMap<&str, (&str, Timestamp)> = HashMap::new();
    let mut spans: HashMap<&str, Vec<_>> = HashMap::new();
    for turn in &facts.turns {
        let alarm = turn.alarm_id.as_str();
        if turn.is_down {
            since.entry(alarm).or_insert((&turn.entity_id, turn.at));
        } else if let Some((entity, from)) = since.remove(alarm) {
            spans.entry(entity).or_default().push((from, turn.at));
        }
    }
    for (entity, from) in since.into_values() {
        spans.entry(entity).or_default().push((from, facts.to));
    }
    spans
}

/// Seconds that spans cover together inside of a window.
fn united(mut spans: Vec<(Timestamp, Timestamp)>, from: Timestamp, to: Timestamp) -> f64 {
    spans.sort_unstable();
    let (mut covered, mut reached) = (0.0, from);
    for (begin, end) in spans {
        let (begin, end) = (begin.max(reached), end.min(to));
        if end > begin {
            covered += seconds(begin, end);
            reached = end;
        }
    }
    covered
}

impl Alarms {
    /// The scorecard of a window; of the last days where its begin is not said, up to now where its end is not.
    pub async fn scorecard(
        &self,
        tenant: &Tenant,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<Scorecard, Error> {
        let now = self.clock.now();
        let to = to.unwrap_or(now).min(now);
        let from = from.unwrap_or_else(|| to.minus(DAY * u32::try_from(DAYS).unwrap_or(30)));
        let number = self.log.tenant(tenant).await?.number;
        let facts = self
            .log
            .db()
            .read(move |conn| read(conn, number, from, to))
            .await?;
        Ok(Scorecard::of(&facts))
    }

    /// The window that the old path looks at: the last days, or where the newest incident is older than a day, all that
    /// there is.
    pub async fn scorecard_window(
        &self,
        tenant: &Tenant,
    ) -> Result<Option<(Timestamp, Timestamp)>, Error> {
        let number = self.log.tenant(tenant).await?.number;
        let now = self.clock.now();
        let sql = "SELECT MIN(created_at), MAX(created_at), MAX(COALESCE(closed_at, updated_at)) FROM incidents WHERE tenant = $1";
        let range = move |conn: &mut Conn| {
            conn.row(sql, &[number.into()], |row| {
                Ok((row.opt_int(0)?, row.opt_int(1)?, row.opt_int(2)?))
            })
        };
        let range = self.log.db().read(range).await?;
        let Some((Some(first), Some(newest), Some(last))) = range else {
            return Ok(None);
        };
        let [first, newest, last] = [first, newest, last].map(Timestamp::from_micros);
        let is_stale = now.since(newest) > STALE;
        // The end itself is not in the window.
        let end = last.max(newest).plus(std::time::Duration::from_micros(1));
        Ok(is_stale.then_some((first, end)))
    }
}

/// Reads the facts: a constant number of statements.
fn read(conn: &mut Conn, tenant: i64, from: Timestamp, to: Timestamp) -> Result<Facts, DbError> {
    let [begin, end] = [from, to].map(Timestamp::as_micros);
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    let sql = "SELECT severity, created_at, acknowledged_at, resolved_at, closed_at, merged_into FROM incidents \
               WHERE tenant = $1 AND created_at < $2 AND (created_at >= $3 OR COALESCE(resolved_at, closed_at, $2) >= $2)";
    let incidents = conn.rows(sql, &[tenant.into(), end.into(), begin.into()], |row| {
        let time = |at| row.opt_int(at).map(|t| t.map(Timestamp::from_micros));
        let word = row.text(0)?;
        let known = Severity::ALL.into_iter().find(|s| s.as_str() == word);
        Ok(Course {
            severity: known.unwrap_or(Severity::Indeterminate),
            created_at: Timestamp::from_micros(row.int(1)?),
            acknowledged_at: time(2)?,
            resolved_at: time(3)?,
            closed_at: time(4)?,
            is_merged: row.opt_text(5)?.is_some(),
        })
    })?;
    let window = [tenant.into(), begin.into(), end.into()];
    let sql = "SELECT COUNT(*) FROM alarm_occurrences WHERE tenant = $1 AND raised_at >= $2 AND raised_at < $3 AND is_raise = 1";
    let alarm_count = number(conn.row(sql, &window, |row| row.int(0))?.unwrap_or(0));
    let sql = "SELECT entity_type, COUNT(*) FROM entities WHERE tenant = $1 AND entity_type IS NOT NULL GROUP BY entity_type";
    let entities = conn.rows(sql, &[tenant.into()], |row| {
        Ok((row.text(0)?.to_owned(), number(row.int(1)?)))
    })?;
    let sql = "SELECT DISTINCT e.id, e.entity_type FROM entities e JOIN alarms a ON a.tenant = e.tenant AND a.entity_id = e.id \
               WHERE e.tenant = $1 AND e.entity_type IS NOT NULL";
    let types = conn.rows(sql, &[tenant.into()], |row| {
        Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()))
    })?;
    Ok(Facts {
        from,
        to,
        incidents,
        alarm_count,
        cluster_count: cluster::store::number(conn, tenant, from, to)?,
        entities: entities.into_iter().collect(),
        types: types.into_iter().collect(),
        turns: turns(conn, tenant, to)?,
    })
}

/// Raises and clears before a moment, of entities whose type is known, but for those that change nothing.
fn turns(conn: &mut Conn, tenant: i64, to: Timestamp) -> Result<Vec<Turn>, DbError> {
    // CROSS has SQLite begin with the occurrences: they have no index by alarm.
    const SQL: &str = "SELECT o.alarm_id, a.entity_id, o.raised_at, o.is_raise, o.severity FROM alarm_occurrences o \
         CROSS JOIN alarms a CROSS JOIN entities e WHERE o.tenant = $1 AND o.raised_at < $2 AND a.tenant = o.tenant \
         AND a.id = o.alarm_id AND e.tenant = a.tenant AND e.id = a.entity_id AND e.entity_type IS NOT NULL \
         ORDER BY o.raised_at, o.is_raise DESC";
    let mut state: HashMap<String, bool> = HashMap::new();
    let mut turns = Vec::new();
    conn.each(SQL, &[tenant.into(), to.as_micros().into()], |row| {
        let alarm_id = row.text(0)?;
        let is_down = row.int(3)? != 0 && matches!(row.text(4)?, "critical" | "major");
        let was_down = state.get(alarm_id).copied().unwrap_or(false);
        if is_down != was_down {
            state.insert(alarm_id.to_owned(), is_down);
            turns.push(Turn {
                alarm_id: alarm_id.to_owned(),
                entity_id: row.text(1)?.to_owned(),
                at: Timestamp::from_micros(row.int(2)?),
                is_down,
            });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn course(created: i64, acknowledged: Option<i64>, resolved: Option<i64>) -> Course {
        Course {
            severity: Severity::Major,
            created_at: at(created),
            acknowledged_at: acknowledged.map(at),
            resolved_at: resolved.map(at),
            closed_at: None,
            is_merged: false,
        }
    }

    fn turn(alarm: &str, entity: &str, secs: i64, is_down: bool) -> Turn {
        Turn {
            alarm_id: alarm.into(),
            entity_id: entity.into(),
            at: at(secs),
            is_down,
        }
    }

    #[test]
    fn without_data_every_figure_is_none() {
        let facts = Facts {
            to: at(1_000),
            ..Facts::default()
        };
        let json = Scorecard::of(&facts).json_with_old();
        for (name, value) in json.as_object().unwrap() {
            match name.as_str() {
                "from" | "to" | "period_start" | "period_end" => assert!(value.is_string()),
                "availability" => assert_eq!(*value, json!({})),
                "pedkai_zone_incident_count" | "pedkai_zone_closed_count" => {
                    assert_eq!(*value, json!(0));
                }
                "value_protected" => {
                    assert!(value.as_object().unwrap().values().all(Value::is_null));
                }
                _ => assert!(value.is_null(), "{name}: {value}"),
            }
        }
    }

    #[test]
    fn times_are_means_over_what_was_opened_in_the_window() {
        let mut merged = course(200, Some(201), Some(202));
        merged.is_merged = true;
        let mut closed = course(300, Some(310), Some(400));
        closed.closed_at = Some(at(420));
        let facts = Facts {
            from: at(100),
            to: at(1_000),
            incidents: vec![
                course(50, Some(99), None),
                closed,
                course(500, Some(530), None),
                merged,
            ],
            alarm_count: 12,
            cluster_count: 3,
            ..Facts::default()
        };
        let card = Scorecard::of(&facts);
        assert_eq!(
            (card.mtta_seconds, card.mttr_seconds, card.close_seconds),
            (Some(20.0), Some(100.0), Some(120.0))
        );
        assert_eq!(
            (card.alarm_count, card.cluster_count, card.incident_count),
            (Some(12), Some(3), Some(2))
        );
        assert_eq!(card.noise_reduction_pct, Some(75.0));
        let open = card.open_by_severity.unwrap();
        assert_eq!((open["major"], open["critical"]), (2, 0));
    }

    #[test]
    fn availability_unites_what_overlaps_and_knows_nothing_of_what_never_alarmed() {
        let types = [("a", "CELL"), ("b", "CELL"), ("r", "ROUTER")];
        let facts = Facts {
            from: at(0),
            to: at(100),
            entities: [("CELL", 2), ("ROUTER", 1), ("SITE", 4)]
                .map(|(t, n)| (t.to_owned(), n))
                .into(),
            types: types.map(|(e, t)| (e.to_owned(), t.to_owned())).into(),
            turns: vec![
                turn("before", "a", -50, true),
                turn("1", "a", 5, true),
                turn("before", "a", 10, false),
                turn("1", "a", 20, false),
                turn("2", "b", 90, true),
            ],
            ..Facts::default()
        };
        let card = Scorecard::of(&facts);
        assert_eq!(card.availability["CELL"], Some(85.0));
        assert_eq!(card.availability["ROUTER"], Some(100.0));
        assert_eq!(card.availability["SITE"], None);
        assert_eq!(card.uptime_pct, Some(90.0));
    }
}
