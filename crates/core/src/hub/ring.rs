//! A feed's latest frames, shared by all who read it. A reader is a position in it, and pins nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::cursor::Seq;

/// The most bytes that one write takes from a ring; what is left follows in the next.
pub const WRITE_BYTES: usize = 256 * 1024;
/// How long frames beyond the queue's size are kept all the same: a walk over all connections must find them.
const WALK_GRACE: Duration = Duration::from_millis(250);
/// How many times the queue's bytes a ring may hold during that grace.
const GRACE_FACTOR: usize = 8;
/// How long a durable frame is kept at all: who comes later reads the log. Memory borrowed for a burst is given back.
const DURABLE_AGE: Duration = Duration::from_secs(2);

/// How much a ring holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RingSize {
    /// `stream.queue_size`: how many events a reader may be behind in memory.
    pub events: usize,
    /// `stream.queue_bytes`, likewise.
    pub bytes: usize,
    /// How long ephemeral frames wait for a reader: `stream.write_timeout`.
    pub ephemeral_age: Duration,
}

#[derive(Debug)]
struct Entry {
    /// The event's place; 0 for an ephemeral one.
    seq: Seq,
    frame: Bytes,
    committed: Instant,
}

/// A stretch of a ring in wire form.
#[derive(Debug, Clone)]
pub struct View {
    /// The index of its first frame.
    pub from: u64,
    /// The index after its last.
    pub to: u64,
    /// The frames, contiguous.
    pub bytes: Bytes,
    /// How many: those that the reader has are left out.
    pub count: u64,
    /// The place of the last durable frame that was left out, because the reader had it; 0 where none was.
    pub passed: Seq,
    /// The place of its first durable frame; 0 where it has none.
    pub first_seq: Seq,
    /// The place of its last durable frame; 0 where it has none.
    pub seq: Seq,
    /// Ephemeral frames in it.
    pub ephemeral: u64,
    /// When its oldest event was committed.
    pub committed: Instant,
}

/// What a position in a ring leads to.
#[derive(Debug)]
pub(super) enum Look {
    Frames(View),
    CaughtUp,
    /// Nothing that the reader does not have: its position moves up to here.
    Known(u64),
    /// The frames there are gone.
    Fallen,
}

#[derive(Debug)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    /// The index of the first entry; indices only grow.
    first: u64,
    /// Every durable event of the feed after this place is in the ring.
    base: Seq,
    bytes: usize,
    /// Ephemeral frames that have left the ring, ever.
    ephemeral_gone: u64,
    /// The hub's number of the last event that was put in: one that matches twice comes once.
    last_tick: u64,
}

impl Ring {
    pub(super) fn new(base: Seq) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            base,
            bytes: 0,
            ephemeral_gone: 0,
            last_tick: 0,
        }
    }

    /// Puts a frame in, unless this event is in already. Says whether the ring was empty.
    pub(super) fn push(
        &mut self,
        tick: u64,
        seq: Seq,
        frame: Bytes,
        committed: Instant,
        size: &RingSize,
    ) -> Option<bool> {
        if self.last_tick == tick {
            return None;
        }
        self.last_tick = tick;
        let was_empty = self.entries.is_empty();
        self.bytes += frame.len();
        self.entries.push_back(Entry {
            seq,
            frame,
            committed,
        });
        while self.entries.len() > 1
            && (self.entries.len() > size.events || self.bytes > size.bytes)
        {
            let is_walked = self
                .entries
                .front()
                .is_none_or(|e| committed.duration_since(e.committed) > WALK_GRACE);
            if !is_walked && self.bytes <= size.bytes.saturating_mul(GRACE_FACTOR) {
                break;
            }
            self.pop();
        }
        Some(was_empty)
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.first += 1;
            self.bytes -= entry.frame.len();
            if entry.seq == 0 {
                self.ephemeral_gone += 1;
            } else {
                self.base = entry.seq;
            }
        }
    }

    /// Drops what has stood long enough. Says whether the ring is empty.
    pub(super) fn age(&mut self, now: Instant, size: &RingSize) -> bool {
        while let Some(entry) = self.entries.front() {
            let age = if entry.seq == 0 {
                size.ephemeral_age
            } else {
                DURABLE_AGE
            };
            if now.saturating_duration_since(entry.committed) <= age {
                break;
            }
            self.pop();
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        self.entries.is_empty()
    }

    /// Forgets everything: whoever is before `base` reads the log.
    pub(super) fn skip_to(&mut self, base: Seq) {
        while !self.entries.is_empty() {
            self.pop();
        }
        self.first += 1;
        self.base = base.max(self.base);
    }

    pub(super) fn base(&self) -> Seq {
        self.base
    }

    /// The index after the last frame, and the ephemeral frames up to there.
    pub(super) fn end(&self) -> (u64, u64) {
        let waiting = self.entries.iter().filter(|e| e.seq == 0).count() as u64;
        (
            self.first + self.entries.len() as u64,
            self.ephemeral_gone + waiting,
        )
    }

    /// The ephemeral frames that are gone, and the index of the oldest frame.
    pub(super) fn start(&self) -> (u64, u64) {
        (self.first, self.ephemeral_gone)
    }

    /// The index at which a reader goes on that has everything up to `seq`, and the ephemeral frames before it. None
    /// where frames after `seq` have left the ring.
    pub(super) fn enter(&self, seq: Seq) -> Option<(u64, u64)> {
        if seq < self.base {
            return None;
        }
        let skipped = self
            .entries
            .iter()
            .rposition(|e| e.seq != 0 && e.seq <= seq)
            .map_or(0, |at| at + 1);
        let ephemeral = self
            .entries
            .iter()
            .take(skipped)
            .filter(|e| e.seq == 0)
            .count() as u64;
        Some((self.first + skipped as u64, self.ephemeral_gone + ephemeral))
    }

    /// What comes at an index for a reader that has everything up to `seq`. It may have read events from the log before
    /// they were put in here: those are passed over. Ephemeral ones among them are not.
    pub(super) fn look(&self, index: u64, seq: Seq) -> Look {
        if index < self.first {
            return Look::Fallen;
        }
        let at = usize::try_from(index - self.first).unwrap_or(usize::MAX);
        if at >= self.entries.len() {
            return Look::CaughtUp;
        }
        let (mut frames, mut len) = (Vec::new(), 0);
        let (mut to, mut passed, mut first_seq, mut last_seq, mut ephemeral) = (index, 0, 0, 0, 0);
        let mut committed = None;
        for entry in self.entries.iter().skip(at) {
            if !frames.is_empty() && len + entry.frame.len() > WRITE_BYTES {
                break;
            }
            to += 1;
            if entry.seq != 0 && entry.seq <= seq {
                passed = entry.seq;
                continue;
            }
            if entry.seq == 0 {
                ephemeral += 1;
            } else {
                last_seq = entry.seq;
                if first_seq == 0 {
                    first_seq = entry.seq;
                }
            }
            committed.get_or_insert(entry.committed);
            len += entry.frame.len();
            frames.push(&entry.frame);
        }
        let Some(committed) = committed else {
            return Look::Known(to);
        };
        let bytes = if let [one] = &frames[..] {
            Bytes::clone(one)
        } else {
            let mut bytes = BytesMut::with_capacity(len);
            frames
                .iter()
                .for_each(|frame| bytes.extend_from_slice(frame));
            bytes.freeze()
        };
        Look::Frames(View {
            from: index,
            to,
            bytes,
            count: frames.len() as u64,
            passed,
            first_seq,
            seq: last_seq,
            ephemeral,
            committed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: RingSize = RingSize {
        events: 3,
        bytes: 1_000,
        ephemeral_age: Duration::from_secs(30),
    };

    fn frame(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn bytes(look: Look) -> String {
        match look {
            Look::Frames(view) => String::from_utf8(view.bytes.to_vec()).unwrap(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_reader_is_a_position() {
        let now = Instant::now();
        let mut ring = Ring::new(4);
        for (tick, seq) in [(1, 5), (2, 7), (3, 9)] {
            ring.push(tick, seq, frame(&format!("{seq} ")), now, &SIZE);
        }
        assert_eq!(
            ring.push(3, 9, frame("9 "), now, &SIZE),
            None,
            "one event comes once"
        );
        assert_eq!(bytes(ring.look(0, 0)), "5 7 9 ");
        assert_eq!(bytes(ring.look(2, 0)), "9 ");
        assert!(matches!(ring.look(3, 0), Look::CaughtUp));
        assert_eq!(
            bytes(ring.look(0, 7)),
            "9 ",
            "what was read from the log is not read again"
        );
        assert!(matches!(ring.look(0, 9), Look::Known(3)));
        ring.push(4, 0, frame("e "), now, &SIZE);
        assert_eq!(
            bytes(ring.look(1, 9)),
            "e ",
            "what is ephemeral is in no log"
        );
        assert_eq!(ring.enter(3), None);
        assert_eq!(ring.enter(4), Some((0, 0)));
        assert_eq!(ring.enter(8), Some((2, 0)));
        assert_eq!(ring.enter(100), Some((3, 0)));
    }

    #[test]
    fn what_is_over_the_size_goes_after_its_grace_and_everything_after_its_age() {
        let start = Instant::now();
        let mut ring = Ring::new(0);
        for tick in 1..=5 {
            ring.push(tick, tick, frame("x"), start, &SIZE);
        }
        assert_eq!(bytes(ring.look(0, 0)), "xxxxx", "a walk still finds them");
        ring.push(6, 6, frame("x"), start + WALK_GRACE * 2, &SIZE);
        assert!(matches!(ring.look(2, 0), Look::Fallen));
        assert_eq!(ring.base(), 3);
        assert!(ring.age(start + DURABLE_AGE * 3, &SIZE));
        assert_eq!((ring.base(), ring.end()), (6, (6, 0)));
    }

    #[test]
    fn what_ephemeral_readers_miss_is_counted() {
        let now = Instant::now();
        let mut ring = Ring::new(0);
        for tick in 1..=4 {
            ring.push(tick, 0, frame("e"), now, &SIZE);
        }
        assert_eq!(ring.end(), (4, 4));
        ring.push(5, 0, frame("e"), now + WALK_GRACE * 2, &SIZE);
        assert_eq!(ring.start(), (2, 2));
        assert_eq!(ring.end(), (5, 5));
    }
}
