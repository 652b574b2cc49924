//! Who sleeps, in the database, so that a restart neither repeats nor forgets; and the samples that tell.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError, RowRef, Value};

use super::{Cause, Key, Point, Sleep, SleepingCell, Usual};
use crate::entity;
use crate::rows::{among, insert, list, time};

/// Every series that sleeps, those that were noticed last first.
pub fn all(conn: &mut Conn, tenant: i64) -> Result<Vec<SleepingCell>, DbError> {
    conn.rows(
        "SELECT entity_id, metric_name, cause, since, detected_at, z_score, baseline_mean, baseline_deviation, current_value \
         FROM sleeping_cells WHERE tenant = $1 ORDER BY detected_at DESC, entity_id, metric_name",
        &[tenant.into()],
        |row| {
            let cause = match row.text(2)? {
                "silence" => Cause::Silence,
                _ => Cause::Low,
            };
            let sleep = Sleep {
                cause,
                since: time(&row, 3)?,
                z_score: row.opt_real(5)?,
                usual: Usual {
                    mean: row.real(6)?,
                    deviation: row.real(7)?,
                },
                current_value: row.opt_real(8)?,
            };
            Ok(SleepingCell {
                entity_id: row.text(0)?.to_owned(),
                metric_name: row.text(1)?.to_owned(),
                sleep,
                detected_at: time(&row, 4)?,
            })
        },
    )
}

/// Gives each series of these metrics to `each`, with its samples since a moment, oldest first; one without any is left
/// out. One statement, and one series at a time in memory.
pub fn each_series(
    conn: &mut Conn,
    tenant: i64,
    metrics: &[String],
    since: Timestamp,
    mut each: impl FnMut(&Key, &[Point]),
) -> Result<(), DbError> {
    let sql = format!(
        "SELECT k.number, k.entity_id, k.metric_name, s.at, s.value FROM kpi_series k CROSS JOIN kpi_samples s \
         WHERE k.tenant = $1 AND k.metric_name IN {} AND s.series = k.number AND s.at >= $3 \
         ORDER BY k.entity_id, k.metric_name, s.at",
        among(conn, 2)
    );
    let metrics = list(metrics);
    let values = [tenant.into(), (&metrics).into(), since.as_micros().into()];
    let (mut series, mut points): (Option<(i64, Key)>, Vec<Point>) = (None, Vec::new());
    conn.each(&sql, &values, |row| {
        let number = row.int(0)?;
        if series.as_ref().is_none_or(|(of, _)| *of != number) {
            if let Some((_, key)) = &series {
                each(key, &points);
            }
            points.clear();
            series = Some((number, (row.text(1)?.to_owned(), row.text(2)?.to_owned())));
        }
        points.push((time(&row, 3)?, row.real(4)?));
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some((_, key)) = &series {
        each(key, &points);
    }
    Ok(())
}

/// Stores series that have fallen asleep, if their entities are still there. Gives back those that did not sleep yet.
pub fn insert_new(
    conn: &mut Conn,
    tenant: i64,
    mut cells: Vec<SleepingCell>,
) -> Result<Vec<SleepingCell>, DbError> {
    const INTO: &str = "INSERT INTO sleeping_cells (tenant, entity_id, metric_name, cause, since, detected_at, z_score, \
                        baseline_mean, baseline_deviation, current_value) VALUES";
    const TAIL: &str =
        "ON CONFLICT (tenant, entity_id, metric_name) DO NOTHING RETURNING entity_id, metric_name";
    let ids: Vec<&str> = cells.iter().map(|c| c.entity_id.as_str()).collect();
    let known: HashSet<String> = entity::store::known(conn, tenant, &ids)?
        .into_iter()
        .collect();
    cells.retain(|cell| known.contains(&cell.entity_id));
    let mut values: Vec<Value<'_>> = Vec::with_capacity(cells.len() * 10);
    for cell in &cells {
        values.extend_from_slice(&[
            tenant.into(),
            (&cell.entity_id).into(),
            (&cell.metric_name).into(),
            cell.sleep.cause.as_str().into(),
            cell.sleep.since.as_micros().into(),
            cell.detected_at.as_micros().into(),
            cell.sleep.z_score.into(),
            cell.sleep.usual.mean.into(),
            cell.sleep.usual.deviation.into(),
            cell.sleep.current_value.into(),
        ]);
    }
    let mut new: HashMap<String, HashSet<String>> = HashMap::new();
    insert(conn, (INTO, 10, TAIL), &values, |row: RowRef<'_>| {
        let metrics = new.entry(row.text(0)?.to_owned()).or_default();
        metrics.insert(row.text(1)?.to_owned());
        Ok(())
    })?;
    cells.retain(|c| {
        new.get(&c.entity_id)
            .is_some_and(|m| m.contains(&c.metric_name))
    });
    Ok(cells)
}

/// Stores how a series sleeps now, if it still does.
pub fn update(conn: &mut Conn, tenant: i64, key: &Key, sleep: &Sleep) -> Result<(), DbError> {
    conn.execute(
        "UPDATE sleeping_cells SET cause = $1, z_score = $2, baseline_mean = $3, baseline_deviation = $4, current_value = $5 \
         WHERE tenant = $6 AND entity_id = $7 AND metric_name = $8",
        &[
            sleep.cause.as_str().into(),
            sleep.z_score.into(),
            sleep.usual.mean.into(),
            sleep.usual.deviation.into(),
            sleep.current_value.into(),
            tenant.into(),
            (&key.0).into(),
            (&key.1).into(),
        ],
    )?;
    Ok(())
}

/// Removes a series that is awake. Says whether it slept.
pub fn remove(conn: &mut Conn, tenant: i64, key: &Key) -> Result<bool, DbError> {
    let gone = conn.execute(
        "DELETE FROM sleeping_cells WHERE tenant = $1 AND entity_id = $2 AND metric_name = $3",
        &[tenant.into(), (&key.0).into(), (&key.1).into()],
    )?;
    Ok(gone > 0)
}

/// Removes what is kept of an entity that is gone.
pub fn drop_entity(conn: &mut Conn, tenant: i64, entity_id: &str) -> Result<(), DbError> {
    conn.execute(
        "DELETE FROM sleeping_cells WHERE tenant = $1 AND entity_id = $2",
        &[tenant.into(), entity_id.into()],
    )?;
    Ok(())
}
