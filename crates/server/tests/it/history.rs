//! The history of a run as clients saw it, and what is wrong with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidings_client::{Client, Delivery, HistoryQuery, NewEvent, Subscription, Transport};
use tokio::task::JoinHandle;

use crate::support::{PATIENCE, admin};

/// An event's place and id.
pub(crate) type Placed = (u64, String);

/// What one reader has been given so far.
pub(crate) type Seen = Arc<Mutex<Vec<Placed>>>;

/// All that was seen from outside.
#[derive(Default)]
pub(crate) struct History {
    /// What publishers were told.
    pub(crate) acknowledged: Vec<Placed>,
    /// What the log holds in the end.
    pub(crate) log: Vec<Placed>,
    /// What each reader was given, in order.
    pub(crate) readers: Vec<(&'static str, Vec<Placed>)>,
}

impl History {
    /// Takes in what a reader saw that began with the first event that it saw; what came after the log was read is left out.
    pub(crate) fn saw(&mut self, name: &'static str, mut seen: Vec<Placed>) {
        let (first, end) = (seen[0].0, self.log.last().unwrap().0);
        seen.retain(|(seq, _)| *seq <= end);
        let missed = self.log.iter().filter(|(seq, _)| *seq < first).cloned();
        self.readers.push((name, missed.chain(seen).collect()));
    }
}

/// What is wrong with a history.
pub(crate) fn faults(history: &History) -> Vec<String> {
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

/// The place in a cursor.
pub(crate) fn seq(cursor: &str) -> u64 {
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
            Err(e) if e.status().is_some_and(|status| status < 500) => panic!("refused: {e}"),
            // Perhaps stored, perhaps not: the same event again must be the same event.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn read(address: String, transport: Transport, last: Arc<AtomicU64>, seen: Seen) {
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

/// Publishers and readers of every transport that go on whatever becomes of the server.
pub(crate) struct Load {
    probe: Client,
    stop: Arc<AtomicBool>,
    last: Arc<AtomicU64>,
    acknowledged: Arc<Mutex<Vec<Placed>>>,
    publishers: Vec<JoinHandle<()>>,
    readers: Vec<(&'static str, JoinHandle<()>, Seen)>,
}

impl Load {
    /// Starts them. Each reader has seen something when this returns.
    pub(crate) async fn start(address: &str) -> Self {
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
            let seen = Seen::default();
            let reader = read(address.to_owned(), transport, last.clone(), seen.clone());
            readers.push((name, tokio::spawn(reader), seen));
        }
        // Live readers must stand before the first event: a marker of each is waited for.
        let probe = client(address);
        while readers
            .iter()
            .any(|(_, _, seen)| seen.lock().unwrap().is_empty())
        {
            mark(&probe, "ready").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let publishers = (0..4)
            .map(|p| {
                let publisher = publish(address.to_owned(), p, stop.clone(), acknowledged.clone());
                tokio::spawn(publisher)
            })
            .collect();
        Self {
            probe,
            stop,
            last,
            acknowledged,
            publishers,
            readers,
        }
    }

    /// Waits until so many more publishes have been acknowledged.
    pub(crate) async fn goes_on(&self, more: usize) {
        let count = || self.acknowledged.lock().unwrap().len();
        let (wanted, until) = (count() + more, Instant::now() + PATIENCE);
        while count() < wanted {
            assert!(Instant::now() < until, "nothing is acknowledged any more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops the publishers, lets the readers come to the end, and says what all of them saw.
    pub(crate) async fn finish(self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        for publisher in self.publishers {
            publisher.await.unwrap();
        }
        let end = mark(&self.probe, "end").await;
        self.last.store(end, Ordering::Relaxed);
        let mut history = History {
            log: log(&self.probe).await,
            ..History::default()
        };
        history
            .acknowledged
            .clone_from(&self.acknowledged.lock().unwrap());
        // A reader that had all before the last place was known waits for one more.
        mark(&self.probe, "after the end").await;
        for (name, reader, seen) in self.readers {
            tokio::time::timeout(Duration::from_secs(60), reader)
                .await
                .unwrap_or_else(|_| panic!("{name} does not get to the end"))
                .unwrap();
            history.saw(name, seen.lock().unwrap().clone());
        }
        history
    }
}

async fn mark(probe: &Client, word: &str) -> u64 {
    let event = NewEvent::new("other", "t", &word).unwrap();
    let published = probe.publish(&event).await.unwrap();
    seq(&published.cursor.unwrap())
}

/// All that the log holds.
async fn log(probe: &Client) -> Vec<Placed> {
    let mut log = Vec::new();
    let mut query = HistoryQuery {
        topics: vec!["**".into()],
        after: None,
        limit: Some(1_000),
    };
    loop {
        let page = probe.history(&query).await.unwrap();
        if page.events.is_empty() {
            return log;
        }
        let events = page.events.iter();
        log.extend(events.map(|e| (seq(e.cursor.as_ref().unwrap()), e.event.id.clone())));
        query.after = Some(page.cursor);
    }
}
