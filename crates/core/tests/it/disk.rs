//! What a disk holds of a log, and what a crash may leave of that.
//!
//! The rules of the game: what was synced stands. Of what was written since, each sector is there or not, in any order,
//! or torn. SQLite syncs the write-ahead log at each commit, and before it copies pages from there into the database; it
//! syncs the database before it starts the write-ahead log over, whose header it syncs before it writes what follows. The
//! journal is synced after each record, and started over when the database has what it held. What is written beside synced
//! bytes of the same sector leaves those alone, as SQLite takes for granted too.

use std::fs;
use std::ops::Range;
use std::path::Path;

/// The header of a write-ahead log: with the same one, two of them are the same one at two times.
const WAL_HEADER: usize = 32;
/// A page with its header in the write-ahead log. Pages have SQLite's default size.
const WAL_FRAME: usize = 24 + 4_096;

/// The files, byte for byte. One that is not there is empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) db: Vec<u8>,
    pub(crate) wal: Vec<u8>,
    pub(crate) shm: Vec<u8>,
    pub(crate) journal: Vec<u8>,
    pub(crate) boot: Vec<u8>,
}

impl Disk {
    pub(crate) fn read(folder: &Path) -> Self {
        let file = |name: &str| fs::read(folder.join(name)).unwrap_or_default();
        Self {
            db: file("tidings.db"),
            wal: file("tidings.db-wal"),
            shm: file("tidings.db-shm"),
            journal: file("tidings.db-pending"),
            boot: file("boot"),
        }
    }

    pub(crate) fn write(&self, folder: &Path) {
        for (name, bytes) in [
            ("tidings.db", &self.db),
            ("tidings.db-wal", &self.wal),
            ("tidings.db-shm", &self.shm),
            ("tidings.db-pending", &self.journal),
            ("boot", &self.boot),
        ] {
            if !bytes.is_empty() {
                fs::write(folder.join(name), bytes).unwrap();
            }
        }
    }
}

/// What a crash may leave between two times at which all was synced, and how it came about.
pub(crate) fn crash(rng: &mut fastrand::Rng, before: &Disk, after: &Disk) -> (Disk, String) {
    let header = |disk: &Disk| disk.wal.get(..WAL_HEADER).map(<[u8]>::to_vec);
    let is_journaled = before.journal != after.journal && !before.journal.is_empty();
    let is_committed = before.wal != after.wal || before.db != after.db;
    let mut journal = before.journal.clone();
    let (db, wal, damage) = if is_journaled && (!is_committed || rng.bool()) {
        // What the database took in was synced before the journal went on.
        let (whole, synced) = (before.journal.len(), synced_records(before, after));
        let (torn, damage) = tear(rng, &before.journal, &after.journal, synced, whole);
        journal = torn;
        (
            after.db.clone(),
            after.wal.clone(),
            format!("journal: {damage}"),
        )
    } else if before.wal == after.wal {
        let (db, damage) = tear(rng, &before.db, &after.db, 0, before.db.len());
        let wal = after.wal.clone();
        (db, wal, format!("database: {damage}"))
    } else if header(before) != header(after) {
        let (mut base, db) = (before.wal.clone(), after.db.clone());
        let (wal, damage) = match rng.u32(0..10) {
            _ if base.is_empty() => tear(rng, &base, &after.wal, 0, 0),
            0 => (base, "not started over yet".into()),
            1 => {
                garble(rng, &mut base, 0..WAL_HEADER);
                (base, "torn header".into())
            }
            _ => {
                base[..WAL_HEADER].copy_from_slice(&after.wal[..WAL_HEADER]);
                tear(rng, &base, &after.wal, WAL_HEADER, WAL_HEADER)
            }
        };
        (db, wal, format!("new write-ahead log: {damage}"))
    } else if before.db != after.db && rng.bool() {
        let (db, damage) = tear(rng, &before.db, &after.db, 0, before.db.len());
        let wal = after.wal.clone();
        (db, wal, format!("database, after a commit: {damage}"))
    } else {
        let synced = synced(&before.wal, &after.wal);
        let (wal, damage) = tear(rng, &before.wal, &after.wal, synced, synced);
        let db = before.db.clone();
        (db, wal, format!("write-ahead log: {damage}"))
    };
    let mut disk = Disk {
        db,
        wal,
        journal,
        boot: after.boot.clone(),
        ..Disk::default()
    };
    // Nothing of the index of the write-ahead log is ever synced.
    let index = match rng.u32(0..4) {
        0 => "gone",
        1 => {
            disk.shm.clone_from(&before.shm);
            "old"
        }
        2 => {
            disk.shm.clone_from(&after.shm);
            "new"
        }
        _ => {
            disk.shm = vec![0; 32_768];
            garble(rng, &mut disk.shm, 0..32_768);
            "garbage"
        }
    };
    (disk, format!("{damage}; index {index}"))
}

/// The length up to which a write-ahead log was synced before more was appended: a whole number of frames, at or before
/// the first difference.
pub(crate) fn synced(before: &[u8], after: &[u8]) -> usize {
    let same = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    WAL_HEADER + same.saturating_sub(WAL_HEADER) / WAL_FRAME * WAL_FRAME
}

/// The length up to which a journal was synced before more was appended: the records that it had, where they still stand.
fn synced_records(before: &Disk, after: &Disk) -> usize {
    let number = |at: usize, length: usize| {
        let bytes = before.journal.get(at..at + length)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |n, byte| n << 8 | u64::from(*byte)),
        )
    };
    let generation = number(8, 8);
    let mut end = 0;
    while let (Some(length), true) = (number(end, 4), number(end + 8, 8) == generation)
        && length > 0
    {
        end += 16 + usize::try_from(length).unwrap();
    }
    let stands = before.journal[..end] == after.journal[..end];
    if stands { end } else { 0 }
}

/// Writes a part of what changed between two contents of a file. Bytes before `from` are never touched, and no file gets
/// shorter than `shortest`.
fn tear(
    rng: &mut fastrand::Rng,
    before: &[u8],
    after: &[u8],
    from: usize,
    shortest: usize,
) -> (Vec<u8>, String) {
    let sector = *rng.choice(&[512, 4_096]).unwrap();
    let written = written(before, after, from, sector);
    if written.is_empty() {
        return (after.to_vec(), "nothing was written".into());
    }
    let mut bytes = after.to_vec();
    let some = |rng: &mut fastrand::Rng| {
        let count = rng.usize(1..=written.len().min(4));
        rng.choose_multiple(written.iter().cloned(), count)
    };
    let damage = match rng.u32(0..9) {
        0 => {
            bytes.truncate(rng.usize(shortest.min(after.len())..=after.len()));
            format!("cut at {}", bytes.len())
        }
        1 => {
            let upto = rng.choice(&written).unwrap().start;
            bytes = before.to_vec();
            put(&mut bytes, after, from..upto);
            format!("written up to {upto}")
        }
        2 => {
            let part = *rng.choice(&[0.05, 0.5, 0.95]).unwrap();
            bytes = before.to_vec();
            let mut kept = 0;
            for range in &written {
                if rng.f64() < part {
                    put(&mut bytes, after, range.clone());
                    kept += 1;
                }
            }
            format!("{kept} of {} sectors of {sector}", written.len())
        }
        3 => {
            let torn = some(rng);
            torn.iter().for_each(|range| bytes[range.clone()].fill(0));
            format!("zeros at {torn:?}")
        }
        4 => {
            let torn = some(rng);
            torn.iter()
                .for_each(|range| garble(rng, &mut bytes, range.clone()));
            format!("garbage at {torn:?}")
        }
        5 => {
            let whole = written.iter().filter(|range| range.len() == sector);
            let pair = rng.choose_multiple(whole.cloned(), 2);
            if let [one, other] = &pair[..] {
                let kept = bytes[one.clone()].to_vec();
                bytes.copy_within(other.clone(), one.start);
                bytes[other.clone()].copy_from_slice(&kept);
            }
            format!("swapped: {pair:?}")
        }
        6 => {
            let range = rng.choice(&written).unwrap().clone();
            let at = rng.usize(range);
            bytes[at] ^= 1 << rng.u32(0..8);
            format!("a bit at {at}")
        }
        7 => {
            bytes = before.to_vec();
            "nothing of it".into()
        }
        _ => "all of it".into(),
    };
    (bytes, damage)
}

/// The sectors that differ, without what lies before `from`.
fn written(before: &[u8], after: &[u8], from: usize, sector: usize) -> Vec<Range<usize>> {
    (0..after.len().div_ceil(sector))
        .map(|n| (n * sector).max(from)..((n + 1) * sector).min(after.len()))
        .filter(|range| range.start < range.end)
        .filter(|range| before.get(range.clone()) != Some(&after[range.clone()]))
        .collect()
}

/// Copies a range; what lies between the end of the file and its start is a hole.
fn put(bytes: &mut Vec<u8>, from: &[u8], range: Range<usize>) {
    if bytes.len() < range.end {
        bytes.resize(range.end, 0);
    }
    bytes[range.clone()].copy_from_slice(&from[range]);
}

fn garble(rng: &mut fastrand::Rng, bytes: &mut [u8], range: Range<usize>) {
    bytes[range].iter_mut().for_each(|byte| *byte = rng.u8(..));
}
