//! A reader: a place in a feed's ring, or in the log while it is behind.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::feed::{Feed, FeedKey, PageFrames};
use super::ring::{Look, View};
use super::{Hub, TenantHub};
use crate::cursor::{Cursor, Seq};
use crate::log::TenantLog;

/// How long a reader waits before it asks a database again that did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what comes from now on.
    Live,
    /// After a place in the log.
    After(Seq),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Log,
    Ring(u64),
}

/// What is next for a reader.
#[derive(Debug, Clone)]
pub enum Step {
    /// Frames: write them, then go on.
    Frames(View),
    /// So many ephemeral events were dropped.
    Dropped(u64),
    /// Nothing, until the feed has something new.
    CaughtUp,
    /// A page of the log is needed: [`Hub::page`], then [`Reader::take_page`].
    Behind,
}

/// What a task writes next.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// Frames in wire form; then the reader has everything up to [`Reader::cursor`].
    Frames {
        /// Contiguous.
        bytes: Bytes,
        /// How many.
        count: u64,
        /// When the oldest of them was committed, where they are live.
        committed: Option<std::time::Instant>,
    },
    /// Retention has passed the reader's cursor: the oldest place from which nothing is missing.
    Gap {
        /// That place.
        oldest: Cursor,
    },
    /// So many ephemeral events were dropped.
    Dropped {
        /// How many.
        count: u64,
    },
}

/// One connection's reading. Dropping it frees what it held.
#[derive(Debug)]
pub struct Reader {
    hub: Hub,
    tenant: Arc<TenantHub>,
    feed: Arc<Feed>,
    lane: Option<usize>,
    place: Place,
    /// The reader has every durable event up to here.
    seq: Seq,
    /// Ephemeral frames of the feed up to here; none until the reader has stood in the ring.
    ephemeral: Option<u64>,
    changed: Option<watch::Receiver<()>>,
}

impl Reader {
    /// Called with the tenant's index locked, so that `published` and the ring agree.
    pub(super) fn new(
        hub: Hub,
        tenant: Arc<TenantHub>,
        feed: Arc<Feed>,
        start: Start,
        published: Seq,
        lane: Option<usize>,
    ) -> Self {
        feed.readers.fetch_add(1, Ordering::AcqRel);
        let changed = match lane {
            Some(lane) => {
                if let Some(readers) = feed.lane_readers.get(lane) {
                    readers.fetch_add(1, Ordering::AcqRel);
                }
                None
            }
            None => Some(feed.watch()),
        };
        let (place, seq, ephemeral) = match start {
            Start::Live => {
                let (index, ephemeral) = feed.ring.lock().end();
                (Place::Ring(index), published, Some(ephemeral))
            }
            Start::After(seq) => (Place::Log, seq, None),
        };
        Self {
            hub,
            tenant,
            feed,
            lane,
            place,
            seq,
            ephemeral,
            changed,
        }
    }

    /// The feed.
    #[must_use]
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// The tenant's log.
    #[must_use]
    pub fn log(&self) -> &Arc<TenantLog> {
        &self.tenant.log
    }

    /// The reader has every durable event up to here.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The same, as clients see it.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.tenant.log.at(self.seq)
    }

    /// Whether it stands in the ring with nothing to read, as far as `view`, the last stretch that was looked at, tells.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.place, Place::Ring(_))
    }

    /// Goes on with other patterns, rights or style, from the same place.
    pub fn change(&mut self, key: FeedKey) {
        let next = self
            .hub
            .reader(&self.tenant.log, key, Start::After(self.seq), self.lane);
        *self = next;
    }

    /// What is next. `cached` is a stretch that another reader of this feed has just looked at: those who stand at the
    /// same place use it without a lock.
    pub fn step(&mut self, cached: &mut Option<View>) -> Step {
        if let (Place::Ring(index), Some(view)) = (self.place, cached.as_ref())
            && view.from == index
            // It leaves out nothing that this reader lacks, and holds nothing that it has.
            && view.passed <= self.seq
            && (view.first_seq == 0 || view.first_seq > self.seq)
        {
            return self.advance(view.clone());
        }
        let ring = self.feed.ring.lock();
        if self.place == Place::Log {
            let Some((index, ephemeral)) = ring.enter(self.seq) else {
                return Step::Behind;
            };
            self.place = Place::Ring(index);
            let missed = self
                .ephemeral
                .replace(ephemeral)
                .map_or(0, |seen| ephemeral.saturating_sub(seen));
            if missed > 0 {
                return Step::Dropped(missed);
            }
        }
        let Place::Ring(index) = self.place else {
            return Step::Behind;
        };
        match ring.look(index, self.seq) {
            Look::CaughtUp => Step::CaughtUp,
            Look::Known(to) => {
                self.place = Place::Ring(to);
                Step::CaughtUp
            }
            Look::Frames(view) => {
                drop(ring);
                *cached = Some(view.clone());
                self.advance(view)
            }
            Look::Fallen if self.seq < ring.base() => {
                drop(ring);
                self.place = Place::Log;
                metrics::counter!("tidings_reader_fallbacks_total").increment(1);
                Step::Behind
            }
            Look::Fallen => {
                // Only ephemeral frames, or none that this reader lacks, have gone.
                let (first, gone) = ring.start();
                drop(ring);
                self.place = Place::Ring(first);
                let missed = self
                    .ephemeral
                    .replace(gone)
                    .map_or(0, |seen| gone.saturating_sub(seen));
                if missed > 0 {
                    Step::Dropped(missed)
                } else {
                    self.step(cached)
                }
            }
        }
    }

    fn advance(&mut self, view: View) -> Step {
        self.place = Place::Ring(view.to);
        self.seq = self.seq.max(view.seq);
        self.ephemeral = self.ephemeral.map(|seen| seen + view.ephemeral);
        Step::Frames(view)
    }

    /// Moves past a page that was read for this reader's place. A page for another place is ignored: false.
    pub fn take_page(&mut self, page: &PageFrames) -> bool {
        if self.place != Place::Log || page.after != self.seq {
            return false;
        }
        self.seq = page.end.next.max(page.end.gap.unwrap_or(0));
        true
    }

    /// The log has moved on past what concerns this reader: moves its place up, and says where to. None while it has
    /// something to read, or where nothing has moved.
    pub fn checkpoint(&mut self) -> Option<Cursor> {
        let Place::Ring(index) = self.place else {
            return None;
        };
        // Taken first: every frame up to it is in the ring by now.
        let published = self.tenant.published.load(Ordering::Acquire);
        if published <= self.seq
            || !matches!(self.feed.ring.lock().look(index, self.seq), Look::CaughtUp)
        {
            return None;
        }
        self.seq = published;
        Some(self.cursor())
    }

    /// What is next, for a reader that a task drives. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Delivery {
        loop {
            if let Some(changed) = &mut self.changed {
                changed.borrow_and_update();
            }
            match self.step(&mut None) {
                Step::Frames(view) => {
                    return Delivery::Frames {
                        count: view.count,
                        bytes: view.bytes,
                        committed: Some(view.committed),
                    };
                }
                Step::Dropped(count) => return Delivery::Dropped { count },
                Step::CaughtUp => match &mut self.changed {
                    // The sender lives in the feed, which this reader holds.
                    Some(changed) => drop(changed.changed().await),
                    None => std::future::pending().await,
                },
                Step::Behind => {
                    if let Some(delivery) = self.replay().await {
                        return delivery;
                    }
                }
            }
        }
    }

    async fn replay(&mut self) -> Option<Delivery> {
        match self.hub.page(&self.tenant.log, &self.feed, self.seq).await {
            Err(error) => {
                tracing::warn!(%error, "a page of the log could not be read; trying again");
                tokio::time::sleep(RETRY).await;
                None
            }
            Ok(page) => {
                if let Some(oldest) = page.end.gap {
                    // Told first; the frames after the gap are read in the next round.
                    self.seq = self.seq.max(oldest);
                    return Some(Delivery::Gap {
                        oldest: self.tenant.log.at(oldest),
                    });
                }
                self.take_page(&page);
                (page.count > 0).then(|| Delivery::Frames {
                    bytes: page.bytes.clone(),
                    count: page.count,
                    committed: None,
                })
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        Hub::release(&self.tenant, &self.feed, self.lane);
    }
}
