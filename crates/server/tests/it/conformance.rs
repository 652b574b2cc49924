//! `conformance/resume.yaml` and `gap.yaml`, as far as a server is concerned, over all three transports.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidings_client::{Client, Delivery, Error, Stream, Subscription, Transport};
use tokio::runtime::Runtime;

use crate::support::{PATIENCE, Request, Server, Setup, eventually, token_of};

/// The cases of a file.
pub(crate) fn read<T: DeserializeOwned>(file: &str) -> T {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conformance");
    let text = std::fs::read_to_string(format!("{folder}/{file}")).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"))
}

#[derive(Deserialize)]
struct Cases {
    server: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    keep: Option<Keep>,
    publishes: Vec<Publish>,
    topics: Vec<String>,
    after: Option<After>,
    then: Vec<Publish>,
    delivers: Vec<String>,
}

#[derive(Deserialize)]
struct Keep {
    topic: String,
    max_count: usize,
}

#[derive(Deserialize)]
struct Publish {
    topic: String,
    #[serde(default)]
    data: Value,
    count: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum After {
    Publish(usize),
    Beyond(u64),
    Foreign(bool),
    Text(String),
}

impl Publish {
    fn events(&self) -> Vec<Value> {
        let event = |data: Value| json!({ "topic": self.topic, "type": "t", "data": data });
        match self.count {
            None => vec![event(self.data.clone())],
            Some(count) => (0..count).map(|n| event(json!(n))).collect(),
        }
    }
}

/// Publishes events in their order, and says where the last one stands.
fn publish(server: &Server, token: &str, events: &[Value]) -> String {
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    let answer = server.request(&Request {
        token: Some(token),
        headers: vec![("Content-Type", "application/x-ndjson".to_owned())],
        body: lines.into_bytes(),
        ..Request::new("POST", "/api/v1/events")
    });
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.json()["cursor"].as_str().unwrap().to_owned()
}

fn admin_of(tenant: &str) -> String {
    token_of(tenant, "root", &json!({ "roles": ["admin"] }))
}

impl Case {
    /// Publishes what is there before the client comes, and says with what cursor it does.
    fn prepare(&self, server: &Server, token: &str) -> Option<String> {
        let events: Vec<Value> = self.publishes.iter().flat_map(Publish::events).collect();
        let early = match self.after {
            Some(After::Publish(number)) => number + 1,
            _ => events.len(),
        };
        let cursor = publish(server, token, &events[..early]);
        if early < events.len() {
            publish(server, token, &events[early..]);
        }
        match self.after.as_ref()? {
            After::Publish(_) => Some(cursor),
            After::Beyond(places) => {
                let (epoch, seq) = cursor.rsplit_once('-').unwrap();
                Some(format!("{epoch}-{}", seq.parse::<u64>().unwrap() + places))
            }
            After::Foreign(is_foreign) => {
                assert!(is_foreign, "of its own log there is publish");
                let foreign = json!({ "topic": "x", "type": "t", "data": 0 });
                Some(publish(server, &admin_of("foreign"), &[foreign]))
            }
            After::Text(text) => Some(text.clone()),
        }
    }

    /// Waits until retention has done its part.
    fn settle(&self, server: &Server, token: &str) {
        let Some(keep) = &self.keep else { return };
        let path = format!("/api/v1/events?topic={}&limit=1000", keep.topic);
        eventually("retention", || {
            let page = server.get(&path, Some(token)).json();
            page["events"].as_array().unwrap().len() == keep.max_count
        });
    }
}

/// A line as `conformance/README.md` has it; none for what may come anywhere.
fn word(delivery: &Result<Delivery, Error>) -> Option<String> {
    Some(match delivery {
        Ok(Delivery::Connected { .. }) => "connected".into(),
        Ok(Delivery::Event { event, .. }) => format!("event {}", event.data),
        Ok(Delivery::Gap { .. }) => "gap".into(),
        Ok(Delivery::Reset { .. }) => "reset".into(),
        Ok(Delivery::Checkpoint { .. }) => return None,
        other => format!("{other:?}"),
    })
}

async fn next(stream: &mut Stream) -> String {
    loop {
        let next = tokio::time::timeout(PATIENCE, stream.next()).await;
        if let Some(word) = word(&next.expect("a delivery")) {
            return word;
        }
    }
}

fn follow(server: &Server, token: &str, case: &Case, after: Option<&str>, transport: Transport) {
    let runtime = Runtime::new().unwrap();
    let client = Client::builder(server.url()).token(token).build().unwrap();
    let mut subscription = Subscription::new(case.topics.clone()).transport(transport);
    if let Some(after) = after {
        subscription = subscription.since(after);
    }
    let mut stream = client.stream(subscription);
    let mut delivered = vec![runtime.block_on(next(&mut stream))];
    for event in case.then.iter().flat_map(Publish::events) {
        publish(server, token, &[event]);
    }
    while delivered.len() < case.delivers.len() {
        delivered.push(runtime.block_on(next(&mut stream)));
    }
    assert_eq!(delivered, case.delivers, "{}: {transport:?}", case.name);
}

fn run(file: &str) {
    let Cases { server: cases } = read(file);
    let rules: BTreeMap<_, _> = cases
        .iter()
        .filter_map(|case| case.keep.as_ref())
        .map(|keep| (keep.topic.as_str(), keep.max_count))
        .collect();
    let rules: String = rules
        .iter()
        .map(|(topic, count)| format!("[[topics]]\npattern = {topic:?}\nmax_count = {count}\n"))
        .collect();
    let setup = Setup::default().set("retention.interval=1s");
    let server = setup.file(&rules).start();
    // A tenant for each: everything is published before anybody waits for retention.
    let mut prepared = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        for transport in [Transport::Sse, Transport::WebSocket, Transport::LongPoll] {
            let token = admin_of(&format!("{number}-{transport:?}"));
            let after = case.prepare(&server, &token);
            prepared.push((case, transport, token, after));
        }
    }
    for (case, transport, token, after) in prepared {
        case.settle(&server, &token);
        follow(&server, &token, case, after.as_deref(), transport);
    }
}

#[test]
fn resume() {
    run("resume.yaml");
}

#[test]
fn gap() {
    run("gap.yaml");
}
