//! Writer threads for SSE over plain HTTP/1.1: the socket has left hyper, and one of a few lanes walks all readers of a
//! feed when it has something new. No task, lock, timer, allocation or formatting per connection and event: readers who
//! stand at the same place share one stretch of bytes, and a write is one `send` of it.
//!
//! A connection that takes no more waits for its socket; what is not sent yet is a slice of shared bytes. One that has
//! fallen out of the ring, or has come back with a cursor, asks for pages of the log, which are read elsewhere.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;
use tidings_core::clock::{Clock, Timestamp};
use tidings_core::cursor::Seq;
use tidings_core::db::DbError;
use tidings_core::hub::{Feed, FeedKey, Hub, PageFrames, Reader, Step, View};
use tokio::runtime::Handle;

use super::Rules;
use super::connections::{Admitted, Connection, Order};
use super::frame::{self, Control, Reason};

/// The token of the waker; connections count from 1.
const WAKER: Token = Token(0);
/// Socket events taken in at once.
const EVENTS: usize = 1_024;
/// How often silence, idleness and stalls are looked for.
const TICK: Duration = Duration::from_millis(250);
/// How long a page that could not be read is left alone.
const PAGE_RETRY: Duration = Duration::from_millis(500);
/// Connections between two looks at what else is to be done.
const SLICE: usize = 512;

/// What the rest of the server hands to a lane.
enum Message {
    Open(Box<NewStream>),
    Ordered(Token),
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
    /// Its kind's rules.
    pub(crate) rules: Arc<Rules>,
    /// Its kind's silence.
    pub(crate) heartbeat: &'static [u8],
    /// Whether native control frames may be sent.
    pub(crate) has_controls: bool,
    /// Makes the feed key of another scope, in this stream's style.
    pub(crate) key: fn(&Reader, super::connections::Scope) -> FeedKey,
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
    /// Hands a stream over.
    pub(crate) fn open(&self, stream: NewStream) {
        self.send(Message::Open(Box::new(stream)));
    }

    fn send(&self, message: Message) {
        self.inbox.lock().push(message);
        self.wake();
    }

    fn wake(&self) {
        if !self.is_woken.swap(true, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "a writer thread cannot be woken");
        }
    }
}

struct Stream {
    socket: TcpStream,
    reader: Reader,
    admitted: Admitted,
    rules: Arc<Rules>,
    heartbeat: &'static [u8],
    has_controls: bool,
    key: fn(&Reader, super::connections::Scope) -> FeedKey,
    /// Bytes that the socket has not taken yet.
    pending: Bytes,
    /// When the socket last took something, and since when it takes nothing.
    written: Instant,
    stalled: Option<Instant>,
    /// By the server's clock: for silence and idleness.
    spoken: Timestamp,
    event: Timestamp,
    is_waiting_for_page: bool,
    /// Ends once what is pending has been sent.
    is_ending: bool,
}

/// What became of a stream after something was done with it.
#[derive(PartialEq, Eq)]
enum Fate {
    Lives,
    Ended,
}

/// One writer thread.
pub(crate) struct Lane {
    number: usize,
    hub: Hub,
    clock: Clock,
    runtime: Handle,
    handle: LaneHandle,
    poll: Poll,
    streams: Vec<Option<Stream>>,
    free: Vec<usize>,
    /// The streams of each feed, by the feed's address.
    members: HashMap<usize, Vec<Token>>,
    /// Who waits for a page, by the feed's address and the place.
    waiting: HashMap<(usize, Seq), Vec<Token>>,
    /// Pages that could not be read, to be asked for again.
    retries: Vec<(Instant, Token)>,
    deliveries: metrics::Counter,
    latency: metrics::Histogram,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

fn address(feed: &Arc<Feed>) -> usize {
    Arc::as_ptr(feed) as usize
}

impl Lane {
    /// Starts the thread of the hub's lane of this number. It lives as long as the process.
    pub(crate) fn start(
        number: usize,
        hub: Hub,
        clock: Clock,
        runtime: Handle,
    ) -> std::io::Result<LaneHandle> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let handle = LaneHandle {
            inbox: Arc::default(),
            is_woken: Arc::default(),
            waker,
        };
        if let Some(lane) = hub.lanes().get(number) {
            let handle = handle.clone();
            lane.on_wake(move || handle.wake());
        }
        let lane = Self {
            number,
            hub,
            clock,
            runtime,
            handle: handle.clone(),
            poll,
            streams: vec![None],
            free: Vec::new(),
            members: HashMap::new(),
            waiting: HashMap::new(),
            retries: Vec::new(),
            deliveries: metrics::counter!("tidings_deliveries_total", "transport" => "sse"),
            latency: metrics::histogram!("tidings_delivery_seconds"),
        };
        std::thread::Builder::new()
            .name(format!("lane-{number}"))
            .spawn(move || lane.run())?;
        Ok(handle)
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut next_tick = Instant::now() + TICK;
        loop {
            let timeout = next_tick.saturating_duration_since(Instant::now());
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%error, "a writer thread cannot wait for its sockets");
                std::thread::sleep(TICK);
            }
            self.handle.is_woken.store(false, Ordering::SeqCst);
            for event in &events {
                if event.token() != WAKER {
                    self.ready(event.token(), event.is_readable(), event.is_writable());
                }
            }
            self.take_messages();
            self.walk_feeds();
            let now = Instant::now();
            if now >= next_tick {
                next_tick = now + TICK;
                self.tick(now);
            }
        }
    }

    fn take_messages(&mut self) {
        let messages = std::mem::take(&mut *self.handle.inbox.lock());
        for message in messages {
            match message {
                Message::Open(stream) => self.open(*stream),
                Message::Ordered(token) => self.obey(token),
                Message::Page { feed, after, page } => self.turn_page(&feed, after, &page),
            }
        }
    }

    /// Writes what is new to all readers of the feeds that have something.
    fn walk_feeds(&mut self) {
        let Some(lane) = self.hub.lanes().get(self.number) else {
            return;
        };
        for feed in lane.take() {
            feed.clear_dirty(self.number);
            let Some(members) = self.members.get(&address(&feed)) else {
                continue;
            };
            // Those who join or leave meanwhile are not in the copy; they look for themselves.
            let members = members.clone();
            let (mut view, mut walked) = (None::<View>, 0);
            let mut written: Option<(Instant, u64)> = None;
            for token in members {
                let before = view.as_ref().map(|v| v.to);
                self.pump(token, &mut view);
                if let Some(v) = &view {
                    let count = written.map_or(0, |(_, count)| count);
                    written = Some((v.committed, count + v.to - v.from));
                    let _ = before;
                }
                walked += 1;
                if walked % SLICE == 0 && !self.handle.inbox.lock().is_empty() {
                    self.take_messages();
                }
            }
            if let Some((committed, count)) = written {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                self.latency
                    .record_many(committed.elapsed().as_secs_f64(), count);
            }
        }
    }

    fn open(&mut self, new: NewStream) {
        let at = self.free.pop().unwrap_or_else(|| {
            self.streams.push(None);
            self.streams.len() - 1
        });
        let token = Token(at);
        let mut socket = TcpStream::from_std(new.socket);
        if let Err(error) = self.poll.registry().register(
            &mut socket,
            token,
            Interest::READABLE | Interest::WRITABLE,
        ) {
            tracing::warn!(%error, "a stream could not be taken over");
            self.free.push(at);
            return;
        }
        let (handle, connection) = (self.handle.clone(), new.admitted.connection.clone());
        connection.on_wake(Box::new(move || handle.send(Message::Ordered(token))));
        let (now, clock) = (Instant::now(), self.clock.now());
        self.members
            .entry(address(new.reader.feed()))
            .or_default()
            .push(token);
        self.streams[at] = Some(Stream {
            socket,
            reader: new.reader,
            admitted: new.admitted,
            rules: new.rules,
            heartbeat: new.heartbeat,
            has_controls: new.has_controls,
            key: new.key,
            pending: Bytes::new(),
            written: now,
            stalled: None,
            spoken: clock,
            event: clock,
            is_waiting_for_page: false,
            is_ending: false,
        });
        self.with(token, |stream| stream.send(new.opening));
        // Orders that came before there was a way to wake us.
        self.obey(token);
        self.pump(token, &mut None);
    }

    /// Does something with a stream, and clears up after it if that was its end.
    fn with(&mut self, token: Token, act: impl FnOnce(&mut Stream) -> Fate) {
        let Some(stream) = self.streams.get_mut(token.0).and_then(Option::as_mut) else {
            return;
        };
        if act(stream) == Fate::Ended {
            self.end(token);
        }
    }

    fn end(&mut self, token: Token) {
        let Some(mut stream) = self.streams.get_mut(token.0).and_then(Option::take) else {
            return;
        };
        let _ = self.poll.registry().deregister(&mut stream.socket);
        let _ = stream.socket.shutdown(Shutdown::Write);
        self.leave(token, address(stream.reader.feed()));
        self.free.push(token.0);
    }

    fn leave(&mut self, token: Token, feed: usize) {
        if let Some(members) = self.members.get_mut(&feed) {
            if let Some(at) = members.iter().position(|t| *t == token) {
                members.swap_remove(at);
            }
            if members.is_empty() {
                self.members.remove(&feed);
            }
        }
    }

    fn ready(&mut self, token: Token, is_readable: bool, is_writable: bool) {
        if is_readable {
            self.with(token, Stream::drain_input);
        }
        if is_writable {
            self.pump(token, &mut None);
        }
    }

    /// Writes all that a stream can have and take.
    fn pump(&mut self, token: Token, view: &mut Option<View>) {
        loop {
            let Some(stream) = self.streams.get_mut(token.0).and_then(Option::as_mut) else {
                return;
            };
            let step = match stream.flush() {
                Err(Fate::Ended) => return self.end(token),
                Err(Fate::Lives) => return,
                Ok(()) if stream.is_ending => return self.end(token),
                Ok(()) => stream.reader.step(view),
            };
            let fate = match step {
                Step::CaughtUp => return stream.note(),
                Step::Behind => return self.ask_page(token),
                Step::Frames(frames) => {
                    self.deliveries.increment(frames.count);
                    stream.event = self.clock.now();
                    stream.spoken = stream.event;
                    stream.send(frames.bytes)
                }
                Step::Dropped(count) => {
                    metrics::counter!("tidings_dropped_total").increment(count);
                    stream.control(&Control::Dropped { count })
                }
            };
            if fate == Fate::Ended {
                return self.end(token);
            }
        }
    }

    fn ask_page(&mut self, token: Token) {
        let Some(stream) = self.streams.get_mut(token.0).and_then(Option::as_mut) else {
            return;
        };
        stream.note();
        if stream.is_waiting_for_page {
            return;
        }
        stream.is_waiting_for_page = true;
        let (feed, log, after) = (
            stream.reader.feed().clone(),
            stream.reader.log().clone(),
            stream.reader.seq(),
        );
        let waiting = self.waiting.entry((address(&feed), after)).or_default();
        waiting.push(token);
        if waiting.len() > 1 {
            return;
        }
        let (hub, handle) = (self.hub.clone(), self.handle.clone());
        self.runtime.spawn(async move {
            let page = hub.page(&log, &feed, after).await;
            handle.send(Message::Page { feed, after, page });
        });
    }

    fn turn_page(&mut self, feed: &Arc<Feed>, after: Seq, page: &Result<Arc<PageFrames>, DbError>) {
        let waiting = self
            .waiting
            .remove(&(address(feed), after))
            .unwrap_or_default();
        if let Err(error) = page {
            tracing::warn!(%error, "a page of the log could not be read; trying again");
        }
        let (clock, again) = (self.clock.now(), Instant::now() + PAGE_RETRY);
        for token in waiting {
            let Some(stream) = self.streams.get_mut(token.0).and_then(Option::as_mut) else {
                continue;
            };
            stream.is_waiting_for_page = false;
            let Ok(page) = page else {
                self.retries.push((again, token));
                continue;
            };
            // It may have changed its feed, or its token may be another stream's by now: then the page is not its own.
            if !Arc::ptr_eq(stream.reader.feed(), feed) || !stream.reader.take_page(page) {
                self.pump(token, &mut None);
                continue;
            }
            let mut fate = Fate::Lives;
            if let Some(oldest) = page.end.gap {
                let oldest = stream.reader.log().at(oldest).to_string();
                fate = stream.control(&Control::Gap { oldest });
            }
            if page.count > 0 && fate == Fate::Lives {
                self.deliveries.increment(page.count);
                (stream.event, stream.spoken) = (clock, clock);
                fate = stream.send(page.bytes.clone());
            }
            if fate == Fate::Ended {
                self.end(token);
            } else {
                self.pump(token, &mut None);
            }
        }
    }

    fn obey(&mut self, token: Token) {
        let Some(stream) = self.streams.get_mut(token.0).and_then(Option::as_mut) else {
            return;
        };
        for order in stream.admitted.connection.take_orders() {
            let Some(stream) = self.streams.get_mut(token.0).and_then(Option::as_mut) else {
                return;
            };
            match order {
                Order::Close(reason) => {
                    if stream.close(reason) == Fate::Ended {
                        self.end(token);
                    }
                }
                Order::Narrow { scope, lost } => {
                    let was = address(stream.reader.feed());
                    let key = (stream.key)(&stream.reader, scope);
                    stream.reader.change(key);
                    let is = address(stream.reader.feed());
                    let topics: Vec<_> = lost.iter().map(ToString::to_string).collect();
                    let fate = if topics.is_empty() {
                        Fate::Lives
                    } else {
                        stream.control(&Control::Unsubscribed {
                            topics,
                            reason: Reason::Forbidden,
                        })
                    };
                    if is != was {
                        self.leave(token, was);
                        self.members.entry(is).or_default().push(token);
                    }
                    if fate == Fate::Ended {
                        self.end(token);
                    } else {
                        self.pump(token, &mut None);
                    }
                }
            }
        }
    }

    /// Looks for silence, idleness and stalls.
    fn tick(&mut self, now: Instant) {
        let clock = self.clock.now();
        let due: Vec<Token> = {
            let (due, later) = std::mem::take(&mut self.retries)
                .into_iter()
                .partition(|(at, _)| *at <= now);
            self.retries = later;
            let due: Vec<(Instant, Token)> = due;
            due.into_iter().map(|(_, token)| token).collect()
        };
        for token in due {
            self.pump(token, &mut None);
        }
        for at in 1..self.streams.len() {
            let Some(stream) = self.streams.get_mut(at).and_then(Option::as_mut) else {
                continue;
            };
            if stream.tick(now, clock) == Fate::Ended {
                self.end(Token(at));
            }
        }
    }
}

impl Stream {
    /// Sends what is pending. `Err(Lives)` where the socket takes no more.
    fn flush(&mut self) -> Result<(), Fate> {
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
    fn send(&mut self, bytes: Bytes) -> Fate {
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

    fn control(&mut self, control: &Control) -> Fate {
        if self.has_controls {
            self.send(control.to_sse(None))
        } else {
            Fate::Lives
        }
    }

    fn close(&mut self, reason: Reason) -> Fate {
        if self.is_ending {
            return Fate::Lives;
        }
        let retry = frame::millis(self.rules.retry(reason));
        self.is_ending = true;
        self.log(reason);
        let closing = Control::Closing {
            reason,
            retry_ms: retry,
        };
        if self.control(&closing) == Fate::Ended || self.pending.is_empty() {
            Fate::Ended
        } else {
            Fate::Lives
        }
    }

    fn log(&self, reason: Reason) {
        let connection: &Connection = &self.admitted.connection;
        tracing::info!(connection_id = %connection.id, reason = reason.as_str(), "stream closed by the server");
    }

    /// Notes the place for the list of connections.
    fn note(&self) {
        self.admitted.connection.set_seq(self.reader.seq());
    }

    /// A client of an open stream has nothing to say; but its end shows here.
    fn drain_input(&mut self) -> Fate {
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

    fn tick(&mut self, now: Instant, clock: Timestamp) -> Fate {
        let rules = self.rules.clone();
        let section = &rules.section;
        if let Some(since) = self.stalled {
            let is_slow = !section.write_timeout.is_zero()
                && now.saturating_duration_since(since) > section.write_timeout;
            if is_slow {
                self.log(Reason::Slow);
            }
            return if is_slow { Fate::Ended } else { Fate::Lives };
        }
        if !self.pending.is_empty() || self.is_ending {
            return Fate::Lives;
        }
        if !section.idle.is_zero() && clock.since(self.event) >= section.idle {
            return self.close(Reason::Idle);
        }
        if !section.heartbeat.is_zero() && clock.since(self.spoken) >= section.heartbeat {
            self.spoken = clock;
            let moved = self.reader.checkpoint().filter(|_| self.has_controls);
            self.note();
            return match moved {
                Some(cursor) => self.control(&Control::Checkpoint {
                    cursor: cursor.to_string(),
                }),
                None => self.send(Bytes::from_static(self.heartbeat)),
            };
        }
        Fate::Lives
    }
}
