//! The bytes: events with everything that could break a frame, read by three parsers that are not ours, a browser among
//! them. Each must have exactly the events that were sent.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Setup, admin};

/// Data that has broken somebody's parser.
fn corpus() -> Vec<Value> {
    let mut corpus = vec![
        json!("plain"),
        json!(""),
        json!(null),
        json!({}),
        json!([]),
        json!(0),
        json!(false),
        json!("one\ntwo"),
        json!("one\rtwo"),
        json!("one\r\ntwo"),
        json!("\n"),
        json!("\r"),
        json!("\n\n"),
        json!(" leading and trailing "),
        json!("data: not a field\nid: 7\n\nevent: x"),
        json!(": not a comment"),
        json!("line\u{2028}and paragraph\u{2029}separators"),
        json!("\u{feff}a byte order mark"),
        json!("astral \u{1f600}\u{1d11e}"),
        json!("e\u{301} combining"),
        json!("\u{202e}right to left"),
        json!("quotes \" and \\ backslashes / and </script>"),
        json!({ "a\nb": "c\rd", "": "" }),
        json!(1.5e300),
        json!("x".repeat(300_000)),
        json!("é".repeat(100_000)),
    ];
    // Every control character.
    corpus.extend(
        (0u8..0x20)
            .chain([0x7f])
            .map(|c| json!(format!("before{}after", char::from(c)))),
    );
    corpus
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
