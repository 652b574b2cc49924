//! `kill -9` in a loop under load: what was acknowledged is there, once, in order, and every reader has all of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_client::{Client, Delivery, HistoryQuery, NewEvent, Subscription, Transport};

use crate::support::{Server, Setup, admin, free_address, postgres};

/// An event's place and id.
type Placed = (u64, String);

/// All that was seen from outside.
#[derive(Default)]
struct History {
    /// What publishers were told.
    acknowledged: Vec<Placed>,
    /// What the log holds in the end.
    log: Vec<Placed>,
    /// What each reader was given, in order.
    readers: Vec<(&'static str, Vec<Placed>)>,
}

/// What is wrong with a history.
fn faults(history: &History) -> Vec<String> {
    let mut faults = Vec::new();
    let mut by_id = HashMap::new();
    for (at, (seq, id)) in history.log.iter().enumerate() {
        if by_id.insert(id.as_str(), *seq).is_some() {
            faults.push(format!("the log has {id} twice"));
        }
        if at > 0 && history.log[at - 1].0 >= *seq {
            faults.push(format!("the log is out of order at {seq}"));
        }
    }
    for (seq, id) in &history.acknowledged {
        if by_id.get(id.as_str()) != Some(seq) {
            faults.push(format!(
                "{id} was acknowledged at {seq} and is at {:?}",
                by_id.get(id.as_str())
            ));
        }
    }
    for (name, seen) in &history.readers {
        if *seen != history.log {
            let at = seen
                .iter()
                .zip(&history.log)
                .position(|(a, b)| a != b)
                .unwrap_or(seen.len().min(history.log.len()));
            faults.push(format!(
                "{name} saw {} events of {}; they part at {at}: {:?} and {:?}",
                seen.len(),
                history.log.len(),
                seen.get(at),
                history.log.get(at)
            ));
        }
    }
    faults
}

#[test]
fn the_checker_finds_what_is_planted() {
    let placed = |n: u64| (n, format!("e{n}"));
    let good = || History {
        acknowledged: vec![placed(1), placed(3)],
        log: vec![placed(1), placed(2), placed(3)],
        readers: vec![("r", vec![placed(1), placed(2), placed(3)])],
    };
    assert_eq!(faults(&good()), Vec::<String>::new());
    let plant = |change: fn(&mut History)| {
        let mut history = good();
        change(&mut history);
        faults(&history).len()
    };
    assert!(plant(|h| drop(h.log.remove(0))) > 0, "lost");
    assert!(
        plant(|h| h.log.push((4, "e1".into()))) > 0,
        "repeated in the log"
    );
    assert!(plant(|h| h.log.swap(0, 1)) > 0, "reordered in the log");
    assert!(
        plant(|h| h.acknowledged.push((9, "e9".into()))) > 0,
        "acknowledged and not there"
    );
    assert!(
        plant(|h| drop(h.readers[0].1.remove(1))) > 0,
        "a reader lost one"
    );
    assert!(
        plant(|h| h.readers[0].1.insert(1, (1, "e1".into()))) > 0,
        "a reader had one twice"
    );
    assert!(
        plant(|h| h.readers[0].1.swap(0, 1)) > 0,
        "a reader had them in another order"
    );
    assert!(
        plant(|h| h.readers[0].1.push((5, "e5".into()))) > 0,
        "a reader saw what is not there"
    );
}

fn seq(cursor: &str) -> u64 {
    cursor.rsplit('-').next().unwrap().parse().unwrap()
}

fn client(address: &str) -> Client {
    let builder = Client::builder(format!("http://{address}"))
        .token(admin())
        .attempts(1);
    builder
        .backoff(Duration::from_millis(20), Duration::from_millis(100))
        .timeout(Duration::from_secs(5))
        .build()
        .unwrap()
}

const TOPICS: [&str; 3] = ["crash/one", "crash/two", "other"];

async fn publish(
    address: String,
    publisher: u64,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Placed>>>,
) {
    let client = client(&address);
    let mut n = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let topic = TOPICS[usize::try_from(n % 3).unwrap()];
        let mut event = NewEvent::new(topic, "t", &(publisher, n)).unwrap();
        event.id = Some(format!("{publisher}-{n}"));
        match client.publish(&event).await {
            Ok(published) => {
                let cursor = published.cursor.unwrap();
                acknowledged
                    .lock()
                    .unwrap()
                    .push((seq(&cursor), published.ids[0].clone()));
                n += 1;
            }
            // Perhaps stored, perhaps not: the same event again must be the same event.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn read(
    address: String,
    transport: Transport,
    last: Arc<AtomicU64>,
    seen: Arc<Mutex<Vec<Placed>>>,
) {
    let subscription = Subscription::new(["crash/*", "other"]).transport(transport);
    let mut stream = client(&address).stream(subscription);
    loop {
        match stream.next().await.unwrap() {
            Delivery::Event { cursor, event } => {
                let mut seen = seen.lock().unwrap();
                seen.push((seq(&cursor.unwrap()), event.id.clone()));
                if seen.last().unwrap().0 >= last.load(Ordering::Relaxed) {
                    return;
                }
            }
            Delivery::Gap { .. } | Delivery::Reset { .. } | Delivery::Dropped { .. } => {
                panic!("nothing of this may come here")
            }
            _ => {}
        }
    }
}

async fn crash(setup: Setup, rounds: u32) {
    let setup = Setup {
        listen: Some(free_address()),
        ..setup
    };
    let mut server = setup.start();
    let address = server.address.clone();
    let (stop, last, acknowledged) = (
        Arc::<AtomicBool>::default(),
        Arc::new(AtomicU64::new(u64::MAX)),
        Arc::<Mutex<Vec<Placed>>>::default(),
    );
    let transports = [
        ("sse", Transport::Sse),
        ("websocket", Transport::WebSocket),
        ("long-poll", Transport::LongPoll),
    ];
    let mut readers = Vec::new();
    for (name, transport) in transports {
        let seen = Arc::<Mutex<Vec<Placed>>>::default();
        readers.push((
            name,
            tokio::spawn(read(address.clone(), transport, last.clone(), seen.clone())),
            seen,
        ));
    }
    // Live readers must stand before the first event: a marker of each is waited for.
    let probe = client(&address);
    while readers
        .iter()
        .any(|(_, _, seen)| seen.lock().unwrap().is_empty())
    {
        probe
            .publish(&NewEvent::new("other", "t", &"ready").unwrap())
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let publishers: Vec<_> = (0..4)
        .map(|p| {
            tokio::spawn(publish(
                address.clone(),
                p,
                stop.clone(),
                acknowledged.clone(),
            ))
        })
        .collect();
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..200))).await;
        let (folder, setup) = server.kill();
        server = tokio::task::spawn_blocking(move || Server::start(folder, setup))
            .await
            .unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let end = probe
        .publish(&NewEvent::new("other", "t", &"end").unwrap())
        .await
        .unwrap();
    last.store(seq(&end.cursor.unwrap()), Ordering::Relaxed);
    let mut history = History {
        acknowledged: acknowledged.lock().unwrap().clone(),
        ..History::default()
    };
    let mut query = HistoryQuery {
        topics: vec!["**".into()],
        after: None,
        limit: Some(1_000),
    };
    loop {
        let page = probe.history(&query).await.unwrap();
        if page.events.is_empty() {
            break;
        }
        history.log.extend(
            page.events
                .iter()
                .map(|e| (seq(e.cursor.as_ref().unwrap()), e.event.id.clone())),
        );
        query.after = Some(page.cursor);
    }
    // A reader that had all before the last place was known waits for one more.
    probe
        .publish(&NewEvent::new("other", "t", &"after the end").unwrap())
        .await
        .unwrap();
    for (name, reader, seen) in readers {
        tokio::time::timeout(Duration::from_secs(60), reader)
            .await
            .unwrap_or_else(|_| panic!("{name} does not get to the end"))
            .unwrap();
        let mut seen = seen.lock().unwrap().clone();
        let end = history.log.last().unwrap().0;
        seen.retain(|(seq, _)| *seq <= end);
        // It began with the first marker that it saw.
        let first = seen[0].0;
        let missed = history.log.iter().filter(|(seq, _)| *seq < first).cloned();
        history.readers.push((name, missed.chain(seen).collect()));
    }
    assert_eq!(faults(&history), Vec::<String>::new());
    assert!(
        history.acknowledged.len() >= rounds as usize,
        "hardly anything was published"
    );
}

/// So many rounds as the environment says, or as the suite has time for.
fn rounds(default: u32) -> u32 {
    std::env::var("TIDINGS_TEST_CRASH_ROUNDS")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_loses_nothing() {
    crash(Setup::default(), rounds(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_loses_nothing() {
    if let Some(url) = tokio::task::spawn_blocking(postgres).await.unwrap() {
        crash(
            Setup {
                database_url: Some(url),
                ..Setup::default()
            },
            rounds(40),
        )
        .await;
    }
}
