//! Credentials on every way in: header, cookie, ticket, query, subprotocol.

use serde_json::{Value, json};

use crate::support::{Request, Setup, Sse, admin, sign, token_of, user};

fn bad_tokens() -> Vec<(&'static str, String, u16)> {
    let good = user("u");
    let parts: Vec<&str> = good.split('.').collect();
    let none = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
    vec![
        ("nothing", String::new(), 401),
        ("nonsense", "nonsense".into(), 401),
        ("alg none", none, 401),
        (
            "another secret",
            sign(
                &json!({ "sub": "u", "tenant_id": "a", "exp": 9_999_999_999u64 }),
                "another secret of at least thirty-two bytes",
            ),
            401,
        ),
        ("expired", token_of("a", "u", &json!({ "exp": 1_000 })), 401),
        (
            "not yet",
            token_of("a", "u", &json!({ "nbf": 9_999_999_999u64 })),
            401,
        ),
        (
            "no subject",
            token_of("a", "u", &json!({ "sub": null })),
            401,
        ),
        ("no end", token_of("a", "u", &json!({ "exp": null })), 401),
        (
            "a refresh token",
            token_of("a", "u", &json!({ "type": "refresh" })),
            401,
        ),
        (
            "no tenant",
            token_of("a", "u", &json!({ "tenant_id": null })),
            403,
        ),
    ]
}

fn upgrade(protocol: &str, more: &[(&'static str, String)]) -> Request<'static> {
    let mut headers = vec![
        ("Connection", "Upgrade".into()),
        ("Upgrade", "websocket".into()),
        ("Sec-WebSocket-Version", "13".into()),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==".into()),
        ("Sec-WebSocket-Protocol", protocol.to_owned()),
    ];
    headers.extend(more.iter().cloned());
    Request {
        headers,
        ..Request::new("GET", "/api/v1/ws?topic=x")
    }
}

#[test]
fn what_is_refused_is_refused_on_every_way_in() {
    let server = Setup::default().set("auth.query_token=streams").start();
    for (what, token, status) in bad_tokens() {
        for path in [
            "/api/v1/events?topic=x",
            "/api/v1/stream?topic=x",
            "/api/v1/poll?topic=x&wait=0",
            "/api/v1/connections",
            "/api/v1/status",
        ] {
            let answer = server.get(path, Some(&token));
            assert_eq!(answer.status, status, "{what} {path}");
            answer.is_problem(status, None);
            assert!(status != 401 || answer.header("www-authenticate") == "Bearer");
            assert!(token.is_empty() || !answer.body.contains(&token), "{what}");
        }
        server
            .request(&Request {
                headers: vec![("Cookie", format!("access_token={token}"))],
                ..Request::new("GET", "/api/v1/status")
            })
            .is_problem(status, None);
        server
            .request(&upgrade(&format!("tidings.v1, bearer.{token}"), &[]))
            .is_problem(status, None);
        server
            .get(&format!("/api/v1/stream?topic=x&token={token}"), None)
            .is_problem(status, None);
    }
    server.get("/api/v1/status", None).is_problem(401, None);
    let twice = vec![
        ("Authorization", format!("Bearer {}", user("u"))),
        ("Authorization", format!("Bearer {}", admin())),
    ];
    server
        .request(&Request {
            headers: twice,
            ..Request::new("GET", "/api/v1/status")
        })
        .is_problem(400, Some("Authorization"));
    assert!(server.metric("tidings_auth_failures_total") > 20.0);
}

#[test]
fn a_token_in_the_query_needs_its_switch() {
    let server = Setup::default().start();
    server
        .get(&format!("/api/v1/stream?topic=x&token={}", user("u")), None)
        .is_problem(401, None);
    let server = Setup::default().set("auth.query_token=streams").start();
    let mut stream = Sse::new(server.send(&Request::new(
        "GET",
        &format!("/api/v1/stream?topic=x&token={}", user("u")),
    )));
    stream.until("connected");
    server
        .get(&format!("/api/v1/status?token={}", user("u")), None)
        .is_problem(401, None);
}

#[test]
fn a_cookie_reads_and_changes_things_only_from_a_welcome_page() {
    let server = Setup::default()
        .set("http.allowed_origins=https://app.example")
        .start();
    let cookie = (
        "Cookie",
        format!("other=1; access_token={}; x=y", user("u")),
    );
    let publish = |origin: Option<&str>| {
        let mut headers = vec![
            cookie.clone(),
            ("Content-Type", "application/json".to_owned()),
        ];
        headers.extend(origin.map(|o| ("Origin", o.to_owned())));
        let body = json!({ "topic": "x", "type": "t", "data": 1 })
            .to_string()
            .into_bytes();
        server.request(&Request {
            headers,
            body,
            ..Request::new("POST", "/api/v1/events")
        })
    };
    assert_eq!(
        server
            .request(&Request {
                headers: vec![cookie.clone()],
                ..Request::new("GET", "/api/v1/status")
            })
            .status,
        200
    );
    publish(None).is_problem(403, Some("Origin"));
    publish(Some("https://evil.example")).is_problem(403, Some("Origin"));
    publish(Some("https://app.example.evil.example")).is_problem(403, Some("Origin"));
    assert_eq!(publish(Some("https://app.example")).status, 202);
    assert_eq!(publish(Some(&server.url())).status, 202);
    // A WebSocket's origin counts whatever the credential.
    let token = user("u");
    for (origin, is_welcome) in [
        ("https://evil.example", false),
        ("null", false),
        ("https://app.example", true),
    ] {
        let request = upgrade(
            &format!("tidings.v1, bearer.{token}"),
            &[("Origin", origin.to_owned())],
        );
        let mut head = Sse::new(server.send(&request)).head;
        head.headers.remove("date");
        assert_eq!(head.status == 101, is_welcome, "{origin} {head:?}");
        assert!(!is_welcome || head.header("sec-websocket-protocol") == "tidings.v1");
    }
    let by_cookie = |more: &[(&'static str, String)]| {
        let mut all = vec![cookie.clone()];
        all.extend(more.iter().cloned());
        Sse::new(server.send(&upgrade("tidings.v1", &all)))
            .head
            .status
    };
    assert_eq!(by_cookie(&[]), 403);
    assert_eq!(
        by_cookie(&[("Origin", "https://app.example".to_owned())]),
        101
    );
}

#[test]
fn a_ticket_opens_once_and_again_with_its_cookie() {
    let server = Setup::default().start();
    let buy = |body: &Value| {
        server
            .post("/api/v1/stream/tickets", Some(&user("u")), body)
            .json()["ticket"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let open = |ticket: &str, topic: &str, cookie: Option<&str>| {
        let headers = cookie
            .map(|c| ("Cookie", c.to_owned()))
            .into_iter()
            .collect();
        Sse::new(server.send(&Request {
            headers,
            ..Request::new(
                "GET",
                &format!("/api/v1/stream?topic={topic}&ticket={ticket}"),
            )
        }))
    };
    server
        .post("/api/v1/stream/tickets", None, &json!({}))
        .is_problem(401, None);
    server
        .post(
            "/api/v1/stream/tickets",
            Some(&user("u")),
            &json!({ "topics": ["alarms"] }),
        )
        .is_problem(403, Some("topics"));
    server
        .post(
            "/api/v1/stream/tickets",
            Some(&user("u")),
            &json!({ "topics": ["a//b"] }),
        )
        .is_problem(422, Some("topics"));
    server
        .post(
            "/api/v1/stream/tickets",
            Some(&user("u")),
            &json!({ "more": 1 }),
        )
        .is_problem(422, Some("more"));
    let ticket = buy(&json!({}));
    let mut first = open(&ticket, "x", None);
    first.until("connected");
    let set = first.head.header("set-cookie").to_owned();
    for part in ["HttpOnly", "SameSite=Lax", "Path=/api/v1/stream"] {
        assert!(set.contains(part), "{set}");
    }
    let cookie = set.split(';').next().unwrap().to_owned();
    assert_eq!(
        open(&ticket, "x", None).head.status,
        401,
        "a used ticket alone"
    );
    open(&ticket, "x", Some(&cookie)).until("connected");
    assert_eq!(
        open(&buy(&json!({})), "x", Some(&cookie)).head.status,
        200,
        "a fresh one needs none"
    );
    assert_eq!(
        open("AAAAAAAAAAAAAAAAAAAAAA", "x", Some(&cookie))
            .head
            .status,
        401
    );
    assert_eq!(
        open(&buy(&json!({ "topics": ["y"] })), "x", None)
            .head
            .status,
        403,
        "bought for another topic"
    );
    open(&buy(&json!({ "topics": ["y"] })), "y", None).until("connected");
    assert_eq!(
        server
            .get(&format!("/api/v1/status?ticket={}", buy(&json!({}))), None)
            .status,
        401,
        "for streams alone"
    );
    server.publish(&user("u"), "x", &json!(1));
    assert_eq!(first.data(1), [1]);
    // Neither stands in any record.
    let log = server.log();
    assert!(!log.contains(&ticket) && !log.contains(cookie.split('=').next_back().unwrap()));
    // After a restart the pair still opens.
    let (folder, setup) = server.kill();
    let server = crate::support::Server::start(folder, setup);
    let path = format!("/api/v1/stream?topic=x&ticket={ticket}");
    let again = Request {
        headers: vec![("Cookie", cookie)],
        ..Request::new("GET", &path)
    };
    Sse::new(server.send(&again)).until("connected");
}
