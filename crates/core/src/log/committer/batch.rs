//! One transaction in the making: what it brings anew, and whom it answers.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::ledger::Held;
use super::super::store::{self, NewRow, Redaction};
use super::super::{PublishError, Published, TenantLog};
use super::job::Answer;
use crate::clock::Timestamp;
use crate::cursor::Seq;
use crate::db::{Conn, DbError};
use crate::event::{Event, EventId};

/// Events of one tenant, in the order in which they are to be seen.
pub(super) struct Fresh {
    pub(super) log: Arc<TenantLog>,
    /// Each with its place; 0 where it is ephemeral.
    pub(super) events: Vec<(Seq, Event)>,
    pub(super) head: Seq,
}

/// Ids that events bear, by tenant, source and id: key and content.
pub(super) type Ids = HashMap<(i64, String, String), (i64, String)>;

/// One transaction in the making.
pub(super) struct Batch {
    pub(super) now: Timestamp,
    pub(super) fresh: HashMap<i64, Fresh>,
    pub(super) rows: Vec<NewRow>,
    /// Those given in this transaction.
    pub(super) ids: Ids,
    pub(super) answers: Vec<Answer<()>>,
    pub(super) bytes: usize,
    /// How many are stored with it.
    pub(super) events: usize,
    /// Whether what topics hold must be written down with it.
    pub(super) is_note_wanted: bool,
    /// By how much redactions change what topics hold; empty where there was none.
    pub(super) held: Held,
    /// Set where something was redacted: topics of which memory may hold it.
    pub(super) redacted: Option<Vec<(Arc<TenantLog>, String)>>,
}

impl Batch {
    pub(super) fn new(now: Timestamp, is_note_wanted: bool) -> Self {
        Self {
            now,
            fresh: HashMap::new(),
            rows: Vec::new(),
            ids: HashMap::new(),
            answers: Vec::new(),
            bytes: 0,
            events: 0,
            is_note_wanted,
            held: Held::new(),
            redacted: None,
        }
    }

    /// Does to the events of this transaction what a redaction did to those that are stored.
    pub(super) fn redact(&mut self, log: &Arc<TenantLog>, redactions: &[Redaction], held: Held) {
        for redaction in redactions {
            let rows = self.rows.iter_mut().filter(|r| r.number == log.number);
            let fresh = self.fresh.get_mut(&log.number).into_iter();
            let shown = fresh.flat_map(|f| &mut f.events).map(|(_, event)| event);
            for event in rows.map(|r| &mut r.event).chain(shown) {
                if let Some(redacted) = redaction.of(event) {
                    *event = redacted;
                }
            }
        }
        // What topics hold can only be changed where it has been written down.
        self.is_note_wanted = true;
        let redacted = self.redacted.get_or_insert_default();
        for ((number, topic), change) in held {
            redacted.push((log.clone(), topic.clone()));
            *self.held.entry((number, topic)).or_default() += change;
        }
    }

    pub(super) fn append(
        &mut self,
        log: &Arc<TenantLog>,
        events: Vec<(Event, bool)>,
    ) -> Option<Seq> {
        let fresh = self.fresh.entry(log.number).or_insert_with(|| Fresh {
            log: log.clone(),
            events: Vec::new(),
            head: log.head(),
        });
        let mut last = None;
        for (event, is_ephemeral) in events {
            if is_ephemeral {
                fresh.events.push((0, event));
                continue;
            }
            fresh.head += 1;
            let row = NewRow::new(log, fresh.head, self.now, event);
            let event = &row.event;
            if let Some(identity) = &event.identity {
                self.ids.insert(
                    (log.number, identity.source.clone(), event.id.to_string()),
                    (row.key, identity.content.clone()),
                );
            }
            self.bytes += event.json.len();
            self.events += 1;
            fresh.events.push((fresh.head, event.clone()));
            self.rows.push(row);
            last = Some(fresh.head);
        }
        last
    }
}

/// Events that are new, each with whether its topic is ephemeral; and the last place of those that are not.
pub(super) type Sifted = (Vec<(Event, bool)>, Option<Seq>);

/// Tells what a publish brings anew from what stands already: those with an id and content that stand are the same event.
pub(super) fn sift(
    conn: &mut Conn,
    log: &TenantLog,
    events: Vec<(Event, bool)>,
    batch: &Batch,
) -> Result<Sifted, PublishError> {
    let mut own: HashMap<(String, String), String> = HashMap::new();
    let mut fresh = Vec::with_capacity(events.len());
    let mut last = None;
    for (index, (event, is_ephemeral)) in events.into_iter().enumerate() {
        let Some(identity) = event.identity.as_ref().filter(|_| !is_ephemeral) else {
            fresh.push((event, is_ephemeral));
            continue;
        };
        let stands =
            match batch
                .ids
                .get(&(log.number, identity.source.clone(), event.id.to_string()))
            {
                Some(found) => Some(found.clone()),
                None => store::find_id(conn, log.number, &identity.source, event.id.as_str())
                    .map_err(PublishError::Unavailable)?,
            };
        let earlier = own.insert(
            (identity.source.clone(), event.id.to_string()),
            identity.content.clone(),
        );
        let content = stands
            .as_ref()
            .map(|(_, content)| content)
            .or(earlier.as_ref());
        if content.is_some_and(|content| *content != identity.content) {
            return Err(PublishError::IdConflict { index });
        }
        if let Some((key, _)) = &stands {
            last = last.max(Some(store::seq_of(*key)));
        } else if earlier.is_none() {
            fresh.push((event, is_ephemeral));
        }
    }
    Ok((fresh, last))
}

pub(super) fn replayed(log: &TenantLog, answer: &str) -> Result<Published, PublishError> {
    #[derive(serde::Deserialize)]
    struct Kept {
        ids: Vec<String>,
        seq: Option<Seq>,
    }
    let unreadable = |e: &dyn std::fmt::Display| {
        PublishError::Unavailable(DbError::Fault(format!("a kept answer: {e}")))
    };
    let kept: Kept = serde_json::from_str(answer).map_err(|e| unreadable(&e))?;
    let ids = kept
        .ids
        .iter()
        .map(|id| EventId::new(id))
        .collect::<Result<_, _>>()
        .map_err(|e| unreadable(&e))?;
    Ok(Published {
        ids,
        cursor: kept.seq.map(|seq| log.at(seq)),
        is_replayed: true,
    })
}
