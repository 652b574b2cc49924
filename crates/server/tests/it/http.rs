//! What every answer has, whatever it is about.

use serde_json::json;

use crate::support::{Request, Setup, admin, user};

#[test]
fn every_answer_has_its_ids_and_says_what_it_is() {
    let server = Setup::default().start();
    let token = user("u");
    for (path, status) in [
        ("/healthz", 200),
        ("/nowhere", 404),
        ("/api/v1/status", 401),
        ("/api/v1/events?topic=x", 401),
        ("/problems/invalid", 200),
    ] {
        let answer = server.get(path, None);
        assert_eq!(answer.status, status, "{path}");
        for header in ["x-trace-id", "x-correlation-id", "x-event-id"] {
            assert!(!answer.header(header).is_empty(), "{path} {header}");
        }
    }
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = vec![
        ("X-Correlation-ID", "mine-7".into()),
        ("traceparent", trace.into()),
        ("Content-Type", "application/json".into()),
    ];
    let body = json!({ "topic": "x", "type": "t", "data": 1 })
        .to_string()
        .into_bytes();
    let mut stream = server.stream("topic=x", &token, None);
    stream.until("connected");
    let answer = server.request(&Request {
        token: Some(&token),
        headers,
        body,
        ..Request::new("POST", "/api/v1/events")
    });
    assert_eq!(answer.header("x-correlation-id"), "mine-7");
    assert_eq!(
        answer.header("x-trace-id"),
        "0af7651916cd43dd8448eb211c80319c"
    );
    assert_eq!(
        answer.header("x-event-id"),
        answer.json()["ids"][0].as_str().unwrap()
    );
    let event = stream.until("t").json();
    assert!(
        event["trace"]
            .as_str()
            .unwrap()
            .starts_with("00-0af7651916cd43dd8448eb211c80319c-"),
        "{event}"
    );
    crate::support::eventually("the record is written", || {
        server.log().contains("\"correlation_id\":\"mine-7\"")
    });
    let log = server.log();
    let record = log.lines().find(|l| l.contains("mine-7")).unwrap();
    let record: serde_json::Value = serde_json::from_str(record).unwrap();
    for field in [
        "timestamp",
        "level",
        "message",
        "target",
        "service",
        "event_id",
        "trace_id",
        "span_id",
        "duration_ms",
        "status_code",
        "method",
        "path",
    ] {
        assert!(!record[field].is_null(), "{field} in {record}");
    }
}

#[test]
fn methods_slashes_and_heads() {
    let server = Setup::default().start();
    let token = admin();
    let with = |method: &str, path: &str| {
        server.request(&Request {
            token: Some(&token),
            ..Request::new(method, path)
        })
    };
    let refused = with("DELETE", "/api/v1/events");
    refused.is_problem(405, None);
    assert_eq!(refused.header("allow"), "POST, GET, HEAD, OPTIONS");
    let options = with("OPTIONS", "/api/v1/status");
    assert_eq!(
        (options.status, options.header("allow")),
        (204, "GET, HEAD, OPTIONS")
    );
    assert_eq!(with("GET", "/api/v1/status/").status, 200);
    assert_eq!(with("GET", "/healthz/").status, 200);
    for path in ["/healthz", "/api/v1/status", "/api/v1/stream?topic=x"] {
        use std::io::Read;
        let mut socket = server.send(&Request {
            token: Some(&token),
            headers: vec![("Connection", "close".into())],
            ..Request::new("HEAD", path)
        });
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\n"),
            "{path}: {text}"
        );
    }
}

#[test]
fn other_origins_read_only_what_they_may() {
    let server = Setup::default()
        .set("http.allowed_origins=https://app.example,http://localhost:3000")
        .start();
    let with = |method: &str, path: &str, origin: &str, more: Vec<(&'static str, String)>| {
        let mut headers = vec![("Origin", origin.to_owned())];
        headers.extend(more);
        server.request(&Request {
            headers,
            ..Request::new(method, path)
        })
    };
    let preflight = with(
        "OPTIONS",
        "/api/v1/events",
        "https://app.example",
        vec![("Access-Control-Request-Method", "POST".into())],
    );
    assert_eq!(preflight.status, 204);
    assert_eq!(
        preflight.header("access-control-allow-origin"),
        "https://app.example"
    );
    assert_eq!(preflight.header("access-control-allow-credentials"), "true");
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        assert!(
            preflight
                .header("access-control-allow-methods")
                .contains(method)
        );
    }
    for header in [
        "Authorization",
        "Content-Type",
        "X-Correlation-ID",
        "Last-Event-ID",
        "Cache-Control",
    ] {
        assert!(
            preflight
                .header("access-control-allow-headers")
                .contains(header)
        );
    }
    assert_eq!(
        with("GET", "/api/v1/status", "http://localhost:3000", vec![])
            .header("access-control-allow-origin"),
        "http://localhost:3000",
        "on errors too"
    );
    for origin in [
        "https://evil.example",
        "null",
        "https://app.example.evil.example",
        "http://app.example",
    ] {
        let answer = with("GET", "/healthz", origin, vec![]);
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
        assert_eq!(
            with(
                "OPTIONS",
                "/healthz",
                origin,
                vec![("Access-Control-Request-Method", "GET".into())]
            )
            .header("access-control-allow-origin"),
            ""
        );
    }
    let mut stream = crate::support::Sse::new(server.send(&Request {
        token: Some(&user("u")),
        headers: vec![("Origin", "https://app.example".into())],
        ..Request::new("GET", "/api/v1/stream?topic=x")
    }));
    stream.until("connected");
    assert_eq!(
        stream.head.header("access-control-allow-origin"),
        "https://app.example"
    );
    assert_eq!(stream.head.header("content-type"), "text/event-stream");
    assert_eq!(
        stream.head.header("cache-control"),
        "no-cache, no-transform"
    );
    assert_eq!(stream.head.header("x-accel-buffering"), "no");
}

#[test]
fn health_metrics_and_the_api_document() {
    let server = Setup::default().start();
    let token = user("u");
    let mut stream = server.stream("topic=x", &token, None);
    server.publish(&token, "x", &json!(1));
    stream.data(1);
    assert_eq!(server.get("/health", None).json()["status"], "healthy");
    for path in ["/readyz", "/ready", "/health/readyz"] {
        assert_eq!(
            server.get(path, None).json(),
            json!({ "status": "ready", "checks": { "database": "ok", "log": "ok" } })
        );
    }
    let document = server.get("/api/openapi.json", None).json();
    assert_eq!(document["openapi"], "3.1.0");
    crate::support::eventually("the metrics are there", || {
        server.metric("tidings_deliveries_total") >= 1.0
    });
    let metrics = server.get("/metrics", None).body;
    for name in [
        "tidings_connections{",
        "tidings_deliveries_total{",
        "tidings_delivery_seconds_bucket",
        "tidings_publishes_total{",
        "tidings_publish_seconds_count",
        "tidings_commit_seconds_count",
        "tidings_commit_events_sum",
        "tidings_http_request_seconds_count{",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    let status = server.get("/api/v1/status", Some(&token)).json();
    assert_eq!(status["connections"]["sse"], 1);
    let page = server.get("/", None);
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-security-policy")
            .contains("default-src 'self'")
            && page.body.contains("tidings")
    );
    let known = server.request(&Request {
        headers: vec![("If-None-Match", page.header("etag").to_owned())],
        ..Request::new("GET", "/")
    });
    assert_eq!(known.status, 304);
    assert!(server.get("/problems/invalid", None).body.contains("422"));
}

#[test]
fn a_repeat_with_an_idempotency_key_is_answered_alike() {
    let server = Setup::default().start();
    let send = |subject: &str, key: &str, data: u64| {
        let token = user(subject);
        let headers = vec![
            ("Content-Type", "application/json".into()),
            ("Idempotency-Key", key.to_owned()),
        ];
        let body = json!({ "topic": "x", "type": "t", "data": data })
            .to_string()
            .into_bytes();
        server.request(&Request {
            token: Some(&token),
            headers,
            body,
            ..Request::new("POST", "/api/v1/events")
        })
    };
    let first = send("u", "k", 1);
    let again = send("u", "k", 1);
    assert_eq!(
        (first.status, first.header("idempotent-replayed")),
        (202, "")
    );
    assert_eq!(
        (
            again.status,
            again.header("idempotent-replayed"),
            &again.body
        ),
        (202, "true", &first.body)
    );
    send("u", "k", 2).is_problem(422, Some("Idempotency-Key"));
    assert_eq!(
        send("v", "k", 2).header("idempotent-replayed"),
        "",
        "another's key is another key"
    );
    assert_eq!(
        server
            .get("/api/v1/events?topic=x", Some(&user("u")))
            .json()["events"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}
