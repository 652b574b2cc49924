//! A log's life: everything that changes it, one thing after the other, and what the disk and its readers see of each.

use std::collections::BTreeMap;

use tidings_core::db::DbError;
use tidings_core::event::{EventId, EventType, Json, NewEvent};
use tidings_core::log::{Batch, Idempotency};
use tidings_core::retention::{Keep, TopicRule, TopicRules};
use tidings_core::topic::{Pattern, Topic};

use crate::disk::Disk;
use crate::support::{Bed, Core, event, patterns, tenant};

/// Changes that one log goes through.
const ACTS: usize = 60;

/// All that a log holds, as its readers and its store functions see it.
pub(crate) type State = BTreeMap<String, String>;

/// A publisher's request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) tenant: &'static str,
    pub(crate) key: Option<String>,
    /// Topic, id, data.
    pub(crate) events: Vec<(String, Option<String>, String)>,
}

impl Request {
    pub(crate) fn batch(&self) -> Batch {
        let events = self.events.iter().map(|(topic, id, data)| {
            let kind = EventType::new("t").unwrap();
            let data = Json::encode(data).unwrap();
            NewEvent {
                id: id.as_deref().map(|id| EventId::new(id).unwrap()),
                ..NewEvent::new(Topic::new(topic).unwrap(), kind, data)
            }
        });
        Batch {
            subject: "s".into(),
            events: events.collect(),
            idempotency: self.key.clone().map(|key| Idempotency {
                request: key.clone(),
                key,
            }),
        }
    }

    /// Whether sending it again makes no second event.
    pub(crate) fn is_safe_to_repeat(&self) -> bool {
        self.key.is_some() && self.events.iter().all(|(_, id, _)| id.is_some())
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Act {
    Open(&'static str),
    Publish(Request),
    /// One after the other or in one transaction, as the committer likes.
    Together(Vec<Request>),
    /// A row of its own, and events with it.
    Write(&'static str, String, i64),
    Note,
    Trim,
    Checkpoint,
}

/// Invents what happens next. Only tenants that are open are used.
pub(crate) fn act(rng: &mut fastrand::Rng, name: &str, open: &[&'static str]) -> Act {
    let request = |rng: &mut fastrand::Rng, name: &str, has_names: bool| {
        let events = (0..rng.usize(1..=12)).map(|n| {
            let topic = *rng.choice(&["x/1", "x/2", "y", "counted/1"]).unwrap();
            let length = match rng.u32(0..10) {
                0..6 => rng.usize(0..200),
                6..9 => rng.usize(200..6_000),
                _ => rng.usize(6_000..30_000),
            };
            let id = (has_names && rng.u32(0..4) > 0).then(|| format!("{name}.{n}"));
            (topic.to_owned(), id, "x".repeat(length))
        });
        let mut events: Vec<_> = events.collect();
        let has_key = has_names && rng.bool();
        if has_key {
            for (n, event) in events.iter_mut().enumerate() {
                event.1 = Some(format!("{name}.{n}"));
            }
        }
        Request {
            tenant: rng.choice(open).unwrap(),
            key: has_key.then(|| format!("key {name}")),
            events,
        }
    };
    match rng.u32(0..14) {
        0..6 => Act::Publish(request(rng, name, true)),
        6..8 => Act::Write(rng.choice(open).unwrap(), name.to_owned(), rng.i64(0..3)),
        8..10 => Act::Together(
            (0..rng.u32(2..6))
                .map(|n| request(rng, &format!("{name}-{n}"), false))
                .collect(),
        ),
        10 => Act::Note,
        11 => Act::Trim,
        _ => Act::Checkpoint,
    }
}

/// One change: the disk before and after it, and the states in which a crash between them may leave the log.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) act: Option<Act>,
    pub(crate) before: Disk,
    pub(crate) after: Disk,
    pub(crate) states: Vec<State>,
}

pub(crate) fn rules() -> TopicRules {
    TopicRules::new(vec![TopicRule {
        pattern: Pattern::new("counted/**").unwrap(),
        keep: Keep::Durable {
            max_age: None,
            max_count: Some(5),
            max_bytes: None,
        },
    }])
}

fn event_key(tenant: &str, seq: u64) -> String {
    format!("event {tenant} {seq:010}")
}

fn tenant_line(epoch: &str, head: u64, gap: Option<u64>) -> String {
    format!("{epoch} up to {head}, gap {gap:?}")
}

pub(crate) async fn state(core: &Core) -> State {
    let mut state = State::new();
    for log in core.log.tenants() {
        let (mut after, mut gap, mut is_end) = (0, None, false);
        while !is_end {
            let page = core
                .read(&log.tenant, after, &patterns(&["**"]), 1_000)
                .await;
            gap = gap.or(page.end.gap);
            for event in page.events {
                let text = format!("{} {}", event.topic, event.json);
                let stood = state.insert(event_key(log.tenant.as_str(), event.seq), text);
                assert!(stood.is_none() && event.seq > after && event.seq <= log.head());
                after = event.seq;
            }
            (after, is_end) = (page.end.next, page.end.is_end);
        }
        let line = tenant_line(log.epoch.as_str(), log.head(), gap);
        state.insert(format!("tenant {}", log.tenant), line);
    }
    let rows = core.log.db().read(|conn| {
        conn.rows(
            "SELECT 'id ' || t.name || ' ' || i.id, CAST(i.key AS TEXT) FROM event_ids i JOIN tenants t ON t.number = i.tenant \
             UNION ALL SELECT 'answer ' || tenant || ' ' || key, answer FROM idempotency \
             UNION ALL SELECT 'row ' || name, value FROM facts WHERE name LIKE 'step %'",
            &[],
            |row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned())),
        )
    });
    state.extend(rows.await.unwrap());
    state
}

/// The first thing in which two states differ.
pub(crate) fn difference(a: &State, b: &State) -> String {
    let short = |text: Option<&String>| text.map(|t| t.chars().take(120).collect::<String>());
    let mut names = a.keys().chain(b.keys());
    let name = names.find(|name| a.get(*name) != b.get(*name));
    name.map_or("none".into(), |name| {
        format!(
            "{name}: {:?} and {:?}",
            short(a.get(name)),
            short(b.get(name))
        )
    })
}

/// Does it, and says in which states a crash meanwhile may leave the log, from none of it to all of it.
async fn run(core: &Core, act: &Act, before: &State) -> Vec<State> {
    let mut between = Vec::new();
    match act {
        Act::Open(name) => drop(core.log.tenant(&tenant(name)).await.unwrap()),
        Act::Publish(request) => {
            told(core, request).await;
        }
        Act::Together(requests) => {
            let publish = |request: &Request| {
                let (core, request) = (core.clone(), request.clone());
                tokio::spawn(async move { (request.tenant, told(&core, &request).await) })
            };
            let answers: Vec<_> = requests.iter().map(publish).collect();
            let mut ends = Vec::new();
            for answer in answers {
                ends.push(answer.await.unwrap());
            }
            let after = state(core).await;
            between = cuts(before, &after, &ends);
        }
        Act::Write(name, row, events) => {
            let (of, row, events) = (tenant(name), format!("step {row}"), *events);
            let write = core.log.write::<_, DbError>(&of, move |tx| {
                let sql = "INSERT INTO facts (name, value) VALUES ($1, 'v')";
                tx.execute(sql, &[row.as_str().into()])?;
                (0..events).for_each(|n| drop(tx.append(event("x/1", n))));
                Ok(())
            });
            write.await.unwrap();
        }
        Act::Note => core.log.flush().await,
        Act::Trim => {
            core.log.trim().await.unwrap();
            let after = state(core).await;
            between = ["a", "b"].map(|name| only_of(name, before, &after)).into();
        }
        Act::Checkpoint => {
            let copy = core
                .log
                .db()
                .read(|conn| conn.batch("PRAGMA wal_checkpoint(PASSIVE)"));
            copy.await.unwrap();
        }
    }
    let mut states = vec![before.clone()];
    states.append(&mut between);
    states.push(state(core).await);
    states
}

/// Publishes, and checks that the log shows what the publisher is told. Says where its last event is.
async fn told(core: &Core, request: &Request) -> u64 {
    let of = tenant(request.tenant);
    let published = core.log.publish(&of, request.batch()).await.unwrap();
    let last = published.cursor.unwrap().seq;
    let count = request.events.len();
    let page = core
        .read(&of, last - count as u64, &patterns(&["**"]), count)
        .await;
    for ((logged, id), (topic, _, data)) in
        page.events.iter().zip(&published.ids).zip(&request.events)
    {
        let data = format!("\"data\":\"{data}\"}}");
        assert!(*logged.topic == **topic && logged.json.ends_with(&data));
        assert!(
            logged
                .json
                .starts_with(&format!("{{\"id\":\"{}\"", id.as_str()))
        );
    }
    assert_eq!((page.events.len(), page.end.next), (count, last));
    last
}

/// The states in which some of several requests are there: of each tenant, the first so many.
fn cuts(before: &State, after: &State, ends: &[(&'static str, u64)]) -> Vec<State> {
    let mut states = vec![before.clone()];
    for name in ["a", "b"] {
        let Some(line) = after.get(&format!("tenant {name}")) else {
            continue;
        };
        let mut of: Vec<u64> = ends
            .iter()
            .filter(|(t, _)| *t == name)
            .map(|(_, end)| *end)
            .collect();
        of.sort_unstable();
        let (epoch, rest) = line.split_once(' ').unwrap();
        let gap = rest.split_once(',').unwrap().1;
        for state in states.clone() {
            for end in &of {
                let mut state = state.clone();
                let (first, last) = (event_key(name, 0), event_key(name, *end));
                state.extend(
                    after
                        .range(first..=last)
                        .map(|(k, v)| (k.clone(), v.clone())),
                );
                state.insert(
                    format!("tenant {name}"),
                    format!("{epoch} up to {end},{gap}"),
                );
                states.push(state);
            }
        }
    }
    states
}

/// What one tenant has after a change, and all others before it.
fn only_of(name: &str, before: &State, after: &State) -> State {
    let is_of = |entry: &String| entry.split(' ').nth(1) == Some(name);
    let rest = before.iter().filter(|(entry, _)| !is_of(entry));
    let own = after.iter().filter(|(entry, _)| is_of(entry));
    let both = rest.chain(own);
    both.map(|(entry, text)| (entry.clone(), text.clone()))
        .collect()
}

/// Does one thing after the other on an open log.
pub(crate) async fn record(core: &Core, bed: &Bed, acts: Vec<Act>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut known = state(core).await;
    for act in acts {
        let before = Disk::read(bed.folder());
        let states = run(core, &act, &known).await;
        let lost = known.iter().find(|(name, text)| {
            name.starts_with("event ") && states.last().unwrap().get(*name) != Some(*text)
        });
        assert!(
            lost.is_none() || matches!(act, Act::Trim),
            "{act:?} lost {lost:?}"
        );
        known = states.last().unwrap().clone();
        let after = Disk::read(bed.folder());
        steps.push(Step {
            act: Some(act),
            before,
            after,
            states,
        });
    }
    steps
}

/// A log's life from its first moment.
pub(crate) async fn life(rng: &mut fastrand::Rng, bed: &Bed) -> Vec<Step> {
    let core = bed.open(rules()).await;
    let after = Disk::read(bed.folder());
    // SQLite makes the first page by other means than the write-ahead log.
    let before = Disk {
        db: after.db.clone(),
        ..Disk::default()
    };
    let birth = Step {
        act: None,
        before,
        after,
        states: vec![State::new()],
    };
    let mut acts = vec![Act::Open("a")];
    for n in 0..ACTS {
        let open: &[_] = if n > ACTS / 3 { &["a", "b"] } else { &["a"] };
        if n == ACTS / 3 {
            acts.extend([Act::Open("b"), Act::Checkpoint]);
        }
        acts.push(act(rng, &n.to_string(), open));
    }
    let mut steps = vec![birth];
    steps.extend(record(&core, bed, acts).await);
    steps
}
