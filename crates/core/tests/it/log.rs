//! Append, read, repeat, trim, restore.

use std::time::Duration;

use tidings_core::db::DbError;
use tidings_core::event::{EventId, NewEvent};
use tidings_core::hub::Rights;
use tidings_core::log::{
    AppendError, Batch, Idempotency, PublishError, WriteError, on_disk, store,
};
use tidings_core::retention::{Keep, TopicRule, TopicRules};
use tidings_core::topic::Pattern;

use crate::support::{Bed, event, on_each_backend, patterns, tenant};

/// An event that bears a publisher's id.
fn with_id(id: &str, data: i64) -> NewEvent {
    let mut event = event("x", data);
    event.id = Some(EventId::new(id).unwrap());
    event
}

on_each_backend! {
    async fn what_is_published_is_read_in_order_by_pattern_and_tenant(bed: Bed) {
        let core = bed.open(TopicRules::default()).await;
        let (a, b) = (tenant("a"), tenant("b"));
        core.publish(&a, vec![event("x/1", 1), event("y", 2), event("x/2", 3)]).await;
        core.publish(&b, vec![event("x/1", 9)]).await;
        let last = core.publish(&a, vec![event("x/1", 4)]).await.cursor.unwrap();
        for (asked, data) in [(&["**"][..], "1234"), (&["x/*"], "134"), (&["x/1"], "14"), (&["x/1", "y"], "124"), (&["z"], "")] {
            let page = core.read(&a, 0, &patterns(asked), 100).await;
            let got: String = page.events.iter().map(|e| &e.json[e.data_at..e.json.len() - 1]).collect();
            assert_eq!((got.as_str(), page.end.next, page.end.is_end), (data, last.seq, true), "{asked:?}");
        }
        let mut after = 0;
        for data in ["1", "3", "4", ""] {
            let page = core.read(&a, after, &patterns(&["x/*"]), 1).await;
            assert_eq!(page.events.iter().map(|e| &e.json[e.data_at..e.json.len() - 1]).collect::<String>(), data);
            after = page.end.next;
        }
    }
}

on_each_backend! {
    async fn many_publishers_are_committed_in_one_order(bed: Bed) {
        let core = std::sync::Arc::new(bed.open(TopicRules::default()).await);
        let a = tenant("a");
        let tasks: Vec<_> = (0..50)
            .map(|n| {
                let (core, a) = (core.clone(), a.clone());
                tokio::spawn(async move {
                    let mut last = 0;
                    for _ in 0..20 {
                        let seq = core.publish(&a, vec![event("x", n)]).await.cursor.unwrap().seq;
                        assert!(seq > last);
                        last = seq;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let page = core.read(&a, 0, &patterns(&["x"]), 2_000).await;
        assert_eq!(page.events.len(), 1_000);
        assert!(page.events.windows(2).all(|w| w[0].seq < w[1].seq));
    }
}

on_each_backend! {
    async fn a_repeat_is_the_same_event(bed: Bed) {
        let core = bed.open(TopicRules::default()).await;
        let a = tenant("a");
        let first = core.publish(&a, vec![with_id("1", 1)]).await;
        let again = core.publish(&a, vec![with_id("1", 1), with_id("2", 2), with_id("2", 2)]).await;
        assert_eq!(again.ids[0], first.ids[0]);
        let conflict = core.log.publish(&a, Batch { subject: "s".into(), events: vec![with_id("3", 3), with_id("1", 7)], idempotency: None });
        assert!(matches!(conflict.await, Err(PublishError::IdConflict { index: 1 })));
        let page = core.read(&a, 0, &patterns(&["x"]), 100).await;
        assert_eq!(page.events.len(), 2);

        let keyed = |request: &str, data| Batch {
            subject: "s".into(),
            events: vec![event("k", data)],
            idempotency: Some(Idempotency { key: "key".into(), request: request.into() }),
        };
        let first = core.log.publish(&a, keyed("r", 1)).await.unwrap();
        let again = core.log.publish(&a, keyed("r", 1)).await.unwrap();
        assert!(again.is_replayed && !first.is_replayed);
        assert_eq!((again.ids, again.cursor), (first.ids, first.cursor));
        assert!(matches!(core.log.publish(&a, keyed("other", 2)).await, Err(PublishError::KeyReused)));
        bed.clock.advance(Duration::from_secs(90_000));
        core.log.trim().await.unwrap();
        assert!(!core.log.publish(&a, keyed("other", 2)).await.unwrap().is_replayed);
    }
}

on_each_backend! {
    async fn a_state_change_and_its_events_commit_together_or_not_at_all(bed: Bed) {
        let core = bed.open(TopicRules::default()).await;
        let a = tenant("a");
        let put = "INSERT INTO facts (name, value) VALUES ($1, 'v')";
        let written = core.log.write::<_, DbError>(&a, move |tx| {
            tx.execute(put, &["kept".into()])?;
            tx.append(event("x", 1));
            Ok(7)
        });
        let written = written.await.unwrap();
        assert!(written.value == 7 && written.cursor.is_some());
        let refused = core.log.write::<(), DbError>(&a, move |tx| {
            tx.execute(put, &["undone".into()])?;
            tx.append(event("x", 2));
            Err(DbError::Fault("no".into()))
        });
        assert!(matches!(refused.await, Err(WriteError::Refused(_))));
        let failed = core.log.write::<_, DbError>(&a, move |tx| tx.execute(put, &["kept".into()]));
        assert!(matches!(failed.await, Err(WriteError::Refused(DbError::Conflict(_)))));
        let names = core.log.db().read(|conn| conn.rows("SELECT name FROM facts WHERE value = 'v'", &[], |row| Ok(row.text(0)?.to_owned())));
        assert_eq!(names.await.unwrap(), ["kept"]);
        assert_eq!(core.read(&a, 0, &patterns(&["x"]), 9).await.events.len(), 1);
    }
}

on_each_backend! {
    async fn an_event_that_stands_is_appended_no_second_time(bed: Bed) {
        let core = bed.open(TopicRules::default()).await;
        let a = tenant("a");
        core.publish(&a, vec![with_id("1", 1)]).await;
        // Another's, in the same transaction as like as not.
        let (other, again) = tokio::join!(
            core.publish(&a, vec![with_id("2", 2)]),
            core.log.write::<_, AppendError>(&a, move |tx| {
                for event in [with_id("1", 1), with_id("2", 2), with_id("3", 3), with_id("3", 3)] {
                    tx.append_once(event)?;
                }
                Ok(())
            }),
        );
        assert!(again.is_ok() && other.cursor.is_some());
        for events in [[with_id("1", 7), with_id("4", 4)], [with_id("4", 4), with_id("4", 5)]] {
            let refused = core.log.write::<(), AppendError>(&a, move |tx| {
                for event in events {
                    tx.append_once(event)?;
                }
                Ok(())
            });
            assert!(matches!(refused.await, Err(WriteError::Refused(AppendError::IdConflict))));
        }
        assert_eq!(core.read(&a, 0, &patterns(&["x"]), 9).await.events.len(), 3);
        assert_eq!(core.log.trouble(), None);
    }
}

on_each_backend! {
    async fn history_has_all_that_is_kept(bed: Bed) {
        let keep = Keep::Durable { max_age: None, max_count: Some(1), max_bytes: None };
        let rule = TopicRule { pattern: Pattern::new("short").unwrap(), keep };
        let core = bed.open(TopicRules::new(vec![rule])).await;
        let a = tenant("a");
        core.publish(&a, vec![event("long", 1), event("short", 2), event("short", 3), event("long", 4)]).await;
        core.log.trim().await.unwrap();
        let log = core.log.tenant(&a).await.unwrap();
        let history = core.log.history(&log, 0, &patterns(&["**"]), &Rights::All, 9).await.unwrap();
        assert_eq!(history.events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 3, 4]);
        let paged = core.log.history(&log, 1, &patterns(&["**"]), &Rights::All, 9).await.unwrap();
        assert_eq!((paged.events.len(), paged.end.gap), (2, Some(2)));
    }
}

on_each_backend! {
    async fn others_see_how_far_the_log_goes(bed: Bed) {
        let core = bed.open(TopicRules::default()).await;
        let a = tenant("a");
        for n in 0..3 {
            core.publish(&a, vec![event("x", n)]).await;
        }
        let db = core.log.db().clone();
        let seen = tokio::task::spawn_blocking(move || {
            let (mut conn, logs) = on_disk(&db).unwrap();
            let page = store::page(&mut conn, &logs[0], 1, &patterns(&["x"]), 9, &|_| true).unwrap();
            (logs[0].head(), page.events.len(), page.end.is_end)
        });
        assert_eq!(seen.await.unwrap(), (3, 2, true));
    }
}

on_each_backend! {
    async fn pages_are_the_same_before_and_after_events_are_in_the_database(bed: Bed) {
        let core = bed.open(TopicRules::default()).await;
        let a = tenant("a");
        for n in 0..6 {
            core.publish(&a, vec![event("x", n), event("y", n)]).await;
        }
        core.log.flush().await;
        for n in 6..10 {
            core.publish(&a, vec![event("y", n), event("x", n), event("z/1", n)]).await;
        }
        let pages = async || {
            let mut pages = Vec::new();
            for wanted in [&["x"][..], &["x", "y"], &["**"], &["z/*", "x"], &["none"]] {
                for (after, limit) in (0..=24).flat_map(|after| [(after, 1), (after, 3), (after, 100)]) {
                    let page = core.read(&a, after, &patterns(wanted), limit).await;
                    let seqs: Vec<_> = page.events.iter().map(|e| (e.seq, e.json.clone(), e.data_at)).collect();
                    // Where a page that is full ends does not matter, only that nothing between is left out.
                    pages.push((seqs, page.end.is_end.then_some(page.end.next)));
                }
            }
            pages
        };
        let before = pages().await;
        core.log.flush().await;
        let after = pages().await;
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(before.0, after.0);
        }
        let last = |pages: &[(Vec<_>, Option<u64>)]| pages.iter().filter_map(|p| p.1).max();
        assert_eq!((last(&before), last(&after)), (Some(24), Some(24)));
    }
}

on_each_backend! {
    async fn retention_takes_the_oldest_and_says_so(bed: Bed) {
        let rule = |pattern: &str, keep| TopicRule { pattern: Pattern::new(pattern).unwrap(), keep };
        let durable = |max_age, max_count, max_bytes| Keep::Durable { max_age, max_count, max_bytes };
        let core = bed.open(TopicRules::new(vec![
            rule("aged", durable(Some(Duration::from_secs(60)), None, None)),
            rule("counted/**", durable(None, Some(3), None)),
            rule("sized", durable(None, None, Some(250))),
        ])).await;
        let a = tenant("a");
        core.publish(&a, vec![event("aged", 1), event("kept", 1)]).await;
        for n in 0..5 {
            core.publish(&a, vec![event("counted/1", n), event("counted/2", n), event("sized", n)]).await;
        }
        bed.clock.advance(Duration::from_secs(61));
        let last = core.publish(&a, vec![event("aged", 2)]).await.cursor.unwrap();
        core.log.trim().await.unwrap();
        let read = async |asked: &[&str]| core.read(&a, 0, &patterns(asked), 100).await;
        let aged = read(&["aged"]).await;
        assert_eq!((aged.events.len(), aged.end.gap), (1, Some(1)));
        let counted = read(&["counted/**"]).await;
        assert_eq!(counted.events.len(), 3);
        assert_eq!(counted.end.gap, Some(counted.events[0].seq - 1));
        assert!(read(&["sized"]).await.events.iter().map(|e| e.json.len()).sum::<usize>() <= 250);
        let kept = read(&["kept"]).await;
        assert_eq!((kept.events.len(), kept.end.gap), (1, None), "nothing is missing from this topic");
        assert_eq!(core.read(&a, last.seq, &patterns(&["**"]), 9).await.end.gap, None);
    }
}

on_each_backend! {
    async fn a_log_that_is_opened_again_goes_on(bed: Bed) {
        let a = tenant("a");
        let first = {
            let core = bed.open(TopicRules::default()).await;
            core.publish(&a, vec![event("x", 1)]).await.cursor.unwrap()
        };
        let core = bed.open(TopicRules::default()).await;
        let second = core.publish(&a, vec![event("x", 2)]).await.cursor.unwrap();
        assert_eq!(second.epoch, first.epoch);
        assert!(second.seq > first.seq);
        assert_eq!(core.read(&a, 0, &patterns(&["x"]), 9).await.events.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_has_another_epoch() {
    use tidings_core::db::Target;
    let bed = Bed::sqlite();
    let Target::Sqlite(path) = &bed.target else {
        unreachable!()
    };
    let copy = path.with_extension("copy");
    let a = tenant("a");
    let first = {
        let core = bed.open(TopicRules::default()).await;
        let first = core.publish(&a, vec![event("x", 1)]).await.cursor.unwrap();
        let to = copy.clone();
        core.log
            .db()
            .read(move |conn| conn.batch(&format!("VACUUM INTO '{}'", to.display())))
            .await
            .unwrap();
        first
    };
    drop(bed.open(TopicRules::default()).await);
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
    std::fs::rename(&copy, path).unwrap();
    let core = bed.open(TopicRules::default()).await;
    let log = core.log.tenant(&a).await.unwrap();
    assert_ne!(log.epoch, first.epoch);
    assert_eq!(
        core.hub.resume(&log, first.to_string().as_bytes()),
        None,
        "the old cursor is reset"
    );
}
