//! A short log in front of the embedded database: one sequential write and one sync make a plain publish durable.
//!
//! A commit of SQLite writes a page for every table and index that it touches, and costs more than all the rest of a small
//! publish. So events that bring nothing but themselves are appended here, synced and shown; the committer brings them into
//! the database some hundred at a time, in one transaction, and then writes over them. After a crash the next start
//! brings in what was left.
//!
//! The file has a fixed length and is written in place, so that a sync has no new length to write. It has two halves: while
//! what one holds is brought into the database, the other takes what comes. A record is a header (length, CRC-32,
//! generation; little endian) and what it holds in [postcard's wire format](https://postcard.jamesmunns.com). Each time that
//! a half is started over has a generation of its own, so what an earlier one left behind is not read. A record that a
//! crash tore has a wrong checksum, and was never answered. As SQLite does, this takes for granted that a write
//! leaves the bytes beside it alone, also within a sector.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::store::{self, NewRow};
use super::{TenantLog, ledger};
use crate::clock::Timestamp;
use crate::cursor::Seq;
use crate::db::{Conn, Db, DbError};
use crate::event::{Event, EventId, EventType};
use crate::topic::Topic;

/// The length of each half: some thousand small events, so that it is seldom full before the other one is free again.
const HALF_BYTES: u64 = 1024 * 1024;
/// The file's length.
const FILE_BYTES: u64 = 2 * HALF_BYTES;
/// Length of the rest, checksum of the generation and the rest, generation.
const HEADER_BYTES: usize = 4 + 4 + 8;

/// One event, as a record holds it.
#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    number: i64,
    epoch: &'a str,
    seq: Seq,
    stored_at: i64,
    topic: &'a str,
    kind: &'a str,
    id: &'a str,
    data_at: usize,
    json: &'a str,
}

/// An event that a journal held when it was read.
#[derive(Debug)]
pub(super) struct Left {
    number: i64,
    epoch: String,
    seq: Seq,
    stored_at: i64,
    event: Event,
}

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    generation: u64,
    /// Where in the file the half begins that is written to.
    half: u64,
    /// How much of it is used.
    used: u64,
    record: Vec<u8>,
}

/// Where the journal of a database lies; none beside a server's.
fn path_of(db: &Db) -> Option<PathBuf> {
    let mut name = db.file()?.file_name()?.to_owned();
    name.push("-pending");
    Some(db.file()?.with_file_name(name))
}

impl Journal {
    /// Opens the journal of a database, to be written from its beginning: what it held must have been brought in. Blocks.
    pub(super) fn open(db: &Db) -> Result<Option<Self>, DbError> {
        let Some(path) = path_of(db) else {
            return Ok(None);
        };
        let failed = failed(&path);
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(&failed)?;
        let length = file.metadata().map_err(&failed)?.len();
        if length != FILE_BYTES {
            // Written, not reserved: a block that was only reserved costs a second write when it is first used.
            file.set_len(0).map_err(&failed)?;
            let zeros = vec![0; usize::try_from(FILE_BYTES).unwrap_or(0)];
            file.write_all(&zeros).map_err(&failed)?;
            file.sync_all().map_err(&failed)?;
            if let Some(folder) = path.parent().filter(|_| cfg!(unix)) {
                File::open(folder)
                    .and_then(|folder| folder.sync_all())
                    .map_err(&failed)?;
            }
        }
        Ok(Some(Self {
            file,
            // Random, so that nothing in the file has it; and far from where it would begin again.
            generation: uuid::Uuid::new_v4().as_u64_pair().0 >> 1,
            half: 0,
            used: 0,
            record: Vec::new(),
        }))
    }

    /// Appends events and syncs. Says false where there is no room for them: nothing is written then.
    pub(super) fn append<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a TenantLog, &'a NewRow)>,
    ) -> Result<bool, DbError> {
        let fault = |e: &dyn std::fmt::Display| DbError::Fault(format!("the journal: {e}"));
        let entries: Vec<_> = rows.map(|(log, row)| entry(log, row)).collect();
        self.record.clear();
        self.record.resize(HEADER_BYTES, 0);
        let record = postcard::to_extend(&entries, std::mem::take(&mut self.record));
        self.record = record.map_err(|e| fault(&e))?;
        let length = self.record.len() as u64;
        if self.used + length > HALF_BYTES {
            return Ok(false);
        }
        let header = header(self.generation, &self.record[HEADER_BYTES..]);
        self.record[..HEADER_BYTES].copy_from_slice(&header);
        self.file
            .seek(SeekFrom::Start(self.half + self.used))
            .and_then(|_| self.file.write_all(&self.record))
            .and_then(|()| self.file.sync_data())
            .map_err(|e| DbError::Unavailable(format!("the journal: {e}")))?;
        self.used += length;
        Ok(true)
    }

    /// Goes on in the other half. What that held must be in the database, and synced.
    pub(super) fn turn(&mut self) {
        self.half = HALF_BYTES - self.half;
        self.start_over();
    }

    /// Begins this half again. What it held must be in the database, and synced.
    pub(super) fn start_over(&mut self) {
        self.used = 0;
        self.generation += 1;
    }
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> DbError {
    let path = path.display().to_string();
    move |e| DbError::Unavailable(format!("{path}: {e}"))
}

fn entry<'a>(log: &'a TenantLog, row: &'a NewRow) -> Entry<'a> {
    Entry {
        number: row.number,
        epoch: log.epoch.as_str(),
        seq: store::seq_of(row.key),
        stored_at: row.stored_at.as_micros(),
        topic: row.event.topic.as_str(),
        kind: row.event.kind.as_str(),
        id: row.event.id.as_str(),
        data_at: row.event.data_at,
        json: &row.event.json,
    }
}

fn header(generation: u64, content: &[u8]) -> [u8; HEADER_BYTES] {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&generation.to_le_bytes());
    hash.update(content);
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..8].copy_from_slice(&hash.finalize().to_le_bytes());
    header[8..].copy_from_slice(&generation.to_le_bytes());
    header
}

/// Reads what the journal of a database holds, in order. Blocks.
pub(super) fn read(db: &Db) -> Result<Vec<Left>, DbError> {
    let Some(path) = path_of(db) else {
        return Ok(Vec::new());
    };
    let mut bytes = Vec::new();
    match File::open(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.and_then(|mut file| file.read_to_end(&mut bytes)),
    }
    .map_err(failed(&path))?;
    let half = usize::try_from(HALF_BYTES)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let (one, other) = bytes.split_at(half);
    let mut left: Vec<_> = [one, other]
        .into_iter()
        .flat_map(records)
        .flatten()
        .collect();
    // One half goes on where the other ends, whichever was first.
    left.sort_by_key(|one| one.seq);
    Ok(left)
}

/// The records of the generation that a half begins with, up to the first that is not whole.
fn records(bytes: &[u8]) -> Vec<Vec<Left>> {
    let mut records = Vec::new();
    let (mut rest, mut generation) = (bytes, None);
    while let Some((content, of, after)) = whole_record(rest) {
        if *generation.get_or_insert(of) != of {
            break;
        }
        let Some(events) = events(content) else { break };
        records.push(events);
        rest = after;
    }
    records
}

/// The first record: its content, its generation, and what comes after it.
fn whole_record(bytes: &[u8]) -> Option<(&[u8], u64, &[u8])> {
    let (stands, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let length = u32::from_le_bytes(stands[..4].try_into().ok()?);
    let generation = u64::from_le_bytes(stands[8..].try_into().ok()?);
    let (content, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    (length > 0 && stands == header(generation, content)).then_some((content, generation, after))
}

fn events(content: &[u8]) -> Option<Vec<Left>> {
    let entries: Vec<Entry<'_>> = postcard::from_bytes(content).ok()?;
    entries
        .into_iter()
        .map(|entry| {
            Some(Left {
                number: entry.number,
                epoch: entry.epoch.to_owned(),
                seq: entry.seq,
                stored_at: entry.stored_at,
                event: Event {
                    topic: Topic::new(entry.topic).ok()?,
                    kind: EventType::new(entry.kind).ok()?,
                    id: EventId::new(entry.id).ok()?,
                    identity: None,
                    json: entry.json.into(),
                    data_at: entry.data_at,
                },
            })
        })
        .collect()
}

/// What a crash has left in the journal of a tenant's log: the events that follow on those that the database has.
///
/// A journal beside a database that is not the one that it was written for (a restored copy, a new one) says nothing: the
/// epochs are others, or the events follow on what is not there.
fn following(log: &TenantLog, stored: Seq, left: &[Left]) -> Vec<(Seq, Timestamp, Event)> {
    let mut next = stored + 1;
    let mut events = Vec::new();
    for one in left {
        if one.number != log.number || one.epoch != log.epoch.as_str() || one.seq < next {
            continue;
        }
        if one.seq > next {
            tracing::warn!(tenant = %log.tenant, "the journal does not follow on the database, and is left out");
            return Vec::new();
        }
        next += 1;
        let stored_at = Timestamp::from_micros(one.stored_at);
        events.push((one.seq, stored_at, one.event.clone()));
    }
    events
}

/// Brings in what a crash has left in the journal. In a transaction of the caller's.
pub(super) fn recover(conn: &mut Conn, left: &[Left]) -> Result<(), DbError> {
    if left.is_empty() {
        return Ok(());
    }
    for log in store::committed_tenants(conn)? {
        let rows: Vec<_> = following(&log, log.head(), left)
            .into_iter()
            .map(|(seq, stored_at, event)| NewRow::new(&log, seq, stored_at, event))
            .collect();
        for rows in rows.chunks(ledger::EVENTS) {
            store::insert(conn, rows)?;
        }
    }
    Ok(())
}

/// Shows what is in the journal to those who read the logs of a database that they may not write to.
pub(super) fn overlay(logs: &mut [TenantLog], left: &[Left]) {
    for log in logs {
        let events: Vec<_> = following(log, log.head(), left)
            .into_iter()
            .map(|(seq, _, event)| (seq, event))
            .collect();
        if let Some((last, _)) = events.last() {
            let last = *last;
            log.push_tail(events);
            log.move_head(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(generation: u64, seq: Seq) -> Vec<u8> {
        let json = format!("{{\"id\":\"i{seq}\",\"data\":{seq}}}");
        let entry = Entry {
            number: 1,
            epoch: "E",
            seq,
            stored_at: 5,
            topic: "a/b",
            kind: "t",
            id: "i",
            data_at: 17,
            json: &json,
        };
        let content = postcard::to_allocvec(&[entry][..]).unwrap();
        [&header(generation, &content)[..], &content].concat()
    }

    fn seqs(bytes: &[u8]) -> Vec<Seq> {
        records(bytes)
            .into_iter()
            .flatten()
            .map(|e| e.seq)
            .collect()
    }

    #[test]
    fn records_of_one_generation_are_read_up_to_the_first_that_is_torn() {
        let whole = [record(7, 1), record(7, 2), record(7, 3)];
        assert_eq!(seqs(&whole.concat()), [1, 2, 3]);
        let (first, bytes) = (whole[0].len(), whole.concat());
        for at in 0..bytes.len() {
            let mut torn = bytes.clone();
            torn[at] ^= 0x40;
            let intact = u64::try_from(at / first).unwrap();
            assert_eq!(seqs(&torn), (1..=intact).collect::<Vec<_>>(), "byte {at}");
            assert_eq!(seqs(&bytes[..at]), (1..=intact).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_an_earlier_generation_left_behind_is_not_read() {
        let bytes = [record(8, 4), record(7, 2), record(7, 3)].concat();
        assert_eq!(seqs(&bytes), [4]);
        assert!(seqs(&[0; 4_096]).is_empty());
    }
}
