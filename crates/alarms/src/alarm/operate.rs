//! What people do with alarms.

use tidings_core::clock::Timestamp;
use tidings_core::log::Tx;
use tidings_core::tenant::Tenant;

use super::event::{self, Teller};
use super::store::{self, Moves, Place};
use super::{Alarm, rules};
use crate::{Alarms, Config, Error, Invalid, incident};

/// What a person does with an alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Has seen it.
    Acknowledge,
    /// Has not, after all.
    Unacknowledge,
    /// Says that the fault is gone.
    Clear,
    /// Puts it aside.
    Shelve {
        /// Why.
        reason: String,
        /// Until when.
        expires_at: Timestamp,
    },
    /// Takes it back.
    Unshelve,
}

impl Operation {
    /// The event that tells of it.
    fn told(&self) -> &'static str {
        match self {
            Self::Acknowledge => "alarm_acknowledged",
            Self::Unacknowledge => "alarm_unacknowledged",
            Self::Clear => event::CLEARED,
            Self::Shelve { .. } => "alarm_shelved",
            Self::Unshelve => event::UNSHELVED,
        }
    }

    /// Does it. False where all is so already.
    fn run(&self, alarm: &mut Alarm, actor: &str, now: Timestamp) -> Result<bool, Error> {
        Ok(match self {
            Self::Acknowledge => rules::acknowledge(alarm, actor, now),
            Self::Unacknowledge => rules::unacknowledge(alarm, now),
            Self::Clear => rules::clear_by_hand(alarm, now),
            Self::Unshelve => rules::unshelve(alarm, now),
            Self::Shelve { reason, expires_at } => {
                if *expires_at <= now {
                    return Err(Invalid::member("expires_at", "datetime", "must lie ahead").into());
                }
                rules::shelve(alarm, actor, reason, *expires_at, now);
                true
            }
        })
    }
}

impl Alarms {
    /// Does something with an alarm, in the name of a person, and gives the alarm as it is then. What is so already is no
    /// error, and no event tells of it.
    pub async fn operate(
        &self,
        tenant: &Tenant,
        id: &str,
        actor: &str,
        operation: Operation,
    ) -> Result<Alarm, Error> {
        let due = match &operation {
            Operation::Shelve { expires_at, .. } => Some(*expires_at),
            _ => None,
        };
        let (config, id, actor) = (self.config.clone(), id.to_owned(), actor.to_owned());
        let run = move |tx: &mut Tx<'_>| operate(tx, &config, &id, &actor, &operation);
        let alarm = self.log.write(tenant, run).await?.value;
        self.expect_due(due);
        Ok(alarm)
    }
}

fn operate(
    tx: &mut Tx<'_>,
    config: &Config,
    id: &str,
    actor: &str,
    operation: &Operation,
) -> Result<Alarm, Error> {
    let tenant = tx.tenant_number();
    let found = store::get(tx, tenant, id)?;
    let mut alarm = found.ok_or_else(|| Error::NotFound {
        what: "alarm",
        id: id.to_owned(),
    })?;
    let was = store::place(&alarm);
    if operation.run(&mut alarm, actor, tx.now())? {
        let change = Change {
            was,
            alarm,
            told: vec![operation.told()],
        };
        store_changes(tx, config, std::slice::from_ref(&change), actor)?;
        return Ok(change.alarm);
    }
    Ok(alarm)
}

/// What was done to an alarm.
pub(super) struct Change {
    /// Where it stood.
    pub(super) was: Place,
    /// The alarm as it is now.
    pub(super) alarm: Alarm,
    /// The events that tell of it.
    pub(super) told: Vec<&'static str>,
}

/// Stores changed alarms and tells of them.
pub(super) fn store_changes(
    tx: &mut Tx<'_>,
    config: &Config,
    changes: &[Change],
    actor: &str,
) -> Result<(), Error> {
    let tenant = tx.tenant_number();
    let alarms: Vec<&Alarm> = changes.iter().map(|change| &change.alarm).collect();
    store::put(tx, tenant, &alarms)?;
    let (mut moves, teller) = (Moves::default(), Teller::new(None)?);
    for change in changes {
        moves.note(Some(change.was), store::place(&change.alarm));
        for told in &change.told {
            teller.change(tx, told, &change.alarm, actor)?;
        }
    }
    moves.store(tx, tenant)?;
    let cleared = changes
        .iter()
        .filter(|change| change.told.contains(&event::CLEARED));
    let cleared: Vec<&str> = cleared.map(|change| change.alarm.id.as_str()).collect();
    Ok(incident::on_alarms_cleared(tx, config, &cleared)?)
}
