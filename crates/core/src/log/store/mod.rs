//! The SQL of the log: keys, tenants and reading here, writing in `write`, taking out again in `redact`.
//!
//! An event's key is its tenant's number and its seq in one integer, so that a tenant's events lie together, in order:
//! any cursor is found in O(log n), and reading on from there is a walk.

mod redact;
mod write;

use std::ops::ControlFlow;
use std::sync::atomic::AtomicU64;

use parking_lot::RwLock;

use super::{Tail, TenantLog};
use crate::cursor::{Epoch, Seq};
use crate::db::{Conn, DbError, RowRef};
use crate::tenant::Tenant;
use crate::topic::Patterns;

pub(super) use redact::{Redaction, adjust, overwrite, redact};
pub(super) use write::{NewRow, catch_up, find_answer, find_id, insert, keep_answer, note};

/// Bits of a key that hold the seq: 2^40 events a tenant, 2^23 tenants.
const SEQ_BITS: u32 = 40;
/// The most bytes of event JSON in one page; at least one event is always taken.
pub const PAGE_BYTES: usize = 1024 * 1024;
/// Rows that one page may look at: a reader of a rare topic gets an empty page and a cursor to go on from.
const SCAN_ROWS: usize = 20_000;
/// Rows asked for in one statement while looking for matches.
const CHUNK_ROWS: usize = 1_000;

/// The key of a place in a tenant's log.
pub(super) fn key(number: i64, seq: Seq) -> i64 {
    (number << SEQ_BITS) | i64::try_from(seq.min((1 << SEQ_BITS) - 1)).unwrap_or(0)
}

pub(super) fn seq_of(key: i64) -> Seq {
    u64::try_from(key & ((1 << SEQ_BITS) - 1)).unwrap_or(0)
}

pub(super) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn number_of(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// An event as a row holds it, while the row is read.
#[derive(Debug, Clone, Copy)]
pub struct LoggedRef<'a> {
    /// Its place.
    pub seq: Seq,
    /// Its topic.
    pub topic: &'a str,
    /// Its type.
    pub kind: &'a str,
    /// Its outside form, whose last member is `data`.
    pub json: &'a str,
    /// Where in `json` the value of `data` begins.
    pub data_at: usize,
}

/// A committed event.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Its place.
    pub seq: Seq,
    /// Its topic.
    pub topic: Box<str>,
    /// Its type.
    pub kind: Box<str>,
    /// Its outside form, whose last member is `data`.
    pub json: Box<str>,
    /// Where in `json` the value of `data` begins.
    pub data_at: usize,
}

impl Logged {
    fn new(row: LoggedRef<'_>) -> Self {
        Self {
            seq: row.seq,
            topic: row.topic.into(),
            kind: row.kind.into(),
            json: row.json.into(),
            data_at: row.data_at,
        }
    }

    fn as_ref(&self) -> LoggedRef<'_> {
        LoggedRef {
            seq: self.seq,
            topic: &self.topic,
            kind: &self.kind,
            json: &self.json,
            data_at: self.data_at,
        }
    }
}

/// A stretch of the log.
#[derive(Debug, Clone)]
pub struct Page {
    /// Oldest first.
    pub events: Vec<Logged>,
    /// How far it goes, and that it is complete.
    pub end: PageEnd,
}

/// How far a page goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageEnd {
    /// Everything up to here has been looked at: the place to read on from.
    pub next: Seq,
    /// Whether nothing more was committed when the page was read.
    pub is_end: bool,
    /// Set where retention has passed the place that was asked for: the oldest place from which nothing is missing.
    pub gap: Option<Seq>,
}

/// A way to read a page: [`page`] or [`kept`].
pub(super) type Read = fn(
    &mut Conn,
    &TenantLog,
    Seq,
    &Patterns,
    usize,
    &dyn Fn(&str) -> bool,
) -> Result<Page, DbError>;

/// Reads a page of owned events.
pub fn page(
    conn: &mut Conn,
    log: &TenantLog,
    after: Seq,
    patterns: &Patterns,
    limit: usize,
    admits: &dyn Fn(&str) -> bool,
) -> Result<Page, DbError> {
    let mut events = Vec::new();
    let end = visit(conn, log, after, patterns, limit, admits, &mut |row| {
        events.push(Logged::new(row));
    })?;
    Ok(Page { events, end })
}

/// Gives the events after a place that match and that `admits` admits to `each`, oldest first: at most `limit`, and no
/// more once [`PAGE_BYTES`] are reached.
pub fn visit(
    conn: &mut Conn,
    log: &TenantLog,
    after: Seq,
    patterns: &Patterns,
    limit: usize,
    admits: &dyn Fn(&str) -> bool,
    each: &mut dyn FnMut(LoggedRef<'_>),
) -> Result<PageEnd, DbError> {
    if log.trimmed() <= after {
        // What retention takes is announced before it is gone, so asking again afterwards tells whether this page is whole.
        let mut events = Vec::new();
        let end = walk(conn, log, after, patterns, limit, admits, &mut |row| {
            events.push(Logged::new(row));
        })?;
        if log.trimmed() <= after {
            events.iter().for_each(|e| each(e.as_ref()));
            return Ok(end);
        }
    }
    in_snapshot(conn, |conn| {
        let gap = gap(conn, log, after, patterns, admits)?;
        let from = gap.unwrap_or(after);
        let end = walk(conn, log, from, patterns, limit, admits, each)?;
        Ok(PageEnd { gap, ..end })
    })
}

/// Reads a page of all that is kept after a place: for who wants what there is. Who follows ([`visit`]) goes on behind the
/// gap instead, where nothing is missing.
pub fn kept(
    conn: &mut Conn,
    log: &TenantLog,
    after: Seq,
    patterns: &Patterns,
    limit: usize,
    admits: &dyn Fn(&str) -> bool,
) -> Result<Page, DbError> {
    in_snapshot(conn, |conn| {
        let gap = if log.trimmed() > after {
            gap(conn, log, after, patterns, admits)?
        } else {
            None
        };
        let mut events = Vec::new();
        let end = walk(conn, log, after, patterns, limit, admits, &mut |row| {
            events.push(Logged::new(row));
        })?;
        Ok(Page {
            events,
            end: PageEnd { gap, ..end },
        })
    })
}

/// Runs statements that all see the same moment.
fn in_snapshot<T>(
    conn: &mut Conn,
    run: impl FnOnce(&mut Conn) -> Result<T, DbError>,
) -> Result<T, DbError> {
    let begin = match conn {
        Conn::Sqlite(_) => "BEGIN",
        Conn::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    };
    conn.batch(begin)?;
    let result = run(conn);
    conn.batch("COMMIT")?;
    result
}

fn walk(
    conn: &mut Conn,
    log: &TenantLog,
    after: Seq,
    patterns: &Patterns,
    limit: usize,
    admits: &dyn Fn(&str) -> bool,
    each: &mut dyn FnMut(LoggedRef<'_>),
) -> Result<PageEnd, DbError> {
    // Taken before anything is read: all up to it is committed. What is committed beyond it is not there yet for anybody:
    // a reader that had it could come back with a cursor that the log does not know.
    let head = log.head();
    let tail = log.tail(after, head);
    let (mut taken, mut bytes) = (0, 0);
    let mut counted = |row: LoggedRef<'_>| {
        (taken, bytes) = (taken + 1, bytes + row.json.len());
        each(row);
    };
    let mut end = PageEnd {
        next: after,
        is_end: true,
        gap: None,
    };
    if after < tail.stored {
        end = walk_rows(
            conn,
            log,
            tail.stored,
            after,
            patterns,
            limit,
            admits,
            &mut counted,
        )?;
    }
    if !end.is_end {
        return Ok(end);
    }
    for (seq, event) in &tail.events {
        if taken >= limit || bytes >= PAGE_BYTES {
            return Ok(PageEnd {
                is_end: false,
                ..end
            });
        }
        end.next = *seq;
        let topic = event.topic.as_str();
        if patterns.matches(topic) && admits(topic) {
            (taken, bytes) = (taken + 1, bytes + event.json.len());
            each(LoggedRef {
                seq: *seq,
                topic,
                kind: event.kind.as_str(),
                json: &event.json,
                data_at: event.data_at,
            });
        }
    }
    end.next = end.next.max(head);
    Ok(end)
}

/// Reads what the database has of it, up to `head`.
#[expect(
    clippy::too_many_arguments,
    reason = "a page's request, and where it ends"
)]
fn walk_rows(
    conn: &mut Conn,
    log: &TenantLog,
    head: Seq,
    after: Seq,
    patterns: &Patterns,
    limit: usize,
    admits: &dyn Fn(&str) -> bool,
    each: &mut dyn FnMut(LoggedRef<'_>),
) -> Result<PageEnd, DbError> {
    match patterns.as_topics() {
        Some(topics) => {
            let topics: Vec<_> = topics.into_iter().filter(|t| admits(t.as_str())).collect();
            if let [topic] = &topics[..] {
                walk_topic(conn, log, head, after, topic.as_str(), limit, each)
            } else {
                walk_topics(conn, log, head, after, &topics, limit, each)
            }
        }
        None => walk_all(
            conn,
            log,
            head,
            after,
            limit,
            &|topic| patterns.matches(topic) && admits(topic),
            each,
        ),
    }
}

fn logged(row: RowRef<'_>) -> Result<LoggedRef<'_>, DbError> {
    Ok(LoggedRef {
        seq: seq_of(row.int(0)?),
        topic: row.text(1)?,
        kind: row.text(2)?,
        data_at: usize::try_from(row.int(3)?).unwrap_or(0),
        json: row.text(4)?,
    })
}

/// Reads one topic by its index.
fn walk_topic(
    conn: &mut Conn,
    log: &TenantLog,
    head: Seq,
    after: Seq,
    topic: &str,
    limit: usize,
    each: &mut dyn FnMut(LoggedRef<'_>),
) -> Result<PageEnd, DbError> {
    const SQL: &str = "SELECT key, topic, type, data_at, json FROM events \
                       WHERE topic = $1 AND key > $2 AND key <= $3 ORDER BY key LIMIT $4";
    let (mut last, mut taken, mut bytes) = (after, 0, 0);
    let params = [
        topic.into(),
        key(log.number, after).into(),
        key(log.number, head).into(),
        number_of(limit).into(),
    ];
    conn.each(SQL, &params, |row| {
        let row = logged(row)?;
        (last, taken, bytes) = (row.seq, taken + 1, bytes + row.json.len());
        each(row);
        Ok(if bytes >= PAGE_BYTES {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    let is_end = taken < limit && bytes < PAGE_BYTES;
    Ok(PageEnd {
        next: if is_end { last.max(head) } else { last },
        is_end,
        gap: None,
    })
}

/// Reads several topics by their index and merges them.
fn walk_topics(
    conn: &mut Conn,
    log: &TenantLog,
    head: Seq,
    after: Seq,
    topics: &[crate::topic::Topic],
    limit: usize,
    each: &mut dyn FnMut(LoggedRef<'_>),
) -> Result<PageEnd, DbError> {
    let mut events = Vec::new();
    // Beyond the end of a topic that was cut short, others must not be taken yet.
    let mut complete_to = Seq::MAX;
    for topic in topics {
        let end = walk_topic(conn, log, head, after, topic.as_str(), limit, &mut |row| {
            events.push(Logged::new(row));
        })?;
        if !end.is_end {
            complete_to = complete_to.min(end.next);
        }
    }
    events.retain(|e| e.seq <= complete_to);
    events.sort_unstable_by_key(|e| e.seq);
    let mut bytes = 0;
    let mut kept = 0;
    for event in &events {
        if kept == limit || bytes >= PAGE_BYTES {
            break;
        }
        (kept, bytes) = (kept + 1, bytes + event.json.len());
        each(event.as_ref());
    }
    let last = events.get(kept.wrapping_sub(1)).map_or(after, |e| e.seq);
    let is_end = kept == events.len() && complete_to == Seq::MAX;
    let next = if is_end { head.max(after) } else { last };
    Ok(PageEnd {
        next,
        is_end,
        gap: None,
    })
}

/// Reads all of a tenant's events and takes those that match.
fn walk_all(
    conn: &mut Conn,
    log: &TenantLog,
    head: Seq,
    after: Seq,
    limit: usize,
    matches: &dyn Fn(&str) -> bool,
    each: &mut dyn FnMut(LoggedRef<'_>),
) -> Result<PageEnd, DbError> {
    const SQL: &str = "SELECT key, topic, type, data_at, json FROM events \
                       WHERE key > $1 AND key <= $2 ORDER BY key LIMIT $3";
    let (mut last, mut taken, mut bytes, mut seen) = (after, 0, 0, 0);
    loop {
        let (chunk, seen_before) = (CHUNK_ROWS.min(limit.max(100)), seen);
        let params = [
            key(log.number, last).into(),
            key(log.number, head).into(),
            number_of(chunk).into(),
        ];
        conn.each(SQL, &params, |row| {
            let row = logged(row)?;
            (last, seen) = (row.seq, seen + 1);
            if matches(row.topic) {
                (taken, bytes) = (taken + 1, bytes + row.json.len());
                each(row);
            }
            Ok(if taken >= limit || bytes >= PAGE_BYTES {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
        if taken >= limit || bytes >= PAGE_BYTES || seen >= SCAN_ROWS {
            return Ok(PageEnd {
                next: last,
                is_end: false,
                gap: None,
            });
        }
        if seen - seen_before < chunk {
            return Ok(PageEnd {
                next: last.max(head),
                is_end: true,
                gap: None,
            });
        }
    }
}

/// The oldest place from which nothing that matches is missing, where that lies after `after`.
fn gap(
    conn: &mut Conn,
    log: &TenantLog,
    after: Seq,
    patterns: &Patterns,
    admits: &dyn Fn(&str) -> bool,
) -> Result<Option<Seq>, DbError> {
    let floor = conn.row(
        "SELECT trimmed FROM tenants WHERE number = $1",
        &[log.number.into()],
        |row| row.int(0),
    )?;
    let mut oldest = count(floor.unwrap_or(0));
    let after_seq = i64::try_from(after).unwrap_or(i64::MAX);
    conn.each(
        "SELECT topic, trimmed FROM topics WHERE tenant = $1 AND trimmed > $2",
        &[log.number.into(), after_seq.into()],
        |row| {
            let (topic, trimmed) = (row.text(0)?, count(row.int(1)?));
            if trimmed > oldest && patterns.matches(topic) && admits(topic) {
                oldest = trimmed;
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(Some(oldest).filter(|oldest| *oldest > after))
}

/// The place just before the oldest event that is kept, or the head where none is.
pub fn oldest(conn: &mut Conn, log: &TenantLog) -> Result<Seq, DbError> {
    const SQL: &str = "SELECT key FROM events WHERE key > $1 AND key <= $2 ORDER BY key LIMIT 1";
    let head = log.head();
    let tail = log.tail(0, head);
    let first = conn.row(
        SQL,
        &[key(log.number, 0).into(), key(log.number, Seq::MAX).into()],
        |row| row.int(0),
    )?;
    let first = first
        .map(seq_of)
        .or(tail.events.first().map(|(seq, _)| *seq));
    Ok(first.map_or(head, |first| first.saturating_sub(1)))
}

/// Bytes of event JSON that a tenant's log holds.
pub fn bytes(conn: &mut Conn, log: &TenantLog) -> Result<u64, DbError> {
    // Cast because PostgreSQL sums BIGINT into NUMERIC.
    const SQL: &str =
        "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM topics WHERE tenant = $1";
    Ok(conn
        .row(SQL, &[log.number.into()], |row| row.int(0))?
        .map_or(0, count))
}

const TENANTS: &str = "SELECT t.number, t.name, t.epoch, t.head, t.trimmed, \
     COALESCE((SELECT MAX(p.trimmed) FROM topics p WHERE p.tenant = t.number), 0) FROM tenants t";
const ONE_TENANT: &str = "SELECT t.number, t.name, t.epoch, t.head, t.trimmed, \
     COALESCE((SELECT MAX(p.trimmed) FROM topics p WHERE p.tenant = t.number), 0) FROM tenants t WHERE t.name = $1";

/// Every tenant's log.
pub fn tenants(conn: &mut Conn) -> Result<Vec<TenantLog>, DbError> {
    conn.rows(TENANTS, &[], tenant_log)
}

/// The same, each with the head that its events say: the stored one lies behind while a server runs, and after a crash.
pub fn committed_tenants(conn: &mut Conn) -> Result<Vec<TenantLog>, DbError> {
    let logs = tenants(conn)?;
    for log in &logs {
        if let Some(last) = write::last_after(conn, log.number, log.head())? {
            log.clear_tail(last);
            log.move_head(last);
        }
    }
    Ok(logs)
}

/// One tenant's log, where it has been made.
pub(super) fn find_tenant(conn: &mut Conn, tenant: &Tenant) -> Result<Option<TenantLog>, DbError> {
    conn.row(ONE_TENANT, &[tenant.as_str().into()], tenant_log)
}

fn tenant_log(row: RowRef<'_>) -> Result<TenantLog, DbError> {
    let head = count(row.int(3)?);
    Ok(TenantLog {
        tenant: Tenant::new(row.text(1)?).map_err(|e| DbError::Fault(e.to_string()))?,
        number: row.int(0)?,
        epoch: Epoch::stored(row.text(2)?),
        head: AtomicU64::new(head),
        trimmed: AtomicU64::new(count(row.int(4)?.max(row.int(5)?))),
        tail: RwLock::new(Tail {
            stored: head,
            events: Vec::new(),
        }),
    })
}

/// Makes a tenant's log, unless it is there.
pub(super) fn open_tenant(conn: &mut Conn, tenant: &Tenant) -> Result<TenantLog, DbError> {
    if let Some(found) = find_tenant(conn, tenant)? {
        return Ok(found);
    }
    let epoch = Epoch::random().map_err(|e| DbError::Fault(e.to_string()))?;
    conn.execute(
        "INSERT INTO tenants (number, name, epoch, head, trimmed) SELECT COALESCE(MAX(number), 0) + 1, $1, $2, 0, 0 FROM tenants",
        &[tenant.as_str().into(), epoch.as_str().into()],
    )?;
    find_tenant(conn, tenant)?.ok_or_else(|| DbError::Fault("a tenant's row is missing".into()))
}
