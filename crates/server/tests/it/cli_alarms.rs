//! `tidings simulate alarms` and what is measured on it: `bench correlation`, `bench alarms`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{Ran, line};
use crate::support::{Setup, admin};

fn members(value: &Value) -> BTreeSet<&str> {
    let object = value.as_object().unwrap();
    object.keys().map(String::as_str).collect()
}

/// What generator and seed make, without a server: the alarms, and the truth.
fn simulate(folder: &TempDir, name: &str, words: &str) -> (Ran, PathBuf) {
    let truth = folder.path().join(name);
    let ran = line(&format!("simulate alarms --dry-run {words} --truth"))
        .arg(&truth)
        .is(0);
    (ran, truth)
}

fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn of<'a>(truth: &'a [Value], record: &str) -> Vec<&'a Value> {
    truth.iter().filter(|r| r["record"] == record).collect()
}

#[test]
fn the_truth_is_that_of_its_seed() {
    let folder = tempfile::tempdir().unwrap();
    let (printed, first) = simulate(&folder, "a", "--seed 7 --load storm");
    let (again, second) = simulate(&folder, "b", "--seed 7 --load storm");
    assert_eq!(printed.out, again.out);
    assert_eq!(
        std::fs::read(&first).unwrap(),
        std::fs::read(&second).unwrap()
    );
    let (_, other) = simulate(&folder, "c", "--seed 8 --load storm");
    assert_ne!(
        std::fs::read(&first).unwrap(),
        std::fs::read(&other).unwrap()
    );

    let (alarms, truth) = (printed.json(), read(&first));
    assert_eq!(truth[0]["format"], "tidings-truth/1");
    assert_eq!(
        (&truth[0]["seed"], &truth[0]["span_seconds"]),
        (&json!(7), &json!(1800.0))
    );
    let (entities, occurrences) = (of(&truth, "entity"), of(&truth, "occurrence"));
    assert_eq!((entities.len(), occurrences.len()), (988, alarms.len()));
    for (alarm, occurrence) in alarms.iter().zip(&occurrences) {
        for name in ["entity_id", "alarm_type", "severity", "raised_at"] {
            assert_eq!(alarm[name], occurrence[name]);
        }
    }
    let cell = entities.iter().find(|e| e["id"] == "cell-0101-1").unwrap();
    assert_eq!(
        (&cell["part_of"], &cell["true_parent"]),
        (&json!(["site-0101"]), &json!("site-0101"))
    );

    // What nobody has entered is missing in what is known alone.
    let (_, flawed) = simulate(&folder, "d", "--seed 7 --load storm --missing 1");
    let flawed = read(&flawed);
    assert_eq!(of(&flawed, "occurrence"), occurrences);
    assert!(
        of(&flawed, "entity")
            .iter()
            .all(|e| e.get("part_of").is_none() && e.get("depends_on").is_none())
    );
}

#[test]
fn correlation_is_scored_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let score = |words: &str| {
        let (_, truth) = simulate(&folder, "truth", words);
        let ran = line("bench correlation --json --truth").arg(&truth).is(0);
        ran.json().remove(0)
    };
    let figures = score("--seed 7 --load sparse");
    let wanted = "mode occurrences faults related_entities seconds occurrences_per_second clusters adjusted_rand_index \
                  pairwise_precision pairwise_recall root_first roots_judged";
    assert_eq!(members(&figures), wanted.split_ascii_whitespace().collect());
    let figure = |of: &Value, name: &str| of[name].as_f64().unwrap();
    for name in [
        "adjusted_rand_index",
        "pairwise_precision",
        "pairwise_recall",
        "root_first",
    ] {
        assert!(
            (0.9..=1.0).contains(&figure(&figures, name)),
            "{name}: {figures}"
        );
    }
    let blind = score("--seed 7 --load sparse --missing 1");
    assert_eq!(blind["related_entities"], 0);
    assert!(figure(&blind, "adjusted_rand_index") < figure(&figures, "adjusted_rand_index"));
    let table = line("bench correlation --truth")
        .arg(folder.path().join("truth"))
        .is(0)
        .out;
    for name in [
        "adjusted Rand index",
        "pairwise precision",
        "root cause first",
        "occurrences per second",
    ] {
        assert!(table.contains(name), "{table}");
    }
}

#[test]
fn a_servers_own_clusters_are_scored() {
    let server = Setup::default().start();
    let root = admin();
    let folder = tempfile::tempdir().unwrap();
    let truth = folder.path().join("truth");
    let said = line("simulate alarms --load storm --seed 3 --speed 1000000 --missing 0.1 --truth")
        .arg(&truth)
        .at(&server, &root)
        .is(0)
        .json();
    let records = read(&truth);
    let occurrences = of(&records, "occurrence");
    assert_eq!(said, [json!({"sent": occurrences.len(), "seed": 3})]);
    let listed = server.get("/api/v1/alarms?limit=1", Some(&root)).json();
    let different: BTreeSet<_> = occurrences
        .iter()
        .map(|o| format!("{} {}", o["entity_id"], o["alarm_type"]))
        .collect();
    assert_eq!(listed["total"], different.len());

    let figures = line("bench correlation --json --truth")
        .arg(&truth)
        .at(&server, &root)
        .is(0)
        .json()
        .remove(0);
    let server_figures = &figures["server"];
    assert_eq!(server_figures["missing"], 0, "{figures}");
    // What streams in is what a batch makes of it.
    assert_eq!(server_figures["agreement_with_library"], 1.0, "{figures}");
    for name in ["clusters", "adjusted_rand_index", "root_first"] {
        assert_eq!(server_figures[name], figures[name], "{name}: {figures}");
    }

    // Of another tenant's run, this one has nothing.
    let other = crate::support::token_of("b", "x", &json!({"roles": ["admin"]}));
    let ran = line("bench correlation --json --drain-seconds 1 --truth")
        .arg(&truth)
        .at(&server, &other)
        .is(1);
    let missing = &ran.json()[0]["server"]["missing"];
    assert_eq!(*missing, occurrences.len());
}

#[test]
fn a_flood_of_alarms_has_its_figures() {
    let words = "bench alarms --alarms 1500 --networks 1 --batch 100 --seconds 1";
    let figures = line(&format!("{words} --json")).is(0).json().remove(0);
    let wanted = "mode networks is_topology_known batch seconds accepted accepted_per_second refused batch_us batch_lag_us \
                  acknowledged acknowledge_failed acknowledge_us frames frame_bytes frame_total is_stream_cut alarms lost \
                  clusters uncorrelated caught_up_seconds server_cpu_seconds server_rss_bytes";
    assert_eq!(members(&figures), wanted.split_ascii_whitespace().collect());
    assert_eq!(figures["accepted"], 1_500);
    for none in ["lost", "uncorrelated", "acknowledge_failed"] {
        assert_eq!(figures[none], 0, "{figures}");
    }
    assert_eq!(figures["frame_total"], figures["alarms"], "{figures}");
    let figure = |name: &str| figures[name].as_u64().unwrap();
    assert!(
        figure("acknowledged") > 0 && figure("clusters") > 0,
        "{figures}"
    );
    assert!(
        (1..100).contains(&figure("frames")),
        "a frame is no alarm: {figures}"
    );
    let table = line(&format!("{words} --unknown-topology")).is(0).out;
    for name in [
        "acknowledge to answer",
        "correlation caught up after",
        "1, unknown",
        "lost / uncorrelated / cut         0 / 0 / 0",
    ] {
        assert!(table.contains(name), "{table}");
    }
}

#[test]
fn what_is_wrong_with_a_truth_or_a_flag_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth");
    let (_, good) = simulate(&folder, "good", "--seed 1 --load storm --faults 5");
    let good = std::fs::read_to_string(good).unwrap();
    let last = good.lines().count();
    let bad = good.replacen("\"raised_at\":\"2026", "\"raised_at\":\"soon", 1);
    let line_of_bad = bad.lines().position(|l| l.contains("soon")).unwrap() + 1;
    for (text, wanted) in [
        (
            bad,
            format!("line {line_of_bad}: raised_at: not an RFC 3339 date"),
        ),
        (
            good.replace("\"root\"", "\"route\""),
            "line 990: root: is required".to_owned(),
        ),
        (
            good.clone() + "{\"record\":\n",
            format!("line {}: not JSON", last + 1),
        ),
        (
            String::new(),
            "the file ends without an occurrence".to_owned(),
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        let said = line("bench correlation --truth").arg(&path).is(2).err;
        assert!(
            said.contains(&wanted) && said.contains("--truth"),
            "{wanted}: {said}"
        );
    }
    for (words, wanted) in [
        ("bench correlation", "--truth"),
        ("bench correlation --truth /nowhere", "/nowhere"),
        (
            "simulate devices --truth x --url http://127.0.0.1:1 --token t",
            "--truth is about alarms alone",
        ),
        ("simulate alarms --dry-run --truth /nowhere/x", "/nowhere/x"),
        ("simulate alarms --load calm", "sparse, busy, storm"),
        ("simulate alarms --missing 2", "from 0 to 1"),
        ("simulate alarms", "--url"),
    ] {
        let said = line(words).is(2).err;
        assert!(said.contains(wanted), "{words}: {said}");
    }
}
