//! The figures, as a table for people and as one JSON object.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::super::Failure;
use super::Mode;
use super::publishers::Sent;
use super::readers::{Ended, Tally};

/// A distribution, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Percentiles {
    p50: u64,
    p90: u64,
    p99: u64,
    #[serde(rename = "p99.9")]
    p999: u64,
    max: u64,
}

impl Percentiles {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

/// A measurement as it is printed.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) json: String,
    pub(super) table: String,
    /// Everything arrived, once, in order, and nothing broke off.
    pub(super) is_clean: bool,
}

/// One figure a line; what does not apply is left out.
#[derive(Debug, Default)]
pub(super) struct Table(pub(super) String);

impl Table {
    pub(super) fn row(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = writeln!(self.0, "{name:<34}{value}");
        }
    }
}

/// What was measured. What does not apply, or cannot be known, is left out.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Report {
    mode: &'static str,
    pub(super) connections: u32,
    size_bytes: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) batch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backlog: Option<u64>,
    pub(super) seconds: f64,
    published: u64,
    published_per_second: f64,
    delivered: u64,
    delivered_per_second: f64,
    /// Publish to receive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency_us: Option<Percentiles>,
    /// Connect to the backlog's last event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) catch_up_us: Option<Percentiles>,
    /// Request to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    publish_us: Option<Percentiles>,
    /// How late requests were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) publish_lag_us: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us_per_delivery: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us_per_publish: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us_per_connection_second: Option<f64>,
    #[serde(skip)]
    pub(super) rss_bytes_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rss_bytes_per_connection: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rss_bytes_per_connection_after: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reads_per_delivery: Option<f64>,
    lost: u64,
    repeated: u64,
    reordered: u64,
    cut: u64,
}

impl Report {
    pub(super) fn new(mode: Mode, size_bytes: u32) -> Self {
        Self {
            mode: mode.as_str(),
            size_bytes,
            ..Self::default()
        }
    }

    /// Nothing was lost, repeated, reordered or cut off.
    fn is_clean(&self) -> bool {
        self.lost + self.repeated + self.reordered + self.cut == 0
    }

    /// What the server used between two looks.
    pub(super) fn cpu(&mut self, before: Option<Duration>, after: Option<Duration>) {
        self.server_cpu_seconds = before
            .zip(after)
            .map(|(before, after)| after.saturating_sub(before).as_secs_f64());
    }

    /// The growth since the server had no connections.
    pub(super) fn rss_per_connection(&self, now: Option<u64>) -> Option<f64> {
        let growth = count(now?) - count(self.rss_bytes_before?);
        Some(growth / f64::from(self.connections.max(1)))
    }

    pub(super) fn deliveries(&mut self, tally: &Tally, elapsed: Duration) {
        self.delivered = tally.received.load(Ordering::Relaxed);
        self.seconds = elapsed.as_secs_f64();
        self.delivered_per_second = count(self.delivered) / self.seconds.max(0.001);
        if self.delivered > 0 {
            let reads = count(tally.reads.load(Ordering::Relaxed));
            self.reads_per_delivery = Some(reads / count(self.delivered));
        }
    }

    pub(super) fn publishes(&mut self, sent: &Sent) {
        self.published = sent.total();
        self.published_per_second = count(self.published) / sent.elapsed.as_secs_f64().max(0.001);
        self.publish_us = Some(Percentiles::of(&sent.answers));
        self.publish_lag_us = Some(Percentiles::of(&sent.lags));
    }

    /// Holds what each reader got against what it was `sent`, and works out the figures per piece.
    pub(super) fn account(&mut self, ended: &[Ended], sent: impl Fn(&Ended) -> Vec<u64>) {
        for reader in ended {
            self.lost += reader.account.lost(&sent(reader));
            self.repeated += reader.account.repeated;
            self.reordered += reader.account.reordered;
            self.cut += u64::from(reader.is_cut);
        }
        // A task that panicked has left no account.
        let kept = u64::try_from(ended.len()).unwrap_or(u64::MAX);
        self.cut += u64::from(self.connections).saturating_sub(kept);
    }

    fn per_piece(&self) -> Self {
        let micros = self.server_cpu_seconds.map(|seconds| seconds * 1e6);
        let per = |pieces: f64| micros.filter(|_| pieces > 0.0).map(|m| m / pieces);
        let mut report = self.clone();
        match self.mode {
            "idle" => {
                let pieces = f64::from(self.connections) * self.seconds;
                report.server_cpu_us_per_connection_second = per(pieces);
            }
            "ingest" => report.server_cpu_us_per_publish = per(count(self.published)),
            _ => report.server_cpu_us_per_delivery = per(count(self.delivered)),
        }
        report
    }

    /// The figures as they are printed.
    pub(super) fn outcome(&self) -> Result<Outcome, Failure> {
        Ok(Outcome {
            json: serde_json::to_string(&self.per_piece()).map_err(Failure::failed)?,
            table: self.to_table(),
            is_clean: self.is_clean(),
        })
    }

    /// One figure a line.
    fn to_table(&self) -> String {
        let report = self.per_piece();
        let mut table = Table::default();
        let mut row = |name: &str, value: Option<String>| table.row(name, value);
        let number = |value: f64| Some(format!("{value:.2}"));
        let bytes = |value: f64| format!("{:.2} kB", value / 1_000.0);
        let is_ingest = report.mode == "ingest";
        row("mode", Some(report.mode.into()));
        row(
            "connections",
            (!is_ingest).then(|| report.connections.to_string()),
        );
        row("backlog", report.backlog.map(|b| b.to_string()));
        row("events of a request", report.batch.map(|b| b.to_string()));
        row("seconds", number(report.seconds));
        if report.published > 0 {
            row("published", Some(report.published.to_string()));
            row(
                "published per second",
                Some(format!("{:.0}", report.published_per_second)),
            );
        }
        if report.delivered > 0 {
            row("delivered", Some(report.delivered.to_string()));
            row(
                "delivered per second",
                Some(format!("{:.0}", report.delivered_per_second)),
            );
        }
        row("publish to receive", report.latency_us.map(times));
        row("connect to caught up", report.catch_up_us.map(times));
        row("publish to answer", report.publish_us.map(times));
        row("sent behind schedule", report.publish_lag_us.map(times));
        let micros = |value: f64| format!("{value:.2} µs");
        row(
            "server CPU",
            report.server_cpu_seconds.map(|s| format!("{s:.2} s")),
        );
        row(
            "server CPU per delivery",
            report.server_cpu_us_per_delivery.map(micros),
        );
        row(
            "server CPU per event published",
            report.server_cpu_us_per_publish.map(micros),
        );
        row(
            "server CPU per connection, second",
            report.server_cpu_us_per_connection_second.map(micros),
        );
        row(
            "server memory per connection",
            report.rss_bytes_per_connection.map(bytes),
        );
        row(
            "  the same after the traffic",
            report.rss_bytes_per_connection_after.map(bytes),
        );
        row(
            "reads per delivery",
            report.reads_per_delivery.and_then(number),
        );
        if !is_ingest {
            let (lost, repeated) = (report.lost, report.repeated);
            let faults = format!(
                "{lost} / {repeated} / {} / {}",
                report.reordered, report.cut
            );
            row("lost / repeated / reordered / cut", Some(faults));
        }
        table.0
    }
}

/// A count as a real number: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn count(value: u64) -> f64 {
    value as f64
}

/// A distribution in a line, in milliseconds.
pub(super) fn times(p: Percentiles) -> String {
    let ms = |micros: u64| format!("{:.2}", count(micros) / 1_000.0);
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  max {} ms",
        ms(p.p50),
        ms(p.p90),
        ms(p.p99),
        ms(p.p999),
        ms(p.max)
    )
}
