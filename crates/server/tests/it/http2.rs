//! HTTP/2 without TLS, by prior knowledge: many streams on one connection, and WebSocket by extended CONNECT.

use std::io::{Read, Write};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::support::{Frame, PATIENCE, Setup, admin, user};
use crate::websocket::{close_code, next, say};

/// An SSE stream of any HTTP version.
pub(crate) struct Events {
    pub(crate) response: reqwest::Response,
    read: String,
}

impl Events {
    pub(crate) async fn open(request: reqwest::RequestBuilder) -> Self {
        Self {
            response: request.send().await.unwrap(),
            read: String::new(),
        }
    }

    /// The next frame or comment; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(at) = self.read.find("\n\n") {
                let frame = Frame::of(&self.read[..at]);
                self.read.drain(..at + 2);
                return Some(frame);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let Some(bytes) = chunk.expect("nothing comes").unwrap() else {
                assert_eq!(self.read, "", "a stream ends only between frames");
                return None;
            };
            self.read.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// The next frame of this name; others are passed over.
    pub(crate) async fn until(&mut self, event: &str) -> Frame {
        loop {
            let frame = self.next().await.expect("the stream ended");
            if frame.event == event {
                return frame;
            }
        }
    }

    /// The data of the next so many events of type `t`.
    pub(crate) async fn data(&mut self, count: usize) -> Vec<Value> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.until("t").await.json()["data"].clone());
        }
        all
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < until, "{what} does not come true");
        tokio::task::yield_now().await;
    }
}

/// One HTTP/2 connection, spoken by hand.
pub(crate) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    /// As `http://127.0.0.1:8080`.
    base: String,
}

impl Connection {
    pub(crate) async fn open<T>(io: T, base: &str) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io));
        let (sender, connection) = shaken.await.unwrap();
        tokio::spawn(connection);
        let mut opened = Self {
            sender,
            base: base.to_owned(),
        };
        // The server's settings say whether it knows extended CONNECT: they are here with the first answer.
        let alive = opened.send(Method::GET, "/healthz", &[], None).await;
        assert_eq!(
            (alive.status(), alive.version()),
            (200.into_status(), Version::HTTP_2)
        );
        opened
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        protocol: Option<&'static str>,
    ) -> Response<Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(protocol) = protocol {
            request = request.extension(hyper::ext::Protocol::from_static(protocol));
        }
        let request = request.body(Empty::new()).unwrap();
        self.sender.send_request(request).await.unwrap()
    }

    /// A WebSocket by extended CONNECT (RFC 8441), or the answer where it is refused.
    pub(crate) async fn websocket(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<WebSocketStream<TokioIo<Upgraded>>, Response<Incoming>> {
        let mut all = vec![("sec-websocket-version", "13")];
        all.extend(headers);
        let answer = self
            .send(Method::CONNECT, path, &all, Some("websocket"))
            .await;
        if answer.status() != 200 {
            return Err(answer);
        }
        let upgraded = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await)
    }
}

trait IntoStatus {
    fn into_status(self) -> http::StatusCode;
}

impl IntoStatus for u16 {
    fn into_status(self) -> http::StatusCode {
        http::StatusCode::from_u16(self).unwrap()
    }
}

async fn problem(answer: Response<Incoming>) -> (u16, Value) {
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy();
    builder.http2_prior_knowledge().build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_on_one_connection() {
    const STREAMS: usize = 100;
    let server = Setup::default()
        .set(&format!("stream.max_connections_per_user={STREAMS}"))
        .start();
    let client = client();
    let get = |path: &str, token: &str| {
        client
            .get(format!("{}{path}", server.url()))
            .bearer_auth(token)
    };
    let token = user("u");
    let mut witness = Events::open(get("/api/v1/stream?topic=x", &token)).await;
    let first = server.publish(&admin(), "x", &json!(0));
    // Seen: those who come from now on do not get it.
    assert_eq!(witness.data(1).await, [0]);
    drop(witness);
    let sse = "tidings_connections{transport=\"sse\"";
    crate::support::eventually("it is gone", || server.metric(sse) == 0.0);
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = Events::open(get("/api/v1/stream?topic=x", &token)).await;
        assert_eq!(stream.response.version(), Version::HTTP_2);
        assert_eq!(
            stream.response.headers()["content-type"],
            "text/event-stream"
        );
        stream.until("connected").await;
        streams.push(stream);
    }
    assert_eq!(server.metric(sse), 100.0);
    for n in 1..=3 {
        server.publish(&admin(), "x", &json!(n));
    }
    for stream in &mut streams {
        assert_eq!(stream.data(3).await, [1, 2, 3]);
    }
    crate::support::eventually("each delivery is counted", || {
        server.metric("tidings_deliveries_total{transport=\"sse\"}") == 301.0
    });
    // One over the limit: an honest status, and for who comes back the word when to.
    let refused = get("/api/v1/stream?topic=x", &token).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    let mut refused =
        Events::open(get("/api/v1/stream?topic=x", &token).header("last-event-id", &first)).await;
    assert_eq!(refused.response.status(), 200);
    let closing = refused.until("closing").await;
    assert_eq!(closing.json()["reason"], "limit");
    assert!(closing.retry.is_some());
    assert_eq!(refused.next().await, None);
    // A stream that is reset takes nothing else with it, and frees its place.
    streams.truncate(STREAMS / 2);
    crate::support::eventually("half of them are gone", || server.metric(sse) == 50.0);
    server.publish(&admin(), "x", &json!(4));
    for stream in &mut streams {
        assert_eq!(stream.data(1).await, [4]);
    }
    let mut resumed =
        Events::open(get("/api/v1/stream?topic=x", &token).header("last-event-id", &first)).await;
    assert_eq!(resumed.until("connected").await.id, first);
    assert_eq!(resumed.data(4).await, [1, 2, 3, 4]);
    crate::support::eventually("a page counts as its events do", || {
        server.metric("tidings_deliveries_total{transport=\"sse\"}") == 355.0
    });
    drop((streams, resumed));
    crate::support::eventually("all are gone", || server.metric(sse) == 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_by_extended_connect() {
    let mut server = Setup::default().start();
    let io = tokio::net::TcpStream::connect(&server.address).await;
    let mut connection = Connection::open(io.unwrap(), &server.url()).await;
    let bearer = format!("Bearer {}", user("u"));
    let mut socket = connection
        .websocket("/api/v1/ws?topic=x", &[("authorization", &bearer)])
        .await
        .unwrap();
    assert_eq!(next(&mut socket).await["type"], "connected");
    say(
        &mut socket,
        &json!({ "type": "publish", "event": { "topic": "y", "type": "t", "data": 1 } }),
    )
    .await;
    assert_eq!(next(&mut socket).await["type"], "published");
    server.publish(&user("u"), "x", &json!(2));
    assert_eq!(next(&mut socket).await["event"]["data"], 2);
    // Beside it, on the same connection: others, by other credentials, and what is refused.
    let offered = format!("tidings.v1, bearer.{}", user("u"));
    let own = server.url();
    let mut beside = connection
        .websocket(
            "/api/v1/ws?topic=x",
            &[("sec-websocket-protocol", &offered), ("origin", &own)],
        )
        .await
        .unwrap();
    assert_eq!(next(&mut beside).await["type"], "connected");
    for (headers, status) in [
        (vec![], 401),
        (
            vec![
                ("authorization", bearer.as_str()),
                ("origin", "http://evil.example"),
            ],
            403,
        ),
    ] {
        let refused = connection.websocket("/api/v1/ws?topic=x", &headers).await;
        let (got, document) = problem(refused.unwrap_err()).await;
        assert_eq!((got, &document["status"]), (status, &json!(status)));
    }
    let with = [
        ("authorization", bearer.as_str()),
        ("sec-websocket-version", "13"),
    ];
    for (method, path, protocol, status) in [
        (Method::GET, "/api/v1/ws", None, 400),
        (Method::CONNECT, "/api/v1/ws", Some("webtransport"), 400),
        (Method::CONNECT, "/api/v1/stream", Some("websocket"), 405),
        (Method::CONNECT, "", None, 404),
    ] {
        let answer = connection.send(method, path, &with, protocol).await;
        assert_eq!(problem(answer).await.0, status, "{path} {protocol:?}");
    }
    assert_eq!(
        server.metric("tidings_connections{transport=\"websocket\""),
        2.0
    );
    server.signal("TERM");
    for socket in [&mut socket, &mut beside] {
        assert_eq!(next(socket).await["reason"], "drain");
        assert_eq!(close_code(socket).await, 1001);
    }
    drop((socket, beside, connection));
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn what_only_begins_like_http2() {
    let server = Setup::default().start();
    let exchange = |pieces: &[&[u8]]| {
        let mut socket = std::net::TcpStream::connect(&server.address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for piece in pieces {
            socket.write_all(piece).unwrap();
            // Another connection is served meanwhile: the piece has arrived alone.
            assert_eq!(server.get("/healthz", None).status, 200);
        }
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let post: [&[u8]; 3] = [
        b"P",
        b"OST /api/v1/events HT",
        b"TP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ];
    assert!(exchange(&post).starts_with("HTTP/1.1 401"));
    let connect: [&[u8]; 1] =
        [b"CONNECT /api/v1/ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"];
    let refused = exchange(&connect);
    assert!(
        refused.starts_with("HTTP/1.1 405") && refused.to_lowercase().contains("allow: get"),
        "{refused}"
    );
    for broken in [
        &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
        b"PRIORITY / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        // Closed, with or without a last word; a status would be of the other version.
        assert!(!exchange(&[broken]).contains(" 200 "));
    }
    assert_eq!(server.get("/healthz", None).status, 200);
}
