//! The one too many: the honest status to who comes first, and a stream that ends to who comes back.

use serde_json::json;

use crate::support::{Request, Setup, Sse, admin, eventually, user};

#[test]
fn the_node_the_tenant_and_the_user_have_their_limits() {
    for (setting, status) in [
        ("max_connections", 503),
        ("max_connections_per_tenant", 503),
        ("max_connections_per_user", 429),
    ] {
        let server = Setup::default().set(&format!("stream.{setting}=2")).start();
        let token = user("u");
        let cursor = server.publish(&token, "x", &json!(1));
        let mut first = server.stream("topic=x", &token, None);
        first.until("connected");
        // After the event: one that begins now may still be given what was acknowledged a moment ago.
        let path = format!("/api/v1/poll?topic=x&wait=60&after={cursor}");
        let poll = server.send(&Request {
            token: Some(&token),
            ..Request::new("GET", &path)
        });
        eventually("the poll waits", || {
            server.metric("tidings_connections{") >= 2.0
        });
        let refused = server.get("/api/v1/stream?topic=x", Some(&token));
        refused.is_problem(status, None);
        assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
        server
            .get("/api/v1/poll?topic=x&wait=1", Some(&token))
            .is_problem(status, None);
        let upgrade = Request {
            token: Some(&token),
            headers: vec![
                ("Connection", "Upgrade".into()),
                ("Upgrade", "websocket".into()),
                ("Sec-WebSocket-Version", "13".into()),
                ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==".into()),
            ],
            ..Request::new("GET", "/api/v1/ws?topic=x")
        };
        server.request(&upgrade).is_problem(status, None);

        // A browser that comes back would never try again after another status.
        let mut back = server.stream("topic=x", &token, Some(&cursor));
        assert_eq!(back.head.status, 200);
        let closing = back.next().unwrap();
        assert_eq!(
            (closing.event.as_str(), closing.json()["reason"].as_str()),
            ("closing", Some("limit"))
        );
        assert!(
            closing.retry.unwrap() >= 1_000 && closing.json()["retry_ms"] == closing.retry.unwrap()
        );
        let unreadable = Sse::new(server.send(&Request {
            token: Some(&token),
            headers: vec![("Last-Event-ID", "nonsense".into())],
            ..Request::new("GET", "/api/v1/stream?topic=x")
        }));
        assert_eq!(unreadable.head.status, 200);
        // A bad credential is told so, cursor or not.
        let bad = Request {
            token: Some("bad"),
            headers: vec![("Last-Event-ID", cursor.clone())],
            ..Request::new("GET", "/api/v1/stream?topic=x")
        };
        server.request(&bad).is_problem(401, None);

        if status == 429 {
            server
                .stream("topic=x", &user("another"), None)
                .until("connected");
        }
        // Whoever goes frees the place, exactly once.
        drop(first);
        drop(poll);
        eventually("the places are free", || {
            server.metric("tidings_connections{") == 0.0
        });
        server.stream("topic=x", &token, None).until("connected");
        assert!(server.metric("tidings_refused_connections_total") >= 4.0);
    }
}

#[test]
fn sixty_four_topics_are_the_most() {
    let server = Setup::default().start();
    let query = |n: usize| {
        (0..n)
            .map(|n| format!("topic=t/{n}"))
            .collect::<Vec<_>>()
            .join("&")
    };
    server.stream(&query(64), &admin(), None).until("connected");
    server
        .get(&format!("/api/v1/stream?{}", query(65)), Some(&admin()))
        .is_problem(400, Some("topic"));
    server
        .get("/api/v1/stream", Some(&admin()))
        .is_problem(400, Some("topic"));
}
