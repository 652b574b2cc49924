//! `tidings simulate`, `bench` and `serve --demo`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::cli::{Running, line};
use crate::support::{PATIENCE, Setup, Sse, admin, token_of, user};

fn topics(events: &[Value]) -> BTreeSet<String> {
    let prefix = |e: &Value| {
        e["topic"]
            .as_str()
            .unwrap()
            .split('/')
            .next()
            .unwrap()
            .to_owned()
    };
    events.iter().map(prefix).collect()
}

/// What was sent, as its topic, its type and whom it is about; not what the server made of it by itself.
fn sent(events: &[Value]) -> Vec<[String; 3]> {
    let is_sent = |e: &&Value| {
        let kind = e["type"].as_str().unwrap();
        !kind.starts_with("alarm_cluster") && !kind.starts_with("incident")
    };
    let what = |e: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        [&e["topic"], &e["type"], &e["data"]["entity_id"]].map(text)
    };
    let mut sent: Vec<_> = events.iter().filter(is_sent).map(what).collect();
    // Alarms and other events go to different places, each in its order.
    sent.sort_by_key(|[topic, ..]| topic != "alarms");
    sent
}

#[test]
fn simulated_traffic_is_that_of_its_seed() {
    let server = Setup::default().start();
    let run = |tenant: &str, words: &str| {
        let token = token_of(tenant, "s", &json!({ "roles": ["admin"] }));
        let said = line(&format!("simulate --rate 5000 {words}"))
            .at(&server, &token)
            .is(0)
            .json();
        let events = line("export").at(&server, &token).is(0).json();
        (said[0].clone(), events)
    };
    let (said, all) = run("a", "--count 2000 --seed 7");
    assert_eq!(said, json!({ "sent": 2000, "seed": 7 }));
    assert_eq!(sent(&all).len(), 2_000);
    let mut prefixes = topics(&all);
    prefixes.remove("incidents");
    let wanted = [
        "alarms",
        "alerts",
        "devices",
        "notifications",
        "signals",
        "vitals",
    ];
    assert_eq!(prefixes, wanted.map(str::to_owned).into());
    // Alarms go in by their module, which knows what they hang on.
    let root = token_of("a", "s", &json!({ "roles": ["admin"] }));
    let entity = server.get("/api/v1/entities/cell-0101-1", Some(&root));
    assert_eq!(entity.json()["part_of"], json!(["site-0101"]));
    let alarms = server.get("/api/v1/alarms", Some(&root)).json();
    assert!(alarms["total"].as_u64() > Some(0), "{alarms}");
    // The same seed makes the same events but for their times.
    assert_eq!(sent(&run("b", "--count 2000 --seed 7").1), sent(&all));
    assert_ne!(sent(&run("c", "--count 2000 --seed 8").1), sent(&all));
    let (_, some) = run("d", "alarms notifications --count 100");
    let mut prefixes = topics(&some);
    prefixes.remove("incidents");
    assert_eq!(
        prefixes,
        ["alarms", "notifications"].map(str::to_owned).into()
    );
    let (said, timed) = run("e", "devices --seconds 1");
    assert_eq!(said["sent"], timed.len());
    assert_eq!(
        topics(&timed),
        ["devices", "signals"].map(str::to_owned).into()
    );
}

#[test]
fn a_simulation_that_is_interrupted_says_what_it_sent() {
    let server = Setup::default().start();
    let mut stream = server.stream("topic=**", &admin(), None);
    let mut running = line("simulate --rate 50").at(&server, &admin()).spawn();
    stream.until("alarm_ingested");
    running.signal("INT");
    assert_eq!(running.wait(), Some(0));
    let said: Value = serde_json::from_str(&running.line()).unwrap();
    assert!(said["sent"].as_u64().unwrap() > 0, "{said}");
}

/// Every mode on a server of its own; the figures that apply, and no others.
#[test]
fn every_measurement_has_its_figures() {
    let common = [
        "mode",
        "connections",
        "size_bytes",
        "seconds",
        "published",
        "published_per_second",
        "delivered",
        "delivered_per_second",
        "server_cpu_seconds",
        "lost",
        "repeated",
        "reordered",
        "cut",
    ];
    let memory = "rss_bytes_per_connection rss_bytes_per_connection_after";
    let live = "latency_us publish_us publish_lag_us server_cpu_us_per_delivery reads_per_delivery";
    for (words, published, delivered, more) in [
        (
            "broadcast -n 3 --rate 50 --publishers 2",
            50,
            150,
            format!("{live} {memory}"),
        ),
        ("unicast -n 3 --rate 30", 30, 30, format!("{live} {memory}")),
        (
            "idle -n 3",
            0,
            0,
            format!("server_cpu_us_per_connection_second {memory}"),
        ),
        (
            "ingest --publishers 2 --batch 5 --size 100",
            1,
            0,
            "batch publish_us server_cpu_us_per_publish".into(),
        ),
        (
            "replay -n 2 --backlog 30",
            0,
            60,
            "backlog catch_up_us server_cpu_us_per_delivery reads_per_delivery".into(),
        ),
    ] {
        let json = line(&format!("bench {words} --seconds 1 --json"))
            .is(0)
            .json()
            .remove(0);
        let members: BTreeSet<&str> = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let wanted: BTreeSet<&str> = common.into_iter().chain(more.split(' ')).collect();
        assert_eq!(members, wanted, "{words}");
        let figure = |name: &str| {
            json[name]
                .as_u64()
                .unwrap_or_else(|| panic!("{name}: {json}"))
        };
        assert!(words.starts_with(json["mode"].as_str().unwrap()));
        if words.starts_with("ingest") {
            assert!(
                figure("published") >= published && figure("published").is_multiple_of(5),
                "{json}"
            );
        } else {
            assert_eq!(figure("published"), published, "{json}");
        }
        assert_eq!(figure("delivered"), delivered, "{json}");
        for fault in ["lost", "repeated", "reordered", "cut"] {
            assert_eq!(figure(fault), 0, "{json}");
        }
        for times in json
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| name.ends_with("_us"))
        {
            let at = |quantile: &str| {
                times.1[quantile]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{times:?}"))
            };
            assert!(
                at("p50") <= at("p90")
                    && at("p90") <= at("p99")
                    && at("p99") <= at("p99.9")
                    && at("p99.9") <= at("max")
            );
        }
    }
    let table = line("bench replay -n 1 --backlog 5").is(0).out;
    assert!(
        table.contains("connect to caught up")
            && table.contains("lost / repeated / reordered / cut 0 / 0 / 0 / 0"),
        "{table}"
    );
}

#[test]
fn a_running_server_can_be_measured() {
    let server = Setup::default().start();
    let words = format!(
        "bench broadcast -n 2 --rate 20 --seconds 1 --json --server-pid {}",
        server.pid()
    );
    let json = line(&words)
        .arg("--url")
        .arg(server.url())
        .env("TIDINGS_TOKEN", &user("bench"))
        .is(0)
        .json()
        .remove(0);
    assert_eq!(
        (&json["published"], &json["delivered"]),
        (&json!(20), &json!(40))
    );
    assert!(
        json["server_cpu_seconds"].is_f64() && json["rss_bytes_per_connection"].is_number(),
        "{json}"
    );
    let without = line("bench idle -n 1 --seconds 1 --json")
        .at(&server, &user("bench"))
        .is(0)
        .json()
        .remove(0);
    assert!(
        without.get("server_cpu_seconds").is_none(),
        "what cannot be known is left out: {without}"
    );
}

/// A demo that runs: its address and the token of its sign-in link.
struct Demo {
    running: Running,
    url: String,
    token: String,
}

impl Demo {
    fn start(folder: &Path) -> Self {
        let running = line("serve --demo --listen 127.0.0.1:0")
            .within(folder)
            .spawn();
        let url = running
            .line()
            .strip_prefix("listening on ")
            .unwrap()
            .to_owned();
        let link = loop {
            let line = running.line();
            if let Some(at) = line.find("http://") {
                break line[at..].trim().to_owned();
            }
        };
        let (base, token) = link.split_once("/#token=").unwrap();
        assert_eq!(base, url);
        Self {
            running,
            token: token.to_owned(),
            url,
        }
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    fn get(&self, path: &str) -> String {
        use std::io::{Read as _, Write as _};
        let mut socket = std::net::TcpStream::connect(self.address()).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address()
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    fn stream(&self, topic: &str) -> Sse {
        use std::io::Write as _;
        let mut socket = std::net::TcpStream::connect(self.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // The page's own way in, for those who cannot run it.
        let request = format!(
            "GET /api/v1/stream?topic={topic} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
            self.address(),
            self.token
        );
        socket.write_all(request.as_bytes()).unwrap();
        Sse::new(socket)
    }
}

#[test]
fn a_demo_is_ready_to_look_at() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(folder.path());
    let page = demo.get("/");
    assert!(
        page.starts_with("HTTP/1.1 200")
            && page.contains("<title>tidings</title>")
            && page.contains("/app.js")
    );
    for (path, content_type) in [("/app.js", "text/javascript"), ("/app.css", "text/css")] {
        assert!(demo.get(path).contains(content_type), "{path}");
    }
    // Traffic of all four modules comes by itself.
    let mut stream = demo.stream("**");
    let mut missing = BTreeSet::from(["alarms", "alerts", "notifications", "devices", "vitals"]);
    while !missing.is_empty() {
        let frame = stream.next().unwrap();
        if let Ok(event) = serde_json::from_str::<Value>(&frame.data) {
            let topic = event["topic"].as_str().unwrap_or_default();
            missing.remove(topic.split('/').next().unwrap());
        }
    }
    // What it says to try works.
    let published = line("publish --topic hello --type greeting --data \"hi\"")
        .env("TIDINGS_URL", &demo.url)
        .env("TIDINGS_TOKEN", &demo.token);
    published.is(0);
    // Vital signs are never stored.
    let export = |topic: &str| {
        let words = format!("export --topic {topic}");
        line(&words)
            .arg("--url")
            .arg(&demo.url)
            .arg("--token")
            .arg(&demo.token)
            .is(0)
            .json()
    };
    assert_eq!(export("vitals/**").len(), 0);
    assert!(!export("alarms").is_empty());
    let kept = export("hello");
    let data = folder.path().join("tidings-demo");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(data.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
    let token = demo.token.clone();
    demo.running.signal("TERM");
    assert_eq!(demo.running.wait(), Some(0));
    let log: Vec<String> = demo.running.err.iter().collect();
    assert!(
        log.iter()
            .all(|line| !line.contains("eyJ") && !line.contains("panicked")),
        "{log:?}"
    );
    // After a restart, link and events still hold.
    let demo = Demo {
        token,
        ..Demo::start(folder.path())
    };
    let words = "export --topic hello";
    let again = line(words)
        .arg("--url")
        .arg(&demo.url)
        .arg("--token")
        .arg(&demo.token)
        .is(0)
        .json();
    assert_eq!(again, kept);
}

#[test]
fn a_browser_sees_the_demos_events() {
    let part = |name: &str| std::env::var(name).ok();
    let (Some(node), Some(chromium)) =
        (part("TIDINGS_TEST_NODE_DIR"), part("TIDINGS_TEST_CHROMIUM"))
    else {
        assert!(
            std::env::var("CI").is_err(),
            "TIDINGS_TEST_NODE_DIR and TIDINGS_TEST_CHROMIUM must be set in CI: see ./x test"
        );
        eprintln!(
            "not run: TIDINGS_TEST_NODE_DIR or TIDINGS_TEST_CHROMIUM is not set (./x test sets them)"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let demo = Demo::start(folder.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/assets/page.mjs");
    let link = format!("{}/#token={}", demo.url, demo.token);
    let mut command = Command::new("node");
    command.arg(script).args([
        &node,
        &chromium,
        &link,
        "20",
        "alarms",
        "alerts",
        "notifications",
        "devices",
    ]);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(shown["rows"].as_u64().unwrap() >= 20, "{shown}");
    assert_eq!(
        (&shown["status"], &shown["faults"]),
        (&json!("connected"), &json!([]))
    );
    // The token does not stay where it would be copied, kept or sent along.
    assert_eq!(shown["address"], format!("{}/", demo.url));
}
