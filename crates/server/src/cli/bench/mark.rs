//! What a measured event carries, and the account of what each reader got.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

/// The fixed part of a mark: `@tb:` run `:` publisher `:` seq `:` nanoseconds `:`.
pub(super) const MARK_BYTES: usize = 4 + 8 + 1 + 4 + 1 + 16 + 1 + 16 + 1;

/// One measurement: tells its own events from others, and is the clock of both ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    id: u32,
    begun: Instant,
    size: usize,
}

/// What an event carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) publisher: u16,
    pub(super) seq: u64,
    at_nanos: u64,
}

impl Run {
    /// A measurement whose events' data are strings of `size` bytes.
    pub(super) fn new(size: usize) -> Self {
        Self {
            id: fastrand::u32(..),
            begun: Instant::now(),
            size: size.max(MARK_BYTES),
        }
    }

    /// What a topic of this measurement ends with, so that runs do not meet.
    pub(super) fn name(&self) -> String {
        format!("{:08x}", self.id)
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Appends an event as JSON, stamped now.
    pub(super) fn write_event(&self, out: &mut String, topic: &str, publisher: u16, seq: u64) {
        let begun = out.len();
        let head = r#"","type":"bench","data":""#;
        let _ = write!(out, r#"{{"topic":"{topic}{head}"#);
        let data = out.len();
        let (id, at) = (self.id, self.nanos());
        let _ = write!(out, "@tb:{id:08x}:{publisher:04x}:{seq:016x}:{at:016x}:");
        while out.len() < data + self.size {
            out.push('x');
        }
        out.push_str("\"}");
        debug_assert!(out.len() > begun);
    }

    /// The mark of an event in its outside form, whose last member is `data`; `None` for an event that is not of this
    /// measurement.
    pub(super) fn read_event(&self, json: &[u8]) -> Option<Mark> {
        let data = json.len().checked_sub(2 + self.size)?;
        let mark = std::str::from_utf8(json.get(data..data + MARK_BYTES)?).ok()?;
        let mut parts = mark.strip_prefix("@tb:")?.split(':');
        let mut part = || u64::from_str_radix(parts.next()?, 16).ok();
        let (id, publisher, seq, at_nanos) = (part()?, part()?, part()?, part()?);
        (id == u64::from(self.id)).then_some(Mark {
            publisher: u16::try_from(publisher).ok()?,
            seq,
            at_nanos,
        })
    }

    /// How long ago the event was sent.
    pub(super) fn age(&self, mark: &Mark) -> Duration {
        Duration::from_nanos(self.nanos().saturating_sub(mark.at_nanos))
    }
}

/// More missing numbers than this are counted, not remembered: a late one then counts as repeated.
const MAX_MISSING: usize = 4_096;

/// The account of one reader: each publisher numbers its events from 0, without a hole.
#[derive(Debug, Default)]
pub(super) struct Account {
    tracks: Vec<Track>,
    pub(super) received: u64,
    pub(super) repeated: u64,
    pub(super) reordered: u64,
}

#[derive(Debug, Default)]
struct Track {
    next: u64,
    missing: Vec<u64>,
    received: u64,
}

impl Account {
    /// Enters an event. Returns whether it was the first of its number.
    pub(super) fn enter(&mut self, mark: &Mark) -> bool {
        let at = usize::from(mark.publisher);
        if self.tracks.len() <= at {
            self.tracks.resize_with(at + 1, Track::default);
        }
        let Some(track) = self.tracks.get_mut(at) else {
            return false;
        };
        if mark.seq < track.next {
            let Some(place) = track.missing.iter().position(|seq| *seq == mark.seq) else {
                self.repeated += 1;
                return false;
            };
            track.missing.swap_remove(place);
            self.reordered += 1;
        } else {
            let room = MAX_MISSING.saturating_sub(track.missing.len());
            track.missing.extend((track.next..mark.seq).take(room));
            track.next = mark.seq + 1;
        }
        track.received += 1;
        self.received += 1;
        true
    }

    /// How many events never came, where publisher `n` sent `sent[n]`.
    pub(super) fn lost(&self, sent: &[u64]) -> u64 {
        sent.iter()
            .enumerate()
            .map(|(at, sent)| sent.saturating_sub(self.tracks.get(at).map_or(0, |t| t.received)))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(publisher: u16, seq: u64) -> Mark {
        Mark {
            publisher,
            seq,
            at_nanos: 0,
        }
    }

    #[test]
    fn a_mark_comes_back_out_of_an_event() {
        for size in [0, 64, 200] {
            let run = Run::new(size);
            let mut sent = String::new();
            run.write_event(&mut sent, "bench/x", 3, 77);
            let value: serde_json::Value = serde_json::from_str(&sent).unwrap();
            assert_eq!(value["data"].as_str().unwrap().len(), size.max(MARK_BYTES));
            let seen = sent.replacen('{', r#"{"id":"1","time":"t","#, 1);
            let mark = run.read_event(seen.as_bytes()).unwrap();
            assert_eq!((mark.publisher, mark.seq), (3, 77));
            assert!(run.age(&mark) < Duration::from_secs(5));
            assert_eq!(
                Run::new(size).read_event(seen.as_bytes()),
                None,
                "another run's"
            );
        }
        assert_eq!(Run::new(64).read_event(br#"{"data":1}"#), None);
    }

    #[test]
    fn losses_repeats_and_reordering_are_told_apart() {
        let mut account = Account::default();
        for seq in [0, 1, 4, 3, 4, 5] {
            account.enter(&mark(0, seq));
        }
        account.enter(&mark(2, 0));
        assert_eq!(
            (account.received, account.repeated, account.reordered),
            (6, 1, 1)
        );
        assert_eq!(account.lost(&[6, 0, 1]), 1);
        assert_eq!(account.lost(&[8, 2, 1]), 5);
    }
}
