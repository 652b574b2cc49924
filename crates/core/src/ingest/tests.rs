//! What is taken in and what is refused, and where the fault is said to be.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    event: 1_000,
    batch: 3,
    json_depth: 4,
};

fn refused(body: &str) -> (Class, Option<String>, Option<usize>) {
    let e = native::json(body.as_bytes(), &LIMITS, None).unwrap_err();
    (e.class, e.field, e.index)
}

#[test]
fn a_native_event_is_taken_as_it_stands() {
    let body = br#" {"topic":"a/b","type":"t","data":{"b": 1.50, "a":[ ]},"id":"x","time":"2026-01-01T00:00:00+01:00","subject":null} "#;
    let events = native::json(body, &LIMITS, Some("trace")).unwrap();
    assert_eq!(events[0].data.as_str(), r#"{"b":1.50,"a":[]}"#);
    assert_eq!(events[0].trace.as_deref(), Some("trace"));
    assert_eq!(events[0].time.unwrap().to_string(), "2025-12-31T23:00:00Z");
    assert!(events[0].subject.is_none());
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_fault_has_its_field_and_place() {
    use Class::{Invalid, Malformed, TooLarge};
    let field = |f: &str| Some(f.to_owned());
    for (body, class, at, index) in [
        (r#"{"type":"t","data":1}"#, Invalid, field("topic"), None),
        (r#"{"topic":"a","data":1}"#, Invalid, field("type"), None),
        (r#"{"topic":"a","type":"t"}"#, Invalid, field("data"), None),
        (
            r#"{"topic":7,"type":"t","data":1}"#,
            Invalid,
            field("topic"),
            None,
        ),
        (
            r#"{"topic":"a//b","type":"t","data":1}"#,
            Invalid,
            field("topic"),
            None,
        ),
        (
            r#"{"topic":"a","type":"Open","data":1}"#,
            Invalid,
            field("type"),
            None,
        ),
        (
            r#"{"topic":"a","type":"a\nb","data":1}"#,
            Invalid,
            field("type"),
            None,
        ),
        (
            r#"{"topic":"a","type":"t","data":1,"id":"a b"}"#,
            Invalid,
            field("id"),
            None,
        ),
        (
            r#"{"topic":"a","type":"t","data":1,"id":"a\u0000"}"#,
            Invalid,
            field("id"),
            None,
        ),
        (
            r#"{"topic":"a","type":"t","data":1,"time":"soon"}"#,
            Invalid,
            field("time"),
            None,
        ),
        (
            r#"{"topic":"a","type":"t","data":1,"subject":"a\rb"}"#,
            Invalid,
            field("subject"),
            None,
        ),
        (
            r#"{"topic":"a","type":"t","data":1,"extensions":[]}"#,
            Invalid,
            field("extensions"),
            None,
        ),
        (
            r#"{"topic":"a","type":"t","data":1,"tenant":"b"}"#,
            Invalid,
            field("tenant"),
            None,
        ),
        (
            r#"{"topic":"a","topic":"b","type":"t","data":1}"#,
            Invalid,
            field("topic"),
            None,
        ),
        (
            r#"[{"topic":"a","type":"t","data":1},{"topic":"a","type":"t"}]"#,
            Invalid,
            field("data"),
            Some(1),
        ),
        (
            r#"[{"topic":"a","type":"t","data":1},7]"#,
            Invalid,
            None,
            Some(1),
        ),
        ("[]", Invalid, None, None),
        ("7", Invalid, None, None),
        ("[1,2,3,4]", TooLarge, None, None),
        ("{", Malformed, None, None),
        ("", Malformed, None, None),
        (
            r#"{"topic":"a","type":"t","data":[[[[[1]]]]]}"#,
            Malformed,
            field("data"),
            None,
        ),
        (
            r#"{"topic":"a","type":"t","data":[[[[[[[1]]]]]]]}"#,
            Malformed,
            None,
            None,
        ),
    ] {
        assert_eq!(refused(body), (class, at, index), "{body}");
    }
    assert_eq!(
        native::json(b"{\"a\":\"\xff\"}", &LIMITS, None)
            .unwrap_err()
            .class,
        Malformed
    );
    let long = format!(
        r#"{{"topic":"a","type":"t","data":"{}"}}"#,
        "x".repeat(1_000)
    );
    assert_eq!(refused(&long).0, TooLarge);
}

#[test]
fn every_fault_of_an_item_is_listed() {
    let e = native::json(br#"{"type":"open","id":"","more":1}"#, &LIMITS, None).unwrap_err();
    let fields: Vec<_> = e.errors.iter().map(|(f, _)| f.as_str()).collect();
    assert_eq!(fields, ["topic", "type", "id", "data", "more"]);
}

#[test]
fn ndjson_is_all_or_nothing_and_counts_its_lines() {
    let line = r#"{"topic":"a","type":"t","data":1}"#;
    assert_eq!(
        native::ndjson(format!("{line}\r\n\n{line}\n").as_bytes(), &LIMITS, None)
            .unwrap()
            .len(),
        2
    );
    let e = native::ndjson(format!("{line}\n{{\n").as_bytes(), &LIMITS, None).unwrap_err();
    assert_eq!((e.class, e.index), (Class::Malformed, Some(1)));
}

#[test]
fn cloudevents_map_by_name() {
    let body = br#"{"specversion":"1.0","id":"1","source":"https://x.y/plant/7?q","type":"t","data":{"a":1},"dataschema":"s","n":7}"#;
    let event = cloudevents::structured(body, &LIMITS, None)
        .unwrap()
        .remove(0);
    assert_eq!(
        (event.topic.as_str(), event.source.as_deref()),
        ("plant/7", Some("https://x.y/plant/7?q"))
    );
    assert_eq!(
        serde_json::to_string(&event.extensions).unwrap(),
        r#"{"dataschema":"s","n":7}"#
    );
    let topic = |more: &str| {
        let body =
            format!(r#"{{"specversion":"1.0","id":"1","source":"urn:x y","type":"t"{more}}}"#);
        cloudevents::structured(body.as_bytes(), &LIMITS, None)
            .map(|e| e[0].topic.to_string())
            .map_err(|e| e.field)
    };
    assert_eq!(topic(r#","topic":"a","subject":"b""#).unwrap(), "a");
    assert_eq!(topic(r#","subject":"b/c""#).unwrap(), "b/c");
    assert_eq!(topic("").unwrap_err().as_deref(), Some("topic"));
    assert_eq!(
        topic(r#","subject":"b","Bad":1"#).unwrap_err().as_deref(),
        Some("Bad")
    );
    assert_eq!(
        topic(r#","subject":"b","data_base64":"*""#)
            .unwrap_err()
            .as_deref(),
        Some("data_base64")
    );
}

#[test]
fn binary_mode_reads_headers() {
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-subject", "a%2Fb"),
        ("host", "x"),
    ];
    let read = |skip: &str, content_type, body: &[u8]| {
        let headers = headers
            .iter()
            .filter(|(n, _)| *n != skip)
            .map(|(n, v)| (*n, v.as_bytes()));
        cloudevents::binary(headers, content_type, body, &LIMITS, None)
    };
    let event = read("", Some("application/json"), b"[1, 2]")
        .unwrap()
        .remove(0);
    assert_eq!(
        (event.topic.as_str(), event.data.as_str()),
        ("a/b", "[1,2]")
    );
    let event = read("", Some("image/png"), b"\x00\x01").unwrap().remove(0);
    assert_eq!(event.data.as_str(), "\"AAE=\"");
    assert_eq!(event.extensions.unwrap()["encoding"], "base64");
    for header in ["ce-specversion", "ce-id", "ce-source", "ce-type"] {
        let e = read(header, None, b"").unwrap_err();
        assert_eq!((e.class, e.field.as_deref()), (Class::Header, Some(header)));
    }
}

proptest! {
    #[test]
    fn nothing_that_comes_in_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = native::json(&bytes, &LIMITS, None);
        let _ = native::ndjson(&bytes, &LIMITS, None);
        let _ = cloudevents::structured(&bytes, &LIMITS, None);
        let _ = cloudevents::batch(&bytes, &LIMITS, None);
        let _ = cloudevents::binary([("ce-id", &bytes[..])].into_iter(), None, &bytes, &LIMITS, None);
    }

    #[test]
    fn data_means_the_same_after_it_was_taken_in(text in "[ -~\u{2028}\u{1F600}\t\n]{0,40}", number in any::<i64>()) {
        let value = serde_json::json!({ "topic": "a", "type": "t", "data": { "text": text, "number": number } });
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        let event = native::json(pretty.as_bytes(), &LIMITS, None).unwrap().remove(0);
        prop_assert!(!event.data.as_str().contains(['\n', '\r']));
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(event.data.as_str()).unwrap(), value["data"].clone());
    }
}
