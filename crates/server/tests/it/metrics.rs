//! `/metrics`: on the public listener or on one of its own, every name with its meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Answer, Request, SECRET, Server, Setup, admin, eventually, user};

/// Where the metrics are, by the record that says so.
fn listener(server: &Server) -> String {
    let mut address = None;
    eventually("the listener is named", || {
        let log = server.log();
        let records = log
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap());
        address = records
            .filter(|r| r["message"] == "metrics are on a listener of their own")
            .find_map(|r| Some(r["address"].as_str()?.to_owned()));
        address.is_some()
    });
    address.unwrap()
}

#[test]
fn a_listener_of_their_own() {
    let mut server = Setup::default()
        .set("metrics.listen=127.0.0.1:0")
        .set("drain.grace=3s")
        .start();
    let address = listener(&server);
    let with =
        |method: &str, path: &str| Answer::read(&mut Request::new(method, path).send_to(&address));
    for path in ["/metrics", "/metrics/"] {
        let answer = with("GET", path);
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").starts_with("text/plain"));
        assert!(answer.body.contains("tidings_build_info{version=\""));
    }
    with("POST", "/metrics").is_problem(405, None);
    for path in ["/", "/healthz", "/api/v1/status", "/api/v1/stream?topic=x"] {
        with("GET", path).is_problem(404, None);
    }
    server.get("/metrics", None).is_problem(404, None);
    server.get("/metrics", Some(&admin())).is_problem(404, None);
    // A second server cannot have the address, and says which.
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .args(["--set", &format!("metrics.listen={address}")])
        .env("TIDINGS_AUTH_JWT_SECRET", SECRET)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address), "{said}");
    // Until the end: a drain can be watched.
    let mut stream = server.stream("topic=x", &user("u"), None);
    stream.until("connected");
    server.signal("TERM");
    stream.until("closing");
    assert_eq!(with("GET", "/metrics").status, 200);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn every_name_has_its_meaning() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.json");
    std::fs::write(&keys, "{\"keys\":[]}").unwrap();
    let server = Setup::default()
        .set(&format!("auth.jwks_file={}", keys.display()))
        .set("retention.interval=100ms")
        .start();
    let first = server.publish(&admin(), "x", &json!(1));
    let mut stream = server.stream("topic=x", &user("u"), Some(&first));
    server.publish(&admin(), "x", &json!(2));
    stream.data(1);
    server
        .get("/api/v1/status", Some("nonsense"))
        .is_problem(401, None);
    server
        .post(
            "/api/v1/events",
            Some(&admin()),
            &json!({ "topic": "x", "type": "open", "data": 1 }),
        )
        .is_problem(422, Some("type"));
    for name in [
        "tidings_jwks_refreshes_total{result=\"ok\"}",
        "tidings_log_head",
        "tidings_deliveries_total",
        "tidings_resumes_total",
        "process_resident_memory_bytes",
    ] {
        eventually(name, || server.metric(name) >= 1.0);
    }
    let text = server.get("/metrics", None).body;
    let (mut help, mut types, mut samples) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for line in text.lines().filter(|l| !l.is_empty()) {
        let of = |kind: &str| {
            let rest = line.strip_prefix(kind)?;
            let (name, rest) = rest.split_once(' ')?;
            Some((name.to_owned(), rest.to_owned()))
        };
        if let Some((name, meaning)) = of("# HELP ") {
            assert!(meaning.ends_with('.'), "{line}");
            assert_eq!(help.insert(name, meaning), None, "{line} stands twice");
        } else if let Some((name, kind)) = of("# TYPE ") {
            assert_eq!(types.insert(name, kind), None, "{line} stands twice");
        } else {
            samples.insert(line.split(['{', ' ']).next().unwrap().to_owned());
            assert!(!line.contains("tenant="), "{line}");
        }
    }
    assert_eq!(
        help.keys().collect::<Vec<_>>(),
        types.keys().collect::<Vec<_>>()
    );
    for sample in &samples {
        let parts = ["_bucket", "_sum", "_count"];
        let of_histogram = parts.iter().find_map(|p| sample.strip_suffix(p));
        let is_known = match of_histogram {
            Some(name) if types.get(name).is_some_and(|t| t == "histogram") => true,
            _ => types.contains_key(sample),
        };
        assert!(is_known, "{sample} has neither meaning nor type");
    }
}

#[test]
fn tenants_are_named_where_that_is_wanted() {
    let server = Setup::default()
        .set("metrics.tenant_label=true")
        .set("retention.interval=100ms")
        .start();
    server.publish(&admin(), "x", &json!(1));
    eventually("the log of the tenant is measured", || {
        server.metric("tidings_log_head{tenant=\"a\"}") == 1.0
            && server.metric("tidings_log_bytes{tenant=\"a\"}") > 0.0
    });
}
