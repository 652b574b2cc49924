//! Denied writes and approvals are told on `audit/alarms`: who, what, on which path; not more often than an auditor can read.

use std::collections::HashMap;
use std::time::Duration;

use http::request::Parts;
use parking_lot::Mutex;
use serde_json::json;
use tidings_core::auth::Principal;
use tidings_core::clock::Timestamp;
use tidings_core::event::{EventId, EventType, Json, NewEvent};
use tidings_core::log::Batch;
use tidings_core::tenant::Tenant;
use tidings_core::topic::Topic;

use crate::app::App;
use crate::http::routes::template;

/// Denials of one tenant that are told in a window; the rest are counted, and the next that is told says how many.
const MAX_TOLD: u32 = 60;
/// The window.
const WINDOW: Duration = Duration::from_secs(60);
/// Tenants that are counted at once.
const MAX_TENANTS: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Window {
    since: Timestamp,
    told: u32,
    untold: u64,
}

/// How many denials each tenant has been told of.
#[derive(Debug, Default)]
pub(crate) struct Denials(Mutex<HashMap<Tenant, Window>>);

impl Denials {
    /// Counts one. Where it is to be told: how many before it were not.
    fn count(&self, tenant: &Tenant, now: Timestamp) -> Option<u64> {
        let mut all = self.0.lock();
        if all.len() >= MAX_TENANTS && !all.contains_key(tenant) {
            all.retain(|_, window| now.since(window.since) < WINDOW);
            if all.len() >= MAX_TENANTS {
                return None;
            }
        }
        let window = all.entry(tenant.clone()).or_insert(Window {
            since: now,
            told: 0,
            untold: 0,
        });
        if now.since(window.since) >= WINDOW {
            (window.since, window.told) = (now, 0);
        }
        if window.told >= MAX_TOLD {
            window.untold = window.untold.saturating_add(1);
            return None;
        }
        window.told += 1;
        Some(std::mem::take(&mut window.untold))
    }
}

/// Tells of one. What goes wrong with it changes nothing of the answer.
pub(super) async fn tell(app: &App, parts: &Parts, principal: &Principal, action: &'static str) {
    let now = app.clock.now();
    let Some(untold) = app.denials.count(&principal.tenant, now) else {
        return;
    };
    let id = EventId::random(now);
    // The template: what stands in the address itself may be anybody's secret.
    let path = template(parts.uri.path());
    let data = json!({
        "event_id": id.as_str(),
        "event_type": "access_denied",
        "tenant_id": principal.tenant.as_str(),
        "timestamp": now.to_string(),
        "actor": &*principal.subject,
        "action": action,
        "method": parts.method.as_str(),
        "path": path,
        "untold_before": untold,
    });
    let (Ok(topic), Ok(kind), Ok(data)) = (
        Topic::new("audit/alarms"),
        EventType::new("access_denied"),
        Json::encode(&data),
    ) else {
        return;
    };
    let mut event = NewEvent::new(topic, kind, data);
    event.given = Some(id);
    let batch = Batch {
        subject: principal.subject.clone(),
        events: vec![event],
        idempotency: None,
    };
    if let Err(error) = app.log.publish(&principal.tenant, batch).await {
        tracing::warn!(%error, "a denial could not be recorded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_tells_so_many_and_the_next_says_what_it_missed() {
        let denials = Denials::default();
        let (a, b) = (Tenant::new("a").unwrap(), Tenant::new("b").unwrap());
        let at = Timestamp::from_secs;
        for _ in 0..MAX_TOLD {
            assert_eq!(denials.count(&a, at(0)), Some(0));
        }
        for _ in 0..3 {
            assert_eq!(denials.count(&a, at(59)), None);
        }
        assert_eq!(denials.count(&b, at(59)), Some(0));
        assert_eq!(denials.count(&a, at(60)), Some(3));
        assert_eq!(denials.count(&a, at(61)), Some(0));
    }

    #[test]
    fn memory_is_bounded() {
        let denials = Denials::default();
        let tenant = |n: usize| Tenant::new(&n.to_string()).unwrap();
        for n in 0..MAX_TENANTS {
            assert!(denials.count(&tenant(n), Timestamp::from_secs(0)).is_some());
        }
        let one_more = tenant(MAX_TENANTS);
        assert_eq!(denials.count(&one_more, Timestamp::from_secs(1)), None);
        assert_eq!(denials.count(&one_more, Timestamp::from_secs(61)), Some(0));
        assert_eq!(denials.0.lock().len(), 1);
    }
}
