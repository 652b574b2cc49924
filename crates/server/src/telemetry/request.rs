//! The ids of a request, at hand of whatever runs for it: every record names them.
//!
//! A span would do the same, at several times the price: it is made only where an exporter wants it.

use std::sync::Arc;

use tidings_core::event::EventId;

use super::traces::TraceContext;

/// The ids of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestIds {
    /// Ties together all that one action of a user causes.
    pub(crate) correlation_id: String,
    /// The request's own id, or that of the one event that it makes.
    pub(crate) event_id: EventId,
    /// The trace that it belongs to.
    pub(crate) trace: TraceContext,
}

tokio::task_local! {
    static CURRENT: Arc<RequestIds>;
}

impl RequestIds {
    /// Runs a future whose records name these ids.
    pub(crate) fn around<F: Future>(self: Arc<Self>, run: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, run)
    }

    /// Runs a closure whose records name these ids.
    pub(crate) fn within<T>(self: Arc<Self>, run: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, run)
    }

    /// The ids of the request that the caller runs for.
    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// One of the members that records have, by its name there.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        Some(match name {
            "correlation_id" => self.correlation_id.clone(),
            "event_id" => self.event_id.to_string(),
            "trace_id" => self.trace.trace_id(),
            "span_id" => self.trace.span_id(),
            _ => return None,
        })
    }
}
