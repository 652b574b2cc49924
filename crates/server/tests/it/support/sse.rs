//! SSE streams, as the standard reads them, and stricter: every frame must be whole.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;

use serde_json::Value;

use super::Answer;

/// One SSE event, as the standard reads it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Frame {
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: String,
    pub(crate) retry: Option<u64>,
}

impl Frame {
    /// Reads a frame's lines.
    pub(crate) fn of(lines: &str) -> Self {
        let mut frame = Self::default();
        for line in lines.split('\n').filter(|line| !line.is_empty()) {
            assert!(!line.contains('\r'));
            let (name, value) = line.split_once(':').unwrap();
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                "" => {
                    frame.event = ":".into();
                    frame.data = value;
                }
                "event" => frame.event = value,
                "id" => frame.id = value,
                "data" => frame.data = value,
                "retry" => frame.retry = value.parse().ok(),
                other => panic!("field {other}"),
            }
        }
        frame
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// An open SSE stream.
pub(crate) struct Sse {
    pub(crate) head: Answer,
    from: Box<dyn BufRead + Send>,
}

/// A body in chunks (RFC 9112, section 7.1), as a plain one.
struct Chunked {
    from: BufReader<TcpStream>,
    left: usize,
}

impl Read for Chunked {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let mut line = String::new();
            while line.trim().is_empty() {
                line.clear();
                if self.from.read_line(&mut line)? == 0 {
                    return Ok(0);
                }
            }
            self.left = usize::from_str_radix(line.trim(), 16).unwrap();
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = into.len().min(self.left);
        let read = self.from.read(&mut into[..most])?;
        self.left -= read;
        Ok(read)
    }
}

impl Sse {
    pub(crate) fn new(socket: TcpStream) -> Self {
        let mut from = BufReader::new(socket);
        let head = Answer::head(&mut from);
        let from: Box<dyn BufRead + Send> = if head.header("transfer-encoding") == "chunked" {
            Box::new(BufReader::new(Chunked { from, left: 0 }))
        } else {
            Box::new(from)
        };
        Self { head, from }
    }

    /// The next frame or comment; none at the end. A comment is a frame whose event is `:`.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut lines = String::new();
        loop {
            let before = lines.len();
            if self.from.read_line(&mut lines).unwrap() == 0 {
                return None;
            }
            assert!(
                lines.ends_with('\n'),
                "a stream ends only between lines: {lines:?}"
            );
            if lines.len() == before + 1 {
                return Some(Frame::of(&lines));
            }
        }
    }

    /// The next frame of this name; others are passed over.
    #[track_caller]
    pub(crate) fn until(&mut self, event: &str) -> Frame {
        loop {
            let frame = self
                .next()
                .unwrap_or_else(|| panic!("the stream ended before {event}"));
            if frame.event == event {
                return frame;
            }
        }
    }

    /// The data of the next so many events of type `t`.
    #[track_caller]
    pub(crate) fn data(&mut self, count: usize) -> Vec<Value> {
        (0..count)
            .map(|_| self.until("t").json()["data"].clone())
            .collect()
    }

    /// That nothing more comes but the end.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        assert_eq!(self.next(), None);
    }
}
