//! What topics hold and how far each log has come, between two of the committer's notes to the database.
//!
//! The events themselves say all of it, so it need not be written with each of them: every page that a commit leaves alone
//! is a write less under its sync. What a crash takes away is counted again from the events at the next start.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::store::{NewRow, number_of, seq_of};
use crate::cursor::Seq;
use crate::topic::Topic;

/// Events after which a note is due: so few that counting them again takes no time.
pub(super) const EVENTS: usize = 10_000;
/// Time after which the next commit makes a note.
const AGE: Duration = Duration::from_secs(1);

/// By how many bytes what topics hold changes, by tenant and topic.
pub(super) type Held = BTreeMap<(i64, String), i64>;

/// What the database has not been told yet.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Events and bytes by tenant and topic.
    pub(super) held: HashMap<(i64, Topic), (i64, i64)>,
    /// From which head to which, by tenant.
    pub(super) moves: HashMap<i64, (Seq, Seq)>,
    events: usize,
    noted: Instant,
}

impl Ledger {
    /// Nothing to tell.
    pub(super) fn new() -> Self {
        Self {
            held: HashMap::new(),
            moves: HashMap::new(),
            events: 0,
            noted: Instant::now(),
        }
    }

    /// Takes in events that follow each other.
    pub(super) fn add(&mut self, rows: &[NewRow]) {
        for row in rows {
            let seq = seq_of(row.key);
            let moved = self.moves.entry(row.number).or_insert((seq - 1, seq));
            moved.1 = moved.1.max(seq);
            let bytes = number_of(row.event.json.len());
            let (events, sum) = self
                .held
                .entry((row.number, row.event.topic.clone()))
                .or_default();
            *events += 1;
            *sum += bytes;
        }
        self.events += rows.len();
    }

    /// Whether the database should be told.
    pub(super) fn is_due(&self) -> bool {
        self.events >= EVENTS || (self.events > 0 && self.noted.elapsed() >= AGE)
    }

    /// Whether there is anything to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.events == 0
    }
}
