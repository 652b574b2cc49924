//! The bytes: events with everything that could break a frame, read by three parsers that are not ours, a browser among
//! them. Each must have exactly the events that were sent.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::conformance;
use crate::support::{PATIENCE, Setup, admin};

/// `conformance/corpus.yaml`.
#[derive(Deserialize)]
struct Corpus {
    corpus: Vec<Map<String, Value>>,
}

/// Data that has broken somebody's parser.
fn corpus() -> Vec<Value> {
    let Corpus { corpus } = conformance::read("corpus.yaml");
    let data = |entry: &Map<String, Value>| match entry.get("repeat") {
        None => entry["data"].clone(),
        Some(text) => {
            let times = usize::try_from(entry["times"].as_u64().unwrap()).unwrap();
            json!(text.as_str().unwrap().repeat(times))
        }
    };
    corpus.iter().map(data).collect()
}

/// Publishes the corpus, has a parser read it, and compares. The parser prints one JSON text: a list of [id, data].
fn read_by(parser: &str, command: impl FnOnce(&str, &str, usize) -> Command) {
    let server = Setup::default().start();
    let token = admin();
    let corpus = corpus();
    let first = server.publish(&token, "frames", &json!("first"));
    let mut sent = Vec::new();
    for data in &corpus {
        sent.push((server.publish(&token, "frames", data), data.clone()));
    }
    let ticket = server.post("/api/v1/stream/tickets", Some(&token), &json!({}));
    let ticket = ticket.json()["ticket"].as_str().unwrap().to_owned();
    let url = format!(
        "{}/api/v1/stream?topic=frames&named=false&last_event_id={first}&ticket={ticket}",
        server.url()
    );
    let output = command(&url, &server.url(), corpus.len()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{parser}: {errors}");
    let read: Vec<(String, Value)> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{parser}: {e}: {errors}"));
    assert_eq!(read.len(), sent.len(), "{parser}");
    for ((id, event), (cursor, data)) in read.iter().zip(&sent) {
        assert_eq!((id, &event["data"]), (cursor, data), "{parser}");
    }
}

/// What a parser needs; without it the test fails in CI, and says what is missing elsewhere.
fn part(variable: &str) -> Option<String> {
    let Ok(value) = std::env::var(variable) else {
        assert!(
            std::env::var("CI").is_err(),
            "{variable} must be set in CI: see ./x test"
        );
        eprintln!("not run: {variable} is not set (./x test sets it)");
        return None;
    };
    Some(value)
}

fn asset(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/assets")
        .join(name)
        .display()
        .to_string()
}

#[test]
fn pythons_parsers() {
    let Some(python) = part("TIDINGS_TEST_PYTHON") else {
        return;
    };
    for parser in ["httpx-sse", "sseclient"] {
        read_by(parser, |url, _, count| {
            let mut command = Command::new(&python);
            command.args([&asset("read.py"), parser, url, &count.to_string()]);
            command
        });
    }
}

#[test]
fn nodes_parser() {
    let Some(folder) = part("TIDINGS_TEST_NODE_DIR") else {
        return;
    };
    read_by("eventsource-parser", |url, _, count| {
        let mut command = Command::new("node");
        command.args([&asset("read.mjs"), &folder, url, &count.to_string()]);
        command
    });
}

#[test]
fn a_browsers_event_source() {
    let (Some(folder), Some(chromium)) =
        (part("TIDINGS_TEST_NODE_DIR"), part("TIDINGS_TEST_CHROMIUM"))
    else {
        return;
    };
    read_by("Chromium", |url, page, count| {
        let mut command = Command::new("node");
        command.args([
            &asset("browser.mjs"),
            &folder,
            &chromium,
            "read",
            page,
            url,
            &count.to_string(),
        ]);
        command
    });
}

/// `conformance/framing.yaml`, as far as a client is concerned.
#[derive(Deserialize)]
struct Streams {
    parse: Vec<ParseCase>,
}

#[derive(Deserialize)]
struct ParseCase {
    name: String,
    stream: String,
    frames: Vec<ParsedFrame>,
}

#[derive(Deserialize)]
struct ParsedFrame {
    #[serde(default)]
    event: String,
    data: String,
    id: Option<String>,
    last_id: Option<String>,
}

/// Serves a page at `/`, and each stream at its number; ends when it is dropped.
struct StreamServer {
    url: String,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StreamServer {
    fn start(streams: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                // A browser may open a connection and think better of it.
                let _ = Self::answer(socket.unwrap(), &streams);
            }
        });
        Self {
            url: format!("http://{address}"),
            is_over,
            thread: Some(thread),
        }
    }

    fn answer(mut socket: TcpStream, streams: &[String]) -> std::io::Result<()> {
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut from = BufReader::new(socket.try_clone()?);
        let mut first = String::new();
        from.read_line(&mut first)?;
        let mut line = String::new();
        while from.read_line(&mut line)? > 2 {
            line.clear();
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let stream = path.trim_start_matches('/').parse::<usize>().ok();
        let (kind, body) = match stream.and_then(|number| streams.get(number)) {
            Some(stream) => ("text/event-stream", stream.as_str()),
            None => ("text/html", "<!doctype html>"),
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n");
        socket.write_all(head.as_bytes())?;
        socket.write_all(body.as_bytes())
    }
}

impl Drop for StreamServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Has a parser read the streams of `framing.yaml`; it prints a list of [name, data, id] for each. `has_last_id` says
/// whether the id is the stream's last one, or the frame's own.
fn read_streams(
    parser: &str,
    has_last_id: bool,
    command: impl FnOnce(&str, usize, &str) -> Command,
) {
    let Streams { parse } = conformance::read("framing.yaml");
    let server = StreamServer::start(parse.iter().map(|case| case.stream.clone()).collect());
    let frames = parse.iter().flat_map(|case| &case.frames);
    let names: BTreeSet<&str> = frames.map(|frame| frame.event.as_str()).collect();
    let names = serde_json::to_string(&names).unwrap();
    let output = command(&server.url, parse.len(), &names).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{parser}: {errors}");
    let read: Vec<Vec<(String, String, String)>> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{parser}: {e}: {errors}"));
    assert_eq!(read.len(), parse.len(), "{parser}");
    for (case, read) in parse.iter().zip(read) {
        let mut last = String::new();
        let wanted = case.frames.iter().map(|frame| {
            if let Some(id) = frame.last_id.as_ref().or(frame.id.as_ref()) {
                last.clone_from(id);
            }
            let own = frame.id.clone().unwrap_or_default();
            let id = if has_last_id { last.clone() } else { own };
            (frame.event.clone(), frame.data.clone(), id)
        });
        assert_eq!(read, wanted.collect::<Vec<_>>(), "{parser}: {}", case.name);
    }
}

#[test]
fn nodes_parser_reads_each_stream() {
    let Some(folder) = part("TIDINGS_TEST_NODE_DIR") else {
        return;
    };
    read_streams("eventsource-parser", false, |url, count, names| {
        let mut command = Command::new("node");
        command.args([
            &asset("parse.mjs"),
            &folder,
            "",
            url,
            &count.to_string(),
            names,
        ]);
        command
    });
}

#[test]
fn a_browser_reads_each_stream() {
    let (Some(folder), Some(chromium)) =
        (part("TIDINGS_TEST_NODE_DIR"), part("TIDINGS_TEST_CHROMIUM"))
    else {
        return;
    };
    read_streams("Chromium", true, |url, count, names| {
        let mut command = Command::new("node");
        let count = count.to_string();
        command.args([&asset("parse.mjs"), &folder, &chromium, url, &count, names]);
        command
    });
}

/// A browser that comes back while there is no place must not give up: its own EventSource goes on by itself.
#[test]
fn a_browser_that_is_refused_comes_back() {
    let (Some(folder), Some(chromium)) =
        (part("TIDINGS_TEST_NODE_DIR"), part("TIDINGS_TEST_CHROMIUM"))
    else {
        return;
    };
    let address = crate::support::free_address();
    let setup = Setup {
        listen: Some(address),
        ..Setup::default()
    };
    let server = setup
        .set("stream.max_connections=1")
        .set("stream.retry=1s")
        .start();
    let token = admin();
    server.publish(&token, "back", &json!("before"));
    let ticket = server
        .post("/api/v1/stream/tickets", Some(&token), &json!({}))
        .json()["ticket"]
        .as_str()
        .unwrap()
        .to_owned();
    let url = format!(
        "{}/api/v1/stream?topic=back&named=false&ticket={ticket}",
        server.url()
    );
    let mut command = Command::new("node");
    command.args([
        &asset("browser.mjs"),
        &folder,
        &chromium,
        "follow",
        &server.url(),
        &url,
        "2",
    ]);
    let browser = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    crate::support::eventually("the browser is there", || {
        server.metric("tidings_connections{") == 1.0
    });
    server.publish(&token, "back", &json!("one"));
    // The server dies; when it is back, somebody else has the only place for a while.
    let (folder, setup) = server.kill();
    let server = crate::support::Server::start(folder, setup);
    let squatter = server.stream("topic=other", &token, None);
    crate::support::eventually("it is sent away", || {
        server.metric("tidings_refused_connections_total{reason=\"limit\"}") >= 1.0
    });
    server.publish(&token, "back", &json!("two"));
    drop(squatter);
    let output = browser.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let read: Vec<(String, Value)> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        read.iter()
            .map(|(_, event)| event["data"].clone())
            .collect::<Vec<_>>(),
        ["one", "two"]
    );
}
