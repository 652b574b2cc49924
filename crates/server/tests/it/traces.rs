//! Traces: from the publisher through the server to the collector and to the subscriber.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::support::{Request, Setup, admin, eventually, user};

/// An OTLP collector that keeps what it is sent.
#[derive(Clone)]
struct Collector {
    address: String,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Self {
            address: listener.local_addr().unwrap().to_string(),
            bodies: Arc::default(),
        };
        let bodies = collector.bodies.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = BufReader::new(socket.unwrap());
                let (mut line, mut length, mut path) = (String::new(), 0, String::new());
                while socket.read_line(&mut line).unwrap() > 2 {
                    let lower = line.to_ascii_lowercase();
                    if let Some(text) = lower.strip_prefix("content-length:") {
                        length = text.trim().parse().unwrap();
                    }
                    if path.is_empty() {
                        line.clone_into(&mut path);
                    }
                    line.clear();
                }
                assert!(path.starts_with("POST /v1/traces "), "{path}");
                let mut body = vec![0; length];
                socket.read_exact(&mut body).unwrap();
                bodies.lock().unwrap().push(body);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                socket.get_mut().write_all(answer).unwrap();
            }
        });
        collector
    }

    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().unwrap();
        let parts = |message, number| {
            let all: Vec<_> = fields(message)
                .into_iter()
                .filter(|(n, _)| *n == number)
                .map(|(_, value)| value.bytes())
                .collect();
            all
        };
        let resources: Vec<_> = bodies.iter().flat_map(|body| parts(body, 1)).collect();
        let scopes = resources.iter().flat_map(|resource| parts(resource, 2));
        let spans: Vec<_> = scopes.flat_map(|scope| parts(scope, 2)).collect();
        spans.into_iter().map(Span::of).collect()
    }

    /// The one span of a name, once it has come.
    fn span(&self, name: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        let mut found = None;
        eventually(name, || {
            found = self
                .spans()
                .into_iter()
                .find(|s| s.name == name && is_it(s));
            found.is_some()
        });
        found.unwrap()
    }
}

/// What a field of a protobuf message holds.
#[derive(Clone, Copy)]
enum Held<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Held<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => panic!("{number} where bytes belong"),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Number(number) => number.to_string(),
        }
    }

    fn hex(self) -> String {
        self.bytes().iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// The fields of a protobuf message, by number.
fn fields(mut from: &[u8]) -> Vec<(u64, Held<'_>)> {
    fn number(from: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = from.split_first().unwrap();
            *from = rest;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }
    fn take<'a>(from: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (taken, rest) = from.split_at(length);
        *from = rest;
        taken
    }
    let mut all = Vec::new();
    while !from.is_empty() {
        let key = number(&mut from);
        let value = match key & 7 {
            0 => Held::Number(number(&mut from)),
            1 => Held::Bytes(take(&mut from, 8)),
            2 => {
                let length = usize::try_from(number(&mut from)).unwrap();
                Held::Bytes(take(&mut from, length))
            }
            5 => Held::Bytes(take(&mut from, 4)),
            other => panic!("wire type {other}"),
        };
        all.push((key >> 3, value));
    }
    all
}

/// A span of opentelemetry/proto/trace/v1/trace.proto.
#[derive(Debug, Default)]
struct Span {
    trace_id: String,
    span_id: String,
    parent: String,
    name: String,
    kind: String,
    attributes: BTreeMap<String, String>,
    /// 0 unset, 1 good, 2 an error.
    status: u64,
}

impl Span {
    fn of(message: &[u8]) -> Self {
        let mut span = Self::default();
        for (number, value) in fields(message) {
            match number {
                1 => span.trace_id = value.hex(),
                2 => span.span_id = value.hex(),
                4 => span.parent = value.hex(),
                5 => span.name = value.text(),
                6 => span.kind = value.text(),
                9 => {
                    let pair = fields(value.bytes());
                    let held = fields(pair[1].1.bytes());
                    let text = held.first().map_or_else(String::new, |(_, v)| v.text());
                    span.attributes.insert(pair[0].1.text(), text);
                }
                15 => {
                    let code = fields(value.bytes()).into_iter().find(|(n, _)| *n == 3);
                    span.status = code.map_or(0, |(_, v)| v.text().parse().unwrap());
                }
                _ => {}
            }
        }
        span
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

#[test]
fn a_publishers_trace_reaches_the_collector_and_the_subscriber() {
    let collector = Collector::start();
    let mut server = Setup::default()
        .set(&format!("otlp.endpoint=http://{}", collector.address))
        .start();
    let token = user("u");
    let mut stream = server.stream("topic=secret-place", &token, None);
    stream.until("connected");
    let publish = |trace: Option<&str>| {
        let body = json!({ "topic": "secret-place", "type": "t", "data": "secret-data" });
        let mut headers = vec![
            ("Content-Type", "application/json".to_owned()),
            ("X-Correlation-ID", "mine-7".to_owned()),
        ];
        headers.extend(trace.map(|t| ("traceparent", t.to_owned())));
        let answer = server.request(&Request {
            token: Some(&token),
            headers,
            body: body.to_string().into_bytes(),
            ..Request::new("POST", "/api/v1/events")
        });
        assert_eq!(answer.status, 202);
        answer
    };
    let answer = publish(Some(&format!("00-{TRACE}-{PARENT}-01")));
    assert_eq!(answer.header("x-trace-id"), TRACE);
    let seen = stream.until("t").json()["trace"]
        .as_str()
        .unwrap()
        .to_owned();
    let span = collector.span("POST /api/v1/events", |_| true);
    assert_eq!(
        (span.trace_id.as_str(), span.parent.as_str()),
        (TRACE, PARENT)
    );
    assert_eq!(
        seen,
        format!("00-{TRACE}-{}-01", span.span_id),
        "the subscriber goes on from the very span that was exported"
    );
    assert_eq!(span.kind, "2", "a server's");
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/api/v1/events"),
        ("http.response.status_code", "202"),
        ("correlation_id", "mine-7"),
        ("event_id", answer.header("x-event-id")),
    ] {
        assert_eq!(span.attributes[name], value, "{name} of {span:?}");
    }

    // Without a caller's trace, one of its own; a caller that does not sample is passed on and not exported.
    let own = publish(None).header("x-trace-id").to_owned();
    assert!(
        stream.until("t").json()["trace"]
            .as_str()
            .unwrap()
            .starts_with(&format!("00-{own}-"))
    );
    let unsampled = "1af7651916cd43dd8448eb211c80319c";
    publish(Some(&format!("00-{unsampled}-{PARENT}-00")));
    let seen = stream.until("t").json()["trace"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        seen.starts_with(&format!("00-{unsampled}-")) && seen.ends_with("-00"),
        "{seen}"
    );
    let span = collector.span("POST /api/v1/events", |span| span.trace_id == own);
    assert_eq!(span.parent, "");

    // Names are of routes: paths hold identities. What failed through our fault alone is an error.
    let id = "0190c1a2-0000-7000-8000-00000000beef";
    let path = format!("/api/v1/connections/{id}");
    let request = Request {
        token: Some(&token),
        ..Request::new("DELETE", &path)
    };
    server.request(&request).is_problem(404, None);
    server
        .get("/secret-path", Some(&token))
        .is_problem(404, None);
    server.signal("TERM");
    assert_eq!(stream.until("closing").json()["reason"], "drain");
    server.get("/readyz", None);
    assert_eq!(server.wait(), Some(0));
    // What was waiting is sent before the end.
    let spans = collector.spans();
    let find = |name: &str| spans.iter().find(|s| s.name == name);
    let deleted = find("DELETE /api/v1/connections/{id}").unwrap();
    assert_eq!(
        (
            deleted.status,
            deleted.attributes["http.response.status_code"].as_str()
        ),
        (0, "404")
    );
    assert_eq!(find("GET none").unwrap().status, 0);
    assert_eq!(find("GET /readyz").unwrap().status, 2, "503");
    assert!(find("GET /api/v1/stream").is_some());
    assert!(spans.iter().all(|s| s.trace_id != unsampled));
    let bodies = collector.bodies.lock().unwrap().concat();
    let text = String::from_utf8_lossy(&bodies);
    assert!(text.contains("service.name") && text.contains("tidings"));
    for secret in [token.as_str(), "eyJ", "secret-", id] {
        assert!(!text.contains(secret), "{secret} was exported");
    }
}

#[test]
fn a_collector_that_is_gone_costs_nobody_an_answer() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("otlp.endpoint=http://{}", gone.local_addr().unwrap());
    drop(gone);
    let mut server = Setup::default()
        .set(&endpoint)
        .set("drain.grace=100ms")
        .start();
    for n in 0..50 {
        server.publish(&admin(), "x", &json!(n));
    }
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}
