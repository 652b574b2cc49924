//! What somebody might send: each gets its 4xx with the field, nothing is half done, and the server lives.

use std::io::{Read, Write};

use serde_json::{Value, json};

use crate::support::{Request, Server, Setup, admin};

fn publish(server: &Server, content_type: &str, body: &[u8]) -> crate::support::Answer {
    let token = admin();
    let headers = vec![("Content-Type", content_type.to_owned())];
    server.request(&Request {
        token: Some(&token),
        headers,
        body: body.to_vec(),
        ..Request::new("POST", "/api/v1/events")
    })
}

fn stored(server: &Server) -> usize {
    server
        .get("/api/v1/events?topic=**&limit=1000", Some(&admin()))
        .json()["events"]
        .as_array()
        .unwrap()
        .len()
}

fn event(change: Value) -> Vec<u8> {
    let mut event = json!({ "topic": "x", "type": "t", "data": 1 });
    event
        .as_object_mut()
        .unwrap()
        .extend(change.as_object().unwrap().clone());
    event.to_string().into_bytes()
}

#[test]
fn bodies() {
    let server = Setup::default()
        .set("limits.event=2KiB")
        .set("limits.body=64KiB")
        .set("limits.batch=10")
        .start();
    let deep = |n: usize| {
        format!(
            "{{\"topic\":\"x\",\"type\":\"t\",\"data\":{}1{}}}",
            "[".repeat(n),
            "]".repeat(n)
        )
        .into_bytes()
    };
    let json_type = "application/json";
    let table: Vec<(&str, Vec<u8>, u16, Option<&str>)> = vec![
        (json_type, b"".to_vec(), 400, None),
        (json_type, b"{".to_vec(), 400, None),
        (json_type, b"{\"topic\":\"x\",}".to_vec(), 400, None),
        (json_type, b"\xff\xfe".to_vec(), 400, None),
        (
            json_type,
            b"{\"topic\":\"x\",\"type\":\"t\",\"data\":\"\xc3\x28\"}".to_vec(),
            400,
            None,
        ),
        (
            json_type,
            b"{\"topic\":\"x\",\"type\":\"t\",\"data\":NaN}".to_vec(),
            400,
            None,
        ),
        (
            json_type,
            b"{\"topic\":\"x\",\"type\":\"t\",\"data\":\"a\nb\"}".to_vec(),
            400,
            None,
        ),
        (json_type, deep(65), 400, Some("data")),
        (json_type, deep(900), 400, None),
        (json_type, b"7".to_vec(), 422, None),
        (json_type, b"null".to_vec(), 422, None),
        (json_type, b"[]".to_vec(), 422, None),
        (json_type, b"[1]".to_vec(), 422, None),
        (
            json_type,
            event(json!({ "topic": null })),
            422,
            Some("topic"),
        ),
        (json_type, event(json!({ "topic": 1 })), 422, Some("topic")),
        (json_type, event(json!({ "topic": "" })), 422, Some("topic")),
        (
            json_type,
            event(json!({ "topic": "a//b" })),
            422,
            Some("topic"),
        ),
        (
            json_type,
            event(json!({ "topic": "../etc" })),
            422,
            Some("topic"),
        ),
        (
            json_type,
            event(json!({ "topic": "a/**" })),
            422,
            Some("topic"),
        ),
        (
            json_type,
            event(json!({ "topic": "a\r\nb" })),
            422,
            Some("topic"),
        ),
        (
            json_type,
            event(json!({ "topic": "a".repeat(65) })),
            422,
            Some("topic"),
        ),
        (
            json_type,
            event(json!({ "topic": vec!["a"; 17].join("/") })),
            422,
            Some("topic"),
        ),
        (json_type, event(json!({ "type": "" })), 422, Some("type")),
        (
            json_type,
            event(json!({ "type": "error" })),
            422,
            Some("type"),
        ),
        (
            json_type,
            event(json!({ "type": "Connected" })),
            422,
            Some("type"),
        ),
        (
            json_type,
            event(json!({ "type": "a\nevent: b" })),
            422,
            Some("type"),
        ),
        (
            json_type,
            event(json!({ "type": "a\u{0}" })),
            422,
            Some("type"),
        ),
        (
            json_type,
            event(json!({ "type": "t".repeat(129) })),
            422,
            Some("type"),
        ),
        (json_type, event(json!({ "id": "a b" })), 422, Some("id")),
        (json_type, event(json!({ "id": "a\rb" })), 422, Some("id")),
        (
            json_type,
            event(json!({ "id": "a".repeat(129) })),
            422,
            Some("id"),
        ),
        (json_type, event(json!({ "id": 7 })), 422, Some("id")),
        (
            json_type,
            event(json!({ "time": "yesterday" })),
            422,
            Some("time"),
        ),
        (json_type, event(json!({ "time": 7 })), 422, Some("time")),
        (
            json_type,
            event(json!({ "subject": "a\nb" })),
            422,
            Some("subject"),
        ),
        (
            json_type,
            event(json!({ "extensions": [] })),
            422,
            Some("extensions"),
        ),
        (
            json_type,
            event(json!({ "payload": 1 })),
            422,
            Some("payload"),
        ),
        (
            json_type,
            event(json!({ "data": "x".repeat(3_000) })),
            413,
            None,
        ),
        (json_type, vec![b' '; 70_000], 413, None),
        (
            json_type,
            json!(vec![json!({ "topic": "x", "type": "t", "data": 1 }); 11])
                .to_string()
                .into_bytes(),
            413,
            None,
        ),
        ("text/plain", event(json!({})), 415, Some("Content-Type")),
        (
            "application/jsonp",
            event(json!({})),
            415,
            Some("Content-Type"),
        ),
        ("application/x-ndjson", b"{}\n".to_vec(), 422, Some("topic")),
        (
            "application/cloudevents+json",
            event(json!({})),
            422,
            Some("specversion"),
        ),
        (
            "application/cloudevents-batch+json",
            b"{}".to_vec(),
            422,
            None,
        ),
    ];
    for (content_type, body, status, field) in table {
        let answer = publish(&server, content_type, &body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        assert_eq!(answer.status, status, "{shown}: {}", answer.body);
        answer.is_problem(status, field);
    }
    // One bad item of a batch: which one, and nothing of it stored.
    let batch = json!([{ "topic": "x", "type": "t", "data": 1 }, { "topic": "x", "type": "t", "data": 2, "id": "" }]);
    let answer = publish(&server, json_type, batch.to_string().as_bytes());
    answer.is_problem(422, Some("id"));
    assert_eq!(answer.json()["index"], 1);
    let lines = b"{\"topic\":\"x\",\"type\":\"t\",\"data\":1}\nnonsense\n";
    let answer = publish(&server, "application/x-ndjson", lines);
    assert_eq!((answer.status, &answer.json()["index"]), (400, &json!(1)));
    assert_eq!(stored(&server), 0);
    assert_eq!(
        publish(&server, json_type, &event(json!({}))).status,
        202,
        "and the server lives"
    );
    assert_eq!(stored(&server), 1);
}

#[test]
fn cloudevents_headers() {
    let server = Setup::default().start();
    let token = admin();
    let send = |headers: &[(&'static str, &str)]| {
        let headers = headers.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        server.request(&Request {
            token: Some(&token),
            headers,
            body: b"{}".to_vec(),
            ..Request::new("POST", "/api/v1/events")
        })
    };
    let all = [
        ("Content-Type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-topic", "x"),
    ];
    assert_eq!(send(&all).status, 202);
    for missing in ["ce-specversion", "ce-id", "ce-source", "ce-type"] {
        let rest: Vec<_> = all.iter().copied().filter(|(n, _)| *n != missing).collect();
        send(&rest).is_problem(400, Some(missing));
    }
    for (name, value) in [
        ("ce-specversion", "0.3"),
        ("ce-type", "open"),
        ("ce-topic", "a//b"),
        ("ce-time", "soon"),
        ("ce-id", "a%0Ab"),
    ] {
        let changed: Vec<_> = all
            .iter()
            .copied()
            .filter(|(n, _)| *n != name)
            .chain([(name, value)])
            .collect();
        send(&changed).is_problem(400, Some(name));
    }
}

#[test]
fn queries_and_headers() {
    let server = Setup::default().start();
    let token = admin();
    for (path, field) in [
        ("/api/v1/events", "topic"),
        ("/api/v1/events?topic=a//b", "topic"),
        ("/api/v1/events?topic=**/a", "topic"),
        ("/api/v1/events?topic=x&limit=0", "limit"),
        ("/api/v1/events?topic=x&limit=1001", "limit"),
        ("/api/v1/events?topic=x&limit=-1", "limit"),
        ("/api/v1/events?topic=x&limit=many", "limit"),
        ("/api/v1/events?topic=x&after=nonsense", "after"),
        ("/api/v1/poll?topic=x&wait=61", "wait"),
        ("/api/v1/poll?topic=x&wait=1.5", "wait"),
        ("/api/v1/stream?topic=x&named=perhaps", "named"),
        ("/api/v1/stream?topic=x&format=xml", "format"),
        ("/api/v1/ws", "Upgrade"),
    ] {
        let answer = server.get(path, Some(&token));
        assert_eq!(
            (answer.status, answer.json()["field"].as_str()),
            (400, Some(field)),
            "{path}: {}",
            answer.body
        );
    }
    assert_eq!(
        server
            .get("/api/v1/events?topic=x&unheard=of", Some(&token))
            .status,
        200
    );
    let key = |key: &str| {
        let headers = vec![
            ("Content-Type", "application/json".to_owned()),
            ("Idempotency-Key", key.to_owned()),
        ];
        server.request(&Request {
            token: Some(&token),
            headers,
            body: event(json!({})),
            ..Request::new("POST", "/api/v1/events")
        })
    };
    key(&"k".repeat(256)).is_problem(400, Some("Idempotency-Key"));
    key("\u{e9}").is_problem(400, Some("Idempotency-Key"));
    let huge = Request {
        token: Some(&token),
        headers: vec![("X-Large", "x".repeat(40_000))],
        ..Request::new("GET", "/api/v1/status")
    };
    assert_eq!(raw(&server, &huge), 431);
    // A correlation id that would break a record is not taken over.
    let headers = vec![("X-Correlation-ID", "a\"b{}".to_owned())];
    let answer = server.request(&Request {
        headers,
        ..Request::new("GET", "/healthz")
    });
    assert!(answer.status == 200 && answer.header("x-correlation-id") != "a\"b{}");
    for nonsense in [
        &b"GET / HTTP/9.9\r\n\r\n"[..],
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ] {
        let mut socket = std::net::TcpStream::connect(&server.address).unwrap();
        socket.write_all(nonsense).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.contains(" 400 "), "{text}");
    }
    assert_eq!(server.get("/healthz", None).status, 200);
}

/// The status alone, where the server may close before all has been sent.
fn raw(server: &Server, request: &Request<'_>) -> u16 {
    let mut socket = server.send(request);
    let mut text = String::new();
    let _ = socket.read_to_string(&mut text);
    text.split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0)
}
