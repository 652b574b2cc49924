//! A flood of alarms: is any lost, how long does an operator wait meanwhile, and when has everything caught up.
//!
//! - `flood`: the alarms, from simulated networks
//! - `sources`: who raises them; `operator`: who acknowledges; `screen`: who watches
//! - `account`: what the server has of them at the end

mod account;
mod flood;
mod operator;
mod screen;
mod sources;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use tidings_client::Client;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::account::{Clustered, Stored};
use self::flood::Flood;
use self::operator::Operated;
use self::screen::Screen;
use self::sources::{Pace, Sent};
use super::super::Failure;
use super::modes::broken_off;
use super::report::{Outcome, Percentiles, Table, count, times};
use super::target::Target;
use super::wire::Connection;
use super::{Args, Mode};

/// How often the bar moves.
const FRAME: Duration = Duration::from_millis(100);

/// What was measured.
#[derive(Debug, Serialize)]
struct Figures {
    mode: &'static str,
    networks: u32,
    is_topology_known: bool,
    batch: u32,
    seconds: f64,
    accepted: u64,
    accepted_per_second: f64,
    /// Batches that were refused for now, and taken later.
    refused: u64,
    /// Batch to answer.
    batch_us: Percentiles,
    /// How late batches were sent.
    batch_lag_us: Percentiles,
    acknowledged: u64,
    acknowledge_failed: u64,
    /// Asking for it to the answer.
    acknowledge_us: Percentiles,
    frames: u64,
    frame_bytes: u64,
    /// Alarms in the last frame's `total`.
    frame_total: u64,
    is_stream_cut: bool,
    alarms: u64,
    /// Occurrences that were accepted and are not stored.
    lost: u64,
    clusters: u64,
    /// Occurrences that are in no cluster.
    uncorrelated: u64,
    /// The last answer to the last occurrence in a cluster.
    caught_up_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_rss_bytes: Option<u64>,
}

/// Measures.
pub(super) async fn measure(
    args: &Args,
    target: &Target,
    progress: &ProgressBar,
) -> Result<Outcome, Failure> {
    let name = format!("{:08x}", fastrand::u32(..));
    let alarms = usize::try_from(args.alarms).unwrap_or(usize::MAX);
    let span = Duration::from_secs(args.seconds());
    progress.set_message("making");
    let storm = Storm {
        args,
        target,
        progress,
        client: target.client()?,
        flood: Arc::new(Flood::new(&name, args.networks, alarms, span)),
    };
    storm.run().await.map_err(broken_off)?.outcome()
}

struct Storm<'a> {
    args: &'a Args,
    target: &'a Target,
    progress: &'a ProgressBar,
    client: Client,
    flood: Arc<Flood>,
}

impl Storm<'_> {
    async fn run(&self) -> io::Result<Figures> {
        if !self.args.unknown_topology {
            self.put_entities().await?;
        }
        let screen = Screen::open(&self.target.address).await?;
        let cpu = self.target.cpu();
        let (sent, operated) = self.flood().await?;
        let done = Instant::now();
        let clustered = self.catch_up().await?;
        let caught_up = done.elapsed();
        let cpu = cpu.zip(self.target.cpu());
        let rss = self.target.rss_bytes();
        let stored = account::stored(&self.client, &self.flood).await?;
        self.see(&screen, stored.alarms).await;
        let mut figures = self.figures(&sent, &operated, stored, clustered);
        figures.watched(screen);
        figures.caught_up_seconds = caught_up.as_secs_f64();
        figures.server_cpu_seconds = cpu.map(|(a, b)| b.saturating_sub(a).as_secs_f64());
        figures.server_rss_bytes = rss;
        Ok(figures)
    }

    async fn put_entities(&self) -> io::Result<()> {
        for entities in self.flood.entities() {
            let body = entities.to_string().into();
            let put = self
                .client
                .post_repeatable("api/v1/entities/bulk", "application/json", body);
            put.await.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Sends all of it, while the operator works.
    async fn flood(&self) -> io::Result<(Sent, Operated)> {
        let seconds = u32::try_from(self.args.seconds()).unwrap_or(u32::MAX);
        let pace = Pace {
            sources: self.args.publishers(),
            batch: self.args.batch(),
            per_second: self.args.alarms.div_ceil(seconds.max(1)),
        };
        let (accepted, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let operator = tokio::spawn(operator::acknowledge(
            Connection::open(&self.target.address).await?,
            self.client.clone(),
            self.flood.clone(),
            stop.clone(),
        ));
        self.stage("raising", self.flood.len() as u64);
        let mut sending = std::pin::pin!(sources::send(
            &self.target.address,
            &self.flood,
            pace,
            &accepted
        ));
        let sent = loop {
            tokio::select! {
                sent = &mut sending => break sent?,
                () = tokio::time::sleep(FRAME) => self.progress.set_position(accepted.load(Ordering::Relaxed)),
            }
        };
        stop.cancel();
        let operated = operator.await.map_err(io::Error::other)??;
        Ok((sent, operated))
    }

    async fn catch_up(&self) -> io::Result<Clustered> {
        let all = self.flood.len() as u64;
        self.stage("correlating", all);
        let mut metrics = Connection::open(&self.target.address).await?;
        let left = |left: u64| self.progress.set_position(all.saturating_sub(left));
        account::catch_up(
            &self.client,
            &mut metrics,
            &self.flood,
            self.args.drain(),
            left,
        )
        .await
    }

    /// Waits until the screen shows so many alarms, as long as it may take.
    async fn see(&self, screen: &Screen, alarms: u64) {
        let until = Instant::now() + self.args.drain();
        while screen.seen.total.load(Ordering::Relaxed) < alarms && Instant::now() < until {
            tokio::time::sleep(FRAME).await;
        }
    }

    fn stage(&self, name: &'static str, length: u64) {
        self.progress.reset();
        self.progress.set_length(length);
        self.progress.set_message(name);
    }

    fn figures(
        &self,
        sent: &Sent,
        operated: &Operated,
        stored: Stored,
        clustered: Clustered,
    ) -> Figures {
        let seconds = sent.elapsed.as_secs_f64();
        Figures {
            mode: Mode::Alarms.as_str(),
            networks: self.args.networks,
            is_topology_known: !self.args.unknown_topology,
            batch: self.args.batch(),
            seconds,
            accepted: sent.accepted,
            accepted_per_second: count(sent.accepted) / seconds.max(0.001),
            refused: sent.refused,
            batch_us: Percentiles::of(&sent.answers),
            batch_lag_us: Percentiles::of(&sent.lags),
            acknowledged: operated.answers.len(),
            acknowledge_failed: operated.failed,
            acknowledge_us: Percentiles::of(&operated.answers),
            frames: 0,
            frame_bytes: 0,
            frame_total: 0,
            is_stream_cut: false,
            alarms: stored.alarms,
            lost: sent.accepted.saturating_sub(stored.raises),
            clusters: clustered.clusters,
            uncorrelated: sent.accepted.saturating_sub(clustered.occurrences),
            caught_up_seconds: 0.0,
            server_cpu_seconds: None,
            server_rss_bytes: None,
        }
    }
}

impl Figures {
    fn watched(&mut self, screen: Screen) {
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        self.frames = of(&screen.seen.frames);
        self.frame_bytes = of(&screen.seen.bytes);
        self.frame_total = of(&screen.seen.total);
        self.is_stream_cut = screen.close();
    }

    /// Nothing is lost or left, every acknowledgement was good, and the screen shows all.
    fn is_clean(&self) -> bool {
        let is_seen = !self.is_stream_cut && self.frame_total >= self.alarms;
        self.lost + self.uncorrelated + self.acknowledge_failed == 0 && is_seen
    }

    fn outcome(&self) -> Result<Outcome, Failure> {
        Ok(Outcome {
            json: serde_json::to_string(self).map_err(Failure::failed)?,
            table: self.table(),
            is_clean: self.is_clean(),
        })
    }

    fn table(&self) -> String {
        let mut table = Table::default();
        let mut row = |name: &str, value: String| table.row(name, Some(value));
        row("mode", self.mode.into());
        let known = if self.is_topology_known {
            "known"
        } else {
            "unknown"
        };
        row("networks, topology", format!("{}, {known}", self.networks));
        row("alarms of a request", self.batch.to_string());
        row("seconds", format!("{:.2}", self.seconds));
        row("accepted", self.accepted.to_string());
        row(
            "accepted per second",
            format!("{:.0}", self.accepted_per_second),
        );
        row("requests refused for now", self.refused.to_string());
        row("request to answer", times(self.batch_us));
        row("sent behind schedule", times(self.batch_lag_us));
        let acknowledged = format!("{} / {}", self.acknowledged, self.acknowledge_failed);
        row("acknowledged / failed", acknowledged);
        row("acknowledge to answer", times(self.acknowledge_us));
        let frames = format!(
            "{}, {:.0} kB",
            self.frames,
            count(self.frame_bytes) / 1_000.0
        );
        row("frames of the stream", frames);
        row(
            "alarms in the last frame / stored",
            format!("{} / {}", self.frame_total, self.alarms),
        );
        row("clusters", self.clusters.to_string());
        row(
            "correlation caught up after",
            format!("{:.2} s", self.caught_up_seconds),
        );
        if let Some(seconds) = self.server_cpu_seconds {
            row("server CPU", format!("{seconds:.2} s"));
        }
        if let Some(bytes) = self.server_rss_bytes {
            row("server memory", format!("{:.0} MB", count(bytes) / 1e6));
        }
        let is_cut = u8::from(self.is_stream_cut);
        row(
            "lost / uncorrelated / cut",
            format!("{} / {} / {is_cut}", self.lost, self.uncorrelated),
        );
        table.0
    }
}
