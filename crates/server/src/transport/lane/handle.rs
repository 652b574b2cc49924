//! The way to a lane: what the rest of the server hands to it, and how it is woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use mio::{Token, Waker};
use parking_lot::Mutex;
use tidings_core::cursor::Seq;
use tidings_core::db::DbError;
use tidings_core::hub::{Feed, PageFrames, Reader};

use crate::transport::Kind;
use crate::transport::connections::Admitted;

/// What the rest of the server hands to a lane.
pub(super) enum Message {
    /// A stream to write to from now on.
    Open(Box<NewStream>),
    /// There are orders for a stream.
    Ordered(Token),
    /// A page of the log that somebody has asked for.
    Page {
        feed: Arc<Feed>,
        after: Seq,
        page: Result<Arc<PageFrames>, DbError>,
    },
}

/// A stream whose socket has left hyper.
#[derive(Debug)]
pub(crate) struct NewStream {
    /// The socket.
    pub(crate) socket: std::net::TcpStream,
    /// The response head and the first frames.
    pub(crate) opening: Bytes,
    /// Where it reads.
    pub(crate) reader: Reader,
    /// Its place among the connections.
    pub(crate) admitted: Admitted,
    /// Its kind.
    pub(crate) kind: Kind,
}

/// The way to a lane.
#[derive(Clone)]
pub(crate) struct LaneHandle {
    inbox: Arc<Mutex<Vec<Message>>>,
    is_woken: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl std::fmt::Debug for LaneHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LaneHandle")
    }
}

impl LaneHandle {
    pub(super) fn new(waker: Waker) -> Self {
        Self {
            inbox: Arc::default(),
            is_woken: Arc::default(),
            waker: Arc::new(waker),
        }
    }

    /// Hands a stream over.
    pub(crate) fn open(&self, stream: NewStream) {
        self.send(Message::Open(Box::new(stream)));
    }

    pub(super) fn send(&self, message: Message) {
        self.inbox.lock().push(message);
        self.wake();
    }

    pub(super) fn wake(&self) {
        if !self.is_woken.swap(true, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "a writer thread cannot be woken");
        }
    }

    /// The lane is awake, and looks for all that it may have been woken for.
    pub(super) fn woke(&self) {
        self.is_woken.store(false, Ordering::SeqCst);
    }

    pub(super) fn has_messages(&self) -> bool {
        !self.inbox.lock().is_empty()
    }

    pub(super) fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *self.inbox.lock())
    }
}
