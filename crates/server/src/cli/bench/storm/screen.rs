//! Who watches: one open `GET /api/v1/stream/alarms`, whose frames are counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use tidings_client::sse::{Item, Parser};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::super::target::Address;
use super::super::wire::{self, Body, Framing};

/// An open stream.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) seen: Arc<Seen>,
    reading: AbortOnDropHandle<io::Result<()>>,
}

/// What has come.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) frames: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// The `total` of the last frame.
    pub(super) total: AtomicU64,
}

impl Screen {
    pub(super) async fn open(address: &Address) -> io::Result<Self> {
        let mut socket = wire::connect(address).await?;
        let request = wire::request(
            address,
            "GET",
            "/api/v1/stream/alarms",
            "accept: text/event-stream\r\n",
        );
        socket.write_all(request.as_bytes()).await?;
        let mut rest = Vec::new();
        let head = wire::read_head(&mut socket, &mut rest).await?;
        if head.status != 200 {
            let text = format!(
                "the stream of alarms was refused with status {}",
                head.status
            );
            return Err(io::Error::other(text));
        }
        let seen = Arc::<Seen>::default();
        let reading = tokio::spawn(read(socket, head.framing, rest, seen.clone()));
        Ok(Self {
            seen,
            reading: AbortOnDropHandle::new(reading),
        })
    }

    /// Closes it. Whether it had ended before.
    pub(super) fn close(self) -> bool {
        self.reading.is_finished()
    }
}

async fn read(
    mut socket: TcpStream,
    framing: Framing,
    mut bytes: Vec<u8>,
    seen: Arc<Seen>,
) -> io::Result<()> {
    let (mut body, mut parser) = (Body::new(framing), Parser::new());
    loop {
        let mut fed = Ok(());
        body.feed(&bytes, |piece| {
            let taken = parser.feed(piece, &mut |item| {
                if let Item::Frame(frame) = item {
                    seen.take(frame.data);
                }
            });
            if taken.is_err() {
                fed = taken;
            }
        })?;
        fed.map_err(io::Error::other)?;
        bytes.clear();
        if body.is_ended() || socket.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

impl Seen {
    fn take(&self, data: &[u8]) {
        #[derive(Deserialize)]
        struct Picture {
            total: u64,
        }
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        if let Ok(picture) = serde_json::from_slice::<Picture>(data) {
            self.total.store(picture.total, Ordering::Relaxed);
        }
    }
}
