//! The reading end: many SSE streams, each a socket, a small parser and an account.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tidings_client::sse::{Item, Parser};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::mark::{Account, Run};
use super::target::Address;
use super::wire::{self, Body, Framing};

/// Connections that are being opened at a time.
const OPENING: usize = 64;
/// How long a stream may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that are read at a time, into one buffer per thread.
const READ_BYTES: usize = 64 * 1024;
/// Histograms that readers share, so that they rarely wait for each other.
const SHARDS: usize = 16;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// The longest time that is told apart, in microseconds: ten minutes.
const LONGEST_US: u64 = 600_000_000;

/// An empty histogram of microseconds, with three digits. What is much longer than [`LONGEST_US`] is cut.
pub(super) fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).map_err(io::Error::other)
}

/// What all readers count together.
#[derive(Debug)]
pub(super) struct Tally {
    run: Run,
    /// Events that came for the first time.
    pub(super) received: AtomicU64,
    /// Reads that brought at least one event.
    pub(super) reads: AtomicU64,
    latencies: Vec<Mutex<Histogram<u64>>>,
    /// From the connect to the last event of the backlog, for readers that ask for one.
    pub(super) catch_ups: Mutex<Histogram<u64>>,
}

impl Tally {
    /// All latencies together, in microseconds.
    pub(super) fn latencies(&self) -> io::Result<Histogram<u64>> {
        let mut all = histogram()?;
        for shard in &self.latencies {
            all.add(&*shard.lock()).map_err(io::Error::other)?;
        }
        Ok(all)
    }
}

/// Open streams.
#[derive(Debug)]
pub(super) struct Readers {
    pub(super) tally: Arc<Tally>,
    tasks: JoinSet<Ended>,
    stop: CancellationToken,
}

/// What a reader leaves behind.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its number, from 0.
    pub(super) number: u32,
    pub(super) account: Account,
    /// The stream ended before it was told to.
    pub(super) is_cut: bool,
}

/// What one reader asks for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) topic: String,
    /// Begin after this cursor, behind which this many events lie.
    pub(super) since: Option<(String, u64)>,
}

impl Readers {
    pub(super) fn new(run: Run) -> io::Result<Self> {
        let shard = |_| histogram().map(Mutex::new);
        Ok(Self {
            tally: Arc::new(Tally {
                run,
                received: AtomicU64::new(0),
                reads: AtomicU64::new(0),
                latencies: (0..SHARDS).map(shard).collect::<io::Result<_>>()?,
                catch_ups: Mutex::new(histogram()?),
            }),
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Opens `count` streams and returns when each has had its `connected`. `opened` is told of each.
    pub(super) async fn open(
        &mut self,
        address: &Address,
        count: u32,
        ask: impl Fn(u32) -> Ask,
        mut opened: impl FnMut(),
    ) -> io::Result<()> {
        let permits = Arc::new(Semaphore::new(OPENING));
        let mut opening: JoinSet<io::Result<(u32, Reader)>> = JoinSet::new();
        for number in 0..count {
            let (permits, address, ask) = (permits.clone(), address.clone(), ask(number));
            let tally = self.tally.clone();
            opening.spawn(async move {
                let _permit = permits.acquire_owned().await;
                let open = Reader::open(&address, &ask, tally, number);
                let reader = tokio::time::timeout(OPEN_TIMEOUT, open).await;
                Ok((
                    number,
                    reader.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??,
                ))
            });
        }
        while let Some(joined) = opening.join_next().await {
            let (number, reader) = joined.map_err(io::Error::other)??;
            let stop = self.stop.clone();
            self.tasks.spawn(async move {
                let (is_cut, account) = reader.run(stop).await;
                Ended {
                    number,
                    account,
                    is_cut,
                }
            });
            opened();
        }
        Ok(())
    }

    /// Waits until `expected` events have come, or until none has for `patience`. `seen` is told the count now and then.
    /// Returns the moment of the last one, as exactly as it looks (2 ms).
    pub(super) async fn wait(
        &self,
        expected: u64,
        patience: Duration,
        mut seen: impl FnMut(u64),
    ) -> Instant {
        let (mut last, mut moved) = (self.tally.received.load(Ordering::Relaxed), Instant::now());
        loop {
            let now = self.tally.received.load(Ordering::Relaxed);
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            seen(now);
            if now >= expected || moved.elapsed() > patience {
                return moved;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Closes all streams and collects the accounts.
    pub(super) async fn close(mut self) -> Vec<Ended> {
        self.stop.cancel();
        let mut ended = Vec::new();
        while let Some(joined) = self.tasks.join_next().await {
            ended.extend(joined.ok());
        }
        ended
    }
}

struct Reader {
    socket: TcpStream,
    body: Body,
    parser: Parser,
    account: Account,
    tally: Arc<Tally>,
    number: u32,
    is_connected: bool,
    begun: Instant,
    backlog: Option<u64>,
}

impl Reader {
    async fn open(
        address: &Address,
        ask: &Ask,
        tally: Arc<Tally>,
        number: u32,
    ) -> io::Result<Self> {
        let begun = Instant::now();
        let mut socket = wire::connect(address).await?;
        let since = ask
            .since
            .as_ref()
            .map(|(cursor, _)| format!("last-event-id: {cursor}\r\n"));
        let extra = format!("accept: text/event-stream\r\n{}", since.unwrap_or_default());
        let path = format!("/api/v1/stream?topic={}", ask.topic);
        let request = wire::request(address, "GET", &path, &extra);
        socket.write_all(request.as_bytes()).await?;
        let mut rest = Vec::with_capacity(1024);
        let head = wire::read_head(&mut socket, &mut rest).await?;
        if head.status != 200 || matches!(head.framing, Framing::Length(_)) {
            let text = format!("a stream was refused with status {}", head.status);
            return Err(io::Error::other(text));
        }
        let mut reader = Self {
            socket,
            body: Body::new(head.framing),
            parser: Parser::new(),
            account: Account::default(),
            tally,
            number,
            is_connected: false,
            begun,
            backlog: ask.since.as_ref().map(|(_, backlog)| *backlog),
        };
        reader.take(&rest)?;
        drop(rest);
        while !reader.is_connected {
            reader.socket.readable().await?;
            reader.read()?;
        }
        Ok(reader)
    }

    /// Reads until told to stop. Returns whether the stream ended before that.
    async fn run(mut self, stop: CancellationToken) -> (bool, Account) {
        let mut stopped = std::pin::pin!(stop.cancelled());
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => return (false, self.account),
                ready = self.socket.readable() => {
                    if ready.and_then(|()| self.read()).is_err() {
                        return (true, self.account);
                    }
                }
            }
        }
    }

    /// Takes what is there, without waiting.
    fn read(&mut self) -> io::Result<()> {
        BUFFER.with_borrow_mut(|buffer| match self.socket.try_read(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.take(&buffer[..count]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e),
        })
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (mut fed, mut fresh, mut is_closing) = (Ok(()), 0, false);
        let Self {
            body,
            parser,
            account,
            tally,
            is_connected,
            ..
        } = self;
        let shard = &tally.latencies[usize::try_from(self.number).unwrap_or(0) % SHARDS];
        let mut latencies = None;
        body.feed(bytes, |piece| {
            let part = parser.feed(piece, &mut |item| {
                let Item::Frame(frame) = item else { return };
                match frame.event {
                    b"connected" => *is_connected = true,
                    b"closing" => is_closing = true,
                    _ => {}
                }
                let Some(mark) = tally.run.read_event(frame.data) else {
                    return;
                };
                if account.enter(&mark) {
                    fresh += 1;
                    let micros =
                        u64::try_from(tally.run.age(&mark).as_micros()).unwrap_or(u64::MAX);
                    latencies
                        .get_or_insert_with(|| shard.lock())
                        .saturating_record(micros.max(1));
                }
            });
            if part.is_err() {
                fed = part;
            }
        })?;
        drop(latencies);
        if fresh > 0 {
            tally.received.fetch_add(fresh, Ordering::Relaxed);
            tally.reads.fetch_add(1, Ordering::Relaxed);
        }
        if fresh > 0 && self.backlog == Some(account.received) {
            let micros = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            tally.catch_ups.lock().saturating_record(micros.max(1));
        }
        if is_closing || body.is_ended() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        fed.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_every_size_are_kept() {
        let mut all = histogram().unwrap();
        for micros in [1, 2_500, 2_500_000, u64::MAX] {
            let mut one = histogram().unwrap();
            one.saturating_record(micros);
            all.add(&one).unwrap();
        }
        let at = |quantile| all.value_at_quantile(quantile);
        assert_eq!((at(0.0), at(0.5)), (1, 2_501));
        assert!(at(0.75).abs_diff(2_500_000) < 2_500);
        assert!((LONGEST_US..2 * LONGEST_US).contains(&at(1.0)));
        assert_eq!(all.len(), 4);
    }
}
