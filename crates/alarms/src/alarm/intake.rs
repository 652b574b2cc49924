//! Who hands in alarms at the same time shares a transaction, so that ten thousand small requests cost what ten large ones
//! do; and one transaction never takes so many that an operator's acknowledgement waits for long behind it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tidings_core::log::Log;
use tidings_core::tenant::Tenant;
use tokio::sync::oneshot;

use super::Occurrence;
use super::write::{self, Outcome, Prepared};
use crate::{Alarms, Config, Error};

/// Occurrences after which a transaction takes no further request. It holds the committer for about 10 ms; a single
/// request that brings more is taken alone.
const SHARED: usize = 500;
/// Occurrences of one tenant that may wait: what a burst may cost in memory. One more is refused.
const WAITING: usize = 50_000;

/// What one request brings: all of it is taken, or nothing.
#[derive(Debug, Default)]
pub struct Request {
    /// In order.
    pub occurrences: Vec<Occurrence>,
    /// The `traceparent` that it came with.
    pub trace: Option<String>,
}

/// What became of a request's occurrences, in order. The events and rows are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted(pub Vec<Outcome>);

impl Accepted {
    /// How many were known already.
    #[must_use]
    pub fn repeats(&self) -> usize {
        self.0.iter().filter(|outcome| outcome.is_repeat).count()
    }
}

struct Waiting {
    trace: Option<String>,
    occurrences: Vec<Prepared>,
    reply: oneshot::Sender<Result<Accepted, Error>>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    count: usize,
}

/// Requests of each tenant that wait for the next transaction; a tenant is here while its driver runs.
#[derive(Default)]
pub(crate) struct Intake(Mutex<HashMap<Tenant, Line>>);

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Intake")
    }
}

impl Intake {
    /// Puts a request in line. Says whether a driver must be started.
    fn join(&self, tenant: &Tenant, waiting: Waiting) -> Result<bool, Error> {
        let mut lines = self.0.lock();
        let is_idle = !lines.contains_key(tenant);
        let line = lines.entry(tenant.clone()).or_default();
        if line.count > 0 && line.count + waiting.occurrences.len() > WAITING {
            return Err(Error::Full);
        }
        line.count += waiting.occurrences.len();
        line.waiting.push_back(waiting);
        Ok(is_idle)
    }

    /// What the next transaction takes; none ends the driver.
    fn next(&self, tenant: &Tenant) -> Option<Vec<Waiting>> {
        let mut lines = self.0.lock();
        let line = lines.get_mut(tenant)?;
        let mut taken: Vec<Waiting> = Vec::new();
        let mut count = 0;
        while let Some(first) = line.waiting.front() {
            let size = first.occurrences.len();
            if !taken.is_empty() && count + size > SHARED {
                break;
            }
            count += size;
            taken.extend(line.waiting.pop_front());
        }
        line.count -= count;
        if taken.is_empty() {
            lines.remove(tenant);
            return None;
        }
        Some(taken)
    }
}

impl Alarms {
    /// Takes what a request brings: durable, and told, before this returns. A caller that goes away changes nothing.
    pub async fn ingest(&self, tenant: &Tenant, request: Request) -> Result<Accepted, Error> {
        if request.occurrences.is_empty() {
            return Ok(Accepted(Vec::new()));
        }
        let occurrences = request.occurrences.into_iter();
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting {
            trace: request.trace,
            occurrences: occurrences.map(|o| Prepared::new(tenant, o)).collect(),
            reply,
        };
        if self.intake.join(tenant, waiting)? {
            let (alarms, tenant) = (self.clone(), tenant.clone());
            tokio::spawn(async move { alarms.drive(&tenant).await });
        }
        answer.await.unwrap_or(Err(Error::Full))
    }

    /// Takes what waits of a tenant, transaction after transaction, until nothing does.
    async fn drive(&self, tenant: &Tenant) {
        while let Some(taken) = self.intake.next(tenant) {
            let mut replies = Vec::with_capacity(taken.len());
            let mut requests = Vec::with_capacity(taken.len());
            for waiting in taken {
                replies.push(waiting.reply);
                requests.push((waiting.trace, waiting.occurrences));
            }
            let soonest = requests.iter().flat_map(|(_, o)| o);
            let soonest = soonest.filter_map(|p| p.occurrence.ends_at).min();
            match commit(&self.log, tenant, self.config.clone(), requests).await {
                Ok(answers) => {
                    self.expect_due(soonest);
                    for (reply, answer) in replies.into_iter().zip(answers) {
                        // Who has gone away needs no answer.
                        let _ = reply.send(answer.map(Accepted));
                    }
                }
                Err(error) => {
                    for reply in replies {
                        let _ = reply.send(Err(error.clone()));
                    }
                }
            }
        }
    }
}

async fn commit(
    log: &Log,
    tenant: &Tenant,
    config: Arc<Config>,
    requests: Vec<(Option<String>, Vec<Prepared>)>,
) -> Result<Vec<Result<Vec<Outcome>, Error>>, Error> {
    let written = log
        .write(tenant, move |tx| write::take(tx, &config, &requests))
        .await;
    Ok(written.map_err(Error::from)?.value)
}
