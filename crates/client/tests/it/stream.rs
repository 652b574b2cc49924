//! What holds for a stream over any transport.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings_client::{Client, Subscription, Transport};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::script::{Act, Server, connected, event, json, read_head, sse, word, words};

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
        "end 401",
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
                [format!("end {}", &status[..3])]
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
        assert_eq!(words(&mut stream, 2).await, ["lost", "end 403"]);
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
