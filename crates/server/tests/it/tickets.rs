//! One-time tickets on every transport.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::{
    PATIENCE, Request, SECRET, Server, Setup, Sse, admin, eventually, sign, user,
};
use crate::websocket::{next, say};

/// The ways in which a ticket can be brought: the path, and whether by query or by subprotocol.
const WAYS: [(&str, bool); 4] = [
    ("/api/v1/stream", true),
    ("/api/v1/poll", true),
    ("/api/v1/ws", true),
    ("/api/v1/ws", false),
];

fn buy(server: &Server, token: &str, body: &Value) -> String {
    let answer = server.post("/api/v1/stream/tickets", Some(token), body);
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.json()["expires_in"], 30);
    answer.json()["ticket"].as_str().unwrap().to_owned()
}

/// Opens with a ticket; the head is read, the rest is left.
fn open(
    server: &Server,
    (path, is_in_query): (&str, bool),
    ticket: &str,
    cookie: Option<&str>,
) -> Sse {
    let mut headers = Vec::new();
    if path.ends_with("/ws") {
        headers.extend([
            ("Connection", "Upgrade".to_owned()),
            ("Upgrade", "websocket".to_owned()),
            ("Sec-WebSocket-Version", "13".to_owned()),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==".to_owned()),
        ]);
    }
    if !is_in_query {
        headers.push((
            "Sec-WebSocket-Protocol",
            format!("tidings.v1, ticket.{ticket}"),
        ));
    }
    headers.extend(cookie.map(|c| ("Cookie", c.to_owned())));
    let ticket = if is_in_query {
        format!("&ticket={ticket}")
    } else {
        String::new()
    };
    Sse::new(server.send(&Request {
        headers,
        ..Request::new("GET", &format!("{path}?topic=x&wait=0{ticket}"))
    }))
}

fn status_of(path: &str) -> u16 {
    if path.ends_with("/ws") { 101 } else { 200 }
}

#[test]
fn a_ticket_is_good_once_whatever_it_opens() {
    let server = Setup::default().start();
    let mut used = Vec::new();
    for first in WAYS {
        let ticket = buy(&server, &user("u"), &json!({}));
        let opened = open(&server, first, &ticket, None);
        assert_eq!(opened.head.status, status_of(first.0), "{first:?}");
        if !first.1 {
            assert_eq!(opened.head.header("sec-websocket-protocol"), "tidings.v1");
        }
        for second in WAYS {
            let refused = open(&server, second, &ticket, None).head.status;
            assert_eq!(refused, 401, "{second:?} after {first:?}");
        }
        let set = opened.head.header("set-cookie").to_owned();
        assert!(set.contains(&format!("Path={};", first.0)), "{set}");
        let cookie = set.split(';').next().unwrap();
        for _ in 0..2 {
            let again = open(&server, first, &ticket, Some(cookie));
            assert_eq!(
                again.head.status,
                status_of(first.0),
                "{first:?} with its cookie"
            );
            assert_eq!(again.head.header("set-cookie"), "", "one cookie is enough");
        }
        let fresh = buy(&server, &user("u"), &json!({}));
        let other = cookie.replace(
            cookie.split('=').next().unwrap(),
            "tidings_AAAAAAAAAAAAAAAA",
        );
        open(&server, first, &fresh, None);
        assert_eq!(open(&server, first, &fresh, Some(&other)).head.status, 401);
        used.push(ticket);
    }
    eventually("each refusal is counted", || {
        server.metric("tidings_auth_failures_total{reason=\"ticket\"}") == 20.0
    });
    // A ticket buys no ticket and does nothing but open streams.
    let ticket = buy(&server, &user("u"), &json!({}));
    for path in ["/api/v1/stream/tickets", "/api/v1/events"] {
        server
            .post(&format!("{path}?ticket={ticket}"), None, &json!({}))
            .is_problem(401, None);
    }
    let log = server.log();
    assert!(used.iter().all(|ticket| !log.contains(ticket)));
}

#[test]
fn a_ticket_is_void_when_its_time_or_its_buyer_is_gone() {
    let server = Setup::default().manual_clock().start();
    let all_refused = |tickets: Vec<String>, why: &str| {
        for (way, ticket) in WAYS.into_iter().zip(tickets) {
            assert_eq!(
                open(&server, way, &ticket, None).head.status,
                401,
                "{why}: {way:?}"
            );
        }
    };
    let buy_all = |token: &str| -> Vec<_> {
        WAYS.iter()
            .map(|_| buy(&server, token, &json!({})))
            .collect()
    };
    let tickets = buy_all(&user("u"));
    server.advance(Duration::from_secs(30));
    all_refused(tickets, "past its time");
    let tickets = buy_all(&user("v"));
    let revoked = server.post(
        "/api/v1/admin/revocations",
        Some(&admin()),
        &json!({ "subject": "v" }),
    );
    assert_eq!(revoked.status, 201);
    all_refused(tickets, "revoked");
}

#[test]
fn what_a_ticket_opened_ends_with_the_token_that_bought_it() {
    let server = Setup::default().manual_clock().start();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = json!({ "tenant_id": "a", "sub": "u", "scope": "events:read", "exp": now + 60, "iat": now });
    let ticket = buy(&server, &sign(&claims, SECRET), &json!({}));
    let way = ("/api/v1/stream", true);
    let mut stream = open(&server, way, &ticket, None);
    let cookie = stream
        .head
        .header("set-cookie")
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    stream.until("connected");
    let ticket_of_poll = buy(&server, &sign(&claims, SECRET), &json!({}));
    let mut poll = server.send(&Request::new(
        "GET",
        &format!("/api/v1/poll?topic=x&wait=60&ticket={ticket_of_poll}"),
    ));
    poll.set_read_timeout(Some(PATIENCE)).unwrap();
    eventually("the poll waits", || {
        server.metric("tidings_connections{transport=\"long_poll\"") == 1.0
    });
    // The poll's own wait is over at 60 s: first to just before the end of both, then past the leeway.
    server.advance(Duration::from_secs(50));
    assert_eq!(open(&server, way, &ticket, Some(&cookie)).head.status, 200);
    server.advance(Duration::from_secs(45));
    assert_eq!(stream.until("closing").json()["reason"], "token_expired");
    assert_eq!(
        open(&server, way, &ticket, Some(&cookie)).head.status,
        401,
        "the cookie is no longer good either"
    );
    assert_eq!(crate::support::Answer::read(&mut poll).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_for_topics_opens_no_other_on_an_open_socket() {
    let server = Setup::default().start();
    let ticket = buy(&server, &user("u"), &json!({ "topics": ["y", "z/*"] }));
    let mut request = format!("ws://{}/api/v1/ws", server.address)
        .into_client_request()
        .unwrap();
    let offered = format!("tidings.v1, ticket.{ticket}");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", offered.parse().unwrap());
    let (mut socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "tidings.v1");
    assert_eq!(next(&mut socket).await["type"], "connected");
    for topics in [
        json!(["x"]),
        json!(["y", "x"]),
        json!(["z/1"]),
        json!(["**"]),
    ] {
        say(
            &mut socket,
            &json!({ "type": "subscribe", "topics": topics }),
        )
        .await;
        let refused = next(&mut socket).await;
        assert_eq!(refused["problem"]["status"], 403, "{refused}");
    }
    say(
        &mut socket,
        &json!({ "type": "subscribe", "topics": ["y", "z/*"] }),
    )
    .await;
    assert_eq!(next(&mut socket).await["type"], "subscribed");
    server.publish(&user("u"), "x", &json!(1));
    server.publish(&user("u"), "z/1", &json!(2));
    assert_eq!(next(&mut socket).await["event"]["data"], 2);
    for (path, bought, status) in [("poll", "y", 403), ("poll", "x", 200), ("ws", "y", 403)] {
        let ticket = buy(&server, &user("u"), &json!({ "topics": [bought] }));
        let way = (format!("/api/v1/{path}"), true);
        let opened = open(&server, (&way.0, true), &ticket, None);
        assert_eq!(
            opened.head.status, status,
            "{path} on x, bought for {bought}"
        );
    }
}
