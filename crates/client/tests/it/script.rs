//! Servers that follow a script, and what they say.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tidings_client::{Client, Delivery, Error, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// What the server does with one connection.
pub(crate) enum Act {
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
pub(crate) struct Server {
    pub(crate) url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) async fn play(acts: Vec<Act>) -> Self {
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

    pub(crate) fn client(&self) -> Client {
        let backoff = (Duration::from_millis(10), Duration::from_millis(50));
        Client::builder(&self.url)
            .token("tok")
            .backoff(backoff.0, backoff.1)
            .build()
            .unwrap()
    }

    pub(crate) async fn head(&self, number: usize) -> String {
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

pub(crate) async fn read_head(socket: &mut TcpStream) -> String {
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

pub(crate) const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

pub(crate) fn sse(body: &str) -> Vec<Vec<u8>> {
    vec![SSE.into(), body.into()]
}

pub(crate) fn json(status: &str, headers: &str, body: &str) -> Vec<Vec<u8>> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n");
    vec![(head + body).into()]
}

pub(crate) fn connected(cursor: &str) -> String {
    format!(
        "retry: 10\nevent: connected\nid: {cursor}\ndata: {{\"connection_id\":\"c\",\"cursor\":\"{cursor}\",\"heartbeat_seconds\":30.0}}\n\n"
    )
}

pub(crate) fn event_json(id: &str) -> String {
    format!(
        r#"{{"id":"{id}","topic":"a/b","type":"t","time":"2026-01-01T00:00:00Z","data":{{"n":1.00}}}}"#
    )
}

pub(crate) fn event(cursor: &str, id: &str) -> String {
    format!("event: t\nid: {cursor}\ndata: {}\n\n", event_json(id))
}

/// A line per delivery, so that a test reads as a list: the words of `conformance/README.md`.
pub(crate) fn word(delivery: &Result<Delivery, Error>) -> String {
    let at = |cursor: &Option<String>| match cursor {
        Some(cursor) => format!(" {cursor}"),
        None => String::new(),
    };
    match delivery {
        Ok(Delivery::Connected { cursor, .. }) => format!("connected{}", at(cursor)),
        Ok(Delivery::Event { cursor, event }) => format!("event {}{}", event.id, at(cursor)),
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
        Err(Error::Closed { reason }) => format!("end {reason}"),
        Err(e) => format!(
            "end {}",
            e.status().map_or_else(|| e.to_string(), |s| s.to_string())
        ),
    }
}

pub(crate) async fn words(stream: &mut Stream, count: usize) -> Vec<String> {
    let mut words = Vec::new();
    for _ in 0..count {
        let next = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
        words.push(word(&next.expect("a delivery within 10 s")));
    }
    words
}
