//! Records, traces and metrics, as they leave the server.

use std::io::{Read as _, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use parking_lot::{Condvar, Mutex};
use serde_json::Value as Json;
use tidings_core::clock::{Clock, Timestamp};
use tidings_core::event::EventId;
use tracing::subscriber::with_default;
use tracing::{error, info, info_span, warn};
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry;

use super::logs::{Format, Records};
use super::request::RequestIds;
use super::traces::{self, TraceContext};
use super::writer::Writer;
use super::{is_filter, metrics};

/// An output that can be read, and held shut.
#[derive(Clone, Default)]
struct Out(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// What was written, and whether writing has to wait.
    state: Mutex<(Vec<u8>, bool)>,
    opened: Condvar,
}

impl Out {
    fn shut(&self, is_shut: bool) {
        self.0.state.lock().1 = is_shut;
        self.0.opened.notify_all();
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.state.lock().0.clone()).unwrap()
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut inner = self.0.state.lock();
        while inner.1 {
            self.0.opened.wait(&mut inner);
        }
        inner.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What `say` logs, as text.
fn logged(format: Format, say: impl FnOnce()) -> String {
    let out = Out::default();
    let writer = Writer::start(Box::new(out.clone())).unwrap();
    let clock = Clock::manual(Timestamp::parse("2026-01-31T12:00:00.25Z").unwrap());
    let records = Records::new(format, writer.queue(), clock);
    with_default(registry().with(records), say);
    drop(writer);
    out.text()
}

fn ids(correlation_id: &str, event_id: &str, trace: TraceContext) -> Arc<RequestIds> {
    Arc::new(RequestIds {
        correlation_id: correlation_id.into(),
        event_id: EventId::new(event_id).unwrap(),
        trace,
    })
}

fn lines(text: &str) -> Vec<Json> {
    let lines = text.lines();
    lines.map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn a_record_of_a_request_has_every_named_field() {
    let text = logged(Format::Json, || {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let (span, here) = traces::request("GET", Some(parent), None);
        assert!(span.is_none(), "nobody would read it");
        assert_eq!(here.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_ne!(here.span_id(), "b7ad6b7169203331");
        ids("c-1", "e-1", here).within(|| {
            info!(target: "tidings::http", duration_ms = 1.5, status_code = 200, method = "GET", path = "/x", "request");
        });
    });
    let line = &lines(&text)[0];
    assert!(text.starts_with(r#"{"timestamp":"2026-01-31T12:00:00.25Z","level":"INFO","message":"request","target":"tidings::http","service":"tidings","#), "{text}");
    assert_eq!(line["correlation_id"], "c-1");
    assert_eq!(line["event_id"], "e-1");
    assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
    assert_eq!(line["duration_ms"], 1.5);
    assert_eq!(line["status_code"], 200);
    assert_eq!(line["method"], "GET");
    assert_eq!(line["path"], "/x");
}

#[test]
fn a_record_names_its_request_however_few_are_logged() {
    let out = Out::default();
    let writer = Writer::start(Box::new(out.clone())).unwrap();
    let records = Records::new(Format::Json, writer.queue(), Clock::System);
    let quiet = records.with_filter(super::filter("warn").unwrap());
    with_default(registry().with(quiet), || {
        ids("c-1", "e-1", TraceContext::generate()).within(|| {
            info!("not logged");
            warn!("logged");
        });
    });
    drop(writer);
    let lines = lines(&out.text());
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["correlation_id"], "c-1");
    assert!(lines[0]["trace_id"].is_string());
}

#[test]
fn a_record_of_no_request_has_the_same_fields_as_null() {
    let text = logged(
        Format::Json,
        || warn!(count = 3_u64, is_on = true, error = %"no", "said"),
    );
    let line = &lines(&text)[0];
    for name in ["correlation_id", "event_id", "trace_id", "span_id"] {
        assert!(line.as_object().unwrap()[name].is_null());
    }
    assert_eq!(
        (&line["level"], &line["message"]),
        (&"WARN".into(), &"said".into())
    );
    assert_eq!(
        (&line["count"], &line["is_on"], &line["error"]),
        (&3.into(), &true.into(), &"no".into())
    );
}

#[test]
fn the_nearest_span_wins_and_no_field_takes_a_name_of_the_record() {
    let text = logged(Format::Json, || {
        info_span!("outer", place = "outer", only = 1).in_scope(|| {
            info_span!(
                "inner",
                place = "inner",
                service = "forged",
                level = "forged"
            )
            .in_scope(|| {
                info!("a");
                info!(place = "event", timestamp = "forged", "b");
            });
        });
    });
    let lines = lines(&text);
    assert_eq!(
        (&lines[0]["place"], &lines[0]["only"]),
        (&"inner".into(), &1.into())
    );
    assert_eq!(lines[1]["place"], "event");
    assert!(!text.contains("forged"), "{text}");
}

#[test]
fn no_field_can_break_a_line() {
    let say = || {
        error!(
            path = "/a\nb\u{1b}[31m\u{2028}\u{0}",
            "{}", "line\r\n{\"level\":\"INFO\"}"
        );
    };
    let json = logged(Format::Json, say);
    assert_eq!(json.lines().count(), 1);
    assert_eq!(lines(&json)[0]["message"], "line\r\n{\"level\":\"INFO\"}");
    let text = logged(Format::Text, say);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        !text.contains('\u{1b}') && text.starts_with("12:00:00.25"),
        "{text}"
    );
    assert!(
        text.contains("ERROR tidings::telemetry::tests: line\\r\\n"),
        "{text}"
    );
}

#[test]
fn who_logs_never_waits_and_what_is_lost_is_counted_and_said() {
    let out = Out::default();
    out.shut(true);
    let writer = Writer::with_capacity(Box::new(out.clone()), 4).unwrap();
    let records = Records::new(Format::Json, writer.queue(), Clock::System);
    with_default(registry().with(records), || {
        for number in 0..100 {
            info!(number, "busy");
        }
        out.shut(false);
        // The queue is empty again once all that it took is written.
        while out.text().lines().count() < 4 {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        info!("after");
    });
    drop(writer);
    let lines = lines(&out.text());
    let busy = lines.iter().filter(|l| l["message"] == "busy").count();
    let lost: u64 = lines.iter().filter_map(|l| l["dropped"].as_u64()).sum();
    assert!(busy < 100, "{busy}");
    assert_eq!(u64::try_from(busy).unwrap() + lost, 100);
    assert_eq!(lines.last().unwrap()["message"], "after");
}

#[test]
fn an_output_that_is_stuck_does_not_hold_the_end_for_ever() {
    let out = Out::default();
    out.shut(true);
    let writer = Writer::with_capacity(Box::new(out.clone()), 4).unwrap();
    writer.queue().leave("x\n".to_owned());
    let began = std::time::Instant::now();
    drop(writer);
    assert!(began.elapsed() < Duration::from_secs(5));
    out.shut(false);
}

#[test]
fn a_filter_is_a_level_or_directives() {
    for text in ["info", "OFF", "info,tidings::http=debug", "tidings=trace"] {
        assert!(is_filter(text), "{text}");
    }
    for text in ["", "loud", "tidings", "info,loud", "tidings=loud"] {
        assert!(!is_filter(text), "{text}");
    }
}

#[test]
fn traceparent_as_the_specification_has_it() {
    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let good = format!("00-{trace}-{span}-01");
    assert_eq!(TraceContext::parse(&good).unwrap().to_string(), good);
    for (text, kept) in [
        (format!(" {good}\t"), format!("00-{trace}-{span}-01")),
        (
            format!("00-{trace}-{span}-00"),
            format!("00-{trace}-{span}-00"),
        ),
        // Flags that we do not know are not passed on.
        (
            format!("00-{trace}-{span}-ff"),
            format!("00-{trace}-{span}-01"),
        ),
        // A later version, with and without more members.
        (
            format!("cc-{trace}-{span}-01"),
            format!("00-{trace}-{span}-01"),
        ),
        (
            format!("cc-{trace}-{span}-01-more"),
            format!("00-{trace}-{span}-01"),
        ),
    ] {
        assert_eq!(
            TraceContext::parse(&text).map(|c| c.to_string()),
            Some(kept),
            "{text:?}"
        );
    }
    for text in [
        String::new(),
        format!("{good}-more"),
        format!("{good},{good}"),
        format!("ff-{trace}-{span}-01"),
        format!("cc-{trace}-{span}-01more"),
        format!("00-{}-{span}-01", "0".repeat(32)),
        format!("00-{trace}-{}-01", "0".repeat(16)),
        format!("00-{}-{span}-01", trace.to_ascii_uppercase()),
        format!("00-{trace}-{span}-0"),
        format!("00-{trace}-{span}"),
        format!("00_{trace}_{span}_01"),
        format!("0-{trace}-{span}-001"),
        format!("00-{}g-{span}-01", &trace[1..]),
        format!("00-+{}-{span}-01", &trace[1..]),
        format!("00-{}é-{span}-01", &trace[2..]),
        "é".repeat(40),
    ] {
        assert_eq!(TraceContext::parse(&text), None, "{text:?}");
    }
    let (one, two) = (TraceContext::generate(), TraceContext::generate());
    assert_ne!(one.trace_id(), two.trace_id());
    assert_eq!(TraceContext::parse(&one.to_string()), Some(one));
    assert_eq!(one.child().trace_id(), one.trace_id());
    assert_ne!(one.child().span_id(), one.span_id());
}

/// A collector that answers every request with 200 and gives its path and body.
fn collector() -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = Vec::new();
            let mut piece = [0; 4096];
            let (head, length) = loop {
                let read = stream.read(&mut piece).unwrap();
                assert!(read > 0, "the request ended early");
                bytes.extend_from_slice(&piece[..read]);
                if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                    let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
                    let length = head.lines().find_map(|l| {
                        let (name, value) = l.split_once(": ")?;
                        name.eq_ignore_ascii_case("content-length")
                            .then(|| value.parse::<usize>().unwrap())
                    });
                    bytes.drain(..at + 4);
                    break (head, length.unwrap_or(0));
                }
            };
            while bytes.len() < length {
                let read = stream.read(&mut piece).unwrap();
                assert!(read > 0, "the request ended early");
                bytes.extend_from_slice(&piece[..read]);
            }
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            if sender.send((path, bytes)).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|w| w == part)
}

#[test]
fn spans_reach_the_collector_in_the_callers_trace_and_records_name_them() {
    let (address, requests) = collector();
    let provider = traces::exporter(&address).unwrap();
    let out = Out::default();
    let writer = Writer::start(Box::new(out.clone())).unwrap();
    let subscriber = registry()
        .with(super::traces_layer(&provider))
        .with(Records::new(Format::Json, writer.queue(), Clock::System));
    let here = with_default(subscriber, || {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let (span, here) = traces::request("GET /api/v1/x", Some(parent), Some("vendor=1"));
        span.unwrap().in_scope(|| {
            ids("c", "e", here).within(|| info!("inside"));
            info_span!(target: "hyper::proto", "of a library").in_scope(|| {});
        });
        here
    });
    provider
        .shutdown_with_timeout(Duration::from_secs(5))
        .unwrap();
    drop(writer);
    let (path, body) = requests.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(path, "/v1/traces");
    let id = u128::from_str_radix("0af7651916cd43dd8448eb211c80319c", 16).unwrap();
    let span_id = u64::from_str_radix(&here.span_id(), 16).unwrap();
    assert_eq!(here.trace_id(), "0af7651916cd43dd8448eb211c80319c");
    assert!(contains(&body, &id.to_be_bytes()), "the trace's id");
    assert!(
        contains(&body, &0xb7ad_6b71_6920_3331_u64.to_be_bytes()),
        "the parent's id"
    );
    assert!(contains(&body, &span_id.to_be_bytes()), "the span's id");
    assert!(contains(&body, b"GET /api/v1/x") && contains(&body, b"tidings"));
    assert!(contains(&body, b"vendor=1"));
    assert!(!contains(&body, b"of a library"));
    let line = &lines(&out.text())[0];
    assert_eq!(line["span_id"], here.span_id());
    assert_eq!(line["trace_id"], here.trace_id());
}

#[test]
fn a_caller_that_does_not_sample_is_not_exported() {
    let (address, requests) = collector();
    let provider = traces::exporter(&format!("{address}/v1/traces/")).unwrap();
    let subscriber = registry().with(super::traces_layer(&provider));
    with_default(subscriber, || {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let (_, here) = traces::request("GET /not-sampled", Some(parent), None);
        assert!(here.to_string().ends_with("-00"));
        let (_, here) = traces::request("GET /sampled", None, None);
        assert!(here.to_string().ends_with("-01"));
    });
    provider
        .shutdown_with_timeout(Duration::from_secs(5))
        .unwrap();
    let (path, body) = requests.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(path, "/v1/traces");
    assert!(contains(&body, b"GET /sampled") && !contains(&body, b"GET /not-sampled"));
}

#[test]
fn a_collector_that_is_gone_costs_neither_an_answer_nor_the_end() {
    let provider = traces::exporter("http://127.0.0.1:1").unwrap();
    let _tracer = provider.tracer("x");
    let subscriber = registry().with(super::traces_layer(&provider));
    with_default(subscriber, || {
        for _ in 0..10_000 {
            drop(traces::request("GET /x", None, None));
        }
    });
    let began = std::time::Instant::now();
    // What it says does not matter; that it comes back does.
    let _ = provider.shutdown_with_timeout(Duration::from_secs(3));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn metrics_are_shown_in_the_text_form_with_their_meaning() {
    let recorder = metrics::Split::new();
    ::metrics::with_local_recorder(&recorder, || {
        metrics::describe();
        ::metrics::counter!("tidings_auth_failures_total", "reason" => "expired").increment(1);
        ::metrics::counter!("tidings_refused_connections_total", "reason" => "limit").increment(1);
        ::metrics::counter!("tidings_policy_reloads_total", "result" => "ok").increment(1);
        metrics::request_seconds("/api/v1/events", "POST", 202).record(Duration::from_micros(700));
        let hot = ::metrics::histogram!("tidings_delivery_seconds");
        hot.record_many(0.000_02, 1_000_000);
        hot.record(100.0);
        ::metrics::histogram!("tidings_commit_events").record(7.0);
        ::metrics::counter!("tidings_dead_letters", "source" => "a\"b\\c\nd").increment(2);
    });
    let text = recorder.render();
    for part in [
        "# TYPE tidings_auth_failures_total counter\ntidings_auth_failures_total{reason=\"expired\"} 1\n",
        "tidings_refused_connections_total{reason=\"limit\"} 1\n",
        "tidings_policy_reloads_total{result=\"ok\"} 1\n",
        "# HELP tidings_delivery_seconds Time from commit to socket write.\n# TYPE tidings_delivery_seconds histogram\n",
        "tidings_delivery_seconds_bucket{le=\"0.00001\"} 0\ntidings_delivery_seconds_bucket{le=\"0.000025\"} 1000000\n",
        "tidings_delivery_seconds_bucket{le=\"60\"} 1000000\ntidings_delivery_seconds_bucket{le=\"+Inf\"} 1000001\n",
        "tidings_delivery_seconds_count 1000001\n",
        "tidings_http_request_seconds_bucket{route=\"/api/v1/events\",method=\"POST\",status=\"202\",le=\"0.001\"} 1\n",
        "tidings_http_request_seconds_count{route=\"/api/v1/events\",method=\"POST\",status=\"202\"} 1\n",
        "tidings_commit_events_bucket{le=\"5\"} 0\ntidings_commit_events_bucket{le=\"10\"} 1\n",
        "tidings_dead_letters{source=\"a\\\"b\\\\c\\nd\"} 2\n",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    for line in text
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let (_, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn telemetry_starts_once_with_a_collector_and_counts() {
    let (address, requests) = collector();
    let mut sources = crate::config::Sources::default();
    for (name, value) in [
        ("TIDINGS_OTLP_ENDPOINT", address.as_str()),
        ("TIDINGS_LOG_LEVEL", "off"),
    ] {
        sources
            .environment
            .insert(name.to_owned(), value.to_owned());
    }
    let config = crate::config::load(&sources).unwrap().config;
    let telemetry = super::Telemetry::start(&config, Clock::System).unwrap();
    assert!(super::Telemetry::start(&config, Clock::System).is_err());
    drop(traces::request("GET /whole", None, None));
    metrics::publishes("accepted", 1, Some(Duration::from_millis(1)));
    let text = metrics::render();
    assert!(
        text.contains("tidings_publishes_total{result=\"accepted\"} 1"),
        "{text}"
    );
    assert!(text.contains("tidings_publish_seconds_count 1"), "{text}");
    assert!(text.contains("tidings_build_info{version=\""), "{text}");
    telemetry.shutdown();
    let (_, body) = requests.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(contains(&body, b"GET /whole"));
}
