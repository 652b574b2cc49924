//! `tidings publish` and `tidings tail` against a real server.

use serde_json::{Value, json};

use crate::cli::{Running, line};
use crate::support::{Server, Setup, admin, free_address, token_of, user};

fn event(tail: &Running) -> Value {
    let line = tail.line();
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

fn data(tail: &Running, count: usize) -> Vec<Value> {
    (0..count).map(|_| event(tail)["data"].clone()).collect()
}

/// All that a topic holds.
fn history(server: &Server, topic: &str) -> Vec<Value> {
    let path = format!("/api/v1/events?topic={topic}&limit=1000");
    let page = server.get(&path, Some(&admin())).json();
    page["events"].as_array().unwrap().clone()
}

#[test]
fn data_comes_from_the_line_from_standard_input_or_from_a_file() {
    let server = Setup::default().start();
    let folder = tempfile::tempdir().unwrap();
    let publish = |words: &str| {
        let words = format!("publish --topic a/b --type t {words}");
        line(&words).at(&server, &user("u")).within(folder.path())
    };
    std::fs::write(
        folder.path().join("data.json"),
        "{\n  \"from\": \"file\"\n}\n",
    )
    .unwrap();
    publish("").is(0);
    publish("--data -1.50").is(0);
    publish("--data {\"b\":1,\"a\":[1e5]}").is(0);
    publish("--data -")
        .input("\"standard\\u0020input\"\n")
        .is(0);
    publish("--data @data.json").is(0);
    let placed = publish("--data 1 --id own-1 --subject pump/7")
        .is(0)
        .json()
        .remove(0);
    let all = history(&server, "a/b");
    let got: Vec<_> = all.iter().map(|e| e["data"].clone()).collect();
    let standard = json!("standard input");
    let file = json!({ "from": "file" });
    assert_eq!(
        got,
        [
            json!(null),
            json!(-1.5),
            json!({ "b": 1, "a": [1e5] }),
            standard,
            file,
            json!(1)
        ]
    );
    assert_eq!(
        (&all[5]["id"], &all[5]["subject"]),
        (&json!("own-1"), &json!("pump/7"))
    );
    assert_eq!(
        placed,
        json!({ "ids": ["own-1"], "cursor": all[5]["cursor"] })
    );
    // Numbers and the order of members are as they were written.
    let text = server.get("/api/v1/events?topic=a/b", Some(&admin())).body;
    assert!(
        text.contains("\"data\":-1.50") && text.contains("{\"b\":1,\"a\":[1e5]}"),
        "{text}"
    );
}

#[test]
fn every_line_becomes_an_event_or_none_does() {
    let server = Setup::default().set("limits.event=1KiB").start();
    let publish = |input: String| {
        let command = line("publish --topic bulk --type t --ndjson --data -");
        command.at(&server, &user("u")).input(input)
    };
    let numbers: String = (0..500).map(|n| format!("{n}\r\n\n")).collect();
    let placed = publish(numbers).is(0).json().remove(0);
    let all = history(&server, "bulk");
    assert_eq!(
        all.iter()
            .map(|e| e["data"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        (0..500).collect::<Vec<_>>()
    );
    let ids: Vec<_> = all.iter().map(|e| e["id"].clone()).collect();
    assert_eq!(
        (&placed["ids"], &placed["cursor"]),
        (&json!(ids), &all[499]["cursor"])
    );
    // The server refuses one of them.
    let refused = publish(format!("1\n\"{}\"\n2\n", "x".repeat(2_000))).is(1);
    assert!(refused.err.contains("413"), "{}", refused.err);
    assert_eq!(history(&server, "bulk").len(), 500);
}

#[test]
fn a_repeat_is_harmless_and_a_contradiction_fails() {
    let server = Setup::default().start();
    let publish = |words: &str| {
        let words = format!("publish --topic a --type t {words}");
        line(&words).at(&server, &user("u"))
    };
    let first = publish("--data 1 --idempotency-key k").is(0).out;
    assert_eq!(publish("--data 1 --idempotency-key k").is(0).out, first);
    assert!(
        publish("--data 2 --idempotency-key k")
            .is(1)
            .err
            .contains("422")
    );
    let first = publish("--data 1 --id one").is(0).out;
    assert_eq!(publish("--data 1 --id one").is(0).out, first);
    assert!(publish("--data 2 --id one").is(1).err.contains("409"));
    assert_eq!(history(&server, "a").len(), 2);
}

#[test]
fn tail_prints_an_event_a_line_with_its_cursor() {
    let server = Setup::default().start();
    for transport in ["sse", "ws", "poll"] {
        let topic = format!("tail/{transport}");
        let words =
            format!("tail --topic tail/{transport} --topic other/* --transport {transport}");
        let mut tail = line(&words).at(&server, &user("u")).spawn();
        tail.says("connected at ");
        let cursor = server.publish(&user("u"), &topic, &json!({ "n": 1 }));
        server.publish(&user("u"), "elsewhere", &json!(2));
        server.publish(&user("u"), &format!("other/{transport}"), &json!(3));
        let got = event(&tail);
        let members: Vec<&String> = got.as_object().unwrap().keys().collect();
        for member in ["cursor", "id", "topic", "type", "time", "data"] {
            assert!(members.iter().any(|m| *m == member), "{got}");
        }
        assert_eq!(
            (&got["cursor"], &got["topic"], &got["data"]),
            (&json!(cursor), &json!(topic), &json!({ "n": 1 }))
        );
        assert_eq!(event(&tail)["data"], 3);
        tail.signal("INT");
        assert_eq!(tail.wait(), Some(0), "{transport}");
    }
}

#[test]
fn tail_begins_after_a_cursor() {
    let server = Setup::default().start();
    let token = user("u");
    server.publish(&token, "t", &json!(0));
    let since = server.publish(&token, "t", &json!(1));
    let last = server.publish_many(&token, "t", 2..2_000);
    for transport in ["sse", "ws", "poll"] {
        let words = format!("tail --topic t --transport {transport} --since {since}");
        let tail = line(&words).at(&server, &token).spawn();
        let all: Vec<Value> = (2..2_000).map(|_| event(&tail)).collect();
        let got: Vec<u64> = all.iter().map(|e| e["data"].as_u64().unwrap()).collect();
        assert_eq!(got, (2..2_000).collect::<Vec<_>>(), "{transport}");
        assert_eq!(all.last().unwrap()["cursor"], last.as_str());
    }
    // One of another log: said, and followed from now on.
    let words = format!(
        "tail --topic t --since AAAAAAAAAAAAAAAA-{}",
        since.rsplit('-').next().unwrap()
    );
    let tail = line(&words).at(&server, &token).spawn();
    tail.says("reset: the cursor is not of this log");
    server.publish(&token, "t", &json!("live"));
    assert_eq!(data(&tail, 1), ["live"]);
}

#[test]
fn tail_says_what_retention_has_taken() {
    let rule = "[[topics]]\npattern = \"short\"\nmax_count = 2\n";
    let server = Setup::default()
        .file(rule)
        .set("retention.interval=100ms")
        .start();
    let since = server.publish(&user("u"), "short", &json!(0));
    server.publish_many(&user("u"), "short", 1..10);
    crate::support::eventually("retention takes some", || {
        history(&server, "short").len() == 2
    });
    let tail = line(&format!("tail --topic short --since {since}"))
        .at(&server, &user("u"))
        .spawn();
    tail.says("gap: retention has removed events");
    assert_eq!(data(&tail, 2), [8, 9]);
}

/// The server is killed again and again while events come in; what is printed has each of them once, in order.
#[test]
fn tail_resumes_over_kill_9() {
    let setup = Setup {
        listen: Some(free_address()),
        ..Setup::default()
    };
    let mut server = setup.set("stream.retry=1s").start();
    let token = user("u");
    let since = server.publish(&token, "t", &json!("before"));
    let mut tails: Vec<Running> = ["sse", "ws", "poll"]
        .iter()
        .map(|transport| format!("tail --topic t --transport {transport} --since {since}"))
        .map(|words| line(&words).at(&server, &token).spawn())
        .collect();
    // And one that begins with what comes from now on.
    tails.push(line("tail --topic t").at(&server, &token).spawn());
    for tail in &tails {
        tail.says("connected at ");
    }
    for round in 0..5 {
        let first = round * 100;
        server.publish_many(&token, "t", first..first + 60);
        if round % 2 == 1 {
            // Some have read all of it when the server dies, some have read what they have read.
            assert_eq!(data(&tails[0], 1), [if round == 1 { 0 } else { 1 }]);
        }
        let (folder, setup) = server.kill();
        server = Server::start(folder, setup);
        server.publish_many(&token, "t", first + 60..first + 100);
    }
    server.publish(&token, "t", &json!("end"));
    for (at, tail) in tails.iter().enumerate() {
        let read = if at == 0 { 2 } else { 0 };
        let mut wanted: Vec<Value> = (read..500).map(|n| json!(n)).collect();
        wanted.push(json!("end"));
        assert_eq!(data(tail, wanted.len()), wanted, "{at}");
        assert!(tail.out.try_recv().is_err());
    }
}

#[test]
fn tail_ends_where_coming_back_is_of_no_use() {
    let server = Setup::default().start();
    let token = token_of("a", "u", &json!({ "scope": "events:read", "jti": "one" }));
    let mut tail = line("tail --topic t").at(&server, &token).spawn();
    tail.says("connected at ");
    let revoked = server.post(
        "/api/v1/admin/revocations",
        Some(&admin()),
        &json!({ "token_id": "one" }),
    );
    assert_eq!(revoked.status, 201);
    tail.says("closing: revoked");
    assert_eq!(tail.wait(), Some(1));
}

/// A reader that has seen enough is no failure.
#[test]
fn a_pipe_that_is_closed_ends_it_well() {
    use std::process::{Command, Stdio};
    let server = Setup::default().start();
    server.publish_many(&user("u"), "t", 0..5_000);
    let (program, url, token) = (env!("CARGO_BIN_EXE_tidings"), server.url(), user("u"));
    let ended = |args: &str| {
        let script = format!("{program} {args}; echo $? >&3");
        let mut child = Command::new("bash")
            .args([
                "-c",
                &format!(
                    "set -o pipefail; exec 3>&2; {{ {script}; }} 2>/dev/null | head -n 1 >/dev/null"
                ),
            ])
            .env("TIDINGS_URL", &url)
            .env("TIDINGS_TOKEN", &token)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut code = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut code).unwrap();
        child.wait().unwrap();
        code.trim().to_owned()
    };
    let first = &history(&server, "t")[0]["cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(ended(&format!("tail --topic t --since {first}")), "0");
    assert_eq!(ended("export --topic t"), "0");
    assert_eq!(ended("config --explain"), "0");
}
