//! What is held of a tenant between two looks at its log.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;
use tidings_core::clock::Timestamp;
use tidings_core::db::DbError;
use tidings_core::log::{Logged, TenantLog};

use crate::alarm::event::INGESTED;
use crate::cluster::members::Fact;
use crate::cluster::publish::New;
use crate::correlate::{Arrival, Component, Occurrence, Rules, Window, givers};
use crate::{Error, Severity};

/// Occurrences that are published without waiting for more.
const FULL: usize = 2_000;
/// Where much is held, a plan takes long: then one part in so many of that is waited for.
const SHARE: usize = 20;

/// What is held of a tenant.
pub(super) struct Tenancy {
    pub(super) log: Arc<TenantLog>,
    pub(super) window: Window,
    /// How far the log has been read.
    pub(super) cursor: u64,
    /// All that came in before this time has been read: nothing is settled sooner than that, however late the log is read.
    pub(super) read_until: Timestamp,
    /// Clusters have numbers here, in the order of their making.
    pub(super) ids: HashMap<u64, String>,
    pub(super) numbers: HashMap<String, u64>,
    pub(super) closed: HashSet<u64>,
    pub(super) next: u64,
    /// What is in no cluster yet.
    pub(super) new: HashMap<String, New>,
    /// Of what is new, that which the window has not got yet.
    pub(super) arrivals: Vec<Arrival>,
    /// Since when the oldest of it waits.
    pub(super) waits_since: Option<Timestamp>,
    pub(super) aside: Vec<(String, String)>,
    /// Up to here, one event is taken at a time: something there could not be stored.
    pub(super) careful_to: u64,
    /// Up to here, what is read may have its cluster: a publication may have been broken off between two pieces.
    pub(super) doubtful_to: u64,
}

/// An `alarm_ingested`'s data, as far as correlation needs it.
#[derive(Deserialize)]
struct Data {
    event_id: String,
    timestamp: String,
    alarm_id: String,
    entity_id: String,
    entity_external_id: Option<String>,
    alarm_type: String,
    severity: Severity,
    raised_at: String,
}

impl Tenancy {
    /// Works on all that is held, on a thread for such work: of a million it takes a while, and no request waits for it.
    pub(super) async fn on_window<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Window) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let none = Window::new(Arc::default(), Rules::default());
        let mut window = std::mem::replace(&mut self.window, none);
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut window);
            (window, result)
        });
        let (window, result) = done
            .await
            .map_err(|e| DbError::Fault(format!("the correlation did not finish: {e}")))?;
        self.window = window;
        Ok(result)
    }

    /// Takes in an event of the log: an occurrence, something else, or something that cannot be read.
    pub(super) fn take(&mut self, event: &Logged) {
        if &*event.kind != INGESTED {
            return;
        }
        match read(event) {
            Ok((id, new)) => {
                let arrived = new.fact.arrived_at;
                self.read_until = self.read_until.max(arrived);
                self.waits_since =
                    Some(self.waits_since.map_or(arrived, |since| since.min(arrived)));
                self.arrivals.push(Arrival {
                    occurrence: Occurrence {
                        event_id: id.clone(),
                        entity_id: new.fact.entity_id.clone(),
                        alarm_type: new.fact.alarm_type.clone(),
                        raised_at: new.fact.raised_at,
                    },
                    arrived_at: arrived.as_micros(),
                    cluster: None,
                });
                self.new.insert(id, new);
            }
            Err(reason) => self.aside.push((event.json.to_string(), reason)),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.new.len() >= FULL.max(self.window.len() / SHARE)
    }

    pub(super) fn number(&mut self, id: &str) -> u64 {
        if let Some(&number) = self.numbers.get(id) {
            return number;
        }
        self.next += 1;
        self.numbers.insert(id.to_owned(), self.next);
        self.ids.insert(self.next, id.to_owned());
        self.next
    }

    /// The ids of the clusters that a plan names.
    pub(super) fn ids_of(&self, plan: &[Component]) -> HashMap<u64, String> {
        let named = plan.iter().flat_map(|c| {
            let own = c.cluster.iter().chain(&c.merged).chain(&c.continues);
            own.copied().chain(givers(c))
        });
        named
            .filter_map(|number| Some((number, self.ids.get(&number)?.clone())))
            .collect()
    }

    /// A part of a plan is stored. Gives the numbers of its clusters.
    pub(super) fn carried_out(&mut self, plan: &[Component], ids: &[String]) -> Vec<u64> {
        let numbers: Vec<u64> = ids.iter().map(|id| self.number(id)).collect();
        self.window.apply(plan, &numbers);
        numbers
    }

    /// Forgets the ids of clusters of which nothing is held any more, before they pile up.
    pub(super) fn forget_clusters(&mut self) {
        if self.ids.len() > 2 * self.window.len() + 1_000 {
            let held: HashSet<u64> = self.window.clusters().collect();
            self.ids.retain(|number, _| held.contains(number));
            self.numbers.retain(|_, number| held.contains(number));
            self.closed.retain(|number| held.contains(number));
        }
    }
}

/// An occurrence of the log's, by its event, or why it is none.
pub(super) fn read(event: &Logged) -> Result<(String, New), String> {
    let data = event
        .json
        .get(event.data_at..event.json.len().saturating_sub(1))
        .unwrap_or("null");
    let data: Data = serde_json::from_str(data).map_err(|e| format!("not an alarm: {e}"))?;
    let time = |name: &str, text: &str| Timestamp::parse(text).map_err(|e| format!("{name}: {e}"));
    let fact = Fact {
        alarm_id: data.alarm_id,
        entity_id: data.entity_id,
        alarm_type: data.alarm_type,
        severity: data.severity,
        is_emergency: false,
        raised_at: time("raised_at", &data.raised_at)?,
        arrived_at: time("timestamp", &data.timestamp)?,
    };
    Ok((
        data.event_id,
        New {
            fact,
            entity_external_id: data.entity_external_id,
        },
    ))
}
