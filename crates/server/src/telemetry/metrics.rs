//! Metrics: what is counted, in which words, and how `/metrics` shows it.
//!
//! Code anywhere uses the macros of the `metrics` crate, and keeps the handle where it is hot. Counters and gauges are the
//! exporter's; histograms are our own, because the exporter's keep every sample until they are asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use ::metrics::{
    Counter, Gauge, Histogram as Handle, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::RwLock;

use super::histogram::{COUNTS, Histogram, SECONDS};

/// Most different label sets of one histogram: routes times methods times statuses stay far below.
const MAX_SERIES: usize = 2_000;

enum Type {
    Counter,
    Gauge,
    Seconds,
    Count,
}

/// Every metric with its meaning.
const METRICS: [(&str, Type, &str); 22] = [
    (
        "tidings_build_info",
        Type::Gauge,
        "Always 1; the version is a label.",
    ),
    (
        "tidings_connections",
        Type::Gauge,
        "Open streams by transport and kind.",
    ),
    (
        "tidings_deliveries_total",
        Type::Counter,
        "Events written to connections, by transport.",
    ),
    (
        "tidings_delivery_seconds",
        Type::Seconds,
        "Time from commit to socket write.",
    ),
    (
        "tidings_publishes_total",
        Type::Counter,
        "Publishes by result.",
    ),
    (
        "tidings_publish_seconds",
        Type::Seconds,
        "Time from a publish's arrival to its answer.",
    ),
    (
        "tidings_commit_seconds",
        Type::Seconds,
        "Time that one commit of the log took.",
    ),
    (
        "tidings_commit_events",
        Type::Count,
        "Events in one commit of the log.",
    ),
    (
        "tidings_log_head",
        Type::Gauge,
        "Events that the log has taken.",
    ),
    ("tidings_log_bytes", Type::Gauge, "Size of the log."),
    (
        "tidings_reader_fallbacks_total",
        Type::Counter,
        "Readers that fell out of memory and read from the log.",
    ),
    (
        "tidings_dropped_total",
        Type::Counter,
        "Ephemeral events that readers did not get because they were behind.",
    ),
    (
        "tidings_resumes_total",
        Type::Counter,
        "Connections that came back with a cursor.",
    ),
    (
        "tidings_refused_connections_total",
        Type::Counter,
        "Streams that were refused, by reason.",
    ),
    (
        "tidings_auth_failures_total",
        Type::Counter,
        "Credentials that were refused, by reason.",
    ),
    (
        "tidings_http_request_seconds",
        Type::Seconds,
        "Time that a request took, by route, method and status; for a stream, until its head was written.",
    ),
    (
        "tidings_worker_lag_events",
        Type::Gauge,
        "Events that a worker is behind the head.",
    ),
    (
        "tidings_dead_letters",
        Type::Counter,
        "What could not be taken in and was kept aside, by source.",
    ),
    (
        "tidings_policy_reloads_total",
        Type::Counter,
        "Reloads of the policies, by result.",
    ),
    (
        "tidings_jwks_refreshes_total",
        Type::Counter,
        "Readings of the issuer's keys, by result.",
    ),
    (
        "tidings_log_records_dropped_total",
        Type::Counter,
        "Records that the server could not write about itself.",
    ),
    (
        "process_resident_memory_bytes",
        Type::Gauge,
        "Memory of the process that is resident.",
    ),
];

static SHOWN: OnceLock<Shown> = OnceLock::new();

/// Makes this process count. A second call is an error.
pub(super) fn install() -> Result<(), String> {
    let recorder = Split::new();
    let shown = recorder.shown.clone();
    ::metrics::set_global_recorder(recorder).map_err(|e| e.to_string())?;
    describe();
    ::metrics::gauge!("tidings_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    SHOWN
        .set(shown)
        .map_err(|_| "metrics are installed".to_owned())
}

/// Gives every metric its meaning.
pub(super) fn describe() {
    for (name, kind, text) in METRICS {
        match kind {
            Type::Counter => ::metrics::describe_counter!(name, text),
            Type::Gauge => ::metrics::describe_gauge!(name, text),
            Type::Seconds | Type::Count => ::metrics::describe_histogram!(name, text),
        }
    }
}

/// Everything in Prometheus' text form (`text/plain; version=0.0.4`); empty before telemetry has started.
pub(crate) fn render() -> String {
    match SHOWN.get() {
        Some(shown) => {
            read_process();
            shown.render()
        }
        None => String::new(),
    }
}

/// The process's own memory, read when somebody asks. Linux only; elsewhere it is absent.
fn read_process() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    if let Some(kib) = kib {
        ::metrics::gauge!("process_resident_memory_bytes").set(kib * 1024.0);
    }
}

/// Counts a record that could not be written.
pub(super) fn log_dropped() {
    static DROPPED: LazyLock<Counter> =
        LazyLock::new(|| ::metrics::counter!("tidings_log_records_dropped_total"));
    DROPPED.increment(1);
}

/// Counts published events by what became of them, and how long an accepted publish took.
pub(crate) fn publishes(result: &'static str, events: u64, took: Option<Duration>) {
    static ACCEPTED: LazyLock<Counter> =
        LazyLock::new(|| ::metrics::counter!("tidings_publishes_total", "result" => "accepted"));
    static SECONDS: LazyLock<Handle> =
        LazyLock::new(|| ::metrics::histogram!("tidings_publish_seconds"));
    if let Some(took) = took {
        SECONDS.record(took);
    }
    match result {
        "accepted" => ACCEPTED.increment(events),
        result => {
            ::metrics::counter!("tidings_publishes_total", "result" => result).increment(events);
        }
    }
}

/// Counts events that a task has written, and how long they took from their commit, where they are live.
pub(crate) fn delivered(transport: &'static str, events: u64, committed: Option<Instant>) {
    ::metrics::counter!("tidings_deliveries_total", "transport" => transport).increment(events);
    if let Some(committed) = committed {
        let count = usize::try_from(events).unwrap_or(usize::MAX);
        ::metrics::histogram!("tidings_delivery_seconds").record_many(committed.elapsed(), count);
    }
}

/// Counts ephemeral events that a reader did not get.
pub(crate) fn dropped(events: u64) {
    ::metrics::counter!("tidings_dropped_total").increment(events);
}

/// Where requests of one route, method and status are timed. Keep it where the route is hot.
pub(crate) fn request_seconds(route: &'static str, method: &'static str, status: u16) -> Handle {
    ::metrics::histogram!("tidings_http_request_seconds", "route" => route, "method" => method, "status" => status.to_string())
}

/// Our own histograms, by name and labels.
#[derive(Debug, Clone, Default)]
struct Histograms(Arc<RwLock<BTreeMap<String, Named>>>);

#[derive(Debug, Default)]
struct Named {
    text: Option<SharedString>,
    series: BTreeMap<String, Arc<Histogram>>,
}

impl Histograms {
    fn register(&self, key: &Key) -> Handle {
        let labels = labels_of(key);
        if let Some(found) = self.find(key.name(), &labels) {
            return found.into();
        }
        let mut all = self.0.write();
        let named = all.entry(key.name().to_owned()).or_default();
        if named.series.len() >= MAX_SERIES && !named.series.contains_key(&labels) {
            return Handle::noop();
        }
        let series = named.series.entry(labels).or_insert_with(|| {
            let is_count = METRICS
                .iter()
                .any(|(name, kind, _)| *name == key.name() && matches!(kind, Type::Count));
            Arc::new(Histogram::new(if is_count { COUNTS } else { SECONDS }))
        });
        series.clone().into()
    }

    fn find(&self, name: &str, labels: &str) -> Option<Arc<Histogram>> {
        self.0.read().get(name)?.series.get(labels).cloned()
    }

    fn describe(&self, name: &KeyName, text: SharedString) {
        let mut all = self.0.write();
        all.entry(name.as_str().to_owned()).or_default().text = Some(text);
    }

    fn render(&self, out: &mut String) {
        for (name, named) in self.0.read().iter() {
            // Writing to a String cannot fail.
            if let Some(text) = &named.text {
                let _ = writeln!(out, "# HELP {name} {text}");
            }
            let _ = writeln!(out, "# TYPE {name} histogram");
            for (labels, series) in &named.series {
                series.render(out, name, labels);
            }
            out.push('\n');
        }
    }
}

fn labels_of(key: &Key) -> String {
    let mut out = String::new();
    for label in key.labels() {
        if !out.is_empty() {
            out.push(',');
        }
        let _ = write!(out, "{}=\"", label.key());
        for c in label.value().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out
}

/// What can be shown: the exporter's part and our own.
#[derive(Clone)]
struct Shown {
    prometheus: PrometheusHandle,
    histograms: Histograms,
}

impl Shown {
    fn render(&self) -> String {
        let mut out = self.prometheus.render();
        self.histograms.render(&mut out);
        out
    }
}

/// Counters and gauges to the exporter, histograms to ourselves.
pub(super) struct Split {
    prometheus: PrometheusRecorder,
    shown: Shown,
}

impl Split {
    pub(super) fn new() -> Self {
        let prometheus = PrometheusBuilder::new().build_recorder();
        let shown = Shown {
            prometheus: prometheus.handle(),
            histograms: Histograms::default(),
        };
        Self { prometheus, shown }
    }

    #[cfg(test)]
    pub(super) fn render(&self) -> String {
        self.shown.render()
    }
}

impl Recorder for Split {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.prometheus.describe_counter(key, unit, text);
    }
    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.prometheus.describe_gauge(key, unit, text);
    }
    fn describe_histogram(&self, key: KeyName, _unit: Option<Unit>, text: SharedString) {
        self.shown.histograms.describe(&key, text);
    }
    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.prometheus.register_counter(key, metadata)
    }
    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.prometheus.register_gauge(key, metadata)
    }
    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Handle {
        self.shown.histograms.register(key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::METRICS;

    /// Every metric that some line of the product counts has its meaning, and every meaning its metric.
    #[test]
    fn the_table_has_every_metric_of_the_source_and_no_other() {
        fn walk(folder: &Path, found: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else if path.extension().is_some_and(|e| e == "rs")
                    && !path.ends_with("telemetry/tests.rs")
                {
                    let text = std::fs::read_to_string(&path).unwrap();
                    for macro_name in ["counter", "gauge", "histogram"] {
                        let call = format!("{macro_name}!(");
                        for (at, _) in text.match_indices(&call) {
                            let rest = text[at + call.len()..].trim_start();
                            let name = rest.strip_prefix('"').and_then(|r| r.split('"').next());
                            found.extend(name.map(str::to_owned));
                        }
                    }
                }
            }
        }
        let mut found = BTreeSet::new();
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for entry in std::fs::read_dir(crates).unwrap() {
            walk(&entry.unwrap().path().join("src"), &mut found);
        }
        let table: BTreeSet<_> = METRICS
            .iter()
            .map(|(name, ..)| (*name).to_owned())
            .collect();
        assert_eq!(found, table);
    }
}
