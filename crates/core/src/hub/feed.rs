//! A feed: the ordered result of one subscription, shared by all connections that asked for the same.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::ring::{Ring, RingSize};
use crate::cursor::{Epoch, Seq};
use crate::event::Event;
use crate::log::store::{LoggedRef, PageEnd};
use crate::topic::Patterns;

/// An event while a wire style encodes it.
#[derive(Debug, Clone, Copy)]
pub struct Encoding<'a> {
    /// The log's epoch.
    pub epoch: &'a Epoch,
    /// The event's place; none if it is ephemeral.
    pub seq: Option<Seq>,
    /// Its topic.
    pub topic: &'a str,
    /// Its type.
    pub kind: &'a str,
    /// Its outside form, one line of JSON.
    pub json: &'a str,
    /// The value of `data` alone.
    pub data: &'a str,
}

impl<'a> Encoding<'a> {
    /// A new event.
    #[must_use]
    pub fn of(epoch: &'a Epoch, seq: Option<Seq>, event: &'a Event) -> Self {
        Self {
            epoch,
            seq,
            topic: event.topic.as_str(),
            kind: event.kind.as_str(),
            json: &event.json,
            data: event.data(),
        }
    }

    /// An event of the log.
    #[must_use]
    pub fn logged(epoch: &'a Epoch, row: LoggedRef<'a>) -> Self {
        let data = row
            .json
            .get(row.data_at..row.json.len().saturating_sub(1))
            .unwrap_or("null");
        Self {
            epoch,
            seq: Some(row.seq),
            topic: row.topic,
            kind: row.kind,
            json: row.json,
            data,
        }
    }
}

/// How a path puts an event on the wire. Styles are statics; two are the same if they are at the same place.
pub struct Style {
    /// A name for people.
    pub name: &'static str,
    /// Appends one whole frame.
    pub encode: fn(&Encoding<'_>, &mut Vec<u8>),
}

impl fmt::Debug for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Decides whether readers of a feed may see a topic.
pub type Admits = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What a feed's readers may see.
#[derive(Clone)]
pub enum Rights {
    /// All that the patterns match: decided when the reader came.
    All,
    /// Only topics that are admitted. Readers with an equal `class` have equal rights.
    Filtered {
        /// All that the decision depends on, the version of the policies included.
        class: Arc<str>,
        /// The decision.
        admits: Admits,
    },
}

impl Rights {
    fn class(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Filtered { class, .. } => Some(class),
        }
    }

    /// Whether a topic that the patterns match may be seen.
    #[must_use]
    pub fn admits(&self, topic: &str) -> bool {
        match self {
            Self::All => true,
            Self::Filtered { admits, .. } => admits(topic),
        }
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::All) {
            "All"
        } else {
            "Filtered"
        })
    }
}

/// What makes two connections readers of the same feed.
#[derive(Debug, Clone)]
pub struct FeedKey {
    /// What is asked for.
    pub patterns: Patterns,
    /// What may be seen.
    pub rights: Rights,
    /// How it is written.
    pub style: &'static Style,
    /// How much of it is kept in memory.
    pub size: RingSize,
}

impl PartialEq for FeedKey {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.style, other.style)
            && self.size == other.size
            && self.rights.class() == other.rights.class()
            && self.patterns == other.patterns
    }
}

impl Eq for FeedKey {}

impl Hash for FeedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.patterns.hash(state);
        self.rights.class().hash(state);
        std::ptr::from_ref(self.style).hash(state);
    }
}

/// Frames read from the log, in wire form, shared by all who stand at the same place.
#[derive(Debug, Clone)]
pub struct PageFrames {
    /// Where it begins: the reader has everything up to here.
    pub after: Seq,
    /// How far it goes.
    pub end: PageEnd,
    /// The frames, contiguous.
    pub bytes: Bytes,
    /// How many.
    pub count: u64,
}

/// One feed.
#[derive(Debug)]
pub struct Feed {
    /// What it is a feed of.
    pub key: FeedKey,
    pub(super) ring: Mutex<Ring>,
    /// Readers, of all kinds.
    pub(super) readers: AtomicU32,
    /// Readers that a lane drives, by lane.
    pub(super) lane_readers: Box<[AtomicU32]>,
    /// Lanes that have been told of new frames and have not looked yet, a bit each.
    pub(super) dirty: AtomicU64,
    /// Wakes readers that are tasks; made when the first one comes.
    changed: OnceLock<watch::Sender<()>>,
    /// Pages that others may be about to ask for, with when they were read.
    pub(super) pages: Mutex<Vec<(Instant, Arc<PageFrames>)>>,
    /// How many times events that it shows were changed.
    pub(super) forgotten: AtomicU64,
}

impl Feed {
    pub(super) fn new(key: FeedKey, base: Seq, lanes: usize) -> Self {
        Self {
            key,
            ring: Mutex::new(Ring::new(base)),
            readers: AtomicU32::new(0),
            lane_readers: (0..lanes).map(|_| AtomicU32::new(0)).collect(),
            dirty: AtomicU64::new(0),
            changed: OnceLock::new(),
            pages: Mutex::new(Vec::new()),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Wakes the readers that are tasks.
    pub(super) fn wake_tasks(&self) {
        if let Some(changed) = self.changed.get() {
            changed.send_replace(());
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed
            .get_or_init(|| watch::channel(()).0)
            .subscribe()
    }

    /// A lane is about to look: whatever comes from now on tells it again.
    pub fn clear_dirty(&self, lane: usize) {
        self.dirty.fetch_and(!(1 << lane), Ordering::AcqRel);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::topic::Pattern;

    pub(in crate::hub) static PLAIN: Style = Style {
        name: "plain",
        encode: |event, out| {
            out.extend_from_slice(format!("{}:{} ", event.seq.unwrap_or(0), event.data).as_bytes());
        },
    };

    pub(in crate::hub) fn key(pattern: &str) -> FeedKey {
        FeedKey {
            patterns: Patterns::new(vec![Pattern::new(pattern).unwrap()]),
            rights: Rights::All,
            style: &PLAIN,
            size: RingSize {
                events: 100,
                bytes: 1 << 20,
                ephemeral_age: Duration::from_secs(30),
            },
        }
    }

    pub(in crate::hub) fn feed() -> Arc<Feed> {
        Arc::new(Feed::new(key("a"), 0, 1))
    }
}
