//! What is done in which order, per mode.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::Instant;

use super::super::Failure;
use super::mark::Run;
use super::publishers::{self, Pace, Sent, Slot};
use super::readers::{Ask, Ended, Readers};
use super::report::{Outcome, Percentiles, Report};
use super::target::Target;
use super::{Args, Mode, correlation, storm};

/// How long a server is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(1);
/// How often the bar moves.
const FRAME: Duration = Duration::from_millis(100);

/// Measures what the arguments ask for.
pub(super) async fn measure(args: &Args, progress: &ProgressBar) -> Result<Outcome, Failure> {
    let start = Bench::start(args, progress);
    let report = match args.mode {
        Mode::Broadcast | Mode::Unicast => start.await?.live().await,
        Mode::Idle => start.await?.idle().await,
        Mode::Ingest => start.await?.ingest().await,
        Mode::Replay => start.await?.replay().await,
        Mode::Alarms => return storm::measure(args, &start.await?.target, progress).await,
        Mode::Correlation => return correlation::measure(args, progress).await,
    };
    report.map_err(broken_off)?.outcome()
}

/// The server, or the way to it, failed on the way.
pub(super) fn broken_off(e: impl std::fmt::Display) -> Failure {
    Failure::failed(format_args!("the measurement broke off: {e}"))
}

struct Bench<'a> {
    args: &'a Args,
    target: Target,
    progress: &'a ProgressBar,
    run: Run,
    topic: String,
}

impl<'a> Bench<'a> {
    /// Finds or starts the server.
    async fn start(args: &'a Args, progress: &'a ProgressBar) -> Result<Self, Failure> {
        let server = args.server();
        let run = Run::new(usize::try_from(args.size).unwrap_or(usize::MAX));
        Ok(Self {
            args,
            target: Target::open(&server, args.server_pid, args.allow_remote).await?,
            progress,
            run,
            topic: format!("bench/{}", run.name()),
        })
    }

    fn report(&self) -> Report {
        Report::new(self.args.mode, self.args.size)
    }

    /// One event on a topic that nobody reads: the server's caches are warm, and the token is known to be good.
    async fn warm_up(&self) -> io::Result<String> {
        let topic = format!("{}/warm", self.topic);
        publishers::publish_all(&self.target.address, self.run, &topic, 1, |_| {}).await
    }

    /// Opens the streams, and says how much memory each has cost.
    async fn open(
        &self,
        readers: &mut Readers,
        ask: impl Fn(u32) -> Ask,
        report: &mut Report,
    ) -> io::Result<()> {
        let count = self.args.connections();
        let before = self.target.rss_bytes();
        self.stage("connecting", u64::from(count));
        readers
            .open(&self.target.address, count, ask, || self.progress.inc(1))
            .await?;
        tokio::time::sleep(SETTLE).await;
        report.connections = count;
        report.rss_bytes_before = before;
        report.rss_bytes_per_connection = report.rss_per_connection(self.target.rss_bytes());
        Ok(())
    }

    fn stage(&self, name: &'static str, length: u64) {
        self.progress.reset();
        self.progress.set_length(length);
        self.progress.set_message(name);
    }

    /// Broadcast and unicast.
    async fn live(&self) -> io::Result<Report> {
        let mut report = self.report();
        self.warm_up().await?;
        let (count, publishers) = (self.args.connections(), self.args.publishers());
        let is_unicast = self.args.mode == Mode::Unicast;
        // Every publisher needs a reader of its own.
        let publishers = if is_unicast {
            publishers.min(u16::try_from(count).unwrap_or(u16::MAX))
        } else {
            publishers
        };
        let mut readers = Readers::new(self.run)?;
        let topic = |number: u32| match is_unicast {
            true => format!("{}/{number}", self.topic),
            false => self.topic.clone(),
        };
        self.open(
            &mut readers,
            |number| Ask {
                topic: topic(number),
                since: None,
            },
            &mut report,
        )
        .await?;

        let shares = Shares {
            readers: u64::from(count),
            publishers: u64::from(publishers),
        };
        let base = self.topic.clone();
        let slot = move |publisher: u16, at: u64| match is_unicast {
            true => {
                let (reader, seq) = shares.place(publisher, at);
                Slot {
                    topic: format!("{base}/{reader}"),
                    track: 0,
                    seq,
                }
            }
            false => Slot {
                topic: base.clone(),
                track: publisher,
                seq: at,
            },
        };
        let pace = Pace::Rate {
            per_second: self.args.rate(),
            seconds: self.args.seconds(),
        };
        self.stage(
            "publishing",
            u64::from(self.args.rate()) * self.args.seconds(),
        );
        let (begun, cpu) = (Instant::now(), self.target.cpu());
        let sent = self.publish(publishers, pace, slot).await?;
        let each = if is_unicast { 1 } else { u64::from(count) };
        let expected = sent.total() * each;
        self.stage("waiting", expected);
        let last = readers
            .wait(expected, self.args.drain(), |now| {
                self.progress.set_position(now);
            })
            .await;
        report.cpu(cpu, self.target.cpu());
        tokio::time::sleep(SETTLE).await;
        report.rss_bytes_per_connection_after = report.rss_per_connection(self.target.rss_bytes());
        report.latency_us = Some(Percentiles::of(&readers.tally.latencies()?));
        report.deliveries(&readers.tally, (last - begun).max(sent.elapsed));
        report.publishes(&sent);
        let ended = readers.close().await;
        report.account(&ended, |reader| match is_unicast {
            true => vec![shares.sent_to(reader, &sent.by_publisher)],
            false => sent.by_publisher.clone(),
        });
        Ok(report)
    }

    async fn publish(
        &self,
        publishers: u16,
        pace: Pace,
        slot: impl Fn(u16, u64) -> Slot + Send + Sync + 'static,
    ) -> io::Result<Sent> {
        let done = Arc::new(AtomicU64::new(0));
        let mut publishing = std::pin::pin!(publishers::publish(
            &self.target.address,
            self.run,
            publishers,
            pace,
            slot,
            &done
        ));
        loop {
            tokio::select! {
                sent = &mut publishing => return sent,
                () = tokio::time::sleep(FRAME) => self.progress.set_position(done.load(Ordering::Relaxed)),
            }
        }
    }

    /// Open streams and no events.
    async fn idle(&self) -> io::Result<Report> {
        let mut report = self.report();
        self.warm_up().await?;
        let mut readers = Readers::new(self.run)?;
        self.open(
            &mut readers,
            |_| Ask {
                topic: self.topic.clone(),
                since: None,
            },
            &mut report,
        )
        .await?;
        self.stage("idle", self.args.seconds() * 10);
        let (begun, cpu) = (Instant::now(), self.target.cpu());
        for _ in 0..self.args.seconds() * 10 {
            tokio::time::sleep(FRAME).await;
            self.progress.inc(1);
        }
        report.seconds = begun.elapsed().as_secs_f64();
        report.cpu(cpu, self.target.cpu());
        report.rss_bytes_per_connection_after = report.rss_per_connection(self.target.rss_bytes());
        let ended = readers.close().await;
        report.account(&ended, |_| Vec::new());
        Ok(report)
    }

    /// Publishers that wait for their answer, and nobody who reads.
    async fn ingest(&self) -> io::Result<Report> {
        let mut report = self.report();
        self.warm_up().await?;
        let time = Duration::from_secs(self.args.seconds());
        self.stage("publishing", 0);
        let base = self.topic.clone();
        let slot = move |publisher: u16, at: u64| Slot {
            topic: format!("{base}/{publisher}"),
            track: publisher,
            seq: at,
        };
        let cpu = self.target.cpu();
        let pace = Pace::Closed {
            batch: self.args.batch(),
            time,
        };
        let sent = self.publish(self.args.publishers(), pace, slot).await?;
        report.cpu(cpu, self.target.cpu());
        report.batch = Some(self.args.batch());
        report.seconds = sent.elapsed.as_secs_f64();
        report.publishes(&sent);
        report.publish_lag_us = None;
        Ok(report)
    }

    /// Readers that come back after a backlog.
    async fn replay(&self) -> io::Result<Report> {
        let mut report = self.report();
        let cursor = self.warm_up().await?;
        let backlog = u64::from(self.args.backlog);
        self.stage("publishing", backlog);
        let sent = |now| self.progress.set_position(now);
        publishers::publish_all(&self.target.address, self.run, &self.topic, backlog, sent).await?;
        let expected = backlog * u64::from(self.args.connections());
        let mut readers = Readers::new(self.run)?;
        let (begun, cpu) = (Instant::now(), self.target.cpu());
        let count = self.args.connections();
        self.stage("connecting", u64::from(count));
        let ask = |_| Ask {
            topic: self.topic.clone(),
            since: Some((cursor.clone(), backlog)),
        };
        readers
            .open(&self.target.address, count, ask, || self.progress.inc(1))
            .await?;
        self.stage("replaying", expected);
        let last = readers
            .wait(expected, self.args.drain(), |now| {
                self.progress.set_position(now);
            })
            .await;
        report.cpu(cpu, self.target.cpu());
        report.connections = count;
        report.backlog = Some(backlog);
        report.catch_up_us = Some(Percentiles::of(&readers.tally.catch_ups.lock()));
        report.deliveries(&readers.tally, last - begun);
        let ended = readers.close().await;
        report.account(&ended, |_| vec![backlog]);
        Ok(report)
    }
}

/// Which reader the n-th event of a publisher is for: each publisher goes round its own readers.
#[derive(Debug, Clone, Copy)]
struct Shares {
    readers: u64,
    publishers: u64,
}

impl Shares {
    /// How many readers a publisher has.
    fn of(self, publisher: u64) -> u64 {
        (self.readers - publisher).div_ceil(self.publishers)
    }

    /// The reader, and the number of this event among those for it.
    fn place(self, publisher: u16, at: u64) -> (u64, u64) {
        let publisher = u64::from(publisher);
        let own = self.of(publisher);
        (publisher + self.publishers * (at % own), at / own)
    }

    /// How many events a reader was sent.
    fn sent_to(self, reader: &Ended, by_publisher: &[u64]) -> u64 {
        let number = u64::from(reader.number);
        let (publisher, place) = (number % self.publishers, number / self.publishers);
        let sent = usize::try_from(publisher)
            .ok()
            .and_then(|p| by_publisher.get(p));
        let own = self.of(publisher);
        sent.map_or(0, |sent| sent / own + u64::from(place < sent % own))
    }
}

#[cfg(test)]
mod tests {
    use super::super::mark::Account;
    use super::*;

    #[test]
    fn every_event_has_one_reader_and_the_sums_agree() {
        for (readers, publishers, each) in [(10, 4, 7), (3, 3, 5), (7, 1, 20), (5, 2, 0)] {
            let shares = Shares {
                readers,
                publishers,
            };
            let mut got = vec![0; usize::try_from(readers).unwrap()];
            for publisher in 0..u16::try_from(publishers).unwrap() {
                for at in 0..each {
                    let (reader, seq) = shares.place(publisher, at);
                    let count = &mut got[usize::try_from(reader).unwrap()];
                    assert_eq!(*count, seq);
                    *count += 1;
                }
            }
            let sent = vec![each; usize::try_from(publishers).unwrap()];
            for (number, got) in (0..).zip(got) {
                let reader = Ended {
                    number,
                    account: Account::default(),
                    is_cut: false,
                };
                assert_eq!(shares.sent_to(&reader, &sent), got);
            }
        }
    }
}
