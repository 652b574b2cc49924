//! The stream of the newest alarms: whole, at connect and at each change, within limits.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::alarms_ingest::{ago, alarm, operator};
use crate::support::{Frame, Request, Server, Setup, Sse, admin, eventually, token_of};

const STREAM: &str = "/api/v1/stream/alarms";
const INGEST: &str = "/api/v1/alarms/ingest";

fn open_with(server: &Server, path: &str, token: Option<&str>, cursor: Option<&str>) -> Sse {
    let headers = cursor.map(|c| ("Last-Event-ID", c.to_owned()));
    Sse::new(server.send(&Request {
        token,
        headers: headers.into_iter().collect(),
        ..Request::new("GET", path)
    }))
}

fn open(server: &Server, token: &str) -> Sse {
    let stream = open_with(server, STREAM, Some(token), None);
    assert_eq!(stream.head.status, 200, "{:?}", stream.head);
    stream
}

fn take(server: &Server, token: &str, body: &Value) -> Value {
    let answer = server.post(INGEST, Some(token), body);
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.json()
}

/// The frames until one of which something holds.
fn until(stream: &mut Sse, holds: impl Fn(&Value) -> bool) -> (Value, usize) {
    let mut frames = 0;
    loop {
        let frame = stream.next().expect("the stream goes on");
        assert_eq!(frame.event, "", "{frame:?}");
        frames += 1;
        let shown = frame.json();
        if holds(&shown) {
            return (shown, frames);
        }
    }
}

fn entities(shown: &Value) -> Vec<String> {
    let alarms = shown["alarms"].as_array().unwrap().iter();
    alarms
        .map(|a| a["alarmedObject"]["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_a_webhook_posts_is_on_the_open_stream_and_stays_after_a_crash() {
    let server = Setup::default().start();
    let token = operator("a");
    let mut stream = open(&server, &token);
    assert_eq!(stream.head.header("content-type"), "text/event-stream");
    assert_eq!(stream.head.header("cache-control"), "no-cache");
    assert_eq!(stream.head.header("x-accel-buffering"), "no");
    let first = stream.next().unwrap();
    assert!(first.retry.is_some() && !first.id.is_empty());
    let empty = first.json();
    assert_eq!(
        (&empty["event"], &empty["tenant_id"]),
        (&json!("alarms_updated"), &json!("a"))
    );
    assert_eq!(
        (&empty["count"], &empty["total"], &empty["alarms"]),
        (&json!(0), &json!(0), &json!([]))
    );
    let body = alarm("cell-001", "critical", 60);
    let id = take(&server, &token, &body)["alarm_id"].clone();
    let (shown, _) = until(&mut stream, |shown| shown["count"] == 1);
    let time = body["raised_at"].as_str().unwrap().replace('Z', "+00:00");
    let card = json!({
        "id": id, "specificProblem": "LINK_DOWN", "perceivedSeverity": "critical", "alarmedObject": {"id": "cell-001"},
        "eventTime": time, "tenant_id": "a", "ackState": "unacknowledged"
    });
    assert_eq!(shown["alarms"], json!([card]));
    assert!(shown["timestamp"].as_str().unwrap().ends_with("+00:00"));
    let (folder, setup) = server.kill();
    let server = Server::start(folder, setup);
    assert_eq!(
        open(&server, &token).next().unwrap().json()["alarms"],
        json!([card])
    );
}

#[test]
fn every_change_is_shown_and_the_list_is_whole() {
    let server = Setup::default().start();
    let token = operator("a");
    let bodies: Vec<_> = (0..25)
        .map(|n| alarm(&format!("c{n:02}"), "major", 1_000 - 10 * n))
        .collect();
    take(&server, &token, &json!(bodies));
    let mut stream = open(&server, &token);
    let shown = stream.next().unwrap().json();
    assert_eq!((&shown["count"], &shown["total"]), (&json!(20), &json!(25)));
    let newest: Vec<_> = (5..25).rev().map(|n| format!("c{n:02}")).collect();
    assert_eq!(entities(&shown), newest);
    let id = shown["alarms"][0]["id"].as_str().unwrap().to_owned();
    let operate = |verb: &str, body: &Value| {
        let answer = server.post(&format!("/api/v1/alarms/{id}/{verb}"), Some(&token), body);
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    operate("acknowledge", &json!({}));
    until(&mut stream, |shown| {
        shown["alarms"][0]["ackState"] == "acknowledged"
    });
    operate(
        "shelve",
        &json!({ "reason": "works", "expires_at": ago(-600) }),
    );
    let (shown, _) = until(&mut stream, |shown| shown["total"] == 24);
    assert_eq!(entities(&shown)[0], "c23");
    operate("unshelve", &json!({}));
    until(&mut stream, |shown| shown["total"] == 25);
    operate("clear", &json!({}));
    until(&mut stream, |shown| {
        shown["total"] == 24 && entities(shown)[0] == "c23"
    });
    // A late arrival takes its place by its own time; one that is older than all shown is counted.
    take(&server, &token, &alarm("late", "minor", 775));
    let (shown, _) = until(&mut stream, |shown| shown["total"] == 25);
    assert_eq!(
        entities(&shown).iter().position(|e| e == "late"),
        Some(1),
        "{:?}",
        entities(&shown)
    );
    take(&server, &token, &alarm("old", "minor", 5_000));
    let (shown, _) = until(&mut stream, |shown| shown["total"] == 26);
    assert!(!entities(&shown).contains(&"old".to_owned()));
    // Another tenant sees nothing of it.
    let other = open(&server, &operator("b")).next().unwrap().json();
    assert_eq!(
        (&other["tenant_id"], &other["total"]),
        (&json!("b"), &json!(0))
    );
}

#[test]
fn a_burst_is_a_few_frames_and_idle_streams_ask_nothing() {
    let server = Setup::default().start();
    let token = operator("a");
    let mut streams: Vec<_> = (0..3).map(|_| open(&server, &token)).collect();
    for stream in &mut streams {
        stream.next().unwrap();
    }
    let started = Instant::now();
    for n in 0..100 {
        take(&server, &token, &alarm(&format!("c{n}"), "major", 60));
    }
    let most = started.elapsed().as_millis() / 200 + 3;
    for stream in &mut streams {
        let (_, frames) = until(stream, |shown| shown["total"] == 100);
        assert!(frames as u128 <= most, "{frames} frames");
    }
    // What changes nothing that is shown is not shown.
    server.publish(&admin(), "elsewhere", &json!(1));
    take(&server, &token, &alarm("c0", "cleared", 30));
    for stream in &mut streams {
        assert_eq!(until(stream, |_| true).0["total"], 99);
    }
}

#[test]
fn one_more_than_may_be_open_is_told_so() {
    let server = Setup::default()
        .set("stream.alarms.max_connections=3")
        .start();
    let token = operator("a");
    let mut streams: Vec<_> = (0..3).map(|_| open(&server, &token)).collect();
    let cursor = streams[0].next().unwrap().id;
    let refused = server.get(STREAM, Some(&token));
    refused.is_problem(503, None);
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("maximum of 3")
    );
    assert!(!refused.header("retry-after").is_empty());
    // Native streams have a limit of their own.
    assert_eq!(server.stream("topic=alarms", &token, None).head.status, 200);
    // A browser that comes back would never come again after a 503.
    let mut back = open_with(&server, STREAM, Some(&token), Some(&cursor));
    assert_eq!(back.head.status, 200);
    let last = back.next();
    assert!(last.is_none_or(|frame| frame.retry.is_some() && frame.data.is_empty()));
    drop(streams.pop());
    eventually("the place is free", || {
        let stream = open_with(&server, STREAM, Some(&token), None);
        stream.head.status == 200
    });
}

#[test]
fn the_hundred_and_first_is_refused_by_default() {
    let server = Setup::default().start();
    let token = operator("a");
    let _streams: Vec<_> = (0..100).map(|_| open(&server, &token)).collect();
    let refused = server.get(STREAM, Some(&token));
    refused.is_problem(503, None);
    assert!(refused.json()["detail"].as_str().unwrap().contains("100"));
}

#[test]
fn silence_is_broken_and_an_idle_stream_ends() {
    let server = Setup::default().manual_clock().start();
    let token = operator("a");
    let mut stream = open(&server, &token);
    stream.next().unwrap();
    let comment = |text: &str| Frame {
        event: ":".into(),
        data: text.into(),
        ..Frame::default()
    };
    for _ in 0..9 {
        server.advance(Duration::from_secs(31));
        assert_eq!(stream.next().unwrap(), comment("heartbeat"));
    }
    server.advance(Duration::from_secs(22));
    // Heartbeats are no data.
    assert_eq!(stream.next().unwrap(), comment("idle_timeout"));
    stream.ends();
    let server = Setup::default()
        .set("stream.alarms.heartbeat=5s")
        .set("stream.alarms.idle=0")
        .manual_clock()
        .start();
    let mut stream = open(&server, &token);
    stream.next().unwrap();
    server.advance(Duration::from_secs(6));
    assert_eq!(stream.next().unwrap(), comment("heartbeat"));
    server.advance(Duration::from_secs(3_000));
    assert_eq!(stream.next().unwrap(), comment("heartbeat"));
}

#[test]
fn whoever_may_see_it_by_every_way_in() {
    let server = Setup::default().set("auth.query_token=compat").start();
    let token = operator("a");
    let missing = server.get(STREAM, None);
    assert_eq!(missing.status, 401);
    assert!(
        missing.json()["detail"]
            .as_str()
            .unwrap()
            .contains("Missing authentication")
    );
    assert_eq!(
        server.get(&format!("{STREAM}?token=nonsense"), None).status,
        401
    );
    let homeless = token_of("a", "v", &json!({ "role": "operator", "tenant_id": null }));
    let refused = server.get(&format!("{STREAM}?token={homeless}&tenant_id=b"), None);
    refused.is_problem(400, Some("tenant_id"));
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("tenant_id")
    );
    let stranger = token_of("a", "s", &json!({ "scope": "events:read" }));
    assert_eq!(server.get(STREAM, Some(&stranger)).status, 403);
    // The client always sends a tenant too; it counts for nothing.
    let mut by_query = open_with(
        &server,
        &format!("{STREAM}?token={token}&tenant_id=b"),
        None,
        None,
    );
    assert_eq!(by_query.next().unwrap().json()["tenant_id"], "a");
    let cookie = Request {
        headers: vec![("Cookie", format!("access_token={token}"))],
        ..Request::new("GET", STREAM)
    };
    assert_eq!(
        Sse::new(server.send(&cookie)).next().unwrap().json()["tenant_id"],
        "a"
    );
    let ticket = server
        .post("/api/v1/stream/tickets", Some(&token), &json!({}))
        .json();
    let path = format!("{STREAM}/?ticket={}", ticket["ticket"].as_str().unwrap());
    assert_eq!(
        open_with(&server, &path, None, None).next().unwrap().json()["tenant_id"],
        "a"
    );
    // Elsewhere a token in the query opens nothing.
    assert_eq!(
        server
            .get(&format!("/api/v1/stream?topic=alarms&token={token}"), None)
            .status,
        401
    );
}

#[test]
fn a_stream_ends_with_the_rights_to_it() {
    let server = Setup::default().start();
    let token = operator("a");
    let mut stream = open(&server, &token);
    stream.next().unwrap();
    let revoked = server.post(
        "/api/v1/admin/revocations",
        Some(&admin()),
        &json!({ "subject": "op" }),
    );
    assert_eq!(revoked.status, 201);
    stream.ends();
    eventually("nothing is held", || {
        server.metric("tidings_connections{") == 0.0
    });
}
