//! What time does: an end that has passed unrefreshed clears its alarm, and a shelving that is over gives it back.
//!
//! When the next of these is due stands in memory, and in an index of the database from which a start reads it: while
//! nothing is due, nothing is asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tidings_core::clock::{Clock, Timestamp};
use tidings_core::log::Tx;

use super::event;
use super::operate::{Change, store_changes};
use super::{rules, store};
use crate::{Alarms, Config, Error};

/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(250);
/// The same where a test moves the clock.
const MANUAL_TICK: Duration = Duration::from_millis(20);
/// Alarms that one look takes at most; the rest follows at once.
const LOOK: i64 = 500;
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long accepted occurrences are known: so long is a repeat the same one.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 86_400);
/// How often those that are older are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// Occurrences that one transaction forgets at most.
const FORGET: i64 = 2_000;

/// Who does what time does.
const ACTOR: &str = "system";

/// When something is next due, in microseconds.
#[derive(Debug)]
pub(crate) struct NextDue(AtomicI64);

impl Default for NextDue {
    /// At once: what the database holds is not known yet.
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl Alarms {
    /// Something may be due at this time.
    pub(super) fn expect_due(&self, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.next_due.0.fetch_min(at.as_micros(), Ordering::AcqRel);
        }
    }

    /// Does what is due, for ever.
    pub async fn run_due(&self) {
        let tick = match self.clock {
            Clock::System => TICK,
            Clock::Manual(_) => MANUAL_TICK,
        };
        let mut forget_at = self.clock.now();
        loop {
            tokio::time::sleep(tick).await;
            let now = self.clock.now();
            let mut result = Ok(());
            if self.next_due.0.load(Ordering::Acquire) <= now.as_micros() {
                result = self.do_due(now).await.map(drop);
            }
            if result.is_ok() && forget_at <= now {
                forget_at = now.plus(FORGET_EVERY);
                result = self.forget(now).await;
            }
            if let Err(error) = result {
                tracing::warn!(%error, "alarms that end by themselves have to wait; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Does what is due by now. Says how many alarms it changed.
    pub async fn do_due(&self, now: Timestamp) -> Result<usize, Error> {
        let mut count = 0;
        loop {
            // What is expected from here on is not overlooked: it lowers this again.
            self.next_due.0.store(i64::MAX, Ordering::Release);
            let look = self.look(now).await;
            let due = match look {
                Ok((due, next)) => {
                    self.expect_due(next);
                    due
                }
                Err(error) => {
                    self.expect_due(Some(now));
                    return Err(error);
                }
            };
            if due.is_empty() {
                return Ok(count);
            }
            let before = count;
            for (tenant, ids) in due {
                count += self.end(tenant, ids).await?;
            }
            if count == before {
                // Somebody else was there first: the next look tells.
                return Ok(count);
            }
        }
    }

    async fn look(
        &self,
        now: Timestamp,
    ) -> Result<(HashMap<i64, Vec<String>>, Option<Timestamp>), Error> {
        let read = self.log.db().read(move |conn| {
            let due = store::due(conn, now, LOOK)?;
            Ok((due, store::next_due(conn)?))
        });
        let (due, next) = read.await?;
        let mut by_tenant: HashMap<i64, Vec<String>> = HashMap::new();
        for (tenant, id) in due {
            by_tenant.entry(tenant).or_default().push(id);
        }
        Ok((by_tenant, next))
    }

    async fn end(&self, number: i64, ids: Vec<String>) -> Result<usize, Error> {
        let tenants = self.log.tenants();
        let Some(log) = tenants.iter().find(|log| log.number == number) else {
            return Ok(0);
        };
        let config = self.config.clone();
        let run = move |tx: &mut Tx<'_>| end(tx, &config, &ids);
        Ok(self.log.write(&log.tenant, run).await?.value)
    }

    /// Forgets occurrences that came in so long ago that nobody repeats them.
    async fn forget(&self, now: Timestamp) -> Result<(), Error> {
        let before = now.minus(KNOWN_FOR);
        for log in self.log.tenants() {
            loop {
                let run = move |tx: &mut Tx<'_>| {
                    let tenant = tx.tenant_number();
                    Ok::<_, Error>(store::forget(tx, tenant, before, FORGET)?)
                };
                let forgotten = self.log.write(&log.tenant, run).await?.value;
                if forgotten < FORGET.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn end(tx: &mut Tx<'_>, config: &Config, ids: &[String]) -> Result<usize, Error> {
    let (tenant, now) = (tx.tenant_number(), tx.now());
    let found = store::many(tx, tenant, ids.iter().map(String::as_str))?;
    let mut changes = Vec::with_capacity(ids.len());
    for mut alarm in found.into_values() {
        let (was, mut told) = (store::place(&alarm), Vec::new());
        if rules::lapse(&mut alarm, now) {
            told.push(event::CLEARED);
        }
        let is_over = alarm.shelve_expires_at.is_some_and(|at| at <= now);
        if is_over && rules::unshelve(&mut alarm, now) {
            told.push(event::UNSHELVED);
        }
        if !told.is_empty() {
            changes.push(Change { was, alarm, told });
        }
    }
    changes.sort_unstable_by(|a, b| a.alarm.id.cmp(&b.alarm.id));
    store_changes(tx, config, &changes, ACTOR)?;
    Ok(changes.len())
}
