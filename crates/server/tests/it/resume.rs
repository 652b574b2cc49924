//! Coming back: every later event, once, in order, however far back; and the truth where that cannot be.

use serde_json::json;

use crate::support::{Setup, admin, eventually, token_of};

fn numbers(values: &[serde_json::Value]) -> Vec<u64> {
    values.iter().map(|v| v.as_u64().unwrap()).collect()
}

#[test]
fn there_is_no_cliff_at_a_thousand_or_ten_thousand_events() {
    let server = Setup::default().start();
    let token = admin();
    let first = server.publish(&token, "cliff", &json!("first"));
    server.publish_many(&token, "cliff", 0..12_000);
    for skip in [0, 999, 1_000, 1_001, 9_999, 10_000, 10_001] {
        let cursor = if skip == 0 {
            first.clone()
        } else {
            let page = server
                .get(
                    &format!("/api/v1/events?topic=cliff&after={first}&limit=1"),
                    Some(&token),
                )
                .json();
            let (epoch, seq) = page["events"][0]["cursor"]
                .as_str()
                .unwrap()
                .rsplit_once('-')
                .unwrap();
            format!("{epoch}-{}", seq.parse::<u64>().unwrap() + skip - 1)
        };
        let mut stream = server.stream("topic=cliff", &token, Some(&cursor));
        let got = numbers(&stream.data(usize::try_from(12_000 - skip).unwrap()));
        assert_eq!(got, (skip..12_000).collect::<Vec<_>>());
    }
    let cursor = server.publish(&token, "cliff", &json!(12_000));
    let mut stream = server.stream("topic=cliff", &token, Some(&cursor));
    server.publish(&token, "cliff", &json!(12_001));
    assert_eq!(numbers(&stream.data(1)), [12_001], "and then live");
}

#[test]
fn a_cursor_a_million_events_old_resumes_at_once_and_completely() {
    let server = Setup::default().start();
    let token = admin();
    let first = server.publish(&token, "old/rare", &json!("first"));
    server.publish_many(&token, "old/many", 0..1_000_000);
    server.publish(&token, "old/rare", &json!("last"));
    // By its own index, past a million others.
    let mut rare = server.stream("topic=old/rare", &token, Some(&first));
    assert_eq!(rare.data(1), ["last"]);
    let mut all = server.stream("topic=old/*&format=data", &token, Some(&first));
    for n in 0..1_000_000u64 {
        let frame = all.until("t");
        assert_eq!(frame.data, n.to_string());
    }
    assert_eq!(all.until("t").data, "\"last\"");
}

#[test]
fn what_retention_has_taken_is_a_gap_and_what_is_not_ours_a_reset() {
    let server = Setup::default()
        .set("retention.interval=1s")
        .file(
            "[[topics]]
pattern = \"short\"
max_count = 5
",
        )
        .start();
    let token = admin();
    let first = server.publish(&token, "short", &json!(0));
    let kept = server.publish(&token, "kept", &json!(0));
    server.publish_many(&token, "short", 1..20);
    eventually("retention", || {
        server
            .get("/api/v1/events?topic=short&limit=100", Some(&token))
            .json()["events"]
            .as_array()
            .unwrap()
            .len()
            == 5
    });
    let mut stream = server.stream("topic=short", &token, Some(&first));
    stream.until("connected");
    let gap = stream.next().unwrap();
    assert_eq!(gap.event, "gap");
    assert!(gap.json()["oldest"].is_string());
    assert_eq!(numbers(&stream.data(5)), (15..20).collect::<Vec<_>>());
    let page = server
        .get(
            &format!("/api/v1/events?topic=short&after={first}"),
            Some(&token),
        )
        .json();
    assert_eq!(page["gap"], gap.json());
    let poll = server
        .get(
            &format!("/api/v1/poll?topic=short&after={first}&wait=0"),
            Some(&token),
        )
        .json();
    assert_eq!(poll["gap"], gap.json());
    // Nothing is missing from the other topic.
    let page = server
        .get(
            &format!("/api/v1/events?topic=kept&after={kept}"),
            Some(&token),
        )
        .json();
    assert_eq!(page["gap"], json!(null));

    let other = token_of("b", "s", &json!({ "roles": ["admin"] }));
    let foreign = server.publish(&other, "short", &json!(0));
    let (epoch, _) = first.rsplit_once('-').unwrap();
    for cursor in [
        foreign.as_str(),
        "nonsense",
        "x-1",
        &format!("{epoch}-99999999"),
        "-",
        "é",
    ] {
        let mut stream = server.stream("topic=short", &token, Some(cursor));
        assert_eq!(stream.head.status, 200);
        assert_eq!(stream.next().unwrap().event, "connected");
        let reset = stream.next().unwrap();
        assert_eq!(reset.event, "reset", "{cursor}");
        assert!(!reset.data.contains("99999999"));
        server.publish(&token, "short", &json!(7));
        assert_eq!(numbers(&stream.data(1)), [7], "from now on");
        if cursor.is_ascii() {
            server
                .get(
                    &format!("/api/v1/events?topic=short&after={cursor}"),
                    Some(&token),
                )
                .is_problem(400, Some("after"));
            let poll = server
                .get(
                    &format!("/api/v1/poll?topic=short&after={cursor}&wait=0"),
                    Some(&token),
                )
                .json();
            assert_eq!(poll["reset"], true);
        }
    }
}

#[test]
fn the_header_wins_over_the_query_and_both_resume() {
    let server = Setup::default().start();
    let token = admin();
    let one = server.publish(&token, "x", &json!(1));
    let two = server.publish(&token, "x", &json!(2));
    server.publish(&token, "x", &json!(3));
    assert_eq!(
        numbers(
            &server
                .stream(&format!("topic=x&last_event_id={two}"), &token, None)
                .data(1)
        ),
        [3]
    );
    assert_eq!(
        numbers(
            &server
                .stream(&format!("topic=x&last_event_id={two}"), &token, Some(&one))
                .data(2)
        ),
        [2, 3]
    );
}
