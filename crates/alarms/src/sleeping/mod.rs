//! Sleeping cells: entities that carry far less than is usual, or have gone silent, without having raised an alarm.
//!
//! - `baseline`: what is usual
//! - `rule`: whether a series sleeps
//! - `store`: who sleeps, and the samples that tell

mod baseline;
mod rule;
pub mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::Serialize;
use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError};
use tidings_core::event::{EventId, EventType, Json, NewEvent};
use tidings_core::log::Tx;
use tidings_core::tenant::Tenant;
use tidings_core::topic::Topic;

use crate::{Alarms, Error, rows};

pub use baseline::{Point, Usual};
pub use rule::{Cause, Rules, Sleep, Verdict};

/// Changes that one transaction stores, so that publishers never wait long.
const CHUNK: usize = 500;

/// A series, by its entity and metric.
pub type Key = (String, String);

/// A series that sleeps.
#[derive(Debug, Clone, PartialEq)]
pub struct SleepingCell {
    /// Whose.
    pub entity_id: String,
    /// Of what.
    pub metric_name: String,
    /// How.
    pub sleep: Sleep,
    /// When it was noticed.
    pub detected_at: Timestamp,
}

/// What a scan has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Scan {
    /// Series that have fallen asleep.
    pub detected: usize,
    /// Series that are awake again.
    pub recovered: usize,
}

/// What is to be stored of a series.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    /// It has fallen asleep.
    Asleep(Key, Sleep),
    /// It sleeps on, in another way.
    Still(Key, Sleep),
    /// It is awake again: the sample that says so, and since when it slept.
    Awake(Key, Point, Timestamp),
    /// It is not watched any more.
    Forget(Key),
}

#[derive(Serialize)]
struct Head<'a> {
    event_id: &'a str,
    event_type: &'a str,
    tenant_id: &'a str,
    #[serde(serialize_with = "rows::show_time")]
    timestamp: Timestamp,
    entity_id: &'a str,
    metric_name: &'a str,
}

#[derive(Serialize)]
struct Detected {
    z_score: Option<f64>,
    baseline_mean: f64,
    current_value: Option<f64>,
}

#[derive(Serialize)]
struct Recovered {
    current_value: f64,
    slept_seconds: u64,
}

#[derive(Serialize)]
struct Data<'a, T> {
    #[serde(flatten)]
    head: Head<'a>,
    #[serde(flatten)]
    rest: T,
}

impl Alarms {
    /// Judges every watched series of a tenant, and tells of those that have fallen asleep or are awake again. Two
    /// statements read, however many series there are.
    pub async fn scan_sleeping_cells(&self, tenant: &Tenant) -> Result<Scan, Error> {
        let number = self.log().tenant(tenant).await?.number;
        let (config, now) = (self.config().clone(), self.clock().now());
        let rules = Rules {
            min_samples: usize::try_from(config.sleeping_min_samples).unwrap_or(usize::MAX),
            baseline: config.sleeping_baseline,
        };
        let find = move |conn: &mut Conn| {
            let metrics = &config.sleeping_metrics;
            changes(conn, number, metrics, rules, now)
        };
        let mut changes = self.log().db().read(find).await?;
        let mut scan = Scan::default();
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(CHUNK));
            let now = std::mem::replace(&mut changes, rest);
            let written = self.log().write(tenant, move |tx| apply(tx, now)).await?;
            scan.detected += written.value.detected;
            scan.recovered += written.value.recovered;
        }
        Ok(scan)
    }

    /// The series that sleep now, those that were noticed last first.
    pub async fn sleeping_cells(&self, tenant: &Tenant) -> Result<Vec<SleepingCell>, Error> {
        let number = self.log().tenant(tenant).await?.number;
        let read = move |conn: &mut Conn| store::all(conn, number);
        Ok(self.log().db().read(read).await?)
    }
}

/// What the samples say of each watched series, where that is not what stands.
fn changes(
    conn: &mut Conn,
    tenant: i64,
    metrics: &[String],
    rules: Rules,
    now: Timestamp,
) -> Result<Vec<Change>, DbError> {
    let (mut changes, mut before) = (Vec::new(), HashMap::new());
    for cell in store::all(conn, tenant)? {
        let is_watched = metrics.contains(&cell.metric_name);
        let key = (cell.entity_id, cell.metric_name);
        if is_watched {
            before.insert(key, cell.sleep);
        } else {
            changes.push(Change::Forget(key));
        }
    }
    let since = now.minus(rules.baseline.window());
    store::each_series(conn, tenant, metrics, since, |key, points| {
        let before = before.get(key);
        changes.extend(match (rules.judge(points, now, before), before) {
            (Verdict::Asleep(sleep), None) => Some(Change::Asleep(key.clone(), sleep)),
            (Verdict::Asleep(sleep), Some(was)) if sleep != *was => {
                Some(Change::Still(key.clone(), sleep))
            }
            (Verdict::Awake(point), Some(was)) => {
                Some(Change::Awake(key.clone(), point, was.since))
            }
            _ => None,
        });
    })?;
    Ok(changes)
}

/// Stores changes, and appends an event for each that was not stored already.
fn apply(tx: &mut Tx<'_>, changes: Vec<Change>) -> Result<Scan, Error> {
    let (tenant, now) = (tx.tenant_number(), tx.now());
    let (mut scan, mut fallen) = (Scan::default(), Vec::new());
    for change in changes {
        match change {
            Change::Asleep((entity_id, metric_name), sleep) => fallen.push(SleepingCell {
                entity_id,
                metric_name,
                sleep,
                detected_at: now,
            }),
            Change::Still(key, sleep) => store::update(tx, tenant, &key, &sleep)?,
            Change::Forget(key) => {
                store::remove(tx, tenant, &key)?;
            }
            Change::Awake(key, (at, current_value), since) => {
                if store::remove(tx, tenant, &key)? {
                    let slept_seconds = at.since(since).as_secs();
                    let rest = Recovered {
                        current_value,
                        slept_seconds,
                    };
                    append(tx, "sleeping_cell_recovered", &key, rest)?;
                    scan.recovered += 1;
                }
            }
        }
    }
    for cell in store::insert_new(tx, tenant, fallen)? {
        let rest = Detected {
            z_score: cell.sleep.z_score,
            baseline_mean: cell.sleep.usual.mean,
            current_value: cell.sleep.current_value,
        };
        let key = (cell.entity_id, cell.metric_name);
        append(tx, "sleeping_cell_detected", &key, rest)?;
        scan.detected += 1;
    }
    Ok(scan)
}

fn append(tx: &mut Tx<'_>, kind: &str, key: &Key, rest: impl Serialize) -> Result<(), DbError> {
    let fault = |e: &dyn std::fmt::Display| DbError::Fault(format!("no event {kind}: {e}"));
    let id = EventId::random(tx.now());
    let head = Head {
        event_id: id.as_str(),
        event_type: kind,
        tenant_id: tx.tenant().as_str(),
        timestamp: tx.now(),
        entity_id: &key.0,
        metric_name: &key.1,
    };
    let data = Json::encode(&Data { head, rest }).map_err(|e| fault(&e))?;
    let topic = Topic::new("alarms").map_err(|e| fault(&e))?;
    let kind = EventType::new(kind).map_err(|e| fault(&e))?;
    let mut event = NewEvent::new(topic, kind, data);
    event.subject = Some(key.0.clone());
    event.given = Some(id);
    tx.append(event);
    Ok(())
}
