//! Streams over WebSocket.

use tidings_client::{Subscription, Transport};
use tokio_tungstenite::tungstenite::Message;

use crate::script::{Act, Server, event_json, words};

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
        "event x E-2",
        "event y",
        "dropped 3",
        "closing drain",
        "connected E-2",
        "gap E-8",
        "event z E-8",
        "lost",
        "connected E-8",
        "closing revoked",
        "end revoked",
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
