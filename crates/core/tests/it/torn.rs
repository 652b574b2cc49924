//! Crashes of the disk under the log: lost writes, torn sectors, a stale index. Whatever a crash may leave, opening it
//! finds the log as it was before a change or after it, never between, and the log goes on.
//!
//! The log runs on real files, whose bytes are kept after each change. A crash image is made of the bytes before and after
//! one change, as far as what was synced allows; see [`crate::disk`].

use std::sync::Arc;

use tidings_core::clock::{Clock, Timestamp};

use crate::disk::{Disk, crash, synced};
use crate::life::{Act, Step, act, difference, life, record, rules, state};
use crate::support::{Bed, Core, event, tenant};

/// Crash images of them; the environment can ask for more.
const IMAGES: u64 = 480;
/// Logs that are opened at the same time.
const AT_ONCE: u64 = 4;
const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

/// In memory where that is a folder: what is synced is our business here, not the machine's.
fn fresh() -> Bed {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    Bed::on(folder.unwrap(), Clock::manual(NOW))
}

/// Opens what a crash has left, and looks at all of it. Says also whether the change stands, all of it or a part that may
/// stand alone.
async fn check(disk: &Disk, step: &Step) -> Result<(Bed, Core, bool), String> {
    let bed = fresh();
    disk.write(bed.folder());
    let core = bed.try_open(rules()).await.map_err(|e| e.to_string())?;
    let found = state(&core).await;
    if !step.states.contains(&found) {
        let nearest = step.states.iter().map(|state| difference(&found, state));
        return Err(format!(
            "not as before and not as after: {:?}",
            nearest.collect::<Vec<_>>()
        ));
    }
    sound(&core).await?;
    for log in core.log.tenants() {
        // Who had all that was acknowledged before may go on from there.
        let Some(line) = step.states[0].get(&format!("tenant {}", log.tenant)) else {
            continue;
        };
        let (epoch, rest) = line.split_once(" up to ").unwrap();
        let cursor = format!("{epoch}-{}", rest.split_once(',').unwrap().0);
        if core.hub.resume(&log, cursor.as_bytes()).is_none() {
            return Err(format!("a reader at {cursor} of {line} would be reset"));
        }
    }
    if let Some(Act::Publish(request)) = &step.act
        && request.is_safe_to_repeat()
    {
        let again = core
            .log
            .publish(&tenant(request.tenant), request.batch())
            .await;
        let again = again.map_err(|e| e.to_string())?;
        let (found_now, whole) = (state(&core).await, step.states.last().unwrap());
        if again.is_replayed != (found == *whole) || found_now != *whole {
            return Err(format!("sent again: {}", difference(&found_now, whole)));
        }
    }
    for log in core.log.tenants() {
        let head = log.head();
        let next = core
            .publish(&log.tenant, vec![event("x/2", 7)])
            .await
            .cursor
            .unwrap();
        if next != log.at(head + 1) {
            return Err(format!("after {head} comes {next}"));
        }
    }
    sound(&core).await?;
    Ok((bed, core, found != step.states[0]))
}

/// Asks SQLite whether its file is whole, and compares what topics are said to hold with what they hold.
async fn sound(core: &Core) -> Result<(), String> {
    const SAID: &str = "SELECT tenant || ' ' || topic || ' ' || events || ' ' || bytes FROM topics WHERE events <> 0 ORDER BY 1";
    const HELD: &str = "SELECT (key >> 40) || ' ' || topic || ' ' || COUNT(*) || ' ' || SUM(OCTET_LENGTH(json)) \
                        FROM events GROUP BY key >> 40, topic ORDER BY 1";
    core.log.flush().await;
    let read = core.log.db().read(|conn| {
        let mut texts = |sql: &str| conn.rows(sql, &[], |row| Ok(row.text(0)?.to_owned()));
        Ok((texts("PRAGMA integrity_check")?, texts(SAID)?, texts(HELD)?))
    });
    let (whole, said, held) = read.await.map_err(|e| e.to_string())?;
    if whole != ["ok"] {
        return Err(format!("the file is not whole: {whole:?}"));
    }
    if said != held {
        return Err(format!("said to be held: {said:?}; held: {held:?}"));
    }
    Ok(())
}

/// One crash image, and for some a second crash of the log that came out of the first. Says whether the change stands.
async fn image(seed: u64, number: u64, steps: &[Step]) -> Result<bool, String> {
    let mut rng = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let step = rng.choice(steps).unwrap();
    let (disk, damage) = crash(&mut rng, &step.before, &step.after);
    let failed = |e: String| format!("{damage}, during {:.300}: {e}", format!("{:?}", step.act));
    let (bed, core, stands) = check(&disk, step).await.map_err(failed)?;
    if !number.is_multiple_of(6) || core.log.tenants().is_empty() {
        return Ok(stands);
    }
    let acts = (0..3)
        .map(|n| act(&mut rng, &format!("again-{n}"), &["a"]))
        .collect();
    let again = record(&core, &bed, acts).await;
    let step = rng.choice(&again).unwrap();
    let (disk, second) = crash(&mut rng, &step.before, &step.after);
    let checked = check(&disk, step).await;
    checked
        .map(|_| stands)
        .map_err(|e| failed(format!("then {second}, during {:?}: {e}", step.act)))
}

fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_crash_leaves_is_as_before_a_change_or_after_it() {
    let seed = number_from_environment("TIDINGS_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let images = number_from_environment("TIDINGS_TEST_IMAGES").unwrap_or(IMAGES);
    let steps = Arc::new(life(&mut fastrand::Rng::with_seed(seed), &fresh()).await);
    let restarts = steps
        .iter()
        .filter(|s| s.before.wal.get(..32) != s.after.wal.get(..32))
        .count();
    assert!(
        restarts > 1,
        "the write-ahead log never started over, seed {seed}"
    );
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|worker| {
            let (steps, mut stood) = (steps.clone(), 0);
            tokio::spawn(async move {
                for number in (worker..images).step_by(usize::try_from(AT_ONCE).unwrap()) {
                    let checked = image(seed, number, &steps).await;
                    stood += u64::from(checked.map_err(|e| format!("image {number}: {e}"))?);
                }
                Ok::<_, String>(stood)
            })
        })
        .collect();
    let mut stood = 0;
    for worker in workers {
        let done = worker.await.map_err(|e| e.to_string());
        stood += done
            .and_then(|checked| checked)
            .unwrap_or_else(|e| panic!("TIDINGS_TEST_SEED={seed}, {e}"));
    }
    let part = stood as f64 / images as f64;
    assert!(
        (0.05..0.95).contains(&part),
        "images of one kind only: {part:.2} of the changes stand, seed {seed}"
    );
}

/// The images stand on it: a commit is synced before it is answered.
#[tokio::test(flavor = "multi_thread")]
async fn every_connection_syncs_its_commits() {
    const FULL: i64 = 2;
    let bed = fresh();
    let core = bed.open(rules()).await;
    let read = core.log.db().read(|conn| {
        let mode = conn.row("PRAGMA journal_mode", &[], |row| {
            Ok(row.text(0)?.to_owned())
        })?;
        Ok((mode, conn.row("PRAGMA synchronous", &[], |row| row.int(0))?))
    });
    assert_eq!(read.await.unwrap(), (Some("wal".into()), Some(FULL)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_finds_what_no_crash_may_do() {
    let mut rng = fastrand::Rng::with_seed(1);
    let steps = life(&mut rng, &fresh()).await;
    let appends = |step: &&Step| {
        step.before.wal.get(..32) == step.after.wal.get(..32)
            && step.states.len() > 1
            && step.before.db == step.after.db
    };
    let step = steps.iter().rfind(appends).unwrap();
    let mut disk = Disk {
        shm: Vec::new(),
        ..step.before.clone()
    };
    assert!(check(&disk, step).await.is_ok());
    let end = synced(&step.before.wal, &step.after.wal);
    disk.wal.truncate(end - 1);
    assert!(
        check(&disk, step).await.is_err(),
        "an acknowledged commit is lost"
    );
    disk.wal.clone_from(&step.before.wal);
    disk.wal[end - 600] ^= 1;
    assert!(check(&disk, step).await.is_err(), "a synced sector is torn");
    let copied = steps
        .iter()
        .rfind(|step| step.before.db != step.after.db)
        .unwrap();
    let disk = Disk {
        wal: Vec::new(),
        shm: Vec::new(),
        ..copied.before.clone()
    };
    assert!(
        check(&disk, copied).await.is_err(),
        "the write-ahead log is lost before it was copied"
    );
    let journaled = steps
        .iter()
        .rfind(|step| {
            step.before.journal != step.after.journal && step.before.wal == step.after.wal
        })
        .unwrap();
    let mut disk = Disk {
        shm: Vec::new(),
        ..journaled.after.clone()
    };
    assert!(check(&disk, journaled).await.is_ok());
    disk.journal[100] ^= 1;
    let after = Step {
        act: None,
        before: Disk::default(),
        after: Disk::default(),
        states: journaled.states.last().cloned().into_iter().collect(),
    };
    assert!(
        check(&disk, &after).await.is_err(),
        "a synced record is torn"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_beside_another_database_says_nothing() {
    let bed = fresh();
    let core = bed.open(rules()).await;
    let a = tenant("a");
    core.publish(&a, vec![event("x/1", 1)]).await;
    core.log.flush().await;
    let copy = Disk::read(bed.folder());
    for n in 0..3 {
        core.publish(&a, vec![event("x/1", n)]).await;
        core.log.flush().await;
    }
    core.publish(&a, vec![event("x/1", 9)]).await;
    let now = Disk::read(bed.folder());
    assert_ne!(now.journal, copy.journal);
    for (what, disk, head) in [
        ("the one it was written for", now.clone(), 5),
        (
            "an older copy",
            Disk {
                journal: now.journal.clone(),
                ..copy
            },
            1,
        ),
    ] {
        let bed = fresh();
        Disk {
            shm: Vec::new(),
            ..disk
        }
        .write(bed.folder());
        let core = bed.open(rules()).await;
        assert_eq!(core.log.tenant(&a).await.unwrap().head(), head, "{what}");
    }
    let bed = fresh();
    std::fs::write(bed.folder().join("tidings.db-pending"), &now.journal).unwrap();
    let core = bed.open(rules()).await;
    assert_eq!(
        core.log.tenant(&a).await.unwrap().head(),
        0,
        "a new database"
    );
}

/// Between two starts the mark in the database and the one beside it change in turn: whatever a crash leaves of that, it is
/// the same log. A copy from before is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_it_opens_keeps_cursors_and_a_restored_copy_resets_them() {
    let bed = fresh();
    let core = bed.open(rules()).await;
    let a = tenant("a");
    let last = core
        .publish(&a, vec![event("x/1", 1)])
        .await
        .cursor
        .unwrap();
    let first = Disk {
        shm: Vec::new(),
        ..Disk::read(bed.folder())
    };
    let open = async |disk: &Disk| {
        let bed = fresh();
        disk.write(bed.folder());
        // What a crash leaves of a mark that was being written.
        std::fs::write(bed.folder().join("boot.new"), "half a mar").unwrap();
        let core = bed.open(rules()).await;
        let log = core.log.tenant(&a).await.unwrap();
        let place = core.hub.resume(&log, last.to_string().as_bytes());
        let next = core
            .publish(&a, vec![event("x/1", 2)])
            .await
            .cursor
            .unwrap();
        let disk = Disk {
            shm: Vec::new(),
            ..Disk::read(bed.folder())
        };
        (place, next, disk)
    };
    let (place, _, second) = open(&first).await;
    assert_eq!(place, Some(last.seq));
    let both = [&first.boot[..], &second.boot[..]].concat();
    let with = |disk: &Disk, boot: &[u8]| Disk {
        boot: boot.to_vec(),
        ..disk.clone()
    };
    for (what, disk) in [
        (
            "both marks, the database has the old one",
            with(&first, &both),
        ),
        ("no mark beside it", with(&first, b"")),
    ] {
        assert_eq!(open(&disk).await.0, Some(last.seq), "{what}");
    }
    let opened = {
        let bed = fresh();
        first.write(bed.folder());
        let _core = bed.open(rules()).await;
        Disk {
            shm: Vec::new(),
            ..Disk::read(bed.folder())
        }
    };
    let both = [&first.boot[..], &opened.boot[..]].concat();
    for (what, disk) in [
        (
            "both marks, the database has the new one",
            with(&opened, &both),
        ),
        ("the new mark on both sides", opened.clone()),
    ] {
        assert_eq!(open(&disk).await.0, Some(last.seq), "{what}");
    }
    let (place, next, restored) = open(&with(&first, &second.boot)).await;
    assert_eq!(place, None, "a copy from before the last start");
    assert_ne!(next.epoch, last.epoch);
    let (place, again, _) = open(&restored).await;
    assert_eq!(place, None);
    assert_eq!(
        again,
        next.epoch.at(next.seq + 1),
        "from then on it is the same log"
    );
}
