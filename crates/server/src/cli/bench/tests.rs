//! Every mode against the toy, and the faults that a measurement must not hide.

use clap::Parser;
use serde_json::Value;

use super::toy::{Fault, Toy};
use super::{Args, measure};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

async fn bench(toy: &Toy, line: &str) -> Value {
    let pid = std::process::id();
    let line = format!(
        "bench {line} --url {} --token tok --server-pid {pid}",
        toy.url
    );
    let Line { args } = Line::try_parse_from(line.split(' ')).unwrap();
    let outcome = measure(&args).await.unwrap();
    assert!(outcome.table.contains("seconds"));
    let json: Value = serde_json::from_str(&outcome.json).unwrap();
    assert_eq!(
        outcome.is_clean,
        json["lost"] == 0 && json["repeated"] == 0,
        "{json}"
    );
    json
}

#[tokio::test(flavor = "multi_thread")]
async fn broadcast_counts_every_delivery() {
    let toy = Toy::start(Fault::None).await;
    let json = bench(
        &toy,
        "broadcast -n 20 --rate 200 --seconds 1 --publishers 2",
    )
    .await;
    assert_eq!(
        (&json["published"], &json["delivered"]),
        (&200.into(), &4_000.into()),
        "{json}"
    );
    let at = |quantile: &str| json["latency_us"][quantile].as_u64().unwrap();
    assert!(
        0 < at("p50") && at("p50") <= at("p99.9") && at("p99.9") < 5_000_000,
        "{json}"
    );
    assert!(
        json["server_cpu_us_per_delivery"].is_f64() && json["rss_bytes_per_connection"].is_f64()
    );
    assert!(json["reads_per_delivery"].as_f64().unwrap() <= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn unicast_gives_each_reader_its_own() {
    let toy = Toy::start(Fault::None).await;
    let json = bench(&toy, "unicast -n 7 --rate 100 --seconds 1 --publishers 3").await;
    assert_eq!(
        (&json["published"], &json["delivered"], &json["lost"]),
        (&100.into(), &100.into(), &0.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_looks_at_memory_and_cpu() {
    let toy = Toy::start(Fault::None).await;
    let json = bench(&toy, "idle -n 30 --seconds 1").await;
    assert_eq!(
        (&json["connections"], &json["cut"]),
        (&30.into(), &0.into())
    );
    assert!(json["server_cpu_us_per_connection_second"].is_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_counts_what_was_acknowledged() {
    let toy = Toy::start(Fault::None).await;
    for batch in [1u64, 10] {
        let before = toy.events().len();
        let json = bench(
            &toy,
            &format!("ingest --publishers 3 --seconds 1 --batch {batch} --size 64"),
        )
        .await;
        let stored = toy.events().len() - before - 1;
        assert_eq!(json["published"], stored, "{json}");
        // One second of three publishers is spent in waiting for answers.
        let requests = json["published"].as_u64().unwrap() / batch;
        let waited_us = json["publish_us"]["p50"].as_u64().unwrap() * requests / 3;
        assert!((20_000..2_000_000).contains(&waited_us), "{json}");
        assert!(json["server_cpu_us_per_publish"].is_f64() && json["publish_us"]["p99"].is_u64());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_reads_the_backlog_once() {
    let toy = Toy::start(Fault::None).await;
    let json = bench(&toy, "replay -n 5 --backlog 2500").await;
    assert_eq!(
        (&json["delivered"], &json["lost"]),
        (&12_500.into(), &0.into()),
        "{json}"
    );
    assert!(json["catch_up_us"]["p50"].as_u64() > Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_server_show() {
    let toy = Toy::start(Fault::Loses).await;
    let json = bench(
        &toy,
        "broadcast -n 3 --rate 100 --seconds 1 --drain-seconds 1",
    )
    .await;
    assert_eq!(
        (&json["lost"], &json["repeated"]),
        (&30.into(), &0.into()),
        "{json}"
    );
    let toy = Toy::start(Fault::Repeats).await;
    let json = bench(&toy, "replay -n 3 --backlog 100").await;
    assert_eq!(
        (&json["lost"], &json["repeated"]),
        (&0.into(), &30.into()),
        "{json}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_failure_that_says_why() {
    let toy = Toy::start(Fault::Refuses).await;
    let line = format!("bench ingest --url {} --token tok", toy.url);
    let Line { args } = Line::try_parse_from(line.split(' ')).unwrap();
    let failure = measure(&args).await.unwrap_err();
    assert_eq!(failure.code, 1);
    assert!(
        failure.message.contains("403") && failure.message.contains("not allowed"),
        "{failure:?}"
    );
    let line = "bench ingest --url http://192.0.2.1:80 --token tok";
    let Line { args } = Line::try_parse_from(line.split(' ')).unwrap();
    assert_eq!(measure(&args).await.unwrap_err().code, 2);
    for bad in [
        "bench",
        "bench x",
        "bench idle -n 0",
        "bench idle --seconds 9999",
        "bench ingest --size 1",
    ] {
        assert!(Line::try_parse_from(bad.split(' ')).is_err(), "{bad}");
    }
}
