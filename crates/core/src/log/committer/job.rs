//! What callers hand to the committer, and how each is answered.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::ledger::Held;
use super::super::store::{self, Redaction};
use super::super::{
    AppendError, Idempotency, PublishError, Published, TenantLog, WriteError, Written,
};
use super::batch::Ids;
use crate::clock::Timestamp;
use crate::cursor::Seq;
use crate::db::{Conn, DbError};
use crate::event::{Event, EventId, Json, NewEvent};
use crate::retention::TopicRules;
use crate::tenant::Tenant;

/// What a caller hands to the committer.
pub(in crate::log) enum Job {
    Open(Tenant, oneshot::Sender<Result<Arc<TenantLog>, DbError>>),
    Publish(PublishJob),
    Write(WriteJob),
    Maintain(MaintainJob),
    Flush(oneshot::Sender<()>),
}

pub(in crate::log) struct PublishJob {
    pub(in crate::log) log: Arc<TenantLog>,
    pub(in crate::log) subject: Arc<str>,
    /// Each with whether its topic is ephemeral.
    pub(in crate::log) events: Vec<(Event, bool)>,
    pub(in crate::log) idempotency: Option<Idempotency>,
    pub(in crate::log) reply: oneshot::Sender<Result<Published, PublishError>>,
}

/// Answers a caller once the fate of its transaction is known.
pub(super) type Answer<T> = Box<dyn FnOnce(Result<T, DbError>) + Send>;
/// What a closure came to: whether to keep what it wrote, and how to answer.
pub(super) type Ran<T> = (bool, Answer<T>);
/// A closure whose types are forgotten.
pub(super) type Run<T> = Box<dyn FnOnce(&mut Tx<'_>) -> Ran<T> + Send>;

pub(in crate::log) struct WriteJob {
    pub(super) log: Arc<TenantLog>,
    pub(super) rules: TopicRules,
    pub(super) run: Run<Option<Seq>>,
}

pub(in crate::log) type MaintainJob = Box<dyn FnOnce(&mut Conn) -> Ran<()> + Send>;

/// A transaction while a closure writes in it. Statements run on it as on any [`Conn`].
#[derive(Debug)]
pub struct Tx<'a> {
    pub(super) conn: &'a mut Conn,
    pub(super) log: &'a TenantLog,
    pub(super) rules: &'a TopicRules,
    /// Given in this transaction before.
    pub(super) ids: &'a Ids,
    pub(super) now: Timestamp,
    pub(super) events: Vec<(Event, bool)>,
    pub(super) redactions: Vec<Redaction>,
    /// By how much the redactions change what topics hold.
    pub(super) held: Held,
}

impl Tx<'_> {
    /// Appends an event to the tenant's log. It gets its place when the transaction commits. One that bears a publisher's
    /// id goes by [`Tx::append_once`]: an id that stands twice fails everybody's transaction.
    pub fn append(&mut self, event: NewEvent) -> EventId {
        let is_ephemeral = self.rules.is_ephemeral(&event.topic);
        let event = event.seal(self.now);
        let id = event.id.clone();
        self.events.push((event, is_ephemeral));
        id
    }

    /// Appends an event unless it stands already: the same id, source and content are the same event.
    pub fn append_once(&mut self, event: NewEvent) -> Result<EventId, AppendError> {
        let is_ephemeral = self.rules.is_ephemeral(&event.topic);
        let event = event.seal(self.now);
        let id = event.id.clone();
        if let Some(identity) = event.identity.as_ref().filter(|_| !is_ephemeral) {
            let is_same = |(own, _): &&(Event, bool)| {
                own.id == id
                    && own
                        .identity
                        .as_ref()
                        .is_some_and(|i| i.source == identity.source)
            };
            let own = self.events.iter().find(is_same);
            let own = own.and_then(|(own, _)| own.identity.as_ref().map(|i| i.content.clone()));
            let key = (self.log.number, identity.source.clone(), id.to_string());
            let stands = match (own, self.ids.get(&key)) {
                (Some(content), _) => Some(content),
                (None, Some((_, content))) => Some(content.clone()),
                (None, None) => {
                    store::find_id(self.conn, self.log.number, &identity.source, id.as_str())?
                        .map(|(_, content)| content)
                }
            };
            match stands {
                Some(content) if content == identity.content => return Ok(id),
                Some(_) => return Err(AppendError::IdConflict),
                None => {}
            }
        }
        self.events.push((event, is_ephemeral));
        Ok(id)
    }

    /// Replaces the `data` of events that were given these ids by this source: what they told is gone, from the database and
    /// from memory, for every reader to come. Their topics, types, times and places stay. What else this transaction removes
    /// is written over, too. Those that retention has taken, or that never were, are passed over.
    pub fn redact(
        &mut self,
        source: &str,
        ids: impl IntoIterator<Item = String>,
        data: &Json,
    ) -> Result<(), DbError> {
        let redaction = Redaction {
            source: source.to_owned(),
            ids: ids.into_iter().collect(),
            data: data.clone(),
        };
        for (topic, change) in store::redact(self.conn, self.log.number, &redaction)? {
            *self.held.entry(topic).or_default() += change;
        }
        self.redactions.push(redaction);
        Ok(())
    }

    /// The time of this transaction.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Whose transaction it is: the first argument of every store function.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.log.tenant
    }

    /// The tenant's number, as rows of the core's own tables hold it.
    #[must_use]
    pub fn tenant_number(&self) -> i64 {
        self.log.number
    }
}

impl Deref for Tx<'_> {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        self.conn
    }
}

impl DerefMut for Tx<'_> {
    fn deref_mut(&mut self) -> &mut Conn {
        self.conn
    }
}

impl WriteJob {
    pub(in crate::log) fn new<T: Send + 'static, E: From<DbError> + Send + 'static>(
        log: Arc<TenantLog>,
        rules: TopicRules,
        run: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        reply: oneshot::Sender<Result<Written<T>, WriteError<E>>>,
    ) -> Self {
        let of = log.clone();
        let run: Run<Option<Seq>> = Box::new(move |tx| {
            let result = run(tx);
            let is_kept = result.is_ok();
            let answer: Answer<Option<Seq>> = Box::new(move |committed| {
                // Who has gone away needs no answer.
                let _ = reply.send(match (result, committed) {
                    (Err(e), _) => Err(WriteError::Refused(e)),
                    (Ok(_), Err(e)) => Err(WriteError::Unavailable(e)),
                    (Ok(value), Ok(seq)) => Ok(Written {
                        value,
                        cursor: seq.map(|seq| of.at(seq)),
                    }),
                });
            });
            (is_kept, answer)
        });
        Self { log, rules, run }
    }
}

pub(in crate::log) fn maintain<T: Send + 'static>(
    run: impl FnOnce(&mut Conn) -> Result<T, DbError> + Send + 'static,
    reply: oneshot::Sender<Result<T, DbError>>,
) -> MaintainJob {
    Box::new(move |conn| {
        let result = run(conn);
        let is_kept = result.is_ok();
        let answer: Answer<()> = Box::new(move |committed| {
            let _ = reply.send(committed.and(result));
        });
        (is_kept, answer)
    })
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}
