//! One connection of a lane: its socket, its place in a feed, and what the socket has not taken yet.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Instant;

use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use tidings_core::clock::Timestamp;
use tidings_core::hub::Reader;

use super::NewStream;
use crate::transport::Kind;
use crate::transport::connections::Admitted;
use crate::transport::frame::{Control, Reason};

pub(super) struct Stream {
    socket: TcpStream,
    pub(super) reader: Reader,
    pub(super) admitted: Admitted,
    kind: Kind,
    /// Bytes that the socket has not taken yet.
    pending: Bytes,
    /// When the socket last took something, and since when it takes nothing.
    written: Instant,
    stalled: Option<Instant>,
    /// By the server's clock: for silence and idleness.
    spoken: Timestamp,
    event: Timestamp,
    pub(super) is_waiting_for_page: bool,
    /// Ends once what is pending has been sent.
    pub(super) is_ending: bool,
}

/// What became of a stream after something was done with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Lives,
    Ended,
}

impl Stream {
    /// Takes a socket over. Beside the stream: what to send first.
    pub(super) fn new(
        new: NewStream,
        registry: &Registry,
        token: Token,
        clock: Timestamp,
    ) -> std::io::Result<(Self, Bytes)> {
        let mut socket = TcpStream::from_std(new.socket);
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        let stream = Self {
            socket,
            reader: new.reader,
            admitted: new.admitted,
            kind: new.kind,
            pending: Bytes::new(),
            written: Instant::now(),
            stalled: None,
            spoken: clock,
            event: clock,
            is_waiting_for_page: false,
            is_ending: false,
        };
        Ok((stream, new.opening))
    }

    /// Gives the socket back to the system.
    pub(super) fn release(&mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.socket);
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Sends what is pending. `Err(Lives)` where the socket takes no more.
    pub(super) fn flush(&mut self) -> Result<(), Fate> {
        while !self.pending.is_empty() {
            match self.socket.write(&self.pending) {
                Ok(0) => return Err(Fate::Ended),
                Ok(sent) => {
                    self.pending = self.pending.split_off(sent);
                    self.written = Instant::now();
                    self.stalled = None;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.stalled.get_or_insert(self.written);
                    return Err(Fate::Lives);
                }
                Err(_) => return Err(Fate::Ended),
            }
        }
        Ok(())
    }

    /// Sends bytes, or keeps what the socket does not take.
    pub(super) fn send(&mut self, bytes: Bytes) -> Fate {
        if self.pending.is_empty() {
            self.pending = bytes;
        } else {
            // Only control frames come while something is pending: they are small.
            self.pending = [&self.pending[..], &bytes[..]].concat().into();
        }
        match self.flush() {
            Err(Fate::Ended) => Fate::Ended,
            _ => Fate::Lives,
        }
    }

    /// Sends events: the stream is neither silent nor idle.
    pub(super) fn send_events(&mut self, bytes: Bytes, now: Timestamp) -> Fate {
        (self.event, self.spoken) = (now, now);
        self.send(bytes)
    }

    pub(super) fn control(&mut self, control: &Control) -> Fate {
        if self.kind.has_controls {
            self.send(control.to_sse(None))
        } else {
            Fate::Lives
        }
    }

    pub(super) fn close(&mut self, reason: Reason) -> Fate {
        if self.is_ending {
            return Fate::Lives;
        }
        self.is_ending = true;
        self.admitted.connection.log_end(reason);
        let closing = Control::closing(reason, self.kind.rules.retry(reason));
        if self.control(&closing) == Fate::Ended || self.pending.is_empty() {
            Fate::Ended
        } else {
            Fate::Lives
        }
    }

    /// Notes the place for the list of connections.
    pub(super) fn note(&self) {
        self.admitted.connection.set_seq(self.reader.seq());
    }

    /// A client of an open stream has nothing to say; but its end shows here.
    pub(super) fn drain_input(&mut self) -> Fate {
        let mut ignored = [0u8; 4_096];
        loop {
            match self.socket.read(&mut ignored) {
                Ok(0) => return Fate::Ended,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Fate::Lives,
                Err(_) => return Fate::Ended,
            }
        }
    }

    /// Looks for silence, idleness and a stall.
    pub(super) fn tick(&mut self, now: Instant, clock: Timestamp) -> Fate {
        let section = self.kind.rules.section;
        if let Some(since) = self.stalled {
            let is_slow = !section.write_timeout.is_zero()
                && now.saturating_duration_since(since) > section.write_timeout;
            if !is_slow {
                return Fate::Lives;
            }
            self.admitted.connection.log_end(Reason::Slow);
            return Fate::Ended;
        }
        if !self.pending.is_empty() || self.is_ending {
            return Fate::Lives;
        }
        if !section.idle.is_zero() && clock.since(self.event) >= section.idle {
            return self.close(Reason::Idle);
        }
        if !section.heartbeat.is_zero() && clock.since(self.spoken) >= section.heartbeat {
            self.spoken = clock;
            let moved = self.reader.checkpoint().filter(|_| self.kind.has_controls);
            self.note();
            return match moved {
                Some(cursor) => self.control(&Control::checkpoint(&cursor)),
                None => self.send(Bytes::from_static(self.kind.heartbeat)),
            };
        }
        Fate::Lives
    }
}
