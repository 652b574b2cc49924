//! Readers that take nothing: the others go on, memory is bounded and given back, and nothing is lost for who wakes up.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::support::{Request, Server, Setup, Sse, admin, eventually};

/// Resident memory, in bytes.
fn memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1_024
}

#[test]
fn a_slow_reader_costs_the_others_nothing_and_loses_nothing() {
    // It is not sent away, however long the others take.
    let server = Setup::default().set("stream.write_timeout=0").start();
    let token = admin();
    let mut slow = server.stream("topic=x", &token, None);
    let mut fast = server.stream("topic=x", &token, None);
    slow.until("connected");
    fast.until("connected");
    let text = "x".repeat(20_000);
    // 40 MB: more than sockets and rings hold.
    for n in 0..2_000u64 {
        server.publish(&token, "x", &json!({ "n": n, "text": text }));
        assert_eq!(fast.data(1)[0]["n"], n);
    }
    for n in 0..2_000u64 {
        assert_eq!(slow.data(1)[0]["n"], n, "from the log");
    }
    // Where it stood in the ring shows once its socket takes something again.
    assert!(server.metric("tidings_reader_fallbacks_total") >= 1.0);
    server.publish(&token, "x", &json!({ "n": 2_000 }));
    assert_eq!(slow.data(1)[0]["n"], 2_000, "and live again");
}

#[test]
fn a_reader_that_takes_nothing_is_closed() {
    let server = Setup::default().set("stream.write_timeout=1s").start();
    let token = admin();
    let mut stream = server.stream("topic=x", &token, None);
    stream.until("connected");
    let text = "x".repeat(400_000);
    let mut n = 0;
    eventually("it is closed", || {
        server.publish(&token, "x", &json!({ "n": n, "text": text }));
        n += 1;
        server.metric("tidings_connections{") == 0.0
    });
    // Records are written beside the work.
    eventually("the record says why", || {
        server.log().contains("\"reason\":\"slow\"")
    });
}

/// How many stand still; the environment can ask for more.
fn stalled() -> usize {
    std::env::var("TIDINGS_TEST_STALLED")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000)
}

/// Opens a stream at a client that holds next to nothing: here both ends are on one machine, whose memory for sockets is
/// to be the server's.
fn small_stream(server: &Server, token: &str) -> Sse {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8_192).unwrap();
    let address: SocketAddr = server.address.parse().unwrap();
    socket.connect(&address.into()).unwrap();
    let request = Request {
        token: Some(token),
        ..Request::new("GET", "/api/v1/stream?topic=x")
    };
    Sse::new(request.send_on(socket.into(), &server.address))
}

#[test]
fn the_system_holds_little_for_a_reader_that_takes_nothing() {
    let server = Setup::default().set("stream.write_timeout=0").start();
    let token = admin();
    let mut stalled = small_stream(&server, &token);
    stalled.until("connected");
    let text = "x".repeat(60_000);
    for n in 0..90u64 {
        server.publish(&token, "x", &json!({ "n": n, "text": text }));
    }
    let written = server.metric("tidings_deliveries_total");
    assert!(
        written < 20.0,
        "{written} events of 60 kB for a client with room for 8 kB"
    );
    for n in 0..90u64 {
        assert_eq!(stalled.data(1)[0]["n"], n);
    }
}

#[test]
fn many_stalled_readers_are_a_bounded_burden() {
    let server = Setup::default().set("stream.write_timeout=0").start();
    let token = admin();
    // They read the head and nothing else.
    let streams: Vec<_> = (0..stalled())
        .map(|_| small_stream(&server, &token))
        .collect();
    let mut fast = server.stream("topic=x", &token, None);
    fast.until("connected");
    let before = memory(&server);
    let text = "x".repeat(60_000);
    server.publish(&token, "x", &json!({ "n": 0, "text": text }));
    fast.data(1);
    // One broadcast of 60 kB to all of them: shared while it is sent, and given back.
    let allowed = before + 16 * 1_024 * 1_024;
    eventually("the memory comes back", || memory(&server) < allowed);
    let mut slowest = Duration::ZERO;
    for n in 1..300u64 {
        let sent = Instant::now();
        server.publish(&token, "x", &json!({ "n": n, "text": text }));
        assert_eq!(fast.data(1)[0]["n"], n);
        slowest = slowest.max(sent.elapsed());
    }
    let burden = memory(&server).saturating_sub(before);
    eprintln!(
        "{} stalled readers: {before} bytes idle, {burden} more with 300 events of 60 kB behind each; {slowest:?} to \
         publish one and read it meanwhile, at most",
        stalled()
    );
    let bound = 64 * 1_024 * 1_024 + 2_048 * u64::try_from(stalled()).unwrap();
    assert!(
        burden < bound,
        "{burden} bytes for {} stalled readers",
        stalled()
    );
    let mut one = streams.into_iter().next_back().unwrap();
    one.until("connected");
    for n in 0..300u64 {
        assert_eq!(one.data(1)[0]["n"], n, "complete once it wakes up");
    }
}

#[test]
fn ephemeral_events_that_a_slow_reader_misses_are_counted() {
    let server = Setup::default()
        .file("[[topics]]\npattern = \"v/**\"\nephemeral = true\n")
        .start();
    let token = admin();
    let mut slow = server.stream("topic=v/*", &token, None);
    slow.until("connected");
    let text = "x".repeat(60_000);
    const SENT: u64 = 600;
    for n in 0..SENT {
        let answer = server.post(
            "/api/v1/events",
            Some(&token),
            &json!({ "topic": "v/1", "type": "t", "data": { "n": n, "text": text } }),
        );
        assert_eq!(
            (answer.status, &answer.json()["cursor"]),
            (202, &json!(null))
        );
    }
    let (mut seen, mut dropped, mut last) = (0, 0, None);
    while seen + dropped < SENT {
        let frame = slow.next().unwrap();
        match frame.event.as_str() {
            "t" => {
                assert_eq!(frame.id, "", "ephemeral events have no place");
                let n = frame.json()["data"]["n"].as_u64();
                assert!(last < n);
                (seen, last) = (seen + 1, n);
            }
            "dropped" => dropped += frame.json()["count"].as_u64().unwrap(),
            _ => {}
        }
    }
    assert_eq!(seen + dropped, SENT);
    assert!(dropped > 0);
    let history = server.request(&Request {
        token: Some(&token),
        ..Request::new("GET", "/api/v1/events?topic=v/*")
    });
    assert_eq!(history.json()["events"], json!([]));
}
