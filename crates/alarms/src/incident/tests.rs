//! The rules, without a database.

use tidings_core::clock::Timestamp;

use super::entry::{self, Actor};
use super::*;
use crate::Error;

fn incident() -> Incident {
    Incident::new(
        "i".into(),
        "t".into(),
        Severity::Minor,
        Timestamp::from_secs(0),
    )
}

fn mark(at: i64) -> Mark {
    Mark {
        by: "ann".into(),
        at: Timestamp::from_secs(at),
    }
}

#[test]
fn one_step_at_a_time_and_never_back() {
    for from in Status::ALL {
        for to in Status::ALL {
            let mut i = incident();
            i.status = from;
            let result = i.step(to, false, mark(1));
            if from.next() == Some(to) {
                result.unwrap();
                assert_eq!(i.status, to);
            } else {
                let Err(Error::Illegal { legal, .. }) = result else {
                    panic!("{from} to {to}: {result:?}");
                };
                let next: Vec<_> = from.next().into_iter().map(Status::as_str).collect();
                assert_eq!((legal, i.status), (next, from));
            }
        }
    }
}

#[test]
fn each_step_says_who_and_when() {
    let mut i = incident();
    for (at, to) in (1..).zip(&Status::ALL[1..]) {
        i.step(*to, false, mark(at)).unwrap();
    }
    assert_eq!(
        (i.acknowledged, i.resolved, i.closed),
        (Some(mark(1)), Some(mark(3)), Some(mark(4)))
    );
    assert_eq!(i.updated_at, Timestamp::from_secs(4));
}

#[test]
fn gates_are_passed_in_their_order_and_once() {
    let illegal = |result: Result<(), Error>| match result {
        Err(Error::Illegal { legal, .. }) => legal,
        other => panic!("{other:?}"),
    };
    let mut i = incident();
    assert_eq!(
        illegal(i.approve(Gate::Action, mark(1))),
        ["approve-sitrep"]
    );
    i.approve(Gate::Sitrep, mark(2)).unwrap();
    assert_eq!(
        illegal(i.approve(Gate::Sitrep, mark(3))),
        ["approve-action"]
    );
    i.approve(Gate::Action, mark(4)).unwrap();
    assert!(illegal(i.approve(Gate::Action, mark(5))).is_empty());
    assert_eq!(
        (i.sitrep_approved, i.action_approved),
        (Some(mark(2)), Some(mark(4)))
    );
    let mut over = incident();
    over.status = Status::Resolved;
    assert!(illegal(over.approve(Gate::Sitrep, mark(1))).is_empty());
}

#[test]
fn what_needs_approval_is_not_resolved_without_it() {
    let mut i = incident();
    i.status = Status::InProgress;
    for gate in [Gate::Sitrep, Gate::Action] {
        let Err(Error::Illegal { to, legal, .. }) = i.step(Status::Resolved, true, mark(1)) else {
            panic!("resolved before {}", gate.words());
        };
        assert!(to.contains(gate.words()), "{to}");
        assert!(legal.is_empty());
        i.approve(gate, mark(2)).unwrap();
    }
    i.step(Status::Resolved, true, mark(3)).unwrap();
}

#[test]
fn severities_have_the_priorities_that_clients_know() {
    let priorities = ["P5", "P4", "P3", "P3", "P2", "P2", "P1"];
    for (severity, priority) in Severity::ALL.into_iter().zip(priorities) {
        assert_eq!(severity.weight().priority, priority, "{severity}");
    }
    assert!(Severity::Critical.outweighs(Severity::High));
    assert!(!Severity::Major.outweighs(Severity::High));
    assert!(!Severity::High.outweighs(Severity::Major));
    assert_eq!("HIGH".parse(), Ok(Severity::High));
    for word in ["cleared", "indeterminate", "", "p1"] {
        assert!(word.parse::<Severity>().is_err(), "{word}");
    }
}

#[test]
fn the_csv_of_an_audit_trail_holds_no_formula() {
    let actor = Actor::caller("=cmd|'/c calc'!A1", None);
    let entry = |details: &str| Entry {
        at: Timestamp::from_secs(0),
        kind: "edited".into(),
        action: Some("EDITED".into()),
        action_type: "human".into(),
        actor: actor.name.clone(),
        details: details.into(),
        trace_id: Some("-1+1".into()),
    };
    let mut unnamed = entry("x");
    unnamed.action = None;
    let entries = [
        entry("@SUM(A1)"),
        entry("a, \"b\"\r\nc"),
        entry("\t=1"),
        unnamed,
    ];
    let csv = entry::csv(&entries);
    let expected = "timestamp,action,action_type,actor,details,trace_id,llm_model_version,llm_prompt_hash\r\n\
        1970-01-01T00:00:00Z,EDITED,human,\"'=cmd|'/c calc'!A1\",\"'@SUM(A1)\",\"'-1+1\",,\r\n\
        1970-01-01T00:00:00Z,EDITED,human,\"'=cmd|'/c calc'!A1\",\"a, \"\"b\"\"\r\nc\",\"'-1+1\",,\r\n\
        1970-01-01T00:00:00Z,EDITED,human,\"'=cmd|'/c calc'!A1\",\"'\t=1\",\"'-1+1\",,\r\n";
    assert_eq!(csv, expected);
}
