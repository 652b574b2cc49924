//! `conformance/*.yaml`, as far as a client is concerned: what it reads in a stream, and how it comes back.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidings_client::Subscription;
use tidings_client::sse::{Item, Parser};

use crate::script::{Act, Server, sse, words};

fn cases<T: DeserializeOwned>(file: &str) -> T {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conformance");
    let text = std::fs::read_to_string(format!("{folder}/{file}")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

#[derive(Deserialize)]
struct Framing {
    parse: Vec<ParseCase>,
}

#[derive(Deserialize)]
struct ParseCase {
    name: String,
    stream: String,
    frames: Vec<Frame>,
    #[serde(default)]
    retries: Vec<u64>,
    #[serde(default)]
    comments: Vec<String>,
    last_id: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Frame {
    #[serde(default)]
    event: String,
    data: String,
    id: Option<String>,
    last_id: Option<String>,
}

/// What a parser has found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    frames: Vec<Frame>,
    retries: Vec<u64>,
    comments: Vec<String>,
    last_id: String,
}

impl Found {
    fn feed(&mut self, parser: &mut Parser, bytes: &[u8]) {
        let had = self.frames.len();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        parser
            .feed(bytes, &mut |item| match item {
                Item::Frame(frame) => self.frames.push(Frame {
                    event: text(frame.event),
                    data: text(frame.data),
                    id: frame.id.map(text),
                    last_id: None,
                }),
                Item::Retry(millis) => self.retries.push(millis),
                Item::Comment(comment) => self.comments.push(text(comment)),
            })
            .unwrap();
        self.last_id = text(parser.last_event_id());
        for frame in &mut self.frames[had..] {
            frame.last_id = Some(self.last_id.clone());
        }
    }

    /// Without what is only known where the bytes come one by one.
    fn without_last_ids(mut self) -> Self {
        self.frames.iter_mut().for_each(|f| f.last_id = None);
        self
    }
}

impl ParseCase {
    fn wanted(self) -> Found {
        let (mut frames, mut last) = (self.frames, String::new());
        for frame in &mut frames {
            if let Some(id) = frame.last_id.as_ref().or(frame.id.as_ref()) {
                last.clone_from(id);
            }
            frame.last_id = Some(last.clone());
        }
        Found {
            frames,
            retries: self.retries,
            comments: self.comments,
            last_id: self.last_id.unwrap_or(last),
        }
    }
}

#[test]
fn frames_are_read_wherever_the_bytes_are_split() {
    let Framing { parse } = cases("framing.yaml");
    for case in parse {
        let (name, stream) = (case.name.clone(), case.stream.clone().into_bytes());
        let wanted = case.wanted();
        let (mut parser, mut found) = (Parser::new(), Found::default());
        for byte in &stream {
            found.feed(&mut parser, &[*byte]);
        }
        assert_eq!(found, wanted, "{name}: byte by byte");
        let wanted = wanted.without_last_ids();
        for at in 0..=stream.len() {
            let (mut parser, mut found) = (Parser::new(), Found::default());
            found.feed(&mut parser, &stream[..at]);
            found.feed(&mut parser, &stream[at..]);
            assert_eq!(found.without_last_ids(), wanted, "{name}: split at {at}");
        }
    }
}

#[derive(Deserialize)]
struct Returns {
    client: Vec<ReturnCase>,
}

#[derive(Deserialize)]
struct ReturnCase {
    name: String,
    since: Option<String>,
    connections: Vec<Connection>,
    delivers: Vec<String>,
    cursor: String,
}

#[derive(Deserialize)]
struct Connection {
    asks: Option<String>,
    sends: Option<String>,
    #[serde(default)]
    drops: bool,
}

impl Connection {
    fn act(&self, is_last: bool) -> Act {
        match &self.sends {
            Some(body) if is_last => Act::Hold(sse(body)),
            Some(body) => Act::Answer(sse(body)),
            None => {
                assert!(self.drops, "neither sends nor drops");
                Act::Close
            }
        }
    }
}

async fn comes_back(case: ReturnCase) {
    let count = case.connections.len();
    let acts = case.connections.iter().enumerate();
    let server = Server::play(acts.map(|(n, c)| c.act(n + 1 == count)).collect()).await;
    let mut subscription = Subscription::new(["a/**"]);
    if let Some(since) = case.since {
        subscription = subscription.since(since);
    }
    let mut stream = server.client().stream(subscription);
    let name = case.name;
    let delivered = words(&mut stream, case.delivers.len()).await;
    assert_eq!(delivered, case.delivers, "{name}");
    assert_eq!(stream.cursor(), Some(case.cursor.as_str()), "{name}");
    for (number, connection) in case.connections.iter().enumerate() {
        let head = server.head(number).await;
        let asked = head.lines().find_map(|l| l.strip_prefix("last-event-id: "));
        // The script's server keeps heads in small letters.
        let wanted = connection.asks.as_ref().map(|c| c.to_lowercase());
        assert_eq!(asked, wanted.as_deref(), "{name}: connection {number}");
    }
}

#[tokio::test]
async fn it_comes_back_from_where_it_stood() {
    for file in ["resume.yaml", "gap.yaml"] {
        let Returns { client } = cases(file);
        for case in client {
            comes_back(case).await;
        }
    }
}
