//! Readers: live, from a cursor, slow, narrowed.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::hub::{Delivery, FeedKey, Reader, Rights, RingSize, Start, Style};
use tidings_core::retention::{Keep, TopicRule, TopicRules};
use tidings_core::topic::Pattern;

use crate::support::{Bed, Core, event, on_each_backend, patterns, tenant};

static NUMBERS: Style = Style {
    name: "numbers",
    encode: |event, out| out.extend_from_slice(format!("{}\n", event.data).as_bytes()),
};

fn key(asked: &[&str]) -> FeedKey {
    let size = RingSize {
        events: 10,
        bytes: 1 << 20,
        ephemeral_age: Duration::from_secs(30),
    };
    FeedKey {
        patterns: patterns(asked),
        rights: Rights::All,
        style: &NUMBERS,
        size,
    }
}

async fn reader(core: &Core, asked: &[&str], start: Start) -> Reader {
    let log = core.log.tenant(&tenant("a")).await.unwrap();
    core.hub.reader(&log, key(asked), start, None)
}

/// Reads until so many numbers have come.
async fn numbers(reader: &mut Reader, count: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        if let Delivery::Frames { bytes, count, .. } = reader.next().await {
            let lines = std::str::from_utf8(&bytes).unwrap().lines();
            assert_eq!(lines.clone().count() as u64, count);
            numbers.extend(lines.map(|l| l.parse::<i64>().unwrap()));
        }
    }
    numbers
}

on_each_backend! {
    async fn replay_and_live_are_one_sequence_while_others_publish(bed: Bed) {
        let core = Arc::new(bed.open(TopicRules::default()).await);
        let a = tenant("a");
        let writer = {
            let (core, a) = (core.clone(), a.clone());
            tokio::spawn(async move {
                for n in 0..400 {
                    core.publish(&a, vec![event(if n % 3 == 0 { "y" } else { "x/1" }, n)]).await;
                }
            })
        };
        let expected: Vec<i64> = (0..400).filter(|n| n % 3 != 0).collect();
        let mut readers = Vec::new();
        for _ in 0..8 {
            let mut reader = reader(&core, &["x/*"], Start::After(0)).await;
            let count = expected.len();
            readers.push(tokio::spawn(async move { numbers(&mut reader, count).await }));
            tokio::task::yield_now().await;
        }
        writer.await.unwrap();
        for reader in readers {
            assert_eq!(reader.await.unwrap(), expected);
        }
    }
}

on_each_backend! {
    async fn a_reader_that_fell_out_of_the_ring_goes_on_from_the_log(bed: Bed) {
        let core = bed.open(TopicRules::default()).await;
        let a = tenant("a");
        let mut slow = reader(&core, &["x"], Start::Live).await;
        for n in 0..50 {
            core.publish(&a, vec![event("x", n)]).await;
        }
        core.hub.age(std::time::Instant::now() + Duration::from_secs(60));
        assert_eq!(numbers(&mut slow, 50).await, (0..50).collect::<Vec<_>>());
        core.publish(&a, vec![event("x", 50)]).await;
        assert_eq!(numbers(&mut slow, 1).await, [50]);
    }
}

on_each_backend! {
    async fn ephemeral_events_are_not_stored_and_what_is_dropped_is_counted(bed: Bed) {
        let rules = TopicRules::new(vec![TopicRule { pattern: Pattern::new("v/**").unwrap(), keep: Keep::Ephemeral }]);
        let core = bed.open(rules).await;
        let a = tenant("a");
        let mut slow = reader(&core, &["**"], Start::Live).await;
        core.publish(&a, vec![event("x", 1)]).await;
        for n in 0..20 {
            assert_eq!(core.publish(&a, vec![event("v/1", 100 + n)]).await.cursor, None);
        }
        core.hub.age(std::time::Instant::now() + Duration::from_secs(60));
        core.publish(&a, vec![event("v/1", 99), event("x", 2)]).await;
        let (mut got, mut ephemeral, mut dropped) = (Vec::new(), 0, 0);
        while got != [1, 2] || dropped + ephemeral != 21 {
            match slow.next().await {
                Delivery::Frames { bytes, .. } => {
                    for line in std::str::from_utf8(&bytes).unwrap().lines() {
                        match line.parse::<i64>().unwrap() {
                            n @ (1 | 2) => got.push(n),
                            _ => ephemeral += 1,
                        }
                    }
                }
                Delivery::Dropped { count } => dropped += count,
                Delivery::Gap { .. } => panic!("no gap here"),
            }
        }
        assert_eq!(core.read(&a, 0, &patterns(&["**"]), 99).await.events.len(), 2);
    }
}

on_each_backend! {
    async fn a_reader_that_changes_its_patterns_stays_in_its_place(bed: Bed) {
        let core = bed.open(TopicRules::default()).await;
        let a = tenant("a");
        let mut reader = reader(&core, &["x"], Start::Live).await;
        core.publish(&a, vec![event("x", 1), event("y", 2)]).await;
        assert_eq!(numbers(&mut reader, 1).await, [1]);
        let place = reader.cursor();
        // The hub moves its mark when all events of a commit have been shown.
        let moved = loop {
            match reader.checkpoint() {
                Some(moved) => break moved,
                None => tokio::task::yield_now().await,
            }
        };
        assert!(moved.seq > place.seq);
        reader.change(key(&["y"]));
        core.publish(&a, vec![event("x", 3), event("y", 4)]).await;
        assert_eq!(numbers(&mut reader, 1).await, [4], "what came before the change concerned it no more");
        assert!(reader.checkpoint().is_none());
    }
}

on_each_backend! {
    async fn one_event_comes_once_even_where_two_patterns_match(bed: Bed) {
        let core = bed.open(TopicRules::default()).await;
        let a = tenant("a");
        let mut reader = reader(&core, &["x", "*", "**"], Start::Live).await;
        core.publish(&a, vec![event("x", 1), event("x", 2)]).await;
        assert_eq!(numbers(&mut reader, 2).await, [1, 2]);
    }
}

/// The committer lets go of a commit before it has put its events into the rings: a reader that pages through the log
/// meanwhile has them already when they come.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_from_the_log_does_not_come_again_live() {
    let core = Arc::new(Bed::sqlite().open(TopicRules::default()).await);
    let a = tenant("a");
    let log = core.log.tenant(&a).await.unwrap();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (core, a) = (core.clone(), a.clone());
            tokio::spawn(async move {
                for n in 0..300 {
                    core.publish(&a, vec![event("x", n)]).await;
                }
            })
        })
        .collect();
    let mut after = 0;
    while after < 1_200 {
        // A new reader each time, as a long-poll makes one.
        let mut reader = core
            .hub
            .reader(&log, key(&["x"]), Start::After(after), None);
        let count = match reader.next().await {
            Delivery::Frames { bytes, .. } => bytes.iter().filter(|b| **b == b'\n').count() as u64,
            other => panic!("{other:?}"),
        };
        assert_eq!(reader.seq(), after + count, "each event once");
        if let Ok(Delivery::Frames { bytes, .. }) =
            tokio::time::timeout(Duration::from_millis(2), reader.next()).await
        {
            let more = bytes.iter().filter(|b| **b == b'\n').count() as u64;
            assert_eq!(reader.seq(), after + count + more, "each event once");
        }
        after = reader.seq();
    }
    for writer in writers {
        writer.await.unwrap();
    }
}
