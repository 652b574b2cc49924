//! The rules, without a database.

use proptest::prelude::*;
use tidings_core::clock::Timestamp;
use tidings_core::tenant::Tenant;

use super::rules::{self, Effect, Refresh};
use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn occurrence(perceived: Perceived, secs: i64) -> Occurrence {
    Occurrence {
        identity: Identity {
            entity_id: "cell-1".into(),
            alarm_type: "LINK_DOWN".into(),
            specific_problem: None,
        },
        perceived,
        at: at(secs),
        source_system: "nms".into(),
        entity_external_id: None,
        probable_cause: None,
        attributes: "{}".into(),
        ends_at: None,
        source_key: None,
        is_repeated: false,
    }
}

fn raise(secs: i64) -> Occurrence {
    occurrence(Perceived::Raised(Severity::Major), secs)
}

fn clear(secs: i64) -> Occurrence {
    occurrence(Perceived::Cleared, secs)
}

/// An alarm after occurrences, each a second after the other.
fn after(all: &[Occurrence]) -> Alarm {
    let mut alarm = None;
    for (n, by) in (0..).zip(all) {
        alarm = Some(rules::apply("id", alarm, by, at(1_000 + n)).0);
    }
    alarm.unwrap()
}

#[test]
fn raising_again_updates_the_same_alarm() {
    let mut second = occurrence(Perceived::Raised(Severity::Critical), 20);
    second.probable_cause = Some("power".into());
    let alarm = after(&[raise(10), second]);
    assert_eq!(alarm.condition, Condition::Raised);
    assert_eq!(
        (alarm.severity, alarm.raise_count, alarm.flap_count),
        (Severity::Critical, 2, 0)
    );
    assert_eq!(
        (alarm.first_raised_at, alarm.raised_at),
        (Some(at(10)), Some(at(20)))
    );
    assert_eq!(alarm.probable_cause.as_deref(), Some("power"));
}

#[test]
fn a_clear_leaves_the_severity_and_a_clear_before_its_raise_is_kept() {
    let alarm = after(&[raise(10), clear(11)]);
    assert_eq!(
        (alarm.condition, alarm.severity),
        (Condition::Cleared, Severity::Major)
    );
    assert_eq!(alarm.cleared_at, Some(at(11)));
    // The other way round: the raise comes late, and does not open what is over.
    let late = after(&[clear(11), raise(10)]);
    assert_eq!(
        (late.condition, late.cleared_at),
        (Condition::Cleared, Some(at(11)))
    );
    assert_eq!((late.raise_count, late.severity), (1, Severity::Major));
    let unknown = after(&[clear(11)]);
    assert_eq!(
        (unknown.condition, unknown.raised_at),
        (Condition::Cleared, None)
    );
    // A raise after it is the first one, not a flap.
    let first = after(&[clear(11), raise(12)]);
    assert_eq!((first.condition, first.flap_count), (Condition::Raised, 0));
}

#[test]
fn what_is_older_changes_nothing_newer() {
    let late = rules::apply("id", Some(after(&[raise(20)])), &clear(15), at(1_001));
    assert_eq!(
        (late.0.condition, late.1),
        (Condition::Raised, Effect::Late)
    );
    let mut mild = raise(10);
    mild.perceived = Perceived::Raised(Severity::Warning);
    let (alarm, effect) = rules::apply("id", Some(after(&[raise(20)])), &mild, at(1_001));
    assert_eq!((alarm.severity, effect), (Severity::Major, Effect::Late));
    assert_eq!(
        (alarm.first_raised_at, alarm.raised_at),
        (Some(at(10)), Some(at(20)))
    );
}

#[test]
fn coming_back_is_counted_and_flapping_shown_for_a_while() {
    let mut all = Vec::new();
    for n in 0..4 {
        all.extend([raise(n * 10), clear(n * 10 + 5)]);
    }
    let alarm = after(&all);
    assert_eq!((alarm.raise_count, alarm.flap_count), (4, 3));
    assert!(rules::is_flapping(&alarm, alarm.updated_at));
    assert!(!rules::is_flapping(
        &alarm,
        alarm.updated_at.plus(FLAP_WINDOW * 2)
    ));
    let slow: Vec<_> = (0..8)
        .map(|n| {
            if n % 2 == 0 {
                raise(n * 1_000)
            } else {
                clear(n * 1_000)
            }
        })
        .collect();
    let slow = after(&slow);
    assert_eq!(slow.flap_count, 3);
    assert!(!rules::is_flapping(&slow, slow.updated_at));
}

#[test]
fn what_people_made_of_it_is_an_axis_of_its_own() {
    let mut alarm = after(&[raise(10)]);
    assert!(rules::acknowledge(&mut alarm, "ann", at(11)));
    assert!(!rules::acknowledge(&mut alarm, "bob", at(12)));
    assert_eq!(alarm.acknowledged_by.as_deref(), Some("ann"));
    rules::shelve(&mut alarm, "bob", "works", at(99), at(13));
    assert_eq!(alarm.operator_state, OperatorState::Shelved);
    // It still records its clear, and comes back as it was.
    let (mut alarm, _) = rules::apply("id", Some(alarm), &clear(14), at(14));
    assert_eq!(
        (alarm.condition, alarm.operator_state),
        (Condition::Cleared, OperatorState::Shelved)
    );
    assert!(rules::unshelve(&mut alarm, at(15)));
    assert_eq!(alarm.operator_state, OperatorState::Acknowledged);
    assert!(!rules::unshelve(&mut alarm, at(16)));
    // Raised anew, nobody has seen it yet; shelved stays shelved.
    let (mut alarm, _) = rules::apply("id", Some(alarm), &raise(17), at(17));
    assert_eq!(
        (alarm.operator_state, alarm.acknowledged_at),
        (OperatorState::None, None)
    );
    assert!(!rules::unacknowledge(&mut alarm, at(18)));
    assert!(rules::clear_by_hand(&mut alarm, at(18)));
    assert!(!rules::clear_by_hand(&mut alarm, at(19)));
}

#[test]
fn an_end_that_is_not_refreshed_clears_and_a_refresh_brings_it_back() {
    let mut by = raise(10);
    (by.ends_at, by.is_repeated) = (Some(at(100)), true);
    let mut alarm = after(&[by.clone()]);
    assert!(!rules::lapse(&mut alarm, at(99)));
    by.ends_at = Some(at(200));
    assert_eq!(rules::refresh(&mut alarm, &by, at(90)), Refresh::Moved);
    assert_eq!(rules::refresh(&mut alarm, &by, at(91)), Refresh::Nothing);
    assert!(!rules::lapse(&mut alarm, at(150)));
    assert!(rules::lapse(&mut alarm, at(201)));
    assert_eq!(
        (alarm.condition, alarm.cleared_at),
        (Condition::Cleared, Some(at(200)))
    );
    // An old message that comes once more does not.
    assert_eq!(rules::refresh(&mut alarm, &by, at(202)), Refresh::Nothing);
    by.ends_at = Some(at(400));
    assert_eq!(rules::refresh(&mut alarm, &by, at(300)), Refresh::Returned);
    assert_eq!((alarm.condition, alarm.flap_count), (Condition::Raised, 0));
    // What a source that repeats itself has cleared is there again where it says so; what a person has cleared is not.
    let mut over = clear(350);
    over.is_repeated = true;
    let (mut alarm, effect) = rules::apply("id", Some(alarm), &over, at(350));
    assert_eq!(effect, Effect::Cleared);
    by.ends_at = None;
    assert_eq!(rules::refresh(&mut alarm, &by, at(360)), Refresh::Returned);
    assert!(rules::clear_by_hand(&mut alarm, at(370)));
    assert_eq!(rules::refresh(&mut alarm, &by, at(380)), Refresh::Nothing);
    // Other sources tell each change once: theirs is over.
    let mut alarm = after(&[raise(10), clear(20)]);
    by.is_repeated = false;
    assert_eq!(rules::refresh(&mut alarm, &by, at(30)), Refresh::Nothing);
}

#[test]
fn ids_belong_to_a_tenant_and_keys_sort_by_time() {
    let [a, b] = ["a", "b"].map(|name| Tenant::new(name).unwrap());
    let one = raise(10);
    assert_eq!(one.identity.alarm_id(&a), raise(20).identity.alarm_id(&a));
    assert_ne!(one.identity.alarm_id(&a), one.identity.alarm_id(&b));
    assert_eq!(one.key(), raise(10).key());
    assert_ne!(one.key(), clear(10).key());
    let mut other = raise(10);
    other.identity.specific_problem = Some(String::new());
    assert_ne!(one.key(), other.key());
    assert!(raise(-5).key() < raise(5).key() && raise(5).key() < raise(6).key());
}

fn any_occurrence() -> impl Strategy<Value = Occurrence> {
    (any::<bool>(), 0..8_i64)
        .prop_map(|(is_raise, secs)| if is_raise { raise(secs) } else { clear(secs) })
}

proptest! {
    /// Whatever the order of arrival, the condition is that of the latest word, and the clear has it at the same moment.
    #[test]
    fn the_condition_does_not_depend_on_the_order_of_arrival(
        all in prop::collection::vec(any_occurrence(), 1..8).prop_shuffle()
    ) {
        let alarm = after(&all);
        let last = all.iter().max_by_key(|o| (o.at, !o.is_raise())).unwrap();
        prop_assert_eq!(alarm.condition == Condition::Raised, last.is_raise());
        let raises: Vec<_> = all.iter().filter(|o| o.is_raise()).map(|o| o.at).collect();
        prop_assert_eq!(alarm.raised_at, raises.iter().max().copied());
        prop_assert_eq!(alarm.first_raised_at, raises.iter().min().copied());
    }
}
