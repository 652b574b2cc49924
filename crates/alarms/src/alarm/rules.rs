//! What becomes of an alarm: `(state, input, now) -> state`. Pure.

use std::time::Duration;

use tidings_core::clock::Timestamp;

use super::{Alarm, Condition, Occurrence, OperatorState};
use crate::{Perceived, Severity};

/// Returns after a clear that make an alarm flapping.
pub const FLAPS: usize = 3;
/// Within how long they must lie, and how long after the last of them an alarm counts as flapping.
pub const FLAP_WINDOW: Duration = Duration::from_secs(600);

/// What an occurrence changed, beside counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It went from cleared, or from nothing, to raised.
    Raised,
    /// It went from raised to cleared.
    Cleared,
    /// The same condition, newly told.
    Same,
    /// Something newer is known: the occurrence is kept, and no more.
    Late,
}

/// Takes an occurrence into an alarm, or begins one with it.
#[must_use]
pub fn apply(id: &str, alarm: Option<Alarm>, by: &Occurrence, now: Timestamp) -> (Alarm, Effect) {
    let is_new = alarm.is_none();
    let mut alarm = alarm.unwrap_or_else(|| begin(id, by, now));
    alarm.updated_at = now;
    let effect = match by.perceived {
        Perceived::Raised(severity) => raise(&mut alarm, by, severity),
        Perceived::Cleared => clear(&mut alarm, by, is_new),
    };
    (alarm, effect)
}

fn begin(id: &str, by: &Occurrence, now: Timestamp) -> Alarm {
    Alarm {
        id: id.to_owned(),
        identity: by.identity.clone(),
        entity_external_id: by.entity_external_id.clone(),
        probable_cause: by.probable_cause.clone(),
        severity: Severity::Indeterminate,
        condition: Condition::Cleared,
        operator_state: OperatorState::None,
        acknowledged_by: None,
        acknowledged_at: None,
        shelved_by: None,
        shelve_reason: None,
        shelve_expires_at: None,
        raised_at: None,
        cleared_at: None,
        first_raised_at: None,
        updated_at: now,
        raise_count: 0,
        flap_count: 0,
        flaps: Vec::new(),
        cluster_id: None,
        source_system: by.source_system.clone(),
        attributes: by.attributes.clone(),
        ends_at: None,
        may_return: false,
    }
}

fn raise(alarm: &mut Alarm, by: &Occurrence, severity: Severity) -> Effect {
    let is_first = alarm.raise_count == 0;
    alarm.raise_count += 1;
    let earliest = alarm.first_raised_at.map_or(by.at, |at| at.min(by.at));
    alarm.first_raised_at = Some(earliest);
    // At the same moment the clear has the last word, in whatever order the two arrive.
    let is_over = alarm.cleared_at.is_some_and(|at| by.at <= at);
    let is_late = alarm.raised_at.is_some_and(|at| by.at < at);
    if is_late {
        return Effect::Late;
    }
    tell(alarm, by);
    alarm.severity = severity;
    alarm.raised_at = Some(by.at);
    if is_over {
        return Effect::Late;
    }
    alarm.ends_at = by.ends_at;
    if alarm.condition == Condition::Raised {
        return Effect::Same;
    }
    open(alarm);
    if !is_first {
        alarm.flap_count += 1;
        alarm.flaps.push(by.at);
        let surplus = alarm.flaps.len().saturating_sub(FLAPS);
        alarm.flaps.drain(..surplus);
        // What somebody has seen was the last time, not this one.
        (alarm.acknowledged_by, alarm.acknowledged_at) = (None, None);
        if alarm.operator_state == OperatorState::Acknowledged {
            alarm.operator_state = OperatorState::None;
        }
    }
    Effect::Raised
}

fn clear(alarm: &mut Alarm, by: &Occurrence, is_new: bool) -> Effect {
    if is_new {
        alarm.cleared_at = Some(by.at);
        return Effect::Same;
    }
    if alarm.raised_at.is_some_and(|at| by.at < at) {
        return Effect::Late;
    }
    if alarm.condition == Condition::Cleared {
        // The latest: it bars every raise that lies before it.
        alarm.cleared_at = alarm.cleared_at.max(Some(by.at));
        return Effect::Same;
    }
    alarm.source_system.clone_from(&by.source_system);
    close(alarm, by.at);
    alarm.may_return = by.is_repeated;
    Effect::Cleared
}

/// Makes a cleared alarm a raised one.
fn open(alarm: &mut Alarm) {
    alarm.condition = Condition::Raised;
    alarm.cleared_at = None;
    alarm.may_return = false;
}

/// Makes a raised alarm a cleared one.
fn close(alarm: &mut Alarm, at: Timestamp) {
    alarm.condition = Condition::Cleared;
    alarm.cleared_at = Some(at);
    alarm.ends_at = None;
    alarm.may_return = false;
}

/// Clears an alarm whose end has passed unrefreshed. False where that is not so.
pub fn lapse(alarm: &mut Alarm, now: Timestamp) -> bool {
    let end = alarm.ends_at.filter(|end| *end <= now);
    let (Some(end), Condition::Raised) = (end, alarm.condition) else {
        return false;
    };
    close(alarm, end);
    alarm.may_return = true;
    alarm.updated_at = now;
    true
}

/// Takes what the latest occurrence says beside condition and severity.
fn tell(alarm: &mut Alarm, by: &Occurrence) {
    alarm.source_system.clone_from(&by.source_system);
    alarm.attributes.clone_from(&by.attributes);
    if by.entity_external_id.is_some() {
        alarm.entity_external_id.clone_from(&by.entity_external_id);
    }
    if by.probable_cause.is_some() {
        alarm.probable_cause.clone_from(&by.probable_cause);
    }
}

/// What the same raise once more can change, where its source repeats what is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Nothing.
    Nothing,
    /// It ends at another time.
    Moved,
    /// It was over, as far as its source or its silence told, and is there again. A person's clear stands.
    Returned,
}

/// Takes the same raise once more.
pub fn refresh(alarm: &mut Alarm, by: &Occurrence, now: Timestamp) -> Refresh {
    let is_past = by.ends_at.is_some_and(|end| end <= now);
    let is_current = by.is_repeated && by.is_raise() && alarm.raised_at == Some(by.at);
    if is_past || !is_current {
        return Refresh::Nothing;
    }
    match alarm.condition {
        Condition::Raised if alarm.ends_at == by.ends_at => Refresh::Nothing,
        Condition::Raised => {
            alarm.ends_at = by.ends_at;
            Refresh::Moved
        }
        Condition::Cleared if alarm.may_return => {
            open(alarm);
            (alarm.ends_at, alarm.updated_at) = (by.ends_at, now);
            Refresh::Returned
        }
        Condition::Cleared => Refresh::Nothing,
    }
}

/// Whether it came back so often of late that a person should look at the sensor rather than at the fault.
#[must_use]
pub fn is_flapping(alarm: &Alarm, now: Timestamp) -> bool {
    let (Some(first), Some(last)) = (alarm.flaps.first(), alarm.flaps.last()) else {
        return false;
    };
    alarm.flaps.len() == FLAPS
        && last.since(*first) <= FLAP_WINDOW
        && now.since(alarm.updated_at) <= FLAP_WINDOW
}

/// Somebody has seen it. False where that is so already.
pub fn acknowledge(alarm: &mut Alarm, by: &str, now: Timestamp) -> bool {
    if alarm.acknowledged_at.is_some() {
        return false;
    }
    alarm.acknowledged_by = Some(by.to_owned());
    alarm.acknowledged_at = Some(now);
    settle(alarm, now);
    true
}

/// Nobody has seen it after all. False where that is so already.
pub fn unacknowledge(alarm: &mut Alarm, now: Timestamp) -> bool {
    if alarm.acknowledged_at.is_none() {
        return false;
    }
    (alarm.acknowledged_by, alarm.acknowledged_at) = (None, None);
    settle(alarm, now);
    true
}

/// Puts it aside until a time, or for another time or reason.
pub fn shelve(alarm: &mut Alarm, by: &str, reason: &str, until: Timestamp, now: Timestamp) {
    alarm.shelved_by = Some(by.to_owned());
    alarm.shelve_reason = Some(reason.to_owned());
    alarm.shelve_expires_at = Some(until);
    settle(alarm, now);
}

/// Takes it back to where it was before. False where it is not shelved.
pub fn unshelve(alarm: &mut Alarm, now: Timestamp) -> bool {
    if alarm.shelve_expires_at.is_none() {
        return false;
    }
    (
        alarm.shelved_by,
        alarm.shelve_reason,
        alarm.shelve_expires_at,
    ) = (None, None, None);
    settle(alarm, now);
    true
}

/// Somebody says that the fault is gone. False where it is cleared already.
pub fn clear_by_hand(alarm: &mut Alarm, now: Timestamp) -> bool {
    if alarm.condition == Condition::Cleared {
        return false;
    }
    alarm.updated_at = now;
    // A raise may bear a time that is a little ahead of this clock: the person means that one too.
    let at = alarm.raised_at.map_or(now, |raised| raised.max(now));
    close(alarm, at);
    true
}

fn settle(alarm: &mut Alarm, now: Timestamp) {
    alarm.updated_at = now;
    alarm.operator_state = if alarm.shelve_expires_at.is_some() {
        OperatorState::Shelved
    } else if alarm.acknowledged_at.is_some() {
        OperatorState::Acknowledged
    } else {
        OperatorState::None
    };
}
