//! What sources send, to the letter.

use serde_json::{Value, json};
use tidings_core::clock::Timestamp;

use super::*;
use crate::{Error, Perceived, Severity, Step};

const NOW: &str = "2026-02-23T19:30:00Z";

fn read<T>(read: impl FnOnce(Context<'_>) -> T) -> T {
    read(Context {
        config: &Config::default(),
        now: Timestamp::parse(NOW).unwrap(),
    })
}

fn alarm(change: &Value) -> Value {
    let mut alarm = json!({
        "entity_id": "cell-001", "alarm_type": "LINK_DOWN", "severity": "Critical",
        "raised_at": "2026-02-23T19:20:00Z", "source_system": "nms"
    });
    let members = alarm.as_object_mut().unwrap();
    members.extend(change.as_object().unwrap().clone());
    alarm
}

/// Path and kind of the faults.
fn faults<T: std::fmt::Debug>(result: Result<T, Error>) -> Vec<String> {
    let Err(Error::Invalid(faults)) = result else {
        panic!("{result:?}");
    };
    let path = |at: &[Step]| {
        let steps = at.iter().map(|step| match step {
            Step::Member(name) => name.clone(),
            Step::Index(index) => index.to_string(),
        });
        steps.collect::<Vec<_>>().join(".")
    };
    faults
        .iter()
        .map(|f| format!("{} {}", path(&f.at), f.kind))
        .collect()
}

#[test]
fn a_native_alarm_keeps_what_it_does_not_know() {
    let value = alarm(&json!({
        "tenant_id": "other", "vendor": {"code": 7}, "attributes": {"site": "N1", "vendor": "own"}, "probable_cause": null
    }));
    let read = read(|c| native::one(value, c)).unwrap();
    assert_eq!(read.perceived, Perceived::Raised(Severity::Critical));
    let attributes: Value = serde_json::from_str(&read.attributes).unwrap();
    assert_eq!(attributes, json!({"site": "N1", "vendor": "own"}));
    assert_eq!(read.identity.specific_problem, None);
}

#[test]
fn what_is_wrong_is_named() {
    let wrong = |change: Value| faults(read(|c| native::one(alarm(&change), c)));
    assert_eq!(wrong(json!({"severity": "loud"})), ["severity enum"]);
    assert_eq!(wrong(json!({"severity": 3})), ["severity string_type"]);
    assert_eq!(
        wrong(json!({"raised_at": "yesterday"})),
        ["raised_at datetime"]
    );
    assert_eq!(
        wrong(json!({"raised_at": "2026-02-23T19:20:00"})),
        ["raised_at datetime"]
    );
    assert_eq!(
        wrong(json!({"raised_at": "2026-02-23T19:35:01Z"})),
        ["raised_at datetime_future"]
    );
    assert_eq!(
        wrong(json!({"entity_id": ""})),
        ["entity_id string_too_short"]
    );
    assert_eq!(wrong(json!({"attributes": []})), ["attributes object_type"]);
    assert_eq!(
        faults(read(|c| native::one(json!({}), c))),
        [
            "entity_id missing",
            "alarm_type missing",
            "severity missing",
            "raised_at missing",
            "source_system missing"
        ]
    );
    let batch = vec![
        alarm(&json!({})),
        alarm(&json!({"severity": null})),
        json!(7),
    ];
    assert_eq!(
        faults(read(|c| native::many(batch, c))),
        ["1.severity missing", "2 object_type"]
    );
}

#[test]
fn a_cloud_event_carries_an_alarm_as_its_data() {
    let event = json!({
        "specversion": "1.0", "source": "/nms", "id": "1", "type": "org.example.alarm", "data": alarm(&json!({})), "region": "n"
    });
    let one = read(|c| cloudevents::one(event.clone(), c)).unwrap();
    let binary = read(|c| cloudevents::binary("/nms", "1", alarm(&json!({})), c)).unwrap();
    assert_eq!(one, binary);
    assert!(one.source_key.is_some());
    let wrong = json!({"specversion": "0.3", "source": "/nms", "type": "t", "data": alarm(&json!({"severity": "x"}))});
    assert_eq!(
        faults(read(|c| cloudevents::many(vec![event, wrong], c))),
        ["1.specversion enum", "1.id missing", "1.data.severity enum"]
    );
}

#[test]
fn alertmanager_says_who_what_and_until_when() {
    let body = json!({
        "version": "4", "groupKey": "g", "status": "firing", "receiver": "tidings", "alerts": [
            {"status": "firing", "labels": {"alertname": "Down", "instance": "n1:9100", "job": "node", "severity": "critical", "zone": "b"},
             "annotations": {"summary": "n1 is down"}, "startsAt": "2026-02-23T19:20:00.5+00:00",
             "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "http://p/graph", "fingerprint": "f"},
            {"status": "resolved", "labels": {"alertname": "Down", "job": "node"}, "startsAt": "2026-02-23T19:20:00Z", "endsAt": "2026-02-23T19:25:00Z"}
        ]
    });
    let all = read(|c| alertmanager::webhook(body, c)).unwrap();
    let first = &all[0];
    assert_eq!(
        (
            first.identity.entity_id.as_str(),
            first.identity.alarm_type.as_str()
        ),
        ("n1:9100", "Down")
    );
    assert_eq!(
        first.identity.specific_problem.as_deref(),
        Some("job=node,zone=b")
    );
    assert_eq!(
        (first.perceived, first.ends_at),
        (Perceived::Raised(Severity::Critical), None)
    );
    let attributes: Value = serde_json::from_str(&first.attributes).unwrap();
    assert_eq!(attributes["annotations"]["summary"], "n1 is down");
    assert_eq!(all[1].perceived, Perceived::Cleared);
    assert_eq!(all[1].at.to_string(), "2026-02-23T19:25:00Z");
    assert_eq!(all[1].identity.entity_id, "node");
}

#[test]
fn prometheus_severities_and_ends_are_read_leniently() {
    let alert = |labels: Value, more: Value| {
        let mut alert = json!({"labels": labels, "startsAt": "2026-02-23T19:20:00Z"});
        alert
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        read(|c| alertmanager::alerts(vec![alert], c)).map(|mut all| all.remove(0))
    };
    let severity = |word: &str| {
        alert(json!({"alertname": "A", "severity": word}), json!({}))
            .unwrap()
            .perceived
    };
    assert_eq!(severity("info"), Perceived::Raised(Severity::Warning));
    assert_eq!(severity("page"), Perceived::Raised(Severity::Indeterminate));
    assert_eq!(severity("MINOR"), Perceived::Raised(Severity::Minor));
    let plain = alert(json!({"alertname": "A"}), json!({})).unwrap();
    assert_eq!(plain.perceived, Perceived::Raised(Severity::Indeterminate));
    assert_eq!(
        (
            plain.identity.entity_id.as_str(),
            plain.identity.specific_problem
        ),
        ("A", None)
    );
    let firing = alert(
        json!({"alertname": "A"}),
        json!({"endsAt": "2026-02-23T19:34:00Z"}),
    )
    .unwrap();
    assert_eq!(firing.ends_at.unwrap().to_string(), "2026-02-23T19:34:00Z");
    let over = alert(
        json!({"alertname": "A"}),
        json!({"endsAt": "2026-02-23T19:29:00Z"}),
    )
    .unwrap();
    assert_eq!((over.perceived, over.ends_at), (Perceived::Cleared, None));
    assert_eq!(
        faults(alert(json!({"job": "x"}), json!({}))),
        ["0.labels missing"]
    );
    assert_eq!(
        faults(alert(json!({"alertname": 1}), json!({}))),
        ["0.labels object_type"]
    );
    assert_eq!(
        faults(alert(
            json!({"alertname": "A"}),
            json!({"startsAt": "soon"})
        )),
        ["0.startsAt datetime"]
    );
    let [long, other] = ["x", "y"].map(|end| {
        let label = "l".repeat(3_000) + end;
        alert(json!({"alertname": "A", "label": label}), json!({}))
            .unwrap()
            .identity
            .specific_problem
            .unwrap()
    });
    assert!(long.len() <= 1_024 && long != other);
}

#[test]
fn tmf642_in_and_out() {
    let body = json!({
        "alarmType": "communicationsAlarm", "perceivedSeverity": "major", "alarmedObject": {"id": "cell-9", "href": "x"},
        "alarmRaisedTime": "2026-02-23T19:20:00Z", "probableCause": "thresholdCrossed", "specificProblem": "LINK_DOWN",
        "sourceSystemId": "ems", "ackState": "unacknowledged", "@type": "Alarm"
    });
    let one = read(|c| tmf642::create(body, c)).unwrap();
    assert_eq!(one.identity.specific_problem.as_deref(), Some("LINK_DOWN"));
    assert_eq!(one.at.to_string(), "2026-02-23T19:20:00Z");
    let wrong = json!({"alarmType": "a", "perceivedSeverity": "x", "alarmedObject": {}});
    let wrong = faults(read(|c| tmf642::create(wrong, c)));
    assert_eq!(
        wrong,
        ["alarmedObject.id missing", "perceivedSeverity enum"]
    );
    assert!(tmf642::patch(json!({"ackState": "acknowledged", "ackUserId": "x"})).unwrap());
    assert_eq!(
        faults(tmf642::patch(json!({"ackState": "maybe"}))),
        ["ackState enum"]
    );
}
