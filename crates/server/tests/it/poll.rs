//! Long-poll: what it waits for, what cuts the wait short, and how the next one goes on.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Answer, Request, SECRET, Server, Setup, Sse, admin, eventually, sign, token_of, user,
};

/// Sends a poll, and sees it wait. Its id among the connections, too.
fn waiting(server: &Server, query: &str, token: &str) -> (TcpStream, String) {
    let socket = server.send(&Request {
        token: Some(token),
        ..Request::new("GET", &format!("/api/v1/poll?{query}"))
    });
    let mut id = None;
    eventually("the poll waits", || {
        let list = server.get("/api/v1/connections", Some(token)).json();
        let first = &list["connections"][0];
        id = first["connection_id"].as_str().map(str::to_owned);
        first["transport"] == "long_poll"
    });
    (socket, id.unwrap())
}

/// Publishes, and sees that it has come out: who asks from then on asks for what comes after it.
fn published(server: &Server, witness: &mut Sse, topic: &str, data: &Value) -> String {
    let cursor = server.publish(&admin(), topic, data);
    assert_eq!(witness.until("t").json()["data"], *data);
    cursor
}

fn witness(server: &Server) -> Sse {
    let mut stream = server.stream("topic=**", &user("witness"), None);
    stream.until("connected");
    stream
}

fn answer(mut socket: TcpStream) -> Value {
    let answer = Answer::read(&mut socket);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn poll(server: &Server, query: &str) -> Value {
    let answer = server.get(&format!("/api/v1/poll?{query}"), Some(&user("u")));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn data(answer: &Value) -> Vec<&Value> {
    let events = answer["events"].as_array().unwrap();
    events.iter().map(|event| &event["data"]).collect()
}

fn cursor(answer: &Value) -> &str {
    answer["cursor"].as_str().unwrap()
}

/// That the wait was cut short for this reason, with nothing else in the answer.
#[track_caller]
fn is_closing(answer: &Value, reason: &str) {
    assert_eq!(
        answer,
        &json!({ "events": [], "cursor": answer["cursor"], "closing": { "reason": reason } })
    );
}

#[test]
fn the_first_event_answers_and_the_cursor_goes_on() {
    let server = Setup::default().start();
    published(&server, &mut witness(&server), "x", &json!(0));
    let (socket, _) = waiting(&server, "topic=x&wait=60", &user("u"));
    let placed = server.publish(&admin(), "x", &json!(1));
    let first = answer(socket);
    assert_eq!(data(&first), [1], "from now on, where there is no cursor");
    assert_eq!(
        (&first["events"][0]["cursor"], cursor(&first)),
        (&json!(placed), placed.as_str())
    );
    for n in 2..=4 {
        server.publish(&admin(), "x", &json!(n));
    }
    let page = poll(&server, &format!("topic=x&after={placed}&limit=2"));
    assert_eq!(data(&page), [2, 3]);
    let rest = poll(&server, &format!("topic=x&after={}", cursor(&page)));
    assert_eq!(data(&rest), [4]);
    let end = poll(&server, &format!("topic=x&after={}&wait=0", cursor(&rest)));
    assert_eq!(end, json!({ "events": [], "cursor": rest["cursor"] }));
    // With a cursor, it waits where nothing is there yet.
    let (socket, _) = waiting(
        &server,
        &format!("topic=x&wait=60&after={}", cursor(&end)),
        &user("u"),
    );
    server.publish(&admin(), "x", &json!(5));
    assert_eq!(data(&answer(socket)), [5]);
}

#[test]
fn polls_in_a_row_miss_nothing_and_repeat_nothing() {
    const EVENTS: u64 = 300;
    let server = Setup::default().start();
    let mut at = server.publish(&admin(), "x", &json!(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=EVENTS {
                // Every third one beside it, so that places are missing between.
                let topic = if n % 3 == 0 { "y" } else { "x" };
                server.publish(&admin(), topic, &json!(n));
            }
        });
        let expected: Vec<_> = (1..=EVENTS).filter(|n| n % 3 != 0).collect();
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let page = poll(&server, &format!("topic=x&after={at}&limit=7&wait=10"));
            assert!(
                page.get("reset").is_none() && page.get("gap").is_none(),
                "{page}"
            );
            seen.extend(data(&page).iter().map(|n| n.as_u64().unwrap()));
            cursor(&page).clone_into(&mut at);
        }
        assert_eq!(seen, expected);
    });
}

#[test]
fn the_end_of_a_wait_is_an_empty_answer_that_moves_on() {
    let server = Setup::default().manual_clock().start();
    let mut witness = witness(&server);
    published(&server, &mut witness, "x", &json!(1));
    let (socket, _) = waiting(&server, "topic=x", &user("u"));
    let beside = published(&server, &mut witness, "y", &json!(2));
    server.advance(Duration::from_secs(24));
    assert_eq!(
        server.metric("tidings_connections{transport=\"long_poll\""),
        1.0,
        "25 s where the request does not say"
    );
    server.advance(Duration::from_secs(2));
    let end = answer(socket);
    assert_eq!(
        end,
        json!({ "events": [], "cursor": beside }),
        "past what does not concern it"
    );
    eventually("its place is free", || {
        server.metric("tidings_connections{transport=\"long_poll\"") == 0.0
    });
    server.publish(&admin(), "x", &json!(3));
    assert_eq!(
        data(&poll(&server, &format!("topic=x&after={beside}"))),
        [3]
    );
}

#[test]
fn ephemeral_events_answer_too_and_have_no_place() {
    let server = Setup::default()
        .file("[[topics]]\npattern = \"live/**\"\nephemeral = true\n")
        .start();
    let placed = published(&server, &mut witness(&server), "x", &json!(1));
    let (socket, _) = waiting(&server, "topic=live/*&topic=x&wait=60", &user("u"));
    server.publish(&admin(), "live/1", &json!(2));
    let first = answer(socket);
    assert_eq!(data(&first), [2]);
    assert!(first["events"][0].get("cursor").is_none());
    assert_eq!(cursor(&first), placed);
    server.publish(&admin(), "x", &json!(3));
    assert_eq!(
        data(&poll(
            &server,
            &format!("topic=live/*&topic=x&after={placed}")
        )),
        [3]
    );
}

#[test]
fn a_wait_that_is_closed_says_so_and_the_next_goes_on() {
    let server = Setup::default().start();
    let token = user("u");
    let (socket, id) = waiting(&server, "topic=x&wait=60", &token);
    let closed = server.request(&Request {
        token: Some(&token),
        ..Request::new("DELETE", &format!("/api/v1/connections/{id}"))
    });
    assert_eq!(closed.status, 204);
    let cut = answer(socket);
    is_closing(&cut, "closed");
    server.publish(&admin(), "x", &json!(1));
    assert_eq!(
        data(&poll(&server, &format!("topic=x&after={}", cursor(&cut)))),
        [1]
    );
}

#[test]
fn a_subject_that_is_revoked_waits_no_longer() {
    let server = Setup::default().start();
    let (one, other) = (user("u"), user("v"));
    let (socket, _) = waiting(&server, "topic=x&wait=60", &one);
    let (stays, _) = waiting(&server, "topic=x&wait=60", &other);
    let revoked = server.post(
        "/api/v1/admin/revocations",
        Some(&admin()),
        &json!({ "subject": "u" }),
    );
    assert_eq!(revoked.status, 201);
    is_closing(&answer(socket), "revoked");
    server
        .get("/api/v1/poll?topic=x&wait=0", Some(&one))
        .is_problem(401, None);
    server.publish(&admin(), "x", &json!(1));
    assert_eq!(data(&answer(stays)), [1]);
}

#[test]
fn a_wait_ends_with_its_token_unless_that_is_refreshed() {
    let server = Setup::default().manual_clock().start();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let token = |subject: &str, ttl: u64| {
        let claims = json!({ "tenant_id": "a", "sub": subject, "scope": "events:read", "exp": now + ttl, "iat": now });
        sign(&claims, SECRET)
    };
    let (short, _) = waiting(&server, "topic=x&wait=60", &token("u", 10));
    let (refreshed, id) = waiting(&server, "topic=x&wait=60", &token("v", 10));
    let renewed = server.post(
        &format!("/api/v1/connections/{id}/token"),
        Some(&token("v", 10)),
        &json!({ "token": token("v", 600) }),
    );
    assert_eq!(renewed.status, 200);
    // Past the leeway of 30 s, and before the end of the wait.
    server.advance(Duration::from_secs(45));
    is_closing(&answer(short), "token_expired");
    server.publish(&admin(), "x", &json!(1));
    assert_eq!(data(&answer(refreshed)), [1]);
}

#[test]
fn a_change_of_policies_narrows_or_ends_a_wait() {
    let folder = tempfile::tempdir().unwrap();
    let allow = |prefixes: &str| {
        let text = format!(
            "permit (principal, action == Tidings::Action::\"publish\", resource);\n\
             permit (principal, action, resource) when {{ [{prefixes}].contains(resource.prefix) }};"
        );
        std::fs::write(folder.path().join("new"), text).unwrap();
        std::fs::rename(folder.path().join("new"), folder.path().join("own.cedar")).unwrap();
    };
    allow("\"x\", \"y\"");
    let server = Setup::default()
        .set(&format!("policies={}", folder.path().display()))
        .start();
    let (both, _) = waiting(&server, "topic=x&topic=y&wait=60", &user("u"));
    let (only_y, _) = waiting(&server, "topic=y&wait=60", &user("v"));
    allow("\"x\"");
    is_closing(&answer(only_y), "forbidden");
    server
        .get("/api/v1/poll?topic=y&wait=0", Some(&user("v")))
        .is_problem(403, Some("topic"));
    // What it may no longer see does not answer it.
    server.publish(&user("w"), "y", &json!("not this"));
    server.publish(&user("w"), "x", &json!("this"));
    assert_eq!(data(&answer(both)), ["this"]);
}

#[test]
fn a_drain_sends_every_wait_away_and_none_loses_its_place() {
    let mut server = Setup::default().set("drain.grace=2s").start();
    let begin = server.publish(&admin(), "x", &json!(0));
    let polls: Vec<_> = (0..20)
        .map(|n| {
            let query = format!("topic=x&wait=60&after={begin}");
            waiting(&server, &query, &user(&format!("u{n}"))).0
        })
        .collect();
    let other = token_of("b", "u", &json!({ "scope": "events:read" }));
    let (elsewhere, _) = waiting(&server, "topic=x&wait=60", &other);
    server.signal("TERM");
    for socket in polls {
        let cut = answer(socket);
        is_closing(&cut, "drain");
        assert_eq!(cursor(&cut), begin);
    }
    is_closing(&answer(elsewhere), "drain");
    let refused = server.get(
        &format!("/api/v1/poll?topic=x&after={begin}"),
        Some(&user("u0")),
    );
    refused.is_problem(503, None);
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!(seconds >= 1);
    server.publish(&admin(), "x", &json!(1));
    assert_eq!(server.wait(), Some(0));
    let (folder, setup) = (server.folder.clone(), server.setup.clone());
    drop(server);
    let server = Server::start(folder, setup);
    assert_eq!(data(&poll(&server, &format!("topic=x&after={begin}"))), [1]);
}
