//! `tidings export`, `import` and `dead-letter`: out of one place, into another, and nothing is lost on the way.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::{Ran, line, text};
use crate::support::{Server, Setup, admin, eventually, token_of};

fn boss(tenant: &str) -> String {
    token_of(tenant, "root", &json!({ "roles": ["admin"] }))
}

/// A server with events of two tenants, of all that an event can have.
fn filled() -> Server {
    let server = Setup::default().start();
    let full = json!({ "topic": "full", "type": "t.full", "id": "own-1", "time": "2020-02-03T04:05:06.000007Z", "subject": "s",
        "source": "urn:x", "extensions": { "x": "1" }, "data": { "b": [1.5, null], "a": "ä\n\"" } });
    for tenant in ["a", "b"] {
        let token = boss(tenant);
        server.publish_many(&token, "many/1", 0..1_500);
        assert_eq!(
            server.post("/api/v1/events", Some(&token), &full).status,
            202
        );
        server.publish(&token, "many/2", &json!(tenant));
    }
    server
}

/// What a tenant's log holds, without cursors.
fn log(server: &Server, tenant: &str) -> Vec<Value> {
    let (token, mut all, mut after) = (boss(tenant), Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/events?topic=**&limit=1000&after={after}");
        let page = server.get(&path, Some(&token)).json();
        let events = page["events"].as_array().unwrap();
        if events.is_empty() {
            return all;
        }
        all.extend(events.iter().map(|event| {
            let mut event = event.clone();
            event.as_object_mut().unwrap().remove("cursor");
            event
        }));
        page["cursor"].as_str().unwrap().clone_into(&mut after);
    }
}

fn letters(server: &Server, token: &str) -> Vec<Value> {
    line("dead-letter list").at(server, token).is(0).json()
}

#[test]
fn a_servers_log_goes_to_another_server() {
    let server = filled();
    let out = line("export").at(&server, &boss("a")).is(0).json();
    assert_eq!(out, log(&server, "a"));
    assert_eq!(out.len(), 1_502);
    assert!(
        out.iter()
            .all(|e| e.get("tenant").is_none() && e.get("cursor").is_none())
    );
    let some = line("export --topic many/2 --topic full")
        .at(&server, &boss("a"))
        .is(0)
        .json();
    assert_eq!(
        some.iter()
            .map(|e| e["topic"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["full", "many/2"]
    );

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    line("export --out")
        .arg(&file)
        .at(&server, &boss("a"))
        .is(0);
    let other = Setup::default().start();
    // Whatever tenant they were of, they go to the token's.
    let import = || line("import").arg(&file).at(&other, &boss("c"));
    import().is(0);
    assert_eq!(log(&other, "c"), out);
    // Cursors are those of the new log, and a second import adds nothing, from standard input either.
    let mut live = other.stream("topic=**", &boss("c"), None);
    live.until("connected");
    import().is(0);
    line("import")
        .at(&other, &boss("c"))
        .input(std::fs::read(&file).unwrap())
        .is(0);
    other.publish(&boss("c"), "after", &json!(1));
    assert_eq!(live.next().unwrap().json()["topic"], "after");
    assert_eq!(log(&other, "c").len(), 1_503);
    assert_eq!(letters(&other, &boss("c")), Vec::<Value>::new());
}

#[test]
fn a_data_folder_goes_to_another_data_folder() {
    let server = filled();
    let (a, b) = (log(&server, "a"), log(&server, "b"));
    // While the server runs, and after it was killed: all that was answered is there.
    let export = |folder: &Path| line("export --data-dir").arg(folder).is(0).json();
    let out = export(server.folder.path());
    let (folder, _) = server.kill();
    assert_eq!(export(folder.path()), out);
    let mut by_tenant = BTreeMap::<String, Vec<Value>>::new();
    for mut event in out {
        let tenant = event.as_object_mut().unwrap().remove("tenant").unwrap();
        by_tenant
            .entry(tenant.as_str().unwrap().to_owned())
            .or_default()
            .push(event);
    }
    assert_eq!(
        by_tenant,
        BTreeMap::from([("a".to_owned(), a.clone()), ("b".to_owned(), b.clone())])
    );
    let some = line("export --topic many/2 --data-dir")
        .arg(folder.path())
        .is(0)
        .json();
    assert_eq!(
        some.iter()
            .map(|e| e["tenant"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["a", "b"]
    );

    let new = tempfile::tempdir().unwrap();
    let (file, data) = (new.path().join("events.ndjson"), new.path().join("data"));
    line("export --data-dir")
        .arg(folder.path())
        .arg("--out")
        .arg(&file)
        .is(0);
    for _ in 0..2 {
        line("import --data-dir").arg(&data).arg(&file).is(0);
    }
    let server = Server::start(
        Arc::new(new),
        Setup {
            data: Some(data.clone()),
            ..Setup::default()
        },
    );
    assert_eq!((log(&server, "a"), log(&server, "b")), (a, b));
    let since = server.publish(&boss("a"), "x", &json!("old"));
    // Into a folder that has been served: who comes back with a cursor gets what was imported.
    let (new, setup) = server.kill();
    let more = "{\"tenant\":\"a\",\"id\":\"n\",\"topic\":\"x\",\"type\":\"t\",\"time\":\"2020-01-01T00:00:00Z\",\"data\":\"new\"}\n";
    line("import --data-dir").arg(&data).input(more).is(0);
    let server = Server::start(new, setup);
    let mut stream = server.stream("topic=x", &boss("a"), Some(&since));
    stream.until("connected");
    assert_eq!(stream.next().unwrap().json()["data"], "new");
}

/// An export has all that is kept, also what stands before that which retention has taken from other topics.
#[test]
fn an_export_has_all_that_is_kept() {
    let rule = "[[topics]]\npattern = \"short\"\nmax_count = 1\n";
    let server = Setup::default()
        .file(rule)
        .set("retention.interval=100ms")
        .start();
    server.publish(&admin(), "long", &json!(0));
    server.publish_many(&admin(), "short", 1..5);
    server.publish(&admin(), "long", &json!(5));
    let export = || line("export").at(&server, &admin()).is(0).json();
    eventually("retention takes some", || export().len() == 3);
    let data = |events: Vec<Value>| events.iter().map(|e| e["data"].clone()).collect::<Vec<_>>();
    assert_eq!(data(export()), [0, 4, 5]);
    let folder = line("export --data-dir")
        .arg(server.folder.path())
        .is(0)
        .json();
    assert_eq!(data(folder), [0, 4, 5]);
}

/// The file that stands may be the last backup: it is replaced by a whole one, or not at all.
#[test]
fn an_export_that_fails_leaves_the_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    std::fs::write(&file, "the last one").unwrap();
    line("export --url http://127.0.0.1:1 --token t --out")
        .arg(&file)
        .is(1);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "the last one");
    let server = Setup::default().start();
    server.publish(&admin(), "x", &json!(1));
    line("export --out").arg(&file).at(&server, &admin()).is(0);
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .starts_with("{\"id\":")
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    line("export --out /dev/null").at(&server, &admin()).is(0);
}

const GOOD: &str =
    "{\"id\":\"g1\",\"topic\":\"x\",\"type\":\"t\",\"time\":\"2020-01-01T00:00:00Z\",\"data\":1}";
const BAD: [(&str, &str); 6] = [
    ("this is not JSON", "not JSON"),
    (
        "{\"id\":\"b1\",\"topic\":\"a//b\",\"type\":\"t\",\"data\":1}",
        "topic",
    ),
    (
        "{\"id\":\"b2\",\"topic\":\"x\",\"type\":\"gap\",\"data\":1}",
        "type",
    ),
    ("{\"id\":\"b3\",\"topic\":\"x\",\"type\":\"t\"}", "data"),
    (
        "{\"id\":\"g1\",\"topic\":\"x\",\"type\":\"t\",\"time\":\"2020-01-01T00:00:00Z\",\"data\":2}",
        "this id stands already",
    ),
    ("[1]", ""),
];

#[track_caller]
fn told(ran: &Ran, what: &str) {
    assert!(ran.err.contains(what), "{what}: {}", ran.err);
}

#[test]
fn what_a_server_cannot_take_in_is_set_aside_once() {
    let server = Setup::default().start();
    let mut input = format!("{GOOD}\n\n").into_bytes();
    for (bad, _) in BAD {
        input.extend(format!("{bad}\n").bytes());
    }
    input.extend(b"{\"id\":\"\xff\"}\n");
    input.extend(GOOD.replace("g1", "g2").bytes());
    for _ in 0..2 {
        let ran = line("import")
            .at(&server, &admin())
            .input(input.clone())
            .is(1);
        told(&ran, "7 lines could not be taken in");
        let ids: Vec<_> = log(&server, "a").iter().map(|e| e["id"].clone()).collect();
        assert_eq!(ids, ["g1", "g2"]);
        let letters = letters(&server, &admin());
        assert_eq!(letters.len(), 7);
        for letter in &letters {
            assert_eq!(letter["source"], "import");
            assert!(
                letter["id"].is_string() && letter["stored_at"].as_str().unwrap().ends_with('Z')
            );
        }
        let of = |content: &str| {
            letters
                .iter()
                .find(|l| l["content"] == content)
                .unwrap_or_else(|| panic!("{content}"))
        };
        for (bad, why) in BAD {
            assert!(
                of(bad)["reason"].as_str().unwrap().contains(why),
                "{:?}",
                of(bad)
            );
        }
        assert_eq!(of("{\"id\":\"\u{fffd}\"}")["reason"], "not UTF-8");
    }
    assert!(server.metric("tidings_dead_letters{source=\"import\"}") >= 7.0);
    // Another tenant sees nothing of it.
    assert_eq!(letters(&server, &boss("b")), Vec::<Value>::new());
}

#[test]
fn what_a_folder_cannot_take_in_is_set_aside_once() {
    let new = tempfile::tempdir().unwrap();
    let data = new.path().join("data");
    let of = |line: &str| line.replacen('{', "{\"tenant\":\"a\",", 1);
    let mut input = format!("{}\n", of(GOOD)).into_bytes();
    for (bad, _) in BAD {
        input.extend(format!("{}\n", of(bad)).bytes());
    }
    input.extend(b"{\"tenant\":\"a\",\"id\":\"\xff\"}\n{\"tenant\":\"a\",\"id\":\"cut off");
    for _ in 0..2 {
        let ran = line("import --data-dir")
            .arg(&data)
            .input(input.clone())
            .is(1);
        // Two lines say nothing of a tenant; there is nobody to keep them for.
        told(&ran, "6 lines could not be taken in");
        told(&ran, "line 2 is left out: it does not say whose it is");
        told(&ran, "line 7 is left out: it does not say whose it is");
        told(&ran, "2 lines are left out");
    }
    let server = Server::start(
        Arc::new(new),
        Setup {
            data: Some(data),
            ..Setup::default()
        },
    );
    assert_eq!(log(&server, "a").len(), 1);
    let letters = letters(&server, &admin());
    let reasons: Vec<_> = letters
        .iter()
        .map(|l| l["reason"].as_str().unwrap())
        .collect();
    assert_eq!(letters.len(), 6, "{reasons:?}");
    assert!(
        letters
            .iter()
            .any(|l| l["content"] == "{\"tenant\":\"a\",\"id\":\"cut off")
    );
    for (bad, why) in &BAD[1..5] {
        assert!(
            letters
                .iter()
                .any(|l| l["content"] == *bad && l["reason"].as_str().unwrap().contains(why)),
            "{bad}"
        );
    }
}

#[test]
fn dead_letters_are_taken_in_again() {
    let server = Setup::default().start();
    let set_aside = |content: &str| {
        let body = json!({ "source": "test", "reason": "because", "content": content });
        let made = server.post("/api/v1/dead-letters", Some(&admin()), &body);
        assert_eq!(made.status, 201, "{}", made.body);
        made.json()["id"].as_str().unwrap().to_owned()
    };
    let good = set_aside("{\"topic\":\"x\",\"type\":\"t\",\"data\":1}");
    let bad = set_aside("{\"topic\":\"x\"}");
    let both = set_aside(
        "[{\"topic\":\"x\",\"type\":\"t\",\"id\":\"i\",\"data\":2},{\"topic\":\"x\",\"type\":\"t\",\"data\":3}]",
    );
    let listed: Vec<_> = letters(&server, &admin())
        .iter()
        .map(|l| l["id"].clone())
        .collect();
    assert_eq!(
        listed,
        [json!(both), json!(bad), json!(good)],
        "the newest first"
    );
    let retry = |ids: &[&str]| {
        ids.iter()
            .fold(line("dead-letter retry"), |c, id| c.arg(id))
            .at(&server, &admin())
    };
    let answer = retry(&[&good]).is(0).json();
    assert_eq!(answer[0]["ids"].as_array().unwrap().len(), 1);
    told(&retry(&[&good]).is(1), "404");
    // One that cannot be taken in stays, and holds nobody up.
    let ran = retry(&[]).is(1);
    told(&ran, &format!("{bad}: the server answered 422"));
    assert_eq!(ran.json()[0]["ids"].as_array().unwrap().len(), 2);
    let data: Vec<_> = log(&server, "a")
        .iter()
        .map(|e| e["data"].clone())
        .collect();
    assert_eq!(data, [1, 2, 3]);
    // One whose id stands with other content stays too; nobody else's publish suffers.
    let conflict = set_aside("{\"topic\":\"x\",\"type\":\"t\",\"id\":\"i\",\"data\":7}");
    let same = set_aside("{\"topic\":\"x\",\"type\":\"t\",\"id\":\"i\",\"data\":2}");
    told(&retry(&[&conflict]).is(1), "409");
    assert_eq!(retry(&[&same]).is(0).json()[0]["ids"], json!(["i"]));
    server.publish(&admin(), "x", &json!(4));
    let left: Vec<_> = letters(&server, &admin())
        .iter()
        .map(|l| l["id"].clone())
        .collect();
    assert_eq!(left, [json!(conflict), json!(bad)]);
    assert_eq!(log(&server, "a").len(), 4);
    // More than a page of them.
    for n in 0..120 {
        set_aside(&format!("{{\"topic\":\"y\",\"type\":\"t\",\"data\":{n}}}"));
    }
    assert_eq!(letters(&server, &admin()).len(), 122);
    retry(&[]).is(1);
    let data: Vec<_> = log(&server, "a")
        .iter()
        .skip(4)
        .map(|e| e["data"].as_u64().unwrap())
        .collect();
    assert_eq!(
        data,
        (0..120).collect::<Vec<_>>(),
        "in the order in which they came"
    );
}

/// `docs/operations.md`: a copy of the database that is put back gives every log a new epoch.
#[test]
fn a_restored_database_is_noticed() {
    let server = Setup::default().start();
    server.publish(&admin(), "x", &json!("in the copy"));
    let (folder, setup) = server.kill();
    let copy = folder.path().join("copy.db");
    let pairs = ["db", "db-wal", "db-pending"]
        .map(|name| (format!("tidings.{name}"), format!("copy.{name}")));
    for (from, to) in &pairs {
        if folder.path().join(from).exists() {
            std::fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
        }
    }
    let server = Server::start(folder, setup);
    let lost = server.publish(&admin(), "x", &json!("after the copy"));
    let (folder, setup) = server.kill();
    let _ = std::fs::remove_file(folder.path().join("tidings.db-shm"));
    for (to, from) in &pairs {
        let _ = std::fs::remove_file(folder.path().join(to));
        if folder.path().join(from).exists() {
            std::fs::rename(folder.path().join(from), folder.path().join(to)).unwrap();
        }
    }
    assert!(!copy.exists());
    let server = Server::start(folder, setup);
    let tail = line(&format!("tail --topic x --since {lost}"))
        .at(&server, &admin())
        .spawn();
    tail.says("reset: ");
    let out = line("export --data-dir")
        .arg(text(server.folder.path()))
        .is(0)
        .json();
    assert_eq!(
        out.iter().map(|e| e["data"].clone()).collect::<Vec<_>>(),
        ["in the copy"]
    );
}
