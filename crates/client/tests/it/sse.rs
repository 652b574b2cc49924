//! Streams over SSE.

use std::time::{Duration, Instant};

use tidings_client::Subscription;

use crate::script::{Act, SSE, Server, connected, event, event_json, sse, words};

#[tokio::test]
async fn a_request_names_topics_and_credential() {
    let server = Server::play(vec![Act::Hold(sse(&connected("E-4")))]).await;
    let mut stream = server.client().stream(Subscription::new(["a/**", "b"]));
    assert_eq!(words(&mut stream, 1).await, ["connected E-4"]);
    let head = server.head(0).await;
    assert!(
        head.starts_with("get /api/v1/stream?topic=a%2f**&topic=b http/1.1"),
        "{head}"
    );
    assert!(head.contains("authorization: bearer tok\r\n"), "{head}");
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
        "event x E-2",
        "event ephemeral",
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
        let end = format!("end {reason}");
        let wanted = ["connected E-1", &format!("closing {reason}"), &end, &end];
        assert_eq!(words(&mut stream, 4).await, wanted);
    }
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
