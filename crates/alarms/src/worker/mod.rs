//! Correlates what the log brings, tenant by tenant, from where it stood.
//!
//! What is held in memory can be made again from the rows: after a failure, or a start, it is. The cursor moves in the
//! transaction that has the effects, so that an occurrence is neither lost nor taken twice.

mod tenancy;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidings_core::clock::{Clock, Timestamp};
use tidings_core::db::{Conn, DbError};
use tidings_core::hub::Rights;
use tidings_core::log::{Logged, Page, TenantLog, WriteError};
use tidings_core::tenant::Tenant;
use tidings_core::topic::{Pattern, Patterns};

use crate::alarm::event::{INGESTED, TOPIC};
use crate::cluster::members;
use crate::cluster::publish::{self, New, Publication, Refusal};
use crate::cluster::store;
use crate::correlate::{Arrival, MEMORY_SECONDS, Occurrence, Piece, Rules, Window, pieces};
use crate::{Alarms, Error};

use tenancy::{Tenancy, read};

/// How often the heads of the logs are looked at: a number in memory each.
const TICK: Duration = Duration::from_millis(100);
/// The same where a test moves the clock.
const MANUAL_TICK: Duration = Duration::from_millis(20);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Events of one look at the log.
const PAGE: usize = 2_000;
/// What one transaction takes of a publication, in occurrences: it holds the committer for some milliseconds, and whoever acknowledges
/// an alarm meanwhile waits as long.
const PIECE: usize = 64;
/// The part of `correlation.flush_seconds` that an occurrence waits for what comes with it; the rest is for the work.
const PART: f64 = 0.4;

impl Alarms {
    /// Correlates what the logs bring, for ever.
    pub async fn run_correlation(&self) {
        let tick = match self.clock {
            Clock::System => TICK,
            Clock::Manual(_) => MANUAL_TICK,
        };
        let mut tenancies: HashMap<i64, Tenancy> = HashMap::new();
        // Tenants that failed are read anew, with this much care.
        let mut careful: HashMap<i64, u64> = HashMap::new();
        loop {
            tokio::time::sleep(tick).await;
            let mut lag = 0;
            for log in self.log.tenants() {
                let number = log.number;
                let result = self.correlate_tenant(&log, &mut tenancies, &careful).await;
                match result {
                    Ok(behind) => lag += behind,
                    Err(error) => {
                        tracing::warn!(%error, tenant = %log.tenant, "alarms wait to be correlated; trying again");
                        let tenancy = tenancies.remove(&number);
                        if let (Some(_), Some(tenancy)) = (refusal(&error), tenancy) {
                            careful.insert(number, tenancy.cursor);
                        }
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
            #[expect(clippy::cast_precision_loss, reason = "a count of events")]
            metrics::gauge!("tidings_worker_lag_events", "worker" => "correlation").set(lag as f64);
        }
    }

    /// Does what there is to do for one tenant. Says how many events wait.
    async fn correlate_tenant(
        &self,
        log: &Arc<TenantLog>,
        tenancies: &mut HashMap<i64, Tenancy>,
        careful: &HashMap<i64, u64>,
    ) -> Result<u64, Error> {
        let mut tenancy = match tenancies.remove(&log.number) {
            Some(tenancy) => tenancy,
            None if log.head() == 0 => return Ok(0),
            None => self.load(log, careful.get(&log.number).copied()).await?,
        };
        let result = self.advance(&mut tenancy).await;
        let behind = log.head().saturating_sub(tenancy.cursor) + tenancy.new.len() as u64;
        // Also after a failure: how far it had come says where the trouble is.
        tenancies.insert(log.number, tenancy);
        result.map(|()| behind)
    }

    /// Reads what has come, and publishes what is due.
    async fn advance(&self, tenancy: &mut Tenancy) -> Result<(), Error> {
        // Before the head is looked at: what is beyond it will have come in later.
        let now = self.clock.now();
        while tenancy.log.head() > tenancy.cursor {
            let is_careful = tenancy.cursor < tenancy.careful_to;
            let limit = if is_careful { 1 } else { PAGE };
            let page = self.read_log(&tenancy.log, tenancy.cursor, limit).await?;
            let before = tenancy.cursor;
            tenancy.cursor = page.end.next;
            for event in &page.events {
                tenancy.take(event);
            }
            if before < tenancy.doubtful_to {
                self.pass_over_placed(tenancy).await?;
            }
            if is_careful {
                self.publish_carefully(tenancy, before, &page.events)
                    .await?;
            } else if tenancy.is_full() {
                self.publish(tenancy).await?;
            }
            if page.end.is_end {
                break;
            }
        }
        tenancy.read_until = now;
        let wait = self.config.flush.mul_f64(PART);
        let is_due = tenancy
            .waits_since
            .is_some_and(|since| now >= since.plus(wait));
        if is_due || !tenancy.aside.is_empty() {
            self.publish(tenancy).await?;
        }
        Ok(())
    }

    /// Publishes what one event brought. One that the database refuses by itself is set aside.
    async fn publish_carefully(
        &self,
        tenancy: &mut Tenancy,
        before: u64,
        events: &[Logged],
    ) -> Result<(), Error> {
        if tenancy.new.is_empty() && tenancy.aside.is_empty() {
            return Ok(());
        }
        let Err(error) = self.publish(tenancy).await else {
            return Ok(());
        };
        let Some(reason) = refusal(&error) else {
            return Err(error);
        };
        let (cursor, careful_to) = (tenancy.cursor, tenancy.careful_to);
        *tenancy = self.load(&tenancy.log.clone(), Some(careful_to)).await?;
        debug_assert!(tenancy.cursor <= before, "what failed was not stored");
        tenancy.cursor = cursor;
        tenancy.aside = events
            .iter()
            .map(|e| (e.json.to_string(), reason.to_owned()))
            .collect();
        self.publish(tenancy).await
    }

    /// Drops what has its cluster from before a restart.
    async fn pass_over_placed(&self, tenancy: &mut Tenancy) -> Result<(), Error> {
        let ids: Vec<String> = tenancy.new.keys().cloned().collect();
        let number = tenancy.log.number;
        let read = move |conn: &mut Conn| members::many(conn, number, &ids);
        for member in self.log.db().read(read).await? {
            tenancy.new.remove(&member.event_id);
        }
        let new = &tenancy.new;
        tenancy
            .arrivals
            .retain(|arrival| new.contains_key(&arrival.occurrence.event_id));
        Ok(())
    }

    /// Finds the clusters of all that is new, and stores them piece by piece: between two of them others may write. The
    /// cursor moves with the last one.
    async fn publish(&self, tenancy: &mut Tenancy) -> Result<(), Error> {
        let topology = self.topology(&tenancy.log.tenant).await?;
        let arrivals = std::mem::take(&mut tenancy.arrivals);
        tenancy
            .on_window(|window| {
                window.set_topology(topology);
                window.add(arrivals);
            })
            .await?;
        let new = Arc::new(std::mem::take(&mut tenancy.new));
        while !self.publish_plan(tenancy, &new).await? {}
        let read_until = tenancy.read_until.as_micros();
        tenancy
            .on_window(move |window| window.settle(read_until))
            .await?;
        tenancy.aside.clear();
        tenancy.waits_since = None;
        tenancy.forget_clusters();
        Ok(())
    }

    /// Stores what has changed. False where a cluster was closed meanwhile: then what is left has to be planned anew.
    async fn publish_plan(
        &self,
        tenancy: &mut Tenancy,
        new: &Arc<HashMap<String, New>>,
    ) -> Result<bool, Error> {
        let closed = tenancy.closed.clone();
        let plan = move |window: &mut Window| pieces(window.plan(&closed), PIECE);
        let mut pieces = tenancy.on_window(plan).await?.into_iter().peekable();
        let mut begun = None;
        // Clusters that have become a part of another in an earlier piece.
        let mut became: HashMap<u64, u64> = HashMap::new();
        while let Some(Piece {
            mut components,
            goes_on,
        }) = pieces.next()
        {
            if let Some(first) = components.first_mut().filter(|_| goes_on) {
                first.cluster = first.cluster.or(begun);
            }
            for member in components.iter_mut().flat_map(|c| &mut c.changed) {
                let was = member.was.and_then(|was| became.get(&was).copied());
                member.was = was.or(member.was);
            }
            let is_last = pieces.peek().is_none();
            let plan = Arc::new(components);
            let publication = Publication {
                ids: tenancy.ids_of(&plan),
                plan: plan.clone(),
                new: new.clone(),
                cursor: is_last.then_some(tenancy.cursor),
                aside: if is_last {
                    tenancy.aside.clone()
                } else {
                    Vec::new()
                },
            };
            match self.write(&tenancy.log.tenant, publication).await? {
                Ok(ids) => {
                    let numbers = tenancy.carried_out(&plan, &ids);
                    let merged = plan.iter().zip(&numbers);
                    became.extend(
                        merged.flat_map(|(c, into)| c.merged.iter().map(|of| (*of, *into))),
                    );
                    begun = numbers.last().copied();
                }
                Err(closed) => {
                    let closed = closed.iter().filter_map(|id| tenancy.numbers.get(id));
                    tenancy.closed.extend(closed);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Writes a publication: the ids of its clusters, or those of them that take nothing more.
    async fn write(
        &self,
        tenant: &Tenant,
        publication: Publication,
    ) -> Result<Result<Vec<String>, Vec<String>>, Error> {
        let config = self.config.clone();
        let written = self
            .log
            .write(tenant, move |tx| {
                publish::publish(tx, &config, &publication)
            })
            .await;
        match written {
            Ok(written) => Ok(Ok(written.value)),
            Err(WriteError::Refused(Refusal::Closed(ids))) => Ok(Err(ids)),
            Err(WriteError::Refused(Refusal::Placed)) => {
                let message = "another worker has placed some of these alarms";
                Err(DbError::Unavailable(message.into()).into())
            }
            Err(WriteError::Refused(Refusal::Database(e))) => Err(e.into()),
            // Whatever it was, this did not cause it.
            Err(WriteError::Unavailable(e)) => Err(DbError::Unavailable(e.to_string()).into()),
            Err(WriteError::Full) => Err(Error::Full),
        }
    }

    /// The module's own events after a place.
    async fn read_log(
        &self,
        log: &Arc<TenantLog>,
        after: u64,
        limit: usize,
    ) -> Result<Page, DbError> {
        let patterns = Patterns::new(Pattern::new(TOPIC).ok().into_iter().collect());
        self.log
            .read(log, after, &patterns, &Rights::All, limit)
            .await
    }

    /// When the first came in that has not been read; now, where all has.
    async fn read_until(&self, log: &Arc<TenantLog>, cursor: u64) -> Result<Timestamp, Error> {
        let now = self.clock.now();
        let mut after = cursor;
        while log.head() > after {
            let page = self.read_log(log, after, PAGE).await?;
            let raises = page.events.iter().filter(|e| &*e.kind == INGESTED);
            if let Some((_, first)) = raises.filter_map(|e| read(e).ok()).next() {
                return Ok(first.fact.arrived_at.min(now));
            }
            if page.end.is_end {
                break;
            }
            after = page.end.next;
        }
        Ok(now)
    }

    /// What the rows say of a tenant.
    async fn load(&self, log: &Arc<TenantLog>, careful_to: Option<u64>) -> Result<Tenancy, Error> {
        let topology = self.topology(&log.tenant).await?;
        let number = log.number;
        let db = self.log.db();
        let cursor = db.read(move |conn| store::cursor(conn, number)).await?;
        let read_until = self.read_until(log, cursor).await?;
        let since = read_until.minus(Duration::from_secs(MEMORY_SECONDS.unsigned_abs()));
        let remembered = move |conn: &mut Conn| {
            let members = members::since(conn, number, since)?;
            Ok((members, store::over(conn, number, since)?))
        };
        let (members, over) = db.read(remembered).await?;
        let rules = Rules {
            type_rule: self.config.type_rule,
        };
        let mut tenancy = Tenancy {
            log: log.clone(),
            window: Window::new(topology, rules),
            cursor,
            read_until,
            ids: HashMap::new(),
            numbers: HashMap::new(),
            closed: HashSet::new(),
            next: 0,
            new: HashMap::new(),
            arrivals: Vec::new(),
            waits_since: None,
            aside: Vec::new(),
            careful_to: careful_to.unwrap_or(0),
            doubtful_to: log.head(),
        };
        // Numbered as they were made: their ids grow with time.
        let mut clusters: Vec<&str> = members.iter().map(|m| m.cluster_id.as_str()).collect();
        clusters.sort_unstable();
        clusters.dedup();
        for id in clusters {
            tenancy.number(id);
        }
        tenancy.closed = over
            .iter()
            .filter_map(|id| tenancy.numbers.get(id).copied())
            .collect();
        let arrivals = members.into_iter().map(|m| Arrival {
            cluster: tenancy.numbers.get(&m.cluster_id).copied(),
            arrived_at: m.fact.arrived_at.as_micros(),
            occurrence: Occurrence {
                event_id: m.event_id,
                entity_id: m.fact.entity_id,
                alarm_type: m.fact.alarm_type,
                raised_at: m.fact.raised_at,
            },
        });
        let arrivals: Vec<Arrival> = arrivals.collect();
        let restore = move |window: &mut Window| window.restore(arrivals, read_until.as_micros());
        tenancy.on_window(restore).await?;
        Ok(tenancy)
    }
}

/// Why the database refuses what it was given, if it does: trying again would be of no use.
fn refusal(error: &Error) -> Option<&str> {
    match error {
        Error::Unavailable(DbError::Fault(reason) | DbError::Conflict(reason)) => Some(reason),
        _ => None,
    }
}
