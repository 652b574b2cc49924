//! What the committer writes.

use super::super::ledger::Ledger;
use super::super::{Idempotency, TenantLog};
use super::{count, key, number_of, seq_of};
use crate::clock::Timestamp;
use crate::cursor::Seq;
use crate::db::{Conn, DbError};
use crate::event::{Event, Identity};

/// The same as [`note`], of events that were committed without one.
const COUNT: &str = "INSERT INTO topics (tenant, topic, events, bytes, trimmed) \
     SELECT $1, e.topic, COUNT(*), CAST(SUM(OCTET_LENGTH(e.json)) AS BIGINT), 0 FROM events e \
     WHERE e.key > $2 AND e.key <= $3 GROUP BY e.topic \
     ON CONFLICT (tenant, topic) DO UPDATE SET events = topics.events + excluded.events, bytes = topics.bytes + excluded.bytes";

/// Brings the heads, and what topics hold, up to the last event that is committed. In a transaction of the caller's.
///
/// On PostgreSQL they are written with every commit, and another process may be writing them now.
pub(in crate::log) fn catch_up(conn: &mut Conn) -> Result<(), DbError> {
    if matches!(conn, Conn::Postgres(_)) {
        return Ok(());
    }
    let noted = conn.rows("SELECT number, head FROM tenants", &[], |row| {
        Ok((row.int(0)?, count(row.int(1)?)))
    })?;
    for (number, head) in noted {
        let Some(last) = last_after(conn, number, head)? else {
            continue;
        };
        let bounds = [key(number, head).into(), key(number, Seq::MAX).into()];
        conn.execute(COUNT, &[number.into(), bounds[0], bounds[1]])?;
        let last = i64::try_from(last).unwrap_or(i64::MAX);
        conn.execute(
            "UPDATE tenants SET head = $1 WHERE number = $2",
            &[last.into(), number.into()],
        )?;
    }
    Ok(())
}

/// The place of a tenant's last event, where that lies beyond `head`.
pub(super) fn last_after(conn: &mut Conn, number: i64, head: Seq) -> Result<Option<Seq>, DbError> {
    let last = conn.row(
        "SELECT MAX(key) FROM events WHERE key > $1 AND key <= $2",
        &[key(number, head).into(), key(number, Seq::MAX).into()],
        |row| row.opt_int(0),
    )?;
    Ok(last.flatten().map(seq_of))
}

/// Writes down what topics hold and how far the logs have come. Fails where somebody else has moved a head.
pub(in crate::log) fn note(conn: &mut Conn, ledger: &Ledger) -> Result<(), DbError> {
    // Sorted, so that two processes that touch the same rows cannot wait for each other.
    let mut held: Vec<_> = ledger
        .held
        .iter()
        .map(|((number, topic), (events, bytes))| (*number, topic.as_str(), *events, *bytes))
        .collect();
    held.sort_unstable();
    match conn {
        Conn::Sqlite(it) => it.insert(
            "INSERT INTO topics (tenant, topic, events, bytes, trimmed) VALUES (?1, ?2, ?3, ?4, 0) \
             ON CONFLICT (tenant, topic) DO UPDATE SET events = events + excluded.events, bytes = bytes + excluded.bytes",
            held.iter().copied(),
        ),
        Conn::Postgres(it) => {
            let numbers: Vec<i64> = held.iter().map(|h| h.0).collect();
            let topics: Vec<&str> = held.iter().map(|h| h.1).collect();
            let events: Vec<i64> = held.iter().map(|h| h.2).collect();
            let bytes: Vec<i64> = held.iter().map(|h| h.3).collect();
            it.execute_arrays(
                "INSERT INTO topics (tenant, topic, events, bytes, trimmed) \
                 SELECT *, 0 FROM UNNEST($1::bigint[], $2::text[], $3::bigint[], $4::bigint[]) \
                 ON CONFLICT (tenant, topic) DO UPDATE SET events = topics.events + excluded.events, bytes = topics.bytes + excluded.bytes",
                &[&numbers, &topics, &events, &bytes],
            )
        }
    }?;
    let mut moves: Vec<_> = ledger.moves.iter().collect();
    moves.sort_unstable();
    for (number, (from, to)) in moves {
        let [from, to] = [from, to].map(|seq| i64::try_from(*seq).unwrap_or(i64::MAX));
        let changed = conn.execute(
            "UPDATE tenants SET head = $1 WHERE number = $2 AND head = $3",
            &[to.into(), (*number).into(), from.into()],
        )?;
        if changed != 1 {
            return Err(DbError::Unavailable(
                "another process has written to this log".into(),
            ));
        }
    }
    Ok(())
}

/// An event with its key, ready to be inserted.
#[derive(Debug)]
pub(in crate::log) struct NewRow {
    pub(in crate::log) key: i64,
    pub(in crate::log) number: i64,
    pub(in crate::log) stored_at: Timestamp,
    pub(in crate::log) event: Event,
}

impl NewRow {
    /// An event at a place in a tenant's log.
    pub(in crate::log) fn new(
        log: &TenantLog,
        seq: Seq,
        stored_at: Timestamp,
        event: Event,
    ) -> Self {
        Self {
            key: key(log.number, seq),
            number: log.number,
            stored_at,
            event,
        }
    }
}

/// Stores events and their ids.
pub(in crate::log) fn insert(conn: &mut Conn, rows: &[NewRow]) -> Result<(), DbError> {
    insert_events(conn, rows)?;
    insert_ids(conn, rows)
}

fn insert_events(conn: &mut Conn, rows: &[NewRow]) -> Result<(), DbError> {
    match conn {
        Conn::Sqlite(it) => it.insert(
            "INSERT INTO events (key, topic, type, stored_at, data_at, json) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            rows.iter().map(|r| {
                let event = &r.event;
                (r.key, event.topic.as_str(), event.kind.as_str(), r.stored_at.as_micros(), number_of(event.data_at), &*event.json)
            }),
        ),
        Conn::Postgres(it) => {
            let keys: Vec<i64> = rows.iter().map(|r| r.key).collect();
            let topics: Vec<&str> = rows.iter().map(|r| r.event.topic.as_str()).collect();
            let kinds: Vec<&str> = rows.iter().map(|r| r.event.kind.as_str()).collect();
            let stored_ats: Vec<i64> = rows.iter().map(|r| r.stored_at.as_micros()).collect();
            let data_ats: Vec<i64> = rows.iter().map(|r| number_of(r.event.data_at)).collect();
            let jsons: Vec<&str> = rows.iter().map(|r| &*r.event.json).collect();
            it.execute_arrays(
                "INSERT INTO events (key, topic, type, stored_at, data_at, json) \
                 SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])",
                &[&keys, &topics, &kinds, &stored_ats, &data_ats, &jsons],
            )
        }
    }
}

fn insert_ids(conn: &mut Conn, rows: &[NewRow]) -> Result<(), DbError> {
    let given: Vec<(&NewRow, &Identity)> = rows
        .iter()
        .filter_map(|r| Some((r, r.event.identity.as_ref()?)))
        .collect();
    if given.is_empty() {
        return Ok(());
    }
    match conn {
        Conn::Sqlite(it) => it.insert(
            "INSERT INTO event_ids (tenant, source, id, key, content) VALUES (?1, ?2, ?3, ?4, ?5)",
            given.iter().map(|(r, i)| {
                (
                    r.number,
                    i.source.as_str(),
                    r.event.id.as_str(),
                    r.key,
                    i.content.as_str(),
                )
            }),
        ),
        Conn::Postgres(it) => {
            let numbers: Vec<i64> = given.iter().map(|(r, _)| r.number).collect();
            let sources: Vec<&str> = given.iter().map(|(_, i)| i.source.as_str()).collect();
            let ids: Vec<&str> = given.iter().map(|(r, _)| r.event.id.as_str()).collect();
            let keys: Vec<i64> = given.iter().map(|(r, _)| r.key).collect();
            let contents: Vec<&str> = given.iter().map(|(_, i)| i.content.as_str()).collect();
            it.execute_arrays(
                "INSERT INTO event_ids (tenant, source, id, key, content) \
                 SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[])",
                &[&numbers, &sources, &ids, &keys, &contents],
            )
        }
    }
}

/// The key and content of an id that stands already.
pub(in crate::log) fn find_id(
    conn: &mut Conn,
    number: i64,
    source: &str,
    id: &str,
) -> Result<Option<(i64, String)>, DbError> {
    conn.row(
        "SELECT key, content FROM event_ids WHERE tenant = $1 AND source = $2 AND id = $3",
        &[number.into(), source.into(), id.into()],
        |row| Ok((row.int(0)?, row.text(1)?.to_owned())),
    )
}

/// The request digest and the answer that an idempotency key stands for.
pub(in crate::log) fn find_answer(
    conn: &mut Conn,
    number: i64,
    subject: &str,
    key: &str,
) -> Result<Option<(String, String)>, DbError> {
    conn.row(
        "SELECT request, answer FROM idempotency WHERE tenant = $1 AND subject = $2 AND key = $3",
        &[number.into(), subject.into(), key.into()],
        |row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned())),
    )
}

/// Keeps the answer of a request with an idempotency key.
pub(in crate::log) fn keep_answer(
    conn: &mut Conn,
    log: &TenantLog,
    subject: &str,
    asked: &Idempotency,
    answer: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    conn.execute(
        "INSERT INTO idempotency (tenant, subject, key, request, answer, stored_at) VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            log.number.into(),
            subject.into(),
            (&asked.key).into(),
            (&asked.request).into(),
            answer.into(),
            now.as_micros().into(),
        ],
    )?;
    Ok(())
}
