//! Samples in the database: a number for each series, so that a sample's row is small and a series lies together.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError, RowRef};

use super::{Range, Sample};
use crate::entity;
use crate::rows::{among, insert, limit, list, time};

/// Samples that one transaction removes at most, so that publishers never wait long.
const CHUNK: usize = 1_000;

/// The first entity of these samples that is not stored.
pub fn missing(
    conn: &mut Conn,
    tenant: i64,
    samples: &[Sample],
) -> Result<Option<String>, DbError> {
    let known = entity::store::known(conn, tenant, &entities_of(samples))?;
    let known: HashSet<&str> = known.iter().map(String::as_str).collect();
    let mut ids = samples.iter().map(|s| s.entity_id.as_str());
    Ok(ids.find(|id| !known.contains(id)).map(str::to_owned))
}

/// Stores samples; of those with the same entity, metric, time and source, the last one.
pub fn add(conn: &mut Conn, tenant: i64, samples: &[Sample]) -> Result<(), DbError> {
    const INTO: &str = "INSERT INTO kpi_samples (series, at, source, value) VALUES";
    const TAIL: &str = "ON CONFLICT (series, at, source) DO UPDATE SET value = excluded.value";
    let numbers = numbers(conn, tenant, samples)?;
    let mut last = HashMap::with_capacity(samples.len());
    for sample in samples {
        let key = (sample.entity_id.as_str(), sample.metric_name.as_str());
        let number = numbers
            .get(&key)
            .ok_or_else(|| DbError::Fault(format!("no series of {} {}", key.0, key.1)))?;
        let source = sample.source.as_deref().unwrap_or_default();
        last.insert(
            (*number, sample.timestamp.as_micros(), source),
            sample.value,
        );
    }
    // In the table's own order.
    let mut last: Vec<_> = last.into_iter().collect();
    last.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut values = Vec::with_capacity(last.len() * 4);
    for ((number, at, source), value) in last {
        values.extend_from_slice(&[number.into(), at.into(), source.into(), value.into()]);
    }
    insert(conn, (INTO, 4, TAIL), &values, |_| Ok(()))
}

/// The numbers of the samples' series, those that are new among them.
fn numbers<'a>(
    conn: &mut Conn,
    tenant: i64,
    samples: &'a [Sample],
) -> Result<HashMap<(&'a str, &'a str), i64>, DbError> {
    const INTO: &str = "INSERT INTO kpi_series (tenant, entity_id, metric_name) VALUES";
    let mut wanted: Vec<(&str, &str)> = samples
        .iter()
        .map(|s| (s.entity_id.as_str(), s.metric_name.as_str()))
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut stored: HashMap<(String, String), i64> = HashMap::new();
    let sql = format!(
        "SELECT number, entity_id, metric_name FROM kpi_series WHERE tenant = $1 AND entity_id IN {}",
        among(conn, 2)
    );
    let entities = list(&entities_of(samples));
    let mut keep = |row: RowRef<'_>| {
        let key = (row.text(1)?.to_owned(), row.text(2)?.to_owned());
        stored.insert(key, row.int(0)?);
        Ok(())
    };
    conn.each(&sql, &[tenant.into(), (&entities).into()], |row| {
        keep(row)?;
        Ok(ControlFlow::Continue(()))
    })?;
    let key = |(entity, metric): &(&str, &str)| ((*entity).to_owned(), (*metric).to_owned());
    let new = wanted.iter().filter(|w| !stored.contains_key(&key(w)));
    let values: Vec<_> = new
        .flat_map(|(entity, metric)| [tenant.into(), (*entity).into(), (*metric).into()])
        .collect();
    insert(
        conn,
        (INTO, 3, "RETURNING number, entity_id, metric_name"),
        &values,
        |row| {
            let key = (row.text(1)?.to_owned(), row.text(2)?.to_owned());
            stored.insert(key, row.int(0)?);
            Ok(())
        },
    )?;
    let number = |w: &(&'a str, &'a str)| Some((*w, *stored.get(&key(w))?));
    Ok(wanted.iter().filter_map(number).collect())
}

fn entities_of(samples: &[Sample]) -> Vec<&str> {
    let mut ids: Vec<&str> = samples.iter().map(|s| s.entity_id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Gives the samples of a range to `each`, oldest first, until it says no.
pub fn each(
    conn: &mut Conn,
    tenant: i64,
    range: &Range,
    mut each: impl FnMut(Timestamp, f64) -> bool,
) -> Result<(), DbError> {
    const SQL: &str = "SELECT s.at, s.value FROM kpi_samples s WHERE s.series = \
                       (SELECT number FROM kpi_series WHERE tenant = $1 AND entity_id = $2 AND metric_name = $3) \
                       AND s.at >= $4 AND s.at < $5 ORDER BY s.at, s.source";
    let values = [
        tenant.into(),
        (&range.entity_id).into(),
        (&range.metric_name).into(),
        range.from.map_or(i64::MIN, Timestamp::as_micros).into(),
        range.to.map_or(i64::MAX, Timestamp::as_micros).into(),
    ];
    conn.each(SQL, &values, |row| {
        Ok(if each(time(&row, 0)?, row.real(1)?) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        })
    })
}

/// Takes an entity's series away from readers; [`trim`] removes the samples.
pub fn drop_entity(conn: &mut Conn, tenant: i64, entity_id: &str) -> Result<(), DbError> {
    let of = [tenant.into(), entity_id.into()];
    conn.execute(
        "INSERT INTO kpi_dropped (tenant, series) \
         SELECT tenant, number FROM kpi_series WHERE tenant = $1 AND entity_id = $2",
        &of,
    )?;
    conn.execute(
        "DELETE FROM kpi_series WHERE tenant = $1 AND entity_id = $2",
        &of,
    )?;
    Ok(())
}

/// Whether [`trim`] has something to do.
pub fn has_old(conn: &mut Conn, tenant: i64, before: Option<Timestamp>) -> Result<bool, DbError> {
    let dropped = conn.row(
        "SELECT 1 FROM kpi_dropped WHERE tenant = $1 LIMIT 1",
        &[tenant.into()],
        |_| Ok(()),
    )?;
    if dropped.is_some() {
        return Ok(true);
    }
    let Some(before) = before else {
        return Ok(false);
    };
    let old = conn.row(
        "SELECT 1 FROM kpi_series k JOIN kpi_samples s ON s.series = k.number AND s.at < $2 WHERE k.tenant = $1 LIMIT 1",
        &[tenant.into(), before.as_micros().into()],
        |_| Ok(()),
    )?;
    Ok(old.is_some())
}

/// Removes samples of series that were dropped, and those from before a moment: at most a thousand of each. Says how many.
pub fn trim(conn: &mut Conn, tenant: i64, before: Option<Timestamp>) -> Result<u64, DbError> {
    let mut removed = conn.execute(
        "DELETE FROM kpi_samples WHERE (series, at, source) IN (SELECT s.series, s.at, s.source FROM kpi_dropped d \
         JOIN kpi_samples s ON s.series = d.series WHERE d.tenant = $1 LIMIT $2)",
        &[tenant.into(), limit(CHUNK)],
    )?;
    conn.execute(
        "DELETE FROM kpi_dropped WHERE tenant = $1 \
         AND NOT EXISTS (SELECT 1 FROM kpi_samples s WHERE s.series = kpi_dropped.series)",
        &[tenant.into()],
    )?;
    if let Some(before) = before {
        removed += conn.execute(
            "DELETE FROM kpi_samples WHERE (series, at, source) IN (SELECT s.series, s.at, s.source FROM kpi_series k \
             JOIN kpi_samples s ON s.series = k.number AND s.at < $2 WHERE k.tenant = $1 LIMIT $3)",
            &[tenant.into(), before.as_micros().into(), limit(CHUNK)],
        )?;
    }
    Ok(removed)
}
