//! The client against tiny servers that follow a script.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tidings_client::{
    Client, Delivery, Error, HistoryQuery, NewEvent, Stream, Subscription, Transport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// What the server does with one connection.
enum Act {
    /// Writes these bytes after each request, piece by piece, and closes after the last piece.
    Answer(Vec<Vec<u8>>),
    /// The same, and then keeps the connection open.
    Hold(Vec<Vec<u8>>),
    /// Speaks WebSocket: sends these messages, then closes with this code.
    WebSocket(Vec<Message>, Option<u16>),
    /// Closes without a word.
    Close,
}

/// Plays one act per connection and records the head of each request.
struct Server {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn play(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = heads.clone();
        tokio::spawn(async move {
            let mut open = Vec::new();
            for act in acts {
                let (socket, _) = listener.accept().await.unwrap();
                open.extend(act.play(socket, &kept).await);
            }
            std::future::pending::<()>().await;
        });
        Self { url, heads }
    }

    fn client(&self) -> Client {
        let backoff = (Duration::from_millis(10), Duration::from_millis(50));
        Client::builder(&self.url)
            .token("tok")
            .backoff(backoff.0, backoff.1)
            .build()
            .unwrap()
    }

    async fn head(&self, number: usize) -> String {
        self.heads.lock().await[number].clone()
    }
}

impl Act {
    async fn play(self, mut socket: TcpStream, heads: &Mutex<Vec<String>>) -> Option<TcpStream> {
        match self {
            Self::Answer(pieces) | Self::Hold(pieces) if pieces.is_empty() => unreachable!(),
            Self::Answer(pieces) => {
                Self::write(&mut socket, pieces, heads).await;
                None
            }
            Self::Hold(pieces) => {
                Self::write(&mut socket, pieces, heads).await;
                Some(socket)
            }
            Self::Close => {
                heads.lock().await.push(read_head(&mut socket).await);
                None
            }
            Self::WebSocket(messages, code) => {
                let mut head = String::new();
                let accept = |request: &Request, mut response: Response| {
                    head = format!("{} {:?}", request.uri(), request.headers());
                    let offered = request.headers()["sec-websocket-protocol"].clone();
                    response
                        .headers_mut()
                        .insert("sec-websocket-protocol", offered);
                    Ok(response)
                };
                let mut socket = tokio_tungstenite::accept_hdr_async(socket, accept)
                    .await
                    .unwrap();
                heads.lock().await.push(head);
                for message in messages {
                    socket.send(message).await.unwrap();
                }
                match code {
                    Some(code) => {
                        let frame = CloseFrame {
                            code: code.into(),
                            reason: "".into(),
                        };
                        socket.close(Some(frame)).await.unwrap();
                        while socket.next().await.is_some_and(|m| m.is_ok()) {}
                        None
                    }
                    None => Some(socket.into_inner()),
                }
            }
        }
    }

    async fn write(socket: &mut TcpStream, pieces: Vec<Vec<u8>>, heads: &Mutex<Vec<String>>) {
        heads.lock().await.push(read_head(socket).await);
        socket.set_nodelay(true).unwrap();
        for piece in pieces {
            socket.write_all(&piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    }
}

async fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |l| l.trim().parse().unwrap())];
    socket.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

fn sse(body: &str) -> Vec<Vec<u8>> {
    vec![SSE.into(), body.into()]
}

fn json(status: &str, headers: &str, body: &str) -> Vec<Vec<u8>> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n");
    vec![(head + body).into()]
}

fn connected(cursor: &str) -> String {
    format!(
        "retry: 10\nevent: connected\nid: {cursor}\ndata: {{\"connection_id\":\"c\",\"cursor\":\"{cursor}\",\"heartbeat_seconds\":30.0}}\n\n"
    )
}

fn event_json(id: &str) -> String {
    format!(
        r#"{{"id":"{id}","topic":"a/b","type":"t","time":"2026-01-01T00:00:00Z","data":{{"n":1.00}}}}"#
    )
}

fn event(cursor: &str, id: &str) -> String {
    format!("event: t\nid: {cursor}\ndata: {}\n\n", event_json(id))
}

/// One word per delivery, so that a test reads as a list.
fn word(delivery: &Result<Delivery, Error>) -> String {
    match delivery {
        Ok(Delivery::Connected { cursor, .. }) => {
            format!("connected {}", cursor.as_deref().unwrap_or("-"))
        }
        Ok(Delivery::Event { cursor, event }) => {
            format!("{} {}", cursor.as_deref().unwrap_or("-"), event.id)
        }
        Ok(Delivery::Gap { oldest }) => format!("gap {oldest}"),
        Ok(Delivery::Reset { cursor }) => format!("reset {cursor}"),
        Ok(Delivery::Dropped { count }) => format!("dropped {count}"),
        Ok(Delivery::Checkpoint { cursor }) => format!("checkpoint {cursor}"),
        Ok(Delivery::Unsubscribed { topics, reason }) => {
            format!("unsubscribed {topics:?} {reason}")
        }
        Ok(Delivery::Closing { reason, .. }) => format!("closing {reason}"),
        Ok(Delivery::Lost { .. }) => "lost".into(),
        Ok(_) => "?".into(),
        Err(Error::Closed { reason }) => format!("end: {reason}"),
        Err(e) => format!(
            "end: {}",
            e.status().map_or_else(|| e.to_string(), |s| s.to_string())
        ),
    }
}

async fn words(stream: &mut Stream, count: usize) -> Vec<String> {
    let mut words = Vec::new();
    for _ in 0..count {
        let next = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
        words.push(word(&next.expect("a delivery within 10 s")));
    }
    words
}

#[tokio::test]
async fn sse_resumes_from_what_was_handed_out() {
    let first = connected("E-4")
        + &event("E-5", "x")
        + &event("E-6", "y")
        + "event: t\nid: E-7\ndata: {cut";
    let second = connected("E-6") + "event: checkpoint\nid: E-9\ndata: {\"cursor\":\"E-9\"}\n\n";
    let server = Server::play(vec![
        Act::Answer(sse(&first)),
        Act::Close,
        Act::Answer(sse(&second)),
        Act::Hold(sse(&connected("E-9"))),
    ])
    .await;
    let mut stream = server.client().stream(Subscription::new(["a/**", "b"]));
    let wanted = [
        "connected E-4",
        "E-5 x",
        "E-6 y",
        "lost",
        "lost",
        "connected E-6",
        "checkpoint E-9",
        "lost",
        "connected E-9",
    ];
    assert_eq!(words(&mut stream, wanted.len()).await, wanted);
    let head = server.head(0).await;
    assert!(
        head.starts_with("get /api/v1/stream?topic=a%2f**&topic=b http/1.1"),
        "{head}"
    );
    assert!(
        head.contains("authorization: bearer tok\r\n") && !head.contains("last-event-id"),
        "{head}"
    );
    assert!(server.head(2).await.contains("last-event-id: e-6\r\n"));
    assert!(server.head(3).await.contains("last-event-id: e-9\r\n"));
    assert_eq!(stream.cursor(), Some("E-9"));
}

#[tokio::test]
async fn sse_frames_may_be_split_anywhere() {
    let body = connected("E-1")
        + ": heartbeat\n\n"
        + &event("E-2", "x").replace('\n', "\r\n")
        + &format!("event: t\ndata: {}\n\n", event_json("ephemeral"))
        + "event: gap\ndata: {\"oldest\":\"E-3\"}\n\nevent: dropped\ndata: {\"count\":7}\n\n"
        + "event: reset\ndata: {\"cursor\":\"F-1\"}\n\n"
        + "event: unsubscribed\ndata: {\"topics\":[\"b\"],\"reason\":\"forbidden\"}\n\n";
    let mut pieces = vec![SSE.as_bytes().to_vec()];
    pieces.extend(body.as_bytes().chunks(1).map(<[u8]>::to_vec));
    let server = Server::play(vec![Act::Hold(pieces)]).await;
    let mut stream = server
        .client()
        .stream(Subscription::new(["a/**"]).since("E-1"));
    let wanted = [
        "connected E-1",
        "E-2 x",
        "- ephemeral",
        "gap E-3",
        "dropped 7",
        "reset F-1",
        "unsubscribed [\"b\"] forbidden",
    ];
    assert_eq!(words(&mut stream, wanted.len()).await, wanted);
    assert!(server.head(0).await.contains("last-event-id: e-1\r\n"));
    assert_eq!(stream.cursor(), Some("F-1"));
}

#[tokio::test]
async fn closing_reasons_end_or_come_back() {
    let closing = |reason: &str, retry_ms: u64| {
        format!(
            "retry: {retry_ms}\nevent: closing\ndata: {{\"reason\":\"{reason}\",\"retry_ms\":{retry_ms}}}\n\n"
        )
    };
    for reason in ["drain", "limit", "overload", "idle", "slow"] {
        // A refused reconnect: 200, the closing frame alone, the end.
        let acts = vec![
            Act::Answer(sse(&closing(reason, 80))),
            Act::Hold(sse(&connected("E-1"))),
        ];
        let server = Server::play(acts).await;
        let mut stream = server
            .client()
            .stream(Subscription::new(["a"]).since("E-1"));
        let begun = Instant::now();
        assert_eq!(
            words(&mut stream, 2).await,
            [format!("closing {reason}"), "connected E-1".into()]
        );
        assert!(
            begun.elapsed() >= Duration::from_millis(80),
            "came back too soon"
        );
    }
    for reason in [
        "revoked",
        "forbidden",
        "closed",
        "superseded",
        "token_expired",
    ] {
        let body = connected("E-1") + &closing(reason, 10);
        let server = Server::play(vec![Act::Answer(sse(&body))]).await;
        let mut stream = server.client().stream(Subscription::new(["a"]));
        let end = format!("end: {reason}");
        let wanted = ["connected E-1", &format!("closing {reason}"), &end, &end];
        assert_eq!(words(&mut stream, 4).await, wanted);
    }
}

#[tokio::test]
async fn a_provider_replaces_an_expired_token() {
    let expired = connected("E-1")
        + "event: closing\ndata: {\"reason\":\"token_expired\",\"retry_ms\":1}\n\n";
    let refused = || json("401 Unauthorized", "connection: close\r\n", "{}");
    let server = Server::play(vec![
        Act::Answer(sse(&expired)),
        Act::Answer(refused()),
        Act::Answer(sse(&connected("E-1"))),
        Act::Answer(refused()),
        Act::Answer(refused()),
    ])
    .await;
    let count = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let client = Client::builder(&server.url)
        .token_provider(move || {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async move { Ok(format!("tok{number}")) }
        })
        .backoff(Duration::from_millis(10), Duration::from_millis(10))
        .build()
        .unwrap();
    let mut stream = client.stream(Subscription::new(["a"]));
    let wanted = [
        "connected E-1",
        "closing token_expired",
        "lost",
        "connected E-1",
        "lost",
        "lost",
        "end: 401",
    ];
    assert_eq!(words(&mut stream, wanted.len()).await, wanted);
    assert!(server.head(2).await.contains("bearer tok2"));
}

#[tokio::test]
async fn what_is_refused_for_good_ends_the_stream() {
    for transport in [Transport::Sse, Transport::WebSocket, Transport::LongPoll] {
        for status in ["400 Bad", "401 No", "403 No", "404 No", "422 No"] {
            let acts = vec![Act::Answer(json(
                status,
                "connection: close\r\n",
                "{\"detail\":\"why\"}",
            ))];
            let server = Server::play(acts).await;
            let mut stream = server
                .client()
                .stream(Subscription::new(["a"]).transport(transport));
            assert_eq!(
                words(&mut stream, 1).await,
                [format!("end: {}", &status[..3])]
            );
        }
        let busy = json("503 Busy", "retry-after: 1\r\nconnection: close\r\n", "{}");
        let server = Server::play(vec![
            Act::Answer(busy),
            Act::Answer(json("403 No", "", "{}")),
        ])
        .await;
        let mut stream = server
            .client()
            .stream(Subscription::new(["a"]).transport(transport));
        let begun = Instant::now();
        assert_eq!(words(&mut stream, 2).await, ["lost", "end: 403"]);
        assert!(
            begun.elapsed() >= Duration::from_secs(1),
            "Retry-After was not honoured"
        );
    }
    let page = json("200 OK", "content-type: text/html\r\n", "<html>");
    let server = Server::play(vec![Act::Answer(page)]).await;
    let mut stream = server.client().stream(Subscription::new(["a"]));
    assert!(words(&mut stream, 1).await[0].contains("text/html"));
}

#[tokio::test]
async fn a_silent_stream_is_lost() {
    let beat = connected("E-1").replace("30.0", "0.01");
    let server = Server::play(vec![
        Act::Hold(sse(&beat)),
        Act::Hold(sse(&connected("E-1"))),
    ])
    .await;
    let mut stream = server.client().stream(Subscription::new(["a"]));
    let begun = Instant::now();
    assert_eq!(
        words(&mut stream, 3).await,
        ["connected E-1", "lost", "connected E-1"]
    );
    assert!(begun.elapsed() >= Duration::from_secs(5));
}

fn text(text: impl Into<String>) -> Message {
    Message::text(text.into())
}

#[tokio::test]
async fn websocket_resumes_and_reads_every_message() {
    let hello = |cursor: &str| {
        text(format!(
            r#"{{"type":"connected","connection_id":"c","cursor":"{cursor}","heartbeat_seconds":30}}"#
        ))
    };
    let placed = |cursor: &str, id: &str| {
        text(format!(
            r#"{{"cursor":"{cursor}","event":{}}}"#,
            event_json(id)
        ))
    };
    let server = Server::play(vec![
        Act::WebSocket(
            vec![
                hello("E-1"),
                placed("E-2", "x"),
                text(format!(r#"{{"event":{}}}"#, event_json("y"))),
                text(r#"{"type":"heartbeat"}"#),
                Message::Ping("p".into()),
                text(r#"{"type":"dropped","count":3}"#),
                text(r#"{"type":"closing","reason":"drain","retry_ms":5}"#),
            ],
            Some(1001),
        ),
        Act::WebSocket(
            vec![
                hello("E-2"),
                text(r#"{"type":"gap","oldest":"E-8"}"#),
                placed("E-8", "z"),
            ],
            Some(1013),
        ),
        Act::WebSocket(
            vec![
                hello("E-8"),
                text(r#"{"type":"closing","reason":"revoked","retry_ms":5}"#),
            ],
            Some(1008),
        ),
    ])
    .await;
    let subscription = Subscription::new(["a/**"]).transport(Transport::WebSocket);
    let mut stream = server.client().stream(subscription);
    let wanted = [
        "connected E-1",
        "E-2 x",
        "- y",
        "dropped 3",
        "closing drain",
        "connected E-2",
        "gap E-8",
        "E-8 z",
        "lost",
        "connected E-8",
        "closing revoked",
        "end: revoked",
    ];
    assert_eq!(words(&mut stream, wanted.len()).await, wanted);
    let head = server.head(0).await;
    assert!(
        head.starts_with("/api/v1/ws?topic=a%2F** ") && head.contains("Bearer tok"),
        "{head}"
    );
    assert!(head.contains("tidings.v1"), "{head}");
    assert!(server.head(2).await.contains("&last_event_id=E-8"));
}

#[tokio::test]
async fn long_poll_asks_where_the_log_stands_first() {
    let placed = |cursor: &str, id: &str| {
        event_json(id).replacen('{', &format!(r#"{{"cursor":"{cursor}","#), 1)
    };
    let answer = |body: String| Act::Answer(json("200 OK", "connection: close\r\n", &body));
    let server = Server::play(vec![
        answer(r#"{"events":[],"cursor":"E-1"}"#.into()),
        answer(format!(
            r#"{{"events":[{},{}],"cursor":"E-3"}}"#,
            placed("E-2", "x"),
            event_json("y")
        )),
        Act::Close,
        answer(r#"{"events":[],"cursor":"E-3"}"#.into()),
        answer(format!(
            r#"{{"events":[{}],"cursor":"E-9","gap":{{"oldest":"E-7"}},"dropped":2}}"#,
            placed("E-9", "z")
        )),
        answer(
            r#"{"events":[],"cursor":"F-1","reset":true,"closing":{"reason":"forbidden"}}"#.into(),
        ),
    ])
    .await;
    let subscription = Subscription::new(["a/**"]).transport(Transport::LongPoll);
    let mut stream = server.client().stream(subscription);
    let wanted = [
        "connected E-1",
        "E-2 x",
        "- y",
        "checkpoint E-3",
        "lost",
        "connected E-3",
        "gap E-7",
        "dropped 2",
        "E-9 z",
        "reset F-1",
        "closing forbidden",
        "end: forbidden",
    ];
    assert_eq!(words(&mut stream, wanted.len()).await, wanted);
    let asked = |wait, after: &str| {
        format!("get /api/v1/poll?topic=a%2f**{after}&wait={wait}&limit=1000 http/1.1")
    };
    assert!(server.head(0).await.starts_with(&asked(0, "")));
    assert!(server.head(1).await.starts_with(&asked(25, "&after=e-1")));
    assert!(server.head(3).await.starts_with(&asked(0, "&after=e-3")));
    assert!(server.head(4).await.starts_with(&asked(25, "&after=e-3")));
}

#[tokio::test]
async fn a_caller_who_stops_waiting_loses_nothing() {
    for transport in [Transport::Sse, Transport::LongPoll] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut requests = 0;
            let mut open = Vec::new();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                read_head(&mut socket).await;
                requests += 1;
                assert_eq!(requests, 1, "asked twice");
                tokio::time::sleep(Duration::from_millis(100)).await;
                let pieces = match transport {
                    Transport::Sse => sse(&(connected("E-1") + &event("E-2", "x"))),
                    _ => json("200 OK", "", r#"{"events":[],"cursor":"E-2"}"#),
                };
                for piece in pieces {
                    socket.write_all(&piece).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                open.push(socket);
            }
        });
        let client = Client::builder(url).build().unwrap();
        let mut stream = client.stream(Subscription::new(["a"]).transport(transport));
        let mut seen = Vec::new();
        while seen.is_empty() {
            if let Ok(next) = tokio::time::timeout(Duration::from_millis(5), stream.next()).await {
                seen.push(word(&next));
            }
        }
        assert!(seen[0].starts_with("connected"), "{seen:?}");
    }
}

#[tokio::test]
async fn a_publish_is_tried_again_only_where_that_is_harmless() {
    let done = || {
        Act::Answer(json(
            "202 Accepted",
            "idempotent-replayed: true\r\n",
            r#"{"ids":["1"],"cursor":"E-1"}"#,
        ))
    };
    let busy = || Act::Answer(json("503 Busy", "connection: close\r\n", "{}"));
    let event = NewEvent::new("a/b", "t", &[1]).unwrap();

    let server = Server::play(vec![busy(), done()]).await;
    let published = server.client().publish(&event).await.unwrap();
    assert!(published.is_replayed && published.cursor.as_deref() == Some("E-1"));
    assert!(
        server
            .head(1)
            .await
            .ends_with(r#"{"topic":"a/b","type":"t","data":[1]}"#)
    );

    // The connection broke after the request: it may have been stored.
    let server = Server::play(vec![Act::Close, done()]).await;
    assert!(matches!(
        server.client().publish(&event).await,
        Err(Error::Lost(_))
    ));
    let server = Server::play(vec![Act::Close, done()]).await;
    server
        .client()
        .publish_batch(std::slice::from_ref(&event), Some("key-1"))
        .await
        .unwrap();
    assert!(server.head(1).await.contains("idempotency-key: key-1\r\n"));
    let mut named = event.clone();
    named.id = Some("mine".into());
    let server = Server::play(vec![Act::Close, done()]).await;
    server.client().publish(&named).await.unwrap();

    let problem = json(
        "422 No",
        "",
        r#"{"detail":"reserved","field":"type","index":0}"#,
    );
    let server = Server::play(vec![Act::Answer(problem)]).await;
    let error = server.client().publish(&named).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server answered 422: reserved (at type of item 0)"
    );
}

#[tokio::test]
async fn nobody_there_is_an_error_that_says_so() {
    let client = Client::builder("http://127.0.0.1:1")
        .attempts(1)
        .build()
        .unwrap();
    let event = NewEvent::new("a", "t", &()).unwrap();
    assert!(matches!(
        client.publish(&event).await,
        Err(Error::Unreachable(_))
    ));
}

#[tokio::test]
async fn history_comes_in_pages() {
    let body = format!(
        r#"{{"events":[{}],"cursor":"E-9","gap":{{"oldest":"E-2"}}}}"#,
        event_json("x").replacen('{', r#"{"cursor":"E-3","#, 1)
    );
    let server = Server::play(vec![Act::Answer(json("200 OK", "", &body))]).await;
    let query = HistoryQuery {
        topics: vec!["a/*".into(), "b".into()],
        after: Some("E-1".into()),
        limit: Some(5),
    };
    let page = server.client().history(&query).await.unwrap();
    assert_eq!(page.events[0].cursor.as_deref(), Some("E-3"));
    assert_eq!(page.events[0].event.data.get(), r#"{"n":1.00}"#);
    assert_eq!(
        (page.cursor.as_str(), page.gap.unwrap().oldest.as_str()),
        ("E-9", "E-2")
    );
    assert!(
        server
            .head(0)
            .await
            .starts_with("get /api/v1/events?topic=a%2f*&topic=b&after=e-1&limit=5 ")
    );
}
