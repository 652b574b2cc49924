//! HTTP/1.1 on a bare socket: just enough for thousands of readers and fast publishers to cost little here.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::target::Address;

/// An answer's head is not read past this.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// An answer that ends is not read past this: 10,000 ids of 128 bytes.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

fn broken(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// How an answer's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// This many bytes.
    Length(usize),
    /// Chunks.
    Chunked,
    /// To the end of the connection.
    Open,
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) framing: Framing,
}

/// Opens a connection.
pub(super) async fn connect(address: &Address) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address.socket).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// A request's head. `extra` are whole lines.
pub(super) fn request(address: &Address, method: &str, path: &str, extra: &str) -> String {
    format!(
        "{method} {}{path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n{extra}\r\n",
        address.prefix, address.host, address.token
    )
}

/// Reads an answer's head; what came behind it stays in `rest`.
pub(super) async fn read_head(socket: &mut TcpStream, rest: &mut Vec<u8>) -> io::Result<Head> {
    loop {
        if let Some(end) = rest.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = parse_head(&rest[..end])?;
            rest.drain(..end + 4);
            return Ok(head);
        }
        if rest.len() > MAX_HEAD_BYTES {
            return Err(broken("a head without end"));
        }
        if socket.read_buf(rest).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<Head> {
    let text = std::str::from_utf8(bytes).map_err(|_| broken("a head that is no text"))?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| broken("an answer that is not HTTP"))?;
    let mut framing = Framing::Open;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
            let length = value.trim().parse();
            framing = Framing::Length(length.map_err(|_| broken("a bad content-length"))?);
        }
    }
    Ok(Head { status, framing })
}

/// Takes a chunked body apart, split anywhere; other bodies pass as they are.
#[derive(Debug)]
pub(super) struct Body {
    is_chunked: bool,
    state: Chunk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In the line that says how long the chunk is.
    Size {
        value: usize,
        is_extension: bool,
    },
    Data {
        left: usize,
    },
    /// The line end behind a chunk's data.
    After,
    End,
}

impl Body {
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            is_chunked: framing == Framing::Chunked,
            state: Chunk::Size {
                value: 0,
                is_extension: false,
            },
        }
    }

    /// The last chunk has come.
    pub(super) fn is_ended(&self) -> bool {
        self.state == Chunk::End
    }

    /// Calls `found` with each piece of the body that these bytes hold.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut found: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        if !self.is_chunked {
            found(bytes);
            return Ok(());
        }
        while let Some((&first, after)) = bytes.split_first() {
            match &mut self.state {
                Chunk::Data { left } => {
                    let (piece, rest) = bytes.split_at((*left).min(bytes.len()));
                    found(piece);
                    *left -= piece.len();
                    bytes = rest;
                    if *left == 0 {
                        self.state = Chunk::After;
                    }
                    continue;
                }
                Chunk::Size {
                    value,
                    is_extension,
                } => match first {
                    b'\n' if *value == 0 => self.state = Chunk::End,
                    b'\n' => self.state = Chunk::Data { left: *value },
                    b'\r' => {}
                    b';' => *is_extension = true,
                    _ if *is_extension => {}
                    digit => {
                        let digit = char::from(digit).to_digit(16);
                        let digit = digit.and_then(|d| usize::try_from(d).ok());
                        let sum = digit.and_then(|d| value.checked_mul(16)?.checked_add(d));
                        *value = sum.ok_or_else(|| broken("a bad chunk size"))?;
                    }
                },
                Chunk::After if first == b'\n' => {
                    self.state = Chunk::Size {
                        value: 0,
                        is_extension: false,
                    };
                }
                Chunk::After | Chunk::End => {}
            }
            bytes = after;
        }
        Ok(())
    }
}

/// A connection that is kept: one request after the other.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    address: Address,
    rest: Vec<u8>,
    out: Vec<u8>,
}

/// An answer that ends.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The body, where the status is the one that is hoped for; else an error that says what came.
    pub(super) fn expect(self, what: &str, status: u16) -> io::Result<Vec<u8>> {
        if self.status == status {
            return Ok(self.body);
        }
        let text = String::from_utf8_lossy(&self.body);
        Err(broken(format!("{what}: {} {text}", self.status)))
    }
}

impl Connection {
    pub(super) async fn open(address: &Address) -> io::Result<Self> {
        Ok(Self {
            socket: connect(address).await?,
            address: address.clone(),
            rest: Vec::new(),
            out: Vec::new(),
        })
    }

    /// Publishes one body and returns the answer's.
    pub(super) async fn publish(&mut self, body: &str) -> io::Result<Vec<u8>> {
        let answer = self.post("/api/v1/events", body).await?;
        answer.expect("publish", 202)
    }

    /// POSTs JSON and waits for the answer.
    pub(super) async fn post(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        let length = body.len();
        let fields = format!("content-type: application/json\r\ncontent-length: {length}\r\n");
        let head = request(&self.address, "POST", path, &fields);
        self.out.clear();
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(body.as_bytes());
        self.socket.write_all(&self.out).await?;
        self.answer().await
    }

    /// GETs what is no stream.
    pub(super) async fn get(&mut self, path: &str) -> io::Result<Answer> {
        let head = request(&self.address, "GET", path, "");
        self.socket.write_all(head.as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> io::Result<Answer> {
        let head = read_head(&mut self.socket, &mut self.rest).await?;
        let body = self.read_body(head.framing).await?;
        Ok(Answer {
            status: head.status,
            body,
        })
    }

    async fn read_body(&mut self, framing: Framing) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if let Framing::Length(length) = framing {
            if length > MAX_BODY_BYTES {
                return Err(broken("an answer that is too long"));
            }
            while self.rest.len() < length {
                if self.socket.read_buf(&mut self.rest).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            body.extend(self.rest.drain(..length));
            return Ok(body);
        }
        let mut parts = Body::new(framing);
        loop {
            parts.feed(&self.rest, |piece| body.extend_from_slice(piece))?;
            self.rest.clear();
            if parts.is_ended() {
                return Ok(body);
            }
            let is_too_long = body.len() > MAX_BODY_BYTES;
            if is_too_long || self.socket.read_buf(&mut self.rest).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let head = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX: y").unwrap();
        assert_eq!(
            head,
            Head {
                status: 200,
                framing: Framing::Length(12)
            }
        );
        let head = parse_head(b"HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked").unwrap();
        assert_eq!(
            head,
            Head {
                status: 503,
                framing: Framing::Chunked
            }
        );
        assert_eq!(
            parse_head(b"HTTP/1.1 200 OK").unwrap().framing,
            Framing::Open
        );
        assert!(parse_head(b"SSH-2.0").is_err());
    }

    #[test]
    fn chunks_may_be_split_anywhere() {
        let bytes = b"4\r\nwiki\r\n1A;x=y\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n";
        for at in 0..bytes.len() {
            let (mut body, mut out) = (Body::new(Framing::Chunked), Vec::new());
            for piece in [&bytes[..at], &bytes[at..]] {
                body.feed(piece, |p| out.extend_from_slice(p)).unwrap();
            }
            assert_eq!(out, b"wikiabcdefghijklmnopqrstuvwxyz", "split at {at}");
            assert!(body.is_ended());
        }
        assert!(Body::new(Framing::Chunked).feed(b"zz\r\n", |_| {}).is_err());
    }
}
