//! The durable, ordered record of each tenant's events, and the only road from a writer to a reader.
//!
//! One committer thread gathers all who wait into one database transaction, gives sequences in that order, commits once,
//! answers everybody, and then lets the events be seen. Readers page through what is committed.
//!
//! - `committer`: the thread, group commit, savepoints, failure
//! - `journal`: a short log in front of the embedded database, for publishes that bring nothing but their events
//! - `store`: the SQL of the log
//! - `ledger`: what the committer notes in the database now and then
//! - `boot`: epochs, and how a restored database is noticed
//! - `trim`: retention
//! - `dead_letter`: what could not be taken in

mod boot;
mod committer;
pub mod dead_letter;
mod journal;
mod ledger;
pub mod store;
mod trim;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::cursor::{Cursor, Epoch, Seq};
use crate::db::{Conn, Db, DbError};
use crate::event::{Event, EventId, NewEvent};
use crate::hub::{Hub, Rights};
use crate::retention::TopicRules;
use crate::tenant::Tenant;
use crate::topic::Patterns;

pub use committer::Tx;
use committer::{Committer, Job, PublishJob, WriteJob};
pub use store::{Logged, Page};

/// Publishes and writes that may wait for the committer; one more is refused.
pub const QUEUE: usize = 10_000;

/// What the log needs to know.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Which topics are kept, and how long.
    pub rules: TopicRules,
    /// How long an answer is kept for a repeated `Idempotency-Key`.
    pub idempotency_ttl: Duration,
    /// Where the boot mark lies that tells a restored database from the one that was here before.
    pub boot_file: Option<PathBuf>,
}

/// A tenant's log as memory knows it.
#[derive(Debug)]
pub struct TenantLog {
    /// Whose.
    pub tenant: Tenant,
    /// The tenant's number in keys.
    pub number: i64,
    /// The log's identity.
    pub epoch: Epoch,
    head: AtomicU64,
    trimmed: AtomicU64,
    tail: RwLock<Tail>,
}

/// The end of a log: how far the database has it, and the events beyond, which are durable in the journal.
#[derive(Debug)]
struct Tail {
    stored: Seq,
    events: Vec<(Seq, Event)>,
}

impl TenantLog {
    /// The last place that is durable.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.head.load(Ordering::Acquire)
    }

    /// The last place that retention has taken an event from: readers beyond it have missed nothing.
    #[must_use]
    pub fn trimmed(&self) -> Seq {
        self.trimmed.load(Ordering::Acquire)
    }

    /// Between two places: how far the database has the events, and those that it has not.
    fn tail(&self, after: Seq, head: Seq) -> Tail {
        let tail = self.tail.read();
        let wanted = |(seq, _): &&(Seq, Event)| *seq > after && *seq <= head;
        Tail {
            stored: tail.stored.min(head),
            events: tail.events.iter().filter(wanted).cloned().collect(),
        }
    }

    /// Adds events that are durable in the journal. They are seen once the head has moved.
    fn push_tail(&self, events: impl IntoIterator<Item = (Seq, Event)>) {
        self.tail.write().events.extend(events);
    }

    /// The database has all events up to a place. Said before the head moves there.
    fn clear_tail(&self, stored: Seq) {
        let mut tail = self.tail.write();
        tail.stored = tail.stored.max(stored);
        tail.events.retain(|(seq, _)| *seq > stored);
    }

    fn move_head(&self, head: Seq) {
        self.head.store(head, Ordering::Release);
    }

    /// The cursor of a place in this log.
    #[must_use]
    pub fn at(&self, seq: Seq) -> Cursor {
        self.epoch.at(seq)
    }
}

/// Events of one request: all or nothing.
#[derive(Debug)]
pub struct Batch {
    /// Who publishes; with the tenant, the owner of idempotency keys.
    pub subject: Arc<str>,
    /// In order.
    pub events: Vec<NewEvent>,
    /// Set where the request had an `Idempotency-Key`.
    pub idempotency: Option<Idempotency>,
}

/// A request's `Idempotency-Key`, and a digest of what it asked.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The key, up to 255 printable ASCII characters.
    pub key: String,
    /// A digest of the request: the same key with another one is refused.
    pub request: String,
}

/// The answer to a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The events' ids, in order.
    pub ids: Vec<EventId>,
    /// The place of the last one; none where all were ephemeral.
    pub cursor: Option<Cursor>,
    /// Whether this is the kept answer of an earlier request.
    pub is_replayed: bool,
}

/// Why nothing was published.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// Too many wait already: try again in a moment.
    #[error("too many publishes wait; try again")]
    Full,
    /// The log cannot store now.
    #[error("the log cannot store events now")]
    Unavailable(#[source] DbError),
    /// The `Idempotency-Key` came with another request before.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// An id (with its source) stands already, with other content.
    #[error("this id stands already, with other content")]
    IdConflict {
        /// The event's place in the batch.
        index: usize,
    },
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// Too many wait already: try again in a moment.
    #[error("too many writes wait; try again")]
    Full,
    /// The log cannot store now.
    #[error("the log cannot store now")]
    Unavailable(#[source] DbError),
    /// The closure refused; what it wrote is undone.
    #[error(transparent)]
    Refused(E),
}

/// Why a closure could not append an event.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Its id (with its source) stands already, with other content.
    #[error("this id stands already, with other content")]
    IdConflict,
    /// The database.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// A write that is durable.
#[derive(Debug)]
pub struct Written<T> {
    /// What the closure returned.
    pub value: T,
    /// The place of its last event, where it appended one.
    pub cursor: Option<Cursor>,
}

struct Shared {
    db: Db,
    hub: Hub,
    clock: Clock,
    config: LogConfig,
    jobs: SyncSender<Job>,
    tenants: Arc<RwLock<HashMap<Tenant, Arc<TenantLog>>>>,
    health: Arc<RwLock<Option<String>>>,
}

/// The logs of a database as they stand on the disk, for who reads them beside a server or without one, with a connection
/// to read them by. Blocks.
pub fn on_disk(db: &Db) -> Result<(Conn, Vec<TenantLog>), DbError> {
    // First the journal: what it held then and holds no more, the database has.
    let left = journal::read(db)?;
    let mut conn = db.connect()?;
    let mut logs = store::committed_tenants(&mut conn)?;
    journal::overlay(&mut logs, &left);
    Ok((conn, logs))
}

/// The log. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("db", &self.0.db)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log on a database whose schema is up to date, and starts its committer thread. Blocks.
    pub fn open(db: Db, hub: Hub, clock: Clock, config: LogConfig) -> Result<Self, DbError> {
        let mut conn = db.connect()?;
        let left = journal::read(&db)?;
        conn.batch("BEGIN")?;
        journal::recover(&mut conn, &left)?;
        store::catch_up(&mut conn)?;
        conn.batch("COMMIT")?;
        // Afterwards: the epochs may change, and what the journal holds goes with the old ones.
        boot::mark(&mut conn, config.boot_file.as_deref())?;
        let tenants: HashMap<_, _> = store::tenants(&mut conn)?
            .into_iter()
            .map(|t| (t.tenant.clone(), Arc::new(t)))
            .collect();
        for tenant in tenants.values() {
            hub.open_tenant(tenant);
        }
        let tenants = Arc::new(RwLock::new(tenants));
        let health = Arc::new(RwLock::new(None));
        let committer = Committer::new(
            conn,
            db.clone(),
            hub.clone(),
            clock.clone(),
            tenants.clone(),
            health.clone(),
        );
        let (jobs, queue) = std::sync::mpsc::sync_channel(QUEUE);
        committer.start(queue)?;
        Ok(Self(Arc::new(Shared {
            db,
            hub,
            clock,
            config,
            jobs,
            tenants,
            health,
        })))
    }

    /// The database under the log.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.0.db
    }

    /// Which topics are kept, and how long.
    #[must_use]
    pub fn rules(&self) -> &TopicRules {
        &self.0.config.rules
    }

    /// Why the log cannot store now, where it cannot.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.0.health.read().clone()
    }

    /// The tenant's log; made at its first use.
    pub async fn tenant(&self, tenant: &Tenant) -> Result<Arc<TenantLog>, DbError> {
        if let Some(log) = self.0.tenants.read().get(tenant) {
            return Ok(log.clone());
        }
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Open(tenant.clone(), reply))
            .map_err(|_| DbError::Unavailable("too many writes wait".into()))?;
        answer
            .await
            .unwrap_or_else(|_| Err(DbError::Unavailable("closed".into())))
    }

    /// Publishes a batch: all or nothing, durable before this returns. A caller that goes away changes nothing.
    pub async fn publish(&self, tenant: &Tenant, batch: Batch) -> Result<Published, PublishError> {
        let now = self.0.clock.now();
        let log = self
            .tenant(tenant)
            .await
            .map_err(PublishError::Unavailable)?;
        let rules = &self.0.config.rules;
        let events: Vec<(Event, bool)> = batch
            .events
            .into_iter()
            .map(|new| {
                let is_ephemeral = rules.is_ephemeral(&new.topic);
                (new.seal(now), is_ephemeral)
            })
            .collect();
        if batch.idempotency.is_none() && events.iter().all(|(_, is_ephemeral)| *is_ephemeral) {
            let ids = events.iter().map(|(event, _)| event.id.clone()).collect();
            self.0
                .hub
                .ephemeral(&log, events.into_iter().map(|(event, _)| event));
            return Ok(Published {
                ids,
                cursor: None,
                is_replayed: false,
            });
        }
        let (reply, answer) = oneshot::channel();
        let job = PublishJob {
            log,
            subject: batch.subject,
            events,
            idempotency: batch.idempotency,
            reply,
        };
        self.submit(Job::Publish(job))
            .map_err(|_| PublishError::Full)?;
        answer.await.unwrap_or_else(|_| {
            Err(PublishError::Unavailable(DbError::Unavailable(
                "closed".into(),
            )))
        })
    }

    /// Runs a closure in the next transaction: what it writes and the events that it appends commit together, or not at
    /// all. The closure runs on the committer's thread: no other I/O, no waiting.
    pub async fn write<T: Send + 'static, E: From<DbError> + Send + 'static>(
        &self,
        tenant: &Tenant,
        run: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<Written<T>, WriteError<E>> {
        let log = self.tenant(tenant).await.map_err(WriteError::Unavailable)?;
        let (reply, answer) = oneshot::channel();
        let job = WriteJob::new(log, self.0.config.rules.clone(), run, reply);
        self.submit(Job::Write(job)).map_err(|_| WriteError::Full)?;
        answer.await.unwrap_or_else(|_| {
            Err(WriteError::Unavailable(DbError::Unavailable(
                "closed".into(),
            )))
        })
    }

    /// Committed events after a place, oldest first: those that match, and that the rights admit. `limit` bounds their
    /// number; [`store::PAGE_BYTES`] their size.
    pub async fn read(
        &self,
        log: &Arc<TenantLog>,
        after: Seq,
        patterns: &Patterns,
        rights: &Rights,
        limit: usize,
    ) -> Result<Page, DbError> {
        self.read_by(store::page, log, after, (patterns, rights), limit)
            .await
    }

    /// The same for who wants what there is: all that is kept after a place, also before what retention has taken.
    pub async fn history(
        &self,
        log: &Arc<TenantLog>,
        after: Seq,
        patterns: &Patterns,
        rights: &Rights,
        limit: usize,
    ) -> Result<Page, DbError> {
        self.read_by(store::kept, log, after, (patterns, rights), limit)
            .await
    }

    async fn read_by(
        &self,
        read: store::Read,
        log: &Arc<TenantLog>,
        after: Seq,
        (patterns, rights): (&Patterns, &Rights),
        limit: usize,
    ) -> Result<Page, DbError> {
        let (log, patterns, rights) = (log.clone(), patterns.clone(), rights.clone());
        let read = move |conn: &mut Conn| {
            let admits = |topic: &str| rights.admits(topic);
            read(conn, &log, after, &patterns, limit, &admits)
        };
        self.0.db.read(read).await
    }

    /// Removes what retention and the idempotency window have passed, in transactions of bounded size. Also the probe
    /// that notices when a database that failed has come back.
    pub async fn trim(&self) -> Result<u64, WriteError<DbError>> {
        trim::run(self).await
    }

    /// Every tenant that the log knows.
    #[must_use]
    pub fn tenants(&self) -> Vec<Arc<TenantLog>> {
        self.0.tenants.read().values().cloned().collect()
    }

    /// Waits until all that was submitted before has been answered.
    pub async fn flush(&self) {
        let (reply, answer) = oneshot::channel();
        if self.submit(Job::Flush(reply)).is_ok() {
            let _ = answer.await;
        }
    }

    fn submit(&self, job: Job) -> Result<(), TrySendError<Job>> {
        let result = self.0.jobs.try_send(job);
        if result.is_err() {
            metrics::counter!("tidings_publishes_total", "result" => "full").increment(1);
        }
        result
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(crate) fn idempotency_ttl(&self) -> Duration {
        self.0.config.idempotency_ttl
    }

    /// Runs a closure that belongs to no tenant in the next transaction.
    pub(crate) async fn maintain<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Conn) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Maintain(committer::maintain(run, reply)))
            .map_err(|_| DbError::Unavailable("too many writes wait".into()))?;
        answer
            .await
            .unwrap_or_else(|_| Err(DbError::Unavailable("closed".into())))
    }
}
