//! W3C trace context (<https://www.w3.org/TR/trace-context/>), with or without an OTLP collector.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::{FilterFn, filter_fn};

use super::SERVICE;
use super::request::RequestIds;

/// Where `otlp.endpoint` takes traces (OTLP/HTTP).
const TRACES_PATH: &str = "/v1/traces";
/// The longest `tracestate` that is passed on, in bytes: the least that the specification asks for.
const MAX_STATE_BYTES: usize = 512;

/// The target of requests' spans.
const TARGET: &str = "tidings::request";

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Where a request stands in its trace: `00-<trace id>-<span id>-<flags>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent` header. None for anything that the specification calls invalid; a later version's extra
    /// members are passed over.
    pub(crate) fn parse(traceparent: &str) -> Option<Self> {
        let text = traceparent.trim_matches([' ', '\t']);
        // [spec] "All unknown versions ... If a higher version is detected, the implementation SHOULD try to parse it"
        let bytes = text.as_bytes();
        let is_shaped = bytes.len() >= 55 && [2, 35, 52].iter().all(|&at| bytes[at] == b'-');
        if !is_shaped || !text.is_ascii() {
            return None;
        }
        let (version, trace_id) = (hex(&text[..2])?, hex(&text[3..35])?);
        let (span_id, flags) = (hex(&text[36..52])?, hex(&text[53..55])?);
        let is_right_length = match version {
            0 => bytes.len() == 55,
            // [spec] "Version 255 is invalid."
            255 => false,
            _ => bytes.len() == 55 || bytes[55] == b'-',
        };
        if !is_right_length || trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self {
            trace_id,
            span_id: u64::try_from(span_id).ok()?,
            // [spec] Only the flags that we know are passed on: sampled (1).
            flags: u8::try_from(flags & 1).ok()?,
        })
    }

    /// The first context of a new trace, sampled.
    pub(crate) fn generate() -> Self {
        Self {
            trace_id: fastrand::u128(1..),
            span_id: fastrand::u64(1..),
            flags: 1,
        }
    }

    /// A new span of the same trace.
    pub(crate) fn child(self) -> Self {
        Self {
            span_id: fastrand::u64(1..),
            ..self
        }
    }

    /// The trace's id: 32 hexadecimal digits.
    pub(crate) fn trace_id(self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// The span's id: 16 hexadecimal digits.
    pub(crate) fn span_id(self) -> String {
        format!("{:016x}", self.span_id)
    }

    fn of(context: &SpanContext) -> Self {
        Self {
            trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(context.span_id().to_bytes()),
            flags: context.trace_flags().to_u8() & 1,
        }
    }

    fn to_remote(self, state: Option<&str>) -> SpanContext {
        let state = state
            .filter(|s| s.len() <= MAX_STATE_BYTES)
            .and_then(|s| s.parse::<TraceState>().ok());
        SpanContext::new(
            TraceId::from_bytes(self.trace_id.to_be_bytes()),
            SpanId::from_bytes(self.span_id.to_be_bytes()),
            TraceFlags::new(self.flags),
            true,
            state.unwrap_or_default(),
        )
    }
}

impl fmt::Display for TraceContext {
    /// The `traceparent` header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            span_id,
            flags,
        } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
    }
}

/// Digits as the specification has them: small letters only.
fn hex(digits: &str) -> Option<u128> {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if !digits.bytes().all(is_hex) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

/// Says where a request stands: in the caller's trace, or in one of its own. Where traces are exported there is a span to
/// run it in; its name is the method, until [`end_request`] knows the route.
pub(crate) fn request(
    name: &'static str,
    traceparent: Option<&str>,
    tracestate: Option<&str>,
) -> (Option<Span>, TraceContext) {
    let caller = traceparent.and_then(TraceContext::parse);
    let exported = exported(name, caller, tracestate);
    exported.map_or_else(
        || {
            let here = caller.map_or_else(TraceContext::generate, TraceContext::child);
            (None, here)
        },
        |(span, here)| (Some(span), here),
    )
}

/// Names an exported span by method and route, never by path: paths hold identities. Says what became of the request,
/// in the words of OpenTelemetry's conventions for HTTP, and by which ids the log knows it.
pub(crate) fn end_request(
    span: &Span,
    method: &'static str,
    route: &'static str,
    status: StatusCode,
    ids: &RequestIds,
) {
    let context = span.context();
    let exported = context.span();
    exported.update_name(format!("{method} {route}"));
    exported.set_attributes([
        KeyValue::new("http.request.method", method),
        KeyValue::new("http.route", route),
        KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
        KeyValue::new("correlation_id", ids.correlation_id.clone()),
        KeyValue::new("event_id", ids.event_id.to_string()),
    ]);
    if status.is_server_error() {
        exported.set_status(Status::error(""));
    }
}

/// The span for the exporter, and the context that it gives it, where one runs.
fn exported(
    name: &'static str,
    caller: Option<TraceContext>,
    tracestate: Option<&str>,
) -> Option<(Span, TraceContext)> {
    if !IS_ON.load(Ordering::Relaxed) {
        return None;
    }
    let span =
        tracing::info_span!(target: TARGET, "request", otel.name = name, otel.kind = "server");
    if span.is_disabled() {
        return None;
    }
    if let Some(caller) = caller {
        let parent = caller.to_remote(tracestate);
        // Before the span is entered, or it would have begun a trace of its own. Failing means that no layer is there.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
    let context = span.context();
    let of_span = context.span().span_context().clone();
    of_span
        .is_valid()
        .then(|| (span, TraceContext::of(&of_span)))
}

pub(super) fn turn_on() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// Spans of tidings alone: those of libraries, and above all of the exporter's own client, would feed on themselves.
pub(super) fn only_ours() -> FilterFn {
    filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("tidings"))
}

/// Sends spans in batches, from a thread of its own, with a client that blocks: the asynchronous one has no runtime there.
pub(super) fn exporter(endpoint: &str) -> Result<SdkTracerProvider, String> {
    let endpoint = endpoint.trim_end_matches('/');
    let url = match endpoint.strip_suffix(TRACES_PATH) {
        Some(_) => endpoint.to_owned(),
        None => format!("{endpoint}{TRACES_PATH}"),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url)
        .with_timeout(Duration::from_secs(5))
        .build()
        .map_err(|e| e.to_string())?;
    let resource = Resource::builder()
        .with_service_name(SERVICE)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .with_resource(resource)
        .build())
}
