//! Writer threads for SSE over plain HTTP/1.1: the socket has left hyper, and one of a few lanes walks all readers of a
//! feed when it has something new. No task, lock, timer, allocation or formatting per connection and event: readers who
//! stand at the same place share one stretch of bytes, and a write is one `send` of it.
//!
//! A connection that takes no more waits for its socket; what is not sent yet is a slice of shared bytes. One that has
//! fallen out of the ring, or has come back with a cursor, asks for pages of the log, which are read elsewhere.
//!
//! - `handle`: the way to a lane
//! - `stream`: one of its connections
//! - here: the thread

mod handle;
mod stream;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use tidings_core::clock::Clock;
use tidings_core::cursor::Seq;
use tidings_core::db::DbError;
use tidings_core::hub::{Feed, Hub, PageFrames, Step, View};
use tokio::runtime::Handle;

use super::connections::{Order, Scope};
use super::frame::Control;
use super::same_but;
use crate::telemetry::metrics::dropped;
use handle::Message;
pub(crate) use handle::{LaneHandle, NewStream};
use stream::{Fate, Stream};

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
        let handle = LaneHandle::new(Waker::new(poll.registry(), WAKER)?);
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
            self.handle.woke();
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
        for message in self.handle.take() {
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
                self.pump(token, &mut view);
                if let Some(v) = &view {
                    let count = written.map_or(0, |(_, count)| count);
                    written = Some((v.committed, count + v.count));
                }
                walked += 1;
                if walked % SLICE == 0 && self.handle.has_messages() {
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

    fn stream(&mut self, token: Token) -> Option<&mut Stream> {
        self.streams.get_mut(token.0)?.as_mut()
    }

    fn open(&mut self, new: NewStream) {
        let at = self.free.pop().unwrap_or_else(|| {
            self.streams.push(None);
            self.streams.len() - 1
        });
        let token = Token(at);
        let taken = Stream::new(new, self.poll.registry(), token, self.clock.now());
        let (stream, opening) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(%error, "a stream could not be taken over");
                self.free.push(at);
                return;
            }
        };
        let (handle, connection) = (self.handle.clone(), &stream.admitted.connection);
        connection.on_wake(Box::new(move || handle.send(Message::Ordered(token))));
        self.members
            .entry(address(stream.reader.feed()))
            .or_default()
            .push(token);
        self.streams[at] = Some(stream);
        self.with(token, |stream| stream.send(opening));
        // Orders that came before there was a way to wake us.
        self.obey(token);
        self.pump(token, &mut None);
    }

    /// Does something with a stream, and clears up after it if that was its end.
    fn with(&mut self, token: Token, act: impl FnOnce(&mut Stream) -> Fate) {
        if self.stream(token).is_some_and(|s| act(s) == Fate::Ended) {
            self.end(token);
        }
    }

    fn end(&mut self, token: Token) {
        let Some(mut stream) = self.streams.get_mut(token.0).and_then(Option::take) else {
            return;
        };
        stream.release(self.poll.registry());
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
                    stream.send_events(frames.bytes, self.clock.now())
                }
                Step::Dropped(count) => {
                    dropped(count);
                    stream.control(&Control::Dropped { count })
                }
            };
            if fate == Fate::Ended {
                return self.end(token);
            }
        }
    }

    fn ask_page(&mut self, token: Token) {
        let Some(stream) = self.stream(token) else {
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
                let oldest = stream.reader.log().at(oldest);
                fate = stream.control(&Control::gap(&oldest));
            }
            if page.count > 0 && fate == Fate::Lives {
                self.deliveries.increment(page.count);
                fate = stream.send_events(page.bytes.clone(), clock);
            }
            self.go_on(token, fate);
        }
    }

    /// Writes more to a stream that lives, and clears up after one that has ended.
    fn go_on(&mut self, token: Token, fate: Fate) {
        if fate == Fate::Ended {
            self.end(token);
        } else {
            self.pump(token, &mut None);
        }
    }

    fn obey(&mut self, token: Token) {
        let Some(stream) = self.stream(token) else {
            return;
        };
        for order in stream.admitted.connection.take_orders() {
            match order {
                Order::Close(reason) => self.with(token, |stream| stream.close(reason)),
                Order::Narrow { scope, lost } => {
                    let unsubscribed = Control::unsubscribed(&lost);
                    self.narrow(token, scope, unsubscribed.as_ref());
                }
            }
        }
    }

    fn narrow(&mut self, token: Token, scope: Scope, unsubscribed: Option<&Control>) {
        let Some(stream) = self.stream(token) else {
            return;
        };
        let was = address(stream.reader.feed());
        let key = same_but(&stream.reader, scope);
        stream.reader.change(key);
        let is = address(stream.reader.feed());
        let fate = unsubscribed.map_or(Fate::Lives, |control| stream.control(control));
        if is != was {
            self.leave(token, was);
            self.members.entry(is).or_default().push(token);
        }
        self.go_on(token, fate);
    }

    /// Looks for silence, idleness and stalls.
    fn tick(&mut self, now: Instant) {
        let clock = self.clock.now();
        let (due, later): (Vec<_>, _) = std::mem::take(&mut self.retries)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.retries = later;
        for (_, token) in due {
            self.pump(token, &mut None);
        }
        for at in 1..self.streams.len() {
            self.with(Token(at), |stream| stream.tick(now, clock));
        }
    }
}
