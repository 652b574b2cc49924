//! Retention: takes the oldest events of each topic once its rule's age, count or bytes are passed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::store::{count, key, number_of, seq_of};
use super::{Log, TenantLog, WriteError};
use crate::clock::Timestamp;
use crate::cursor::Seq;
use crate::db::{Conn, DbError};
use crate::retention::{Keep, TopicRules};

/// Events that one transaction removes at most, so that publishers never wait long.
const CHUNK: usize = 1_000;
/// How far behind the head an emptied topic's mark is folded into the tenant's own.
const FORGET_AFTER: Seq = 100_000;

struct Held {
    topic: String,
    rule: usize,
    events: u64,
    bytes: u64,
}

struct Old {
    key: i64,
    topic: String,
    bytes: i64,
}

/// Removes what is past its time, chunk by chunk. Says how many events went.
pub(super) async fn run(log: &Log) -> Result<u64, WriteError<DbError>> {
    let now = log.clock().now();
    let mut removed = 0;
    // Until then the database does not know all that topics hold.
    log.flush().await;
    for tenant in log.tenants() {
        loop {
            let (of, rules) = (tenant.clone(), log.rules().clone());
            let old = log
                .db()
                .read(move |conn| find(conn, &of, &rules, now))
                .await
                .map_err(WriteError::Unavailable)?;
            let is_last = old.len() < CHUNK;
            removed += old.len() as u64;
            let of = tenant.clone();
            if !old.is_empty() {
                log.maintain(move |conn| remove(conn, &of, &old))
                    .await
                    .map_err(WriteError::Unavailable)?;
            }
            if is_last {
                break;
            }
        }
    }
    let kept_from = now.minus(log.idempotency_ttl()).as_micros();
    log.maintain(move |conn| {
        conn.execute(
            "DELETE FROM idempotency WHERE stored_at < $1",
            &[kept_from.into()],
        )
    })
    .await
    .map_err(WriteError::Unavailable)?;
    Ok(removed)
}

/// The oldest events that a tenant's rules no longer keep, at most a chunk.
fn find(
    conn: &mut Conn,
    log: &TenantLog,
    rules: &TopicRules,
    now: Timestamp,
) -> Result<Vec<Old>, DbError> {
    let held = conn.rows(
        "SELECT topic, events, bytes FROM topics WHERE tenant = $1 AND events > 0",
        &[log.number.into()],
        |row| {
            let topic = row.text(0)?.to_owned();
            Ok(Held {
                rule: rules.number(&topic),
                topic,
                events: count(row.int(1)?),
                bytes: count(row.int(2)?),
            })
        },
    )?;
    let mut old = Vec::new();
    let mut numbers: Vec<usize> = held.iter().map(|h| h.rule).collect();
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        let Keep::Durable {
            max_age,
            max_count,
            max_bytes,
        } = rules.keep(number)
        else {
            continue;
        };
        let topics: Vec<&Held> = held.iter().filter(|h| h.rule == number).collect();
        if let Some(age) = max_age {
            let before = now.minus(age).as_micros();
            for held in &topics {
                oldest(
                    conn,
                    log,
                    &held.topic,
                    before,
                    CHUNK.saturating_sub(old.len()),
                    &mut old,
                )?;
            }
        }
        let too_many = max_count.map_or(0, |max| {
            topics
                .iter()
                .map(|h| h.events)
                .sum::<u64>()
                .saturating_sub(max)
        });
        let too_big = max_bytes.map_or(0, |max| {
            topics
                .iter()
                .map(|h| h.bytes)
                .sum::<u64>()
                .saturating_sub(max)
        });
        if too_many > 0 || too_big > 0 {
            excess(conn, log, &topics, too_many, too_big, &mut old)?;
        }
    }
    old.sort_unstable_by_key(|o| o.key);
    old.dedup_by_key(|o| o.key);
    old.truncate(CHUNK);
    Ok(old)
}

fn oldest(
    conn: &mut Conn,
    log: &TenantLog,
    topic: &str,
    before: i64,
    limit: usize,
    old: &mut Vec<Old>,
) -> Result<(), DbError> {
    const SQL: &str = "SELECT key, CAST(OCTET_LENGTH(json) AS BIGINT), stored_at FROM events \
                       WHERE topic = $1 AND key > $2 AND key <= $3 ORDER BY key LIMIT $4";
    let params = [
        topic.into(),
        key(log.number, 0).into(),
        key(log.number, Seq::MAX).into(),
        number_of(limit).into(),
    ];
    conn.each(SQL, &params, |row| {
        if row.int(2)? >= before {
            return Ok(std::ops::ControlFlow::Break(()));
        }
        old.push(Old {
            key: row.int(0)?,
            topic: topic.to_owned(),
            bytes: row.int(1)?,
        });
        Ok(std::ops::ControlFlow::Continue(()))
    })
}

/// The oldest events of several topics together, until so many and so many bytes are covered.
fn excess(
    conn: &mut Conn,
    log: &TenantLog,
    topics: &[&Held],
    too_many: u64,
    too_big: u64,
    old: &mut Vec<Old>,
) -> Result<(), DbError> {
    let mut candidates = Vec::new();
    for held in topics {
        oldest(conn, log, &held.topic, i64::MAX, CHUNK, &mut candidates)?;
    }
    candidates.sort_unstable_by_key(|o| o.key);
    let (mut events, mut bytes) = (0, 0);
    for candidate in candidates {
        if events >= too_many && bytes >= too_big {
            break;
        }
        events += 1;
        bytes += count(candidate.bytes);
        old.push(candidate);
    }
    Ok(())
}

fn remove(conn: &mut Conn, log: &Arc<TenantLog>, old: &[Old]) -> Result<(), DbError> {
    let newest = old.iter().map(|o| seq_of(o.key)).max().unwrap_or(0);
    // Announced before it is gone: a reader that finds nothing asks again whether it should have.
    log.trimmed.fetch_max(newest, Ordering::AcqRel);
    for event in old {
        conn.execute("DELETE FROM events WHERE key = $1", &[event.key.into()])?;
        conn.execute("DELETE FROM event_ids WHERE key = $1", &[event.key.into()])?;
        let seq = i64::try_from(seq_of(event.key)).unwrap_or(i64::MAX);
        conn.execute(
            "UPDATE topics SET events = events - 1, bytes = bytes - $1, trimmed = CASE WHEN trimmed < $2 THEN $2 ELSE trimmed END \
             WHERE tenant = $3 AND topic = $4",
            &[event.bytes.into(), seq.into(), log.number.into(), (&event.topic).into()],
        )?;
    }
    let forget = i64::try_from(log.head().saturating_sub(FORGET_AFTER)).unwrap_or(0);
    conn.execute(
        "UPDATE tenants SET trimmed = (SELECT COALESCE(MAX(p.trimmed), 0) FROM topics p WHERE p.tenant = $1 AND p.events = 0 AND p.trimmed < $2) \
         WHERE number = $1 AND trimmed < \
         (SELECT COALESCE(MAX(p.trimmed), 0) FROM topics p WHERE p.tenant = $1 AND p.events = 0 AND p.trimmed < $2)",
        &[log.number.into(), forget.into()],
    )?;
    conn.execute(
        "DELETE FROM topics WHERE tenant = $1 AND events = 0 AND trimmed < $2",
        &[log.number.into(), forget.into()],
    )?;
    Ok(())
}
