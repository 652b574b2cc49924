//! What the server says about itself: records, traces, metrics.
//!
//! - `logs`: JSON lines, or text for people, with the fields of the spans around them
//! - `writer`: standard error from a thread of its own, bounded; what does not fit is counted
//! - `request`: the ids of the request that a record belongs to
//! - `traces`: W3C trace context, with or without an OTLP collector
//! - `metrics`, `histogram`: what `/metrics` shows

pub(crate) mod histogram;
mod logs;
pub(crate) mod metrics;
pub(crate) mod request;
#[cfg(test)]
mod tests;
pub(crate) mod traces;
mod writer;

use std::io::IsTerminal as _;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tidings_core::clock::Clock;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Config, LogFormat};
use logs::{Format, Records};
use writer::Writer;

/// The service's name in records and traces.
pub(crate) const SERVICE: &str = "tidings";

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    /// The filter's directives.
    #[error("log.level is no filter: {0}")]
    Filter(String),
    /// The OTLP exporter.
    #[error("cannot export traces to otlp.endpoint: {0}")]
    Otlp(String),
    /// A second start in one process.
    #[error("telemetry runs already: {0}")]
    Twice(String),
    /// A thread did not start.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Whether a text is a log filter: a level, or directives with commas.
pub(crate) fn is_filter(text: &str) -> bool {
    // A word that is no level would be taken for a target, and everything else switched off.
    let is_level = |word: &str| {
        let levels = ["error", "warn", "info", "debug", "trace", "off"];
        levels.iter().any(|level| level.eq_ignore_ascii_case(word))
    };
    let mut parts = text.split(',').map(str::trim);
    parts.all(|part| is_level(part) || part.contains('=')) && text.parse::<EnvFilter>().is_ok()
}

/// The filter of a setting.
fn filter(level: &str) -> Result<EnvFilter, String> {
    level.parse().map_err(|e| format!("{e}"))
}

/// Gives every span of ours to the exporter. Absent, not idle, where nothing is exported: it costs on every span.
fn traces_layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    traces::turn_on();
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SERVICE))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(traces::only_ours())
}

/// Keeps telemetry running. [`Telemetry::shutdown`] writes what is still waiting.
pub(crate) struct Telemetry {
    provider: Option<SdkTracerProvider>,
    writer: Writer,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry")
            .field("is_tracing", &self.provider.is_some())
            .finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Starts records, metrics, and traces where a collector is set. Call it outside of async code: the exporter's client
    /// blocks.
    pub(crate) fn start(config: &Config, clock: Clock) -> Result<Self, TelemetryError> {
        metrics::install().map_err(TelemetryError::Twice)?;
        let format = match config.log.format {
            LogFormat::Json => Format::Json,
            LogFormat::Text => Format::Text,
            LogFormat::Auto if std::io::stderr().is_terminal() => Format::Text,
            LogFormat::Auto => Format::Json,
        };
        let filter = filter(&config.log.level).map_err(TelemetryError::Filter)?;
        let writer = Writer::start(Box::new(std::io::stderr()))?;
        let records = Records::new(format, writer.queue(), clock);
        let provider = match &config.otlp_endpoint {
            Some(endpoint) => Some(traces::exporter(endpoint).map_err(TelemetryError::Otlp)?),
            None => None,
        };
        let tracing_layer = provider.as_ref().map(traces_layer);
        tracing_subscriber::registry()
            .with(tracing_layer)
            .with(records.with_filter(filter))
            .try_init()
            .map_err(|e| TelemetryError::Twice(e.to_string()))?;
        Ok(Self { provider, writer })
    }

    /// Sends the traces and writes the records that are still waiting, for at most a few seconds. Blocks: call it outside of
    /// async code.
    pub(crate) fn shutdown(self) {
        if let Some(provider) = &self.provider
            && let Err(e) = provider.shutdown_with_timeout(std::time::Duration::from_secs(3))
        {
            tracing::warn!(error = %e, "the last traces were not exported");
        }
        drop(self.writer);
    }
}
