//! Takes committed events to the readers whom they concern.
//!
//! A *feed* is the ordered result of one subscription; all connections that asked for the same share it, and the bytes
//! in its *ring*. A [`Reader`] is a place: in the ring, or, while it is behind or has just come back with a cursor, in
//! the log. Replay and live are one loop, and what joins them is the sequence: a reader enters the ring where its seq
//! says, so nothing can be lost or repeated at the hand-over.
//!
//! Two kinds of drivers write what readers read. Tasks await [`Reader::next`]. *Lanes* are threads that walk many
//! readers of a feed at a time; the hub tells a lane which of its feeds have something new.

mod feed;
mod index;
mod reader;
mod ring;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::cursor::{Cursor, Seq};
use crate::db::{Db, DbError};
use crate::event::Event;
use crate::log::TenantLog;
use crate::log::store;
use crate::tenant::Tenant;

pub use feed::{Admits, Encoding, Feed, FeedKey, PageFrames, Rights, Style};
use index::Index;
pub use reader::{Delivery, Reader, Start, Step};
pub use ring::{RingSize, View, WRITE_BYTES};

/// Events that one page of a replay holds at most.
const PAGE_EVENTS: usize = 500;
/// How long a page is kept for others who stand at the same place: a herd that comes back reads each page once.
const PAGE_AGE: Duration = Duration::from_secs(1);
/// Pages that one feed keeps for others.
const FEED_PAGES: usize = 8;

/// A thread that drives many readers. The hub hands it the feeds that have something new for it.
#[derive(Default)]
pub struct Lane {
    dirty: Mutex<Vec<Arc<Feed>>>,
    is_told: AtomicBool,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lane")
    }
}

impl Lane {
    /// Says how to wake the thread. Once.
    pub fn on_wake(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake.set(Box::new(wake));
    }

    /// The feeds that have something new; each must be cleared ([`Feed::clear_dirty`]) before it is read.
    #[must_use]
    pub fn take(&self) -> Vec<Arc<Feed>> {
        self.is_told.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.dirty.lock())
    }

    /// Whether anything waits to be taken.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.dirty.lock().is_empty()
    }

    fn tell(&self) {
        if !self.is_told.swap(true, Ordering::SeqCst)
            && let Some(wake) = self.wake.get()
        {
            wake();
        }
    }
}

/// A tenant's part of the hub.
#[derive(Debug)]
struct TenantHub {
    log: Arc<TenantLog>,
    index: Mutex<TenantIndex>,
    /// Every event up to here has been put into the rings that it belongs to.
    published: AtomicU64,
}

#[derive(Debug, Default)]
struct TenantIndex {
    feeds: HashMap<FeedKey, Arc<Feed>>,
    index: Index,
    /// Numbers the events that pass, ephemeral ones too.
    tick: u64,
}

struct Shared {
    db: Db,
    lanes: Vec<Lane>,
    tenants: RwLock<HashMap<Tenant, Arc<TenantHub>>>,
    /// Feeds whose ring holds something.
    filled: Mutex<Vec<Weak<Feed>>>,
}

/// The hub. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hub")
    }
}

impl Hub {
    /// A hub with so many lanes (at most 64), whose readers replay from this database.
    #[must_use]
    pub fn new(db: Db, lanes: usize) -> Self {
        let lanes = (0..lanes.min(64)).map(|_| Lane::default()).collect();
        Self(Arc::new(Shared {
            db,
            lanes,
            tenants: RwLock::default(),
            filled: Mutex::default(),
        }))
    }

    /// The lanes.
    #[must_use]
    pub fn lanes(&self) -> &[Lane] {
        &self.0.lanes
    }

    /// Makes a tenant's part, unless it is there.
    pub(crate) fn open_tenant(&self, log: &Arc<TenantLog>) {
        let mut tenants = self.0.tenants.write();
        tenants.entry(log.tenant.clone()).or_insert_with(|| {
            let published = AtomicU64::new(log.head());
            Arc::new(TenantHub {
                log: log.clone(),
                index: Mutex::default(),
                published,
            })
        });
    }

    fn tenant(&self, log: &Arc<TenantLog>) -> Arc<TenantHub> {
        if let Some(tenant) = self.0.tenants.read().get(&log.tenant) {
            return tenant.clone();
        }
        self.open_tenant(log);
        self.0
            .tenants
            .read()
            .get(&log.tenant)
            .cloned()
            .unwrap_or_else(|| {
                Arc::new(TenantHub {
                    log: log.clone(),
                    index: Mutex::default(),
                    published: AtomicU64::new(log.head()),
                })
            })
    }

    /// Shows events that are durable, in their order; those without a place are ephemeral ones of the same transaction.
    pub(crate) fn committed(
        &self,
        log: &Arc<TenantLog>,
        events: &[(Seq, Event)],
        committed: Instant,
    ) {
        let tenant = self.tenant(log);
        let mut lanes = 0;
        {
            let mut index = tenant.index.lock();
            for (seq, event) in events {
                lanes |= self.show(&tenant, &mut index, *seq, event, committed);
            }
            if let Some(last) = events.iter().map(|(seq, _)| *seq).max() {
                tenant.published.fetch_max(last, Ordering::AcqRel);
            }
        }
        self.tell(lanes);
    }

    /// Shows events that are never stored.
    pub fn ephemeral(&self, log: &Arc<TenantLog>, events: impl Iterator<Item = Event>) {
        let events: Vec<_> = events.map(|event| (0, event)).collect();
        self.committed(log, &events, Instant::now());
    }

    /// Puts an event into the rings that it belongs to. Says which lanes have something new, a bit each.
    fn show(
        &self,
        tenant: &TenantHub,
        index: &mut TenantIndex,
        seq: Seq,
        event: &Event,
        committed: Instant,
    ) -> u64 {
        index.tick += 1;
        let tick = index.tick;
        let mut frames: Vec<(&'static Style, Bytes)> = Vec::new();
        let mut lanes = 0;
        index.index.each(event.topic.as_str(), &mut |feed| {
            if !feed.key.rights.admits(event.topic.as_str()) {
                return;
            }
            let style = feed.key.style;
            let frame = match frames.iter().find(|(s, _)| std::ptr::eq(*s, style)) {
                Some((_, frame)) => frame.clone(),
                None => {
                    let mut out = Vec::with_capacity(event.json.len() + 128);
                    (style.encode)(
                        &Encoding::of(&tenant.log.epoch, (seq != 0).then_some(seq), event),
                        &mut out,
                    );
                    let frame = Bytes::from(out);
                    frames.push((style, frame.clone()));
                    frame
                }
            };
            match feed
                .ring
                .lock()
                .push(tick, seq, frame, committed, &feed.key.size)
            {
                None => return,
                Some(true) => self.0.filled.lock().push(Arc::downgrade(feed)),
                Some(false) => {}
            }
            feed.wake_tasks();
            lanes |= self.mark(feed);
        });
        lanes
    }

    /// Hands a feed to the lanes that have readers of it and do not know yet.
    fn mark(&self, feed: &Arc<Feed>) -> u64 {
        let mut lanes = 0;
        for (at, readers) in feed.lane_readers.iter().enumerate() {
            let bit = 1 << at;
            if readers.load(Ordering::Acquire) > 0
                && feed.dirty.fetch_or(bit, Ordering::AcqRel) & bit == 0
                && let Some(lane) = self.0.lanes.get(at)
            {
                lane.dirty.lock().push(feed.clone());
                lanes |= bit;
            }
        }
        lanes
    }

    fn tell(&self, lanes: u64) {
        for (at, lane) in self.0.lanes.iter().enumerate() {
            if lanes & (1 << at) != 0 {
                lane.tell();
            }
        }
    }

    /// The log has moved on without us: everybody reads it.
    pub(crate) fn skip_to(&self, log: &Arc<TenantLog>, head: Seq) {
        let tenant = self.tenant(log);
        let mut lanes = 0;
        {
            let index = tenant.index.lock();
            for feed in index.feeds.values() {
                feed.ring.lock().skip_to(head);
                feed.wake_tasks();
                lanes |= self.mark(feed);
            }
            tenant.published.fetch_max(head, Ordering::AcqRel);
        }
        self.tell(lanes);
    }

    /// Events of a topic were changed where they are stored: their readers read them there.
    pub(crate) fn forget(&self, log: &Arc<TenantLog>, topic: &str) {
        let tenant = self.tenant(log);
        let mut lanes = 0;
        {
            let index = tenant.index.lock();
            let published = tenant.published.load(Ordering::Acquire);
            index.index.each(topic, &mut |feed| {
                feed.ring.lock().skip_to(published);
                feed.forgotten.fetch_add(1, Ordering::AcqRel);
                feed.pages.lock().clear();
                feed.wake_tasks();
                lanes |= self.mark(feed);
            });
        }
        self.tell(lanes);
    }

    /// Gives back the memory of frames that have stood long enough. Call it about once a second.
    pub fn age(&self, now: Instant) {
        let mut filled = std::mem::take(&mut *self.0.filled.lock());
        filled.retain(|feed| {
            let Some(feed) = feed.upgrade() else {
                return false;
            };
            feed.pages
                .lock()
                .retain(|(read, _)| now.saturating_duration_since(*read) < PAGE_AGE);
            // Readers that stood in what has gone are told of it when they look, and ephemeral ones how much it was.
            !feed.ring.lock().age(now, &feed.key.size)
        });
        self.0.filled.lock().append(&mut filled);
    }

    /// Reads what a cursor of a client names. None where it is no place of this tenant's log.
    #[must_use]
    pub fn resume(&self, log: &TenantLog, cursor: &[u8]) -> Option<Seq> {
        let cursor = Cursor::parse(cursor).ok()?;
        (cursor.epoch == log.epoch && cursor.seq <= log.head()).then_some(cursor.seq)
    }

    /// A new reader of a feed, driven by a task, or by the lane that is named.
    #[must_use]
    pub fn reader(
        &self,
        log: &Arc<TenantLog>,
        key: FeedKey,
        start: Start,
        lane: Option<usize>,
    ) -> Reader {
        let tenant = self.tenant(log);
        let mut index = tenant.index.lock();
        let published = tenant.published.load(Ordering::Acquire);
        let feed = match index.feeds.get(&key) {
            Some(feed) => feed.clone(),
            None => {
                let feed = Arc::new(Feed::new(key.clone(), published, self.0.lanes.len()));
                index.index.insert(&key.patterns, &feed);
                index.feeds.insert(key, feed.clone());
                feed
            }
        };
        Reader::new(self.clone(), tenant.clone(), feed, start, published, lane)
    }

    /// A reader has gone: its feed goes with the last one.
    fn release(tenant: &TenantHub, feed: &Arc<Feed>, lane: Option<usize>) {
        let mut index = tenant.index.lock();
        if let Some(readers) = lane.and_then(|lane| feed.lane_readers.get(lane)) {
            readers.fetch_sub(1, Ordering::AcqRel);
        }
        if feed.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            index.index.remove(&feed.key.patterns, feed);
            index.feeds.remove(&feed.key);
        }
    }

    /// Reads a stretch of the log for a feed, in wire form.
    pub async fn page(
        &self,
        log: &Arc<TenantLog>,
        feed: &Arc<Feed>,
        after: Seq,
    ) -> Result<Arc<PageFrames>, DbError> {
        if let Some((_, page)) = feed
            .pages
            .lock()
            .iter()
            .find(|(_, page)| page.after == after)
        {
            return Ok(page.clone());
        }
        let forgotten = feed.forgotten.load(Ordering::Acquire);
        let (of, from) = (log.clone(), feed.clone());
        let page = self.0.db.read(move |conn| {
            let (mut bytes, mut count) = (Vec::new(), 0);
            let key = &from.key;
            let end = store::visit(
                conn,
                &of,
                after,
                &key.patterns,
                PAGE_EVENTS,
                &|topic| key.rights.admits(topic),
                &mut |row| {
                    count += 1;
                    (key.style.encode)(&Encoding::logged(&of.epoch, row), &mut bytes);
                },
            )?;
            Ok(Arc::new(PageFrames {
                after,
                end,
                bytes: bytes.into(),
                count,
            }))
        });
        let page = page.await?;
        // A page that leads nowhere would be found again and again by the reader that it did not help.
        if page.count > 0 {
            let mut pages = feed.pages.lock();
            // Read before events of it were changed: good for who asked before, and for nobody else.
            if feed.forgotten.load(Ordering::Acquire) != forgotten {
                return Ok(page);
            }
            if pages.is_empty() {
                self.0.filled.lock().push(Arc::downgrade(feed));
            }
            if pages.len() >= FEED_PAGES {
                pages.remove(0);
            }
            pages.push((Instant::now(), page.clone()));
        }
        Ok(page)
    }

    /// The tenant's log, where it has one.
    #[must_use]
    pub fn log(&self, tenant: &Tenant) -> Option<Arc<TenantLog>> {
        self.0.tenants.read().get(tenant).map(|t| t.log.clone())
    }
}
