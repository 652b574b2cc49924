//! Takes out what an event tells, and leaves that it happened.

use std::collections::HashSet;

use super::super::ledger::Held;
use super::number_of;
use crate::db::{Conn, DbError};
use crate::event::{Event, Json};

/// Events whose `data` is to be replaced: those of a tenant that were given these ids by this source.
#[derive(Debug)]
pub(in crate::log) struct Redaction {
    pub(in crate::log) source: String,
    pub(in crate::log) ids: HashSet<String>,
    pub(in crate::log) data: Json,
}

impl Redaction {
    /// The event as it is to be, where it is one of these.
    pub(in crate::log) fn of(&self, event: &Event) -> Option<Event> {
        let identity = event.identity.as_ref()?;
        let is_meant = identity.source == self.source && self.ids.contains(event.id.as_str());
        is_meant.then(|| Event {
            json: replaced(&event.json, event.data_at, &self.data).into(),
            ..event.clone()
        })
    }
}

/// Replaces the `data` of events that are stored. Says by how much that changes what their topics hold.
pub(in crate::log) fn redact(
    conn: &mut Conn,
    number: i64,
    redaction: &Redaction,
) -> Result<Held, DbError> {
    overwrite(conn, true)?;
    let mut held = Held::new();
    for id in &redaction.ids {
        let found = conn.row(
            "SELECT e.key, e.topic, e.data_at, e.json FROM event_ids i JOIN events e ON e.key = i.key \
             WHERE i.tenant = $1 AND i.source = $2 AND i.id = $3",
            &[number.into(), (&redaction.source).into(), id.into()],
            |row| {
                let (json, data_at) = (row.text(3)?, usize::try_from(row.int(2)?).unwrap_or(0));
                let short = replaced(json, data_at, &redaction.data);
                let change = number_of(short.len()) - number_of(json.len());
                Ok((row.int(0)?, row.text(1)?.to_owned(), short, change))
            },
        )?;
        let Some((key, topic, json, change)) = found else {
            continue;
        };
        conn.execute(
            "UPDATE events SET json = $1 WHERE key = $2",
            &[(&json).into(), key.into()],
        )?;
        // A digest of what it said would tell whether a guess is right.
        conn.execute(
            "UPDATE event_ids SET content = '' WHERE key = $1",
            &[key.into()],
        )?;
        *held.entry((number, topic)).or_default() += change;
    }
    Ok(held)
}

/// Writes down that topics hold so many bytes more or less.
pub(in crate::log) fn adjust(conn: &mut Conn, held: &Held) -> Result<(), DbError> {
    for ((number, topic), change) in held {
        conn.execute(
            "UPDATE topics SET bytes = bytes + $1 WHERE tenant = $2 AND topic = $3",
            &[(*change).into(), (*number).into(), topic.into()],
        )?;
    }
    Ok(())
}

/// Whether `SQLite` writes zeros over what it frees. PostgreSQL's VACUUM gives freed rows to others by itself.
pub(in crate::log) fn overwrite(conn: &mut Conn, is_wanted: bool) -> Result<(), DbError> {
    match conn {
        Conn::Sqlite(it) => it.overwrite_freed(is_wanted),
        Conn::Postgres(_) => Ok(()),
    }
}

fn replaced(json: &str, data_at: usize, data: &Json) -> String {
    let head = json.get(..data_at).unwrap_or_default();
    format!("{head}{}}}", data.as_str())
}
