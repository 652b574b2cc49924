//! SIGTERM: readiness goes, streams are sent away with a spread time to come back, publishes in flight are finished.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::{Request, Server, Setup, admin, eventually, user};

#[test]
fn a_drain_loses_nothing_and_leaves_no_client_dead() {
    let mut server = Setup::default()
        .set("drain.grace=6s")
        .set("drain.spread=4s")
        .start();
    let token = user("u");
    let cursor = server.publish(&token, "x", &json!(0));
    let mut streams: Vec<_> = (0..20)
        .map(|_| server.stream("topic=x", &token, None))
        .collect();
    for stream in &mut streams {
        stream.until("connected");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let address = server.address.clone();
    let publisher = {
        let (stop, token) = (stop.clone(), token.clone());
        std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let body = json!({ "topic": "x", "type": "t", "data": n }).to_string();
                let request = status_of_publish(&address, &token, &body);
                if request == Some(202) {
                    acknowledged.push(n);
                }
            }
            acknowledged
        })
    };
    eventually("publishes come", || {
        server.metric("tidings_publishes_total") > 20.0
    });
    server.signal("TERM");
    let mut retries = Vec::new();
    for stream in &mut streams {
        let closing = stream.until("closing");
        assert_eq!(closing.json()["reason"], "drain");
        retries.push(closing.retry.unwrap());
        stream.ends();
    }
    assert!(
        retries.iter().all(|r| (1_000..=5_000).contains(r)),
        "{retries:?}"
    );
    assert!(
        retries.iter().max().unwrap() - retries.iter().min().unwrap() > 500,
        "they are spread: {retries:?}"
    );
    server.get("/readyz", None);
    let late = server.stream("topic=x", &token, None);
    assert_eq!(late.head.status, 200);
    let mut late = late;
    assert_eq!(late.until("closing").json()["reason"], "drain");
    late.ends();
    let ready = server.get("/readyz", None);
    assert_eq!(
        (ready.status, ready.json()["status"].as_str()),
        (503, Some("draining"))
    );
    server
        .request(&Request {
            token: Some(&token),
            ..Request::new("GET", "/api/v1/poll?topic=x")
        })
        .is_problem(503, None);
    assert_eq!(server.wait(), Some(0));
    stop.store(true, Ordering::Relaxed);
    let acknowledged = publisher.join().unwrap();
    assert!(!acknowledged.is_empty());
    let (folder, setup) = (server.folder.clone(), server.setup.clone());
    drop(server);
    let server = Server::start(folder, setup);
    let mut stored = Vec::new();
    let mut after = cursor;
    loop {
        let page = server
            .get(
                &format!("/api/v1/events?topic=x&limit=1000&after={after}"),
                Some(&admin()),
            )
            .json();
        let events = page["events"].as_array().unwrap().clone();
        if events.is_empty() {
            break;
        }
        stored.extend(events.iter().map(|e| e["data"].as_u64().unwrap()));
        after = page["cursor"].as_str().unwrap().to_owned();
    }
    let missing: Vec<_> = acknowledged
        .iter()
        .filter(|n| !stored.contains(n))
        .collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
}

/// The status of a publish; none where the server has gone.
fn status_of_publish(address: &str, token: &str, body: &str) -> Option<u16> {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(address).ok()?;
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}
