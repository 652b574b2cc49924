//! Every WebSocket message and close code.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::support::{Setup, admin, user};

type Socket = WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn connect(address: &str, query: &str, token: &str) -> Socket {
    let mut request = format!("ws://{address}/api/v1/ws{query}")
        .into_client_request()
        .unwrap();
    request
        .headers_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    tokio_tungstenite::connect_async(request).await.unwrap().0
}

/// The next message.
pub(crate) async fn next<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> Value {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Sends a message.
pub(crate) async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    message: &Value,
) {
    socket
        .send(Message::text(message.to_string()))
        .await
        .unwrap();
}

/// With what code the other side closes.
pub(crate) async fn close_code<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> u16 {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages() {
    let server = Setup::default().start();
    let mut socket = connect(&server.address, "", &user("u")).await;
    let connected = next(&mut socket).await;
    assert_eq!(
        (&connected["type"], &connected["heartbeat_seconds"]),
        (&json!("connected"), &json!(30))
    );
    say(&mut socket, &json!({ "type": "ping", "ref": 7 })).await;
    assert_eq!(next(&mut socket).await, json!({ "type": "pong", "ref": 7 }));
    say(
        &mut socket,
        &json!({ "type": "subscribe", "topics": ["x/*"], "ref": "a" }),
    )
    .await;
    let subscribed = next(&mut socket).await;
    assert_eq!(
        (
            &subscribed["type"],
            &subscribed["topics"],
            &subscribed["ref"]
        ),
        (&json!("subscribed"), &json!(["x/*"]), &json!("a"))
    );
    say(
        &mut socket,
        &json!({ "type": "publish", "event": { "topic": "x/1", "type": "t", "data": 1.50 } }),
    )
    .await;
    // The answer and the event itself may come in either order.
    let (one, two) = (next(&mut socket).await, next(&mut socket).await);
    let (published, event) = if one["type"] == "published" {
        (one, two)
    } else {
        (two, one)
    };
    assert_eq!(published["cursor"], event["cursor"]);
    assert_eq!(
        (&event["event"]["data"], &event["event"]["id"]),
        (&json!(1.5), &published["ids"][0])
    );
    say(&mut socket, &json!({ "type": "publish", "events": [{ "topic": "y", "type": "t", "data": 1 }, { "topic": "x/2", "type": "t", "data": 2 }], "idempotency_key": "k" })).await;
    let (one, two) = (next(&mut socket).await, next(&mut socket).await);
    assert!(
        [&one, &two].iter().any(|m| m["event"]["topic"] == "x/2"),
        "{one} {two}"
    );
    say(
        &mut socket,
        &json!({ "type": "subscribe", "topics": ["y"] }),
    )
    .await;
    next(&mut socket).await;
    say(
        &mut socket,
        &json!({ "type": "unsubscribe", "topics": ["x/*"], "ref": 1 }),
    )
    .await;
    assert_eq!(
        next(&mut socket).await,
        json!({ "type": "unsubscribed", "topics": ["x/*"], "ref": 1 })
    );
    server.publish(&admin(), "x/1", &json!("not this"));
    server.publish(&admin(), "y", &json!("this"));
    assert_eq!(next(&mut socket).await["event"]["data"], "this");
    say(
        &mut socket,
        &json!({ "type": "refresh", "token": user("u") }),
    )
    .await;
    assert_eq!(next(&mut socket).await["type"], "refreshed");
    for (message, status, field) in [
        (json!({ "type": "dance", "ref": 1 }), 422, Some("type")),
        (
            json!({ "type": "subscribe", "topics": ["a//b"] }),
            422,
            Some("topics"),
        ),
        (
            json!({ "type": "subscribe", "topics": [] }),
            422,
            Some("topics"),
        ),
        (
            json!({ "type": "subscribe", "topics": ["audit/x"] }),
            403,
            Some("topics"),
        ),
        (
            json!({ "type": "subscribe", "topics": ["z"], "cursor": "later" }),
            422,
            Some("cursor"),
        ),
        (json!({ "type": "subscribe" }), 422, Some("topics")),
        (json!({ "type": "ping", "more": 1 }), 422, Some("more")),
        (
            json!({ "type": "unsubscribe", "topics": ["never"] }),
            422,
            Some("topics"),
        ),
        (json!({ "type": "publish" }), 422, Some("event")),
        (
            json!({ "type": "publish", "event": { "topic": "alarms", "type": "t", "data": 1 } }),
            403,
            Some("topic"),
        ),
        (
            json!({ "type": "publish", "event": { "topic": "x", "type": "open", "data": 1 } }),
            422,
            Some("type"),
        ),
        (
            json!({ "type": "refresh", "token": "nonsense" }),
            422,
            Some("token"),
        ),
        (
            json!({ "type": "refresh", "token": user("v") }),
            403,
            Some("token"),
        ),
        (json!([1]), 400, None),
    ] {
        say(&mut socket, &message).await;
        let answer = next(&mut socket).await;
        assert_eq!(answer["type"], "error", "{message}: {answer}");
        assert_eq!(
            (
                &answer["problem"]["status"],
                answer["problem"]["field"].as_str()
            ),
            (&json!(status), field),
            "{message}: {answer}"
        );
    }
    socket.send(Message::text("{")).await.unwrap();
    assert_eq!(next(&mut socket).await["problem"]["status"], 400);
    say(&mut socket, &json!({ "type": "ping" })).await;
    assert_eq!(next(&mut socket).await["type"], "pong", "and it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_and_reset() {
    let server = Setup::default().start();
    let first = server.publish(&admin(), "x", &json!(1));
    server.publish(&admin(), "x", &json!(2));
    let mut by_query = connect(
        &server.address,
        &format!("?topic=x&last_event_id={first}"),
        &user("u"),
    )
    .await;
    assert_eq!(next(&mut by_query).await["cursor"], first.as_str());
    assert_eq!(next(&mut by_query).await["event"]["data"], 2);
    let mut by_message = connect(&server.address, "", &user("u")).await;
    next(&mut by_message).await;
    say(
        &mut by_message,
        &json!({ "type": "subscribe", "topics": ["x"], "cursor": first }),
    )
    .await;
    assert_eq!(next(&mut by_message).await["cursor"], first.as_str());
    assert_eq!(next(&mut by_message).await["event"]["data"], 2);
    let mut foreign = connect(
        &server.address,
        "?topic=x&last_event_id=nonsense",
        &user("u"),
    )
    .await;
    assert_eq!(next(&mut foreign).await["type"], "connected");
    assert_eq!(next(&mut foreign).await["type"], "reset");
}

#[tokio::test(flavor = "multi_thread")]
async fn close_codes() {
    let server = Setup::default().start();
    let address = server.address.clone();
    let open = async || {
        let mut socket = connect(&address, "?topic=x", &user("u")).await;
        let id = next(&mut socket).await["connection_id"]
            .as_str()
            .unwrap()
            .to_owned();
        (socket, id)
    };
    let (mut socket, _) = open().await;
    socket
        .send(Message::Binary(Bytes::from_static(b"\x00")))
        .await
        .unwrap();
    assert_eq!(close_code(&mut socket).await, 1003);
    let (mut socket, _) = open().await;
    socket
        .send(Message::text("x".repeat(1_024 * 1_024 + 1)))
        .await
        .unwrap();
    assert_eq!(close_code(&mut socket).await, 1009);
    let (mut socket, id) = open().await;
    let path = format!("/api/v1/connections/{id}");
    let token = user("u");
    let answer = server.request(&crate::support::Request {
        token: Some(&token),
        ..crate::support::Request::new("DELETE", &path)
    });
    assert_eq!(answer.status, 204);
    let closing = next(&mut socket).await;
    assert_eq!(
        (&closing["type"], &closing["reason"]),
        (&json!("closing"), &json!("closed"))
    );
    assert_eq!(close_code(&mut socket).await, 1000);
    let (mut socket, _) = open().await;
    assert_eq!(
        server
            .post(
                "/api/v1/admin/revocations",
                Some(&admin()),
                &json!({ "subject": "u" })
            )
            .status,
        201
    );
    assert_eq!(next(&mut socket).await["reason"], "revoked");
    assert_eq!(close_code(&mut socket).await, 1008);
    let mut socket = connect(&address, "?topic=x", &admin()).await;
    next(&mut socket).await;
    server.signal("TERM");
    assert_eq!(next(&mut socket).await["reason"], "drain");
    assert_eq!(close_code(&mut socket).await, 1001);
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats() {
    let server = Setup::default().manual_clock().start();
    let mut socket = connect(&server.address, "?topic=x", &user("u")).await;
    next(&mut socket).await;
    server.advance(std::time::Duration::from_secs(31));
    assert_eq!(next(&mut socket).await, json!({ "type": "heartbeat" }));
}
