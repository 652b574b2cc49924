//! Alarms that are taken in become clusters and incidents, however often the worker is stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tidings_alarms::alarm::Request;
use tidings_alarms::cluster::Cluster;
use tidings_alarms::cluster::demand::Demand;
use tidings_alarms::ingest::{Context, native};
use tidings_alarms::simulate::{Flaws, Load, Run, run};
use tidings_alarms::{Alarms, Config, Error, Severity};
use tidings_core::clock::Timestamp;
use tidings_core::db::Conn;
use tidings_core::event::{EventType, Json, NewEvent};
use tidings_core::log::{Batch, dead_letter};
use tidings_core::tenant::Tenant;
use tidings_core::topic::Topic;
use tokio::task::JoinHandle;

use crate::support::{Bed, START, events, on_each_backend, tenant};

fn body(entity: &str, kind: &str, severity: &str, at: Timestamp) -> Value {
    json!({"entity_id": entity, "alarm_type": kind, "severity": severity, "raised_at": at.to_string(), "source_system": "t"})
}

async fn raise(alarms: &Alarms, of: &Tenant, bodies: Vec<Value>) -> Vec<String> {
    loop {
        let context = Context {
            config: alarms.config(),
            now: alarms.clock().now(),
        };
        let request = Request {
            occurrences: native::many(bodies.clone(), context).unwrap(),
            trace: None,
        };
        match alarms.ingest(of, request).await {
            Ok(accepted) => return accepted.0.into_iter().map(|o| o.event_id).collect(),
            // A writer from before the restart is still there: a source tries again.
            Err(Error::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(e) => panic!("{e}"),
        }
    }
}

fn work(alarms: &Alarms) -> JoinHandle<()> {
    let alarms = alarms.clone();
    tokio::spawn(async move { alarms.run_correlation().await })
}

async fn clusters(alarms: &Alarms, of: &Tenant) -> Vec<Cluster> {
    let mut all: Vec<Cluster> = Vec::new();
    loop {
        let after = all.last().map(|c| c.cluster_id.clone());
        let more = alarms.clusters(of, after, 1_000).await.unwrap();
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

/// How many occurrences are in clusters.
async fn clustered(alarms: &Alarms, of: &Tenant) -> u64 {
    let number = alarms.log().tenant(of).await.unwrap().number;
    let sql = "SELECT COUNT(*) FROM cluster_members WHERE tenant = $1";
    let count = move |conn: &mut Conn| conn.row(sql, &[number.into()], |row| row.int(0));
    let count = alarms.log().db().read(count).await.unwrap();
    count.unwrap().try_into().unwrap()
}

/// Moves the clock past the time that occurrences wait for others, and no further; then waits until so many are in
/// clusters.
async fn settled(bed: &Bed, alarms: &Alarms, of: &Tenant, count: u64) -> Vec<Cluster> {
    bed.clock.advance(alarms.config().flush);
    for _ in 0..12_000 {
        if clustered(alarms, of).await == count {
            return clusters(alarms, of).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "{count} occurrences are not all in clusters: {:?}",
        clusters(alarms, of).await
    );
}

fn partition(clusters: &[Cluster]) -> Vec<Vec<String>> {
    let mut parts: Vec<_> = clusters
        .iter()
        .map(|c| {
            let mut ids = c.event_ids.clone();
            ids.sort_unstable();
            ids
        })
        .collect();
    parts.sort_unstable();
    parts
}

async fn network(alarms: &Alarms, of: &Tenant, run: &Run) {
    let nodes = run.nodes.iter().map(|n| {
        let name = if n.is_part() { "part_of" } else { "depends_on" };
        json!({"id": n.id, "entity_type": n.entity_type, name: n.parent.iter().collect::<Vec<_>>()})
    });
    alarms.put_entities(of, nodes.collect()).await.unwrap();
}

async fn demanded(alarms: &Alarms, of: &Tenant) -> Vec<Cluster> {
    let context = Context {
        config: alarms.config(),
        now: alarms.clock().now(),
    };
    let demand = Demand::read(json!({}), context).unwrap();
    alarms.correlate(of, demand).await.unwrap().clusters
}

on_each_backend! {
    async fn a_storm_that_comes_in_pieces_is_what_the_batch_makes_of_it_also_over_restarts(bed: Bed) {
        let a = tenant("a");
        let start = Timestamp::from_secs(START);
        let run = run(4, Load::Storm, Flaws { late: 0.1, ..Flaws::default() }, start);
        let mut alarms = bed.open(Config::default()).await;
        network(&alarms, &a, &run).await;
        let mut worker = work(&alarms);
        let mut sent = 0;
        let all: Vec<(Timestamp, Value)> = of_run(&run).collect();
        for (n, some) in all.chunks(150).enumerate() {
            bed.clock.advance(some[some.len() - 1].0.since(bed.clock.now()));
            raise(&alarms, &a, some.iter().map(|(_, body)| body.clone()).collect()).await;
            sent += some.len() as u64;
            match n % 4 {
                // As if it had been killed: nothing is said to it.
                1 => {
                    worker.abort();
                    let _ = worker.await;
                    drop(alarms);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    alarms = bed.open(Config::default()).await;
                    worker = work(&alarms);
                }
                3 => drop(settled(&bed, &alarms, &a, sent).await),
                _ => {}
            }
        }
        let found = settled(&bed, &alarms, &a, sent).await;
        assert_eq!(partition(&found), partition(&demanded(&alarms, &a).await));
        for cluster in &found {
            assert_eq!(cluster.event_ids.len() as u64, cluster.alarm_count);
            assert_eq!(cluster.edges.len() + 1, cluster.event_ids.len(), "{cluster:?}");
        }
        // What was told of first is there still, by itself or as a part of another.
        for (kind, data) in events(&alarms, &a, "alarms").await {
            if kind == "alarm_cluster_created" {
                let mut id = data["cluster_id"].as_str().unwrap().to_owned();
                while let Some(into) = alarms.cluster(&a, &id).await.unwrap().merged_into {
                    id = into;
                }
                assert!(found.iter().any(|c| c.cluster_id == id), "{id}");
            }
        }
        worker.abort();
    }
}

fn of_run(run: &Run) -> impl Iterator<Item = (Timestamp, Value)> {
    run.alarms.iter().map(|a| {
        let o = &a.occurrence;
        let mut body = body(
            &o.entity_id,
            &o.alarm_type,
            a.severity.as_str(),
            o.raised_at,
        );
        body["specific_problem"] = json!(o.event_id);
        (a.arrives_at, body)
    })
}

on_each_backend! {
    async fn a_backlog_is_what_the_batch_makes_of_it_also_when_it_is_taken_up_much_later(bed: Bed) {
        let a = tenant("a");
        let late = Flaws { late: 0.1, ..Flaws::default() };
        // More than one publication takes.
        let runs = [0, 1].map(|n| run(n, Load::Storm, late, Timestamp::from_secs(START + 900 * i64::try_from(n).unwrap())));
        let mut all: Vec<(Timestamp, Value)> = runs.iter().flat_map(of_run).collect();
        all.sort_by_key(|(at, _)| *at);
        let mut alarms = bed.open(Config::default()).await;
        network(&alarms, &a, &runs[0]).await;
        for some in all.chunks(150) {
            bed.clock.advance(some[some.len() - 1].0.since(bed.clock.now()));
            raise(&alarms, &a, some.iter().map(|(_, body)| body.clone()).collect()).await;
        }
        bed.clock.advance(Duration::from_secs(3_600));
        let mut worker = work(&alarms);
        while clustered(&alarms, &a).await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        worker.abort();
        let _ = worker.await;
        drop(alarms);
        bed.clock.advance(Duration::from_secs(3_600));
        alarms = bed.open(Config::default()).await;
        worker = work(&alarms);
        let found = settled(&bed, &alarms, &a, all.len() as u64).await;
        assert_eq!(partition(&found), partition(&demanded(&alarms, &a).await));
        worker.abort();
    }
}

on_each_backend! {
    async fn two_workers_at_once_take_nothing_twice(bed: Bed) {
        let a = tenant("a");
        let alarms = bed.open(Config::default()).await;
        raise(&alarms, &a, vec![body("e0", "t", "major", bed.clock.now())]).await;
        let workers = [work(&alarms), work(&alarms)];
        for n in 1..4 {
            settled(&bed, &alarms, &a, n).await;
            bed.clock.advance(Duration::from_secs(1_000));
            raise(&alarms, &a, vec![body(&format!("e{n}"), "t", "major", bed.clock.now())]).await;
        }
        let found = settled(&bed, &alarms, &a, 4).await;
        assert!(found.iter().all(|c| c.event_ids.len() as u64 == c.alarm_count), "{found:?}");
        let told = events(&alarms, &a, "alarms").await;
        assert_eq!(told.iter().filter(|(kind, _)| kind == "alarm_cluster_created").count(), 4);
        for worker in workers {
            worker.abort();
        }
    }
}

on_each_backend! {
    async fn one_every_four_minutes_for_ever_makes_a_cluster_at_once_and_one_incident(bed: Bed) {
        let a = tenant("a");
        let alarms = bed.open(Config::default()).await;
        let worker = work(&alarms);
        for n in 0..8 {
            raise(&alarms, &a, vec![body("e", "t", "major", bed.clock.now())]).await;
            let found = settled(&bed, &alarms, &a, n + 1).await;
            assert_eq!(found.len(), 1, "{found:?}");
            bed.clock.advance(Duration::from_secs(238));
        }
        let told = events(&alarms, &a, "alarms").await;
        let of = |kind: &str| told.iter().filter(|(k, _)| k == kind).count();
        assert_eq!((of("alarm_cluster_created"), of("alarm_cluster_updated")), (1, 7));
        let incidents = events(&alarms, &a, "incidents").await;
        assert_eq!(incidents.iter().filter(|(k, _)| k == "incident_created").count(), 1);
        worker.abort();
    }
}

on_each_backend! {
    async fn an_emergency_is_critical_wherever_it_comes_in_the_cluster_and_tenants_are_apart(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let worker = work(&alarms);
        let (a, b) = (tenant("a"), tenant("b"));
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let now = bed.clock.now();
            let all = ["x", "EMERGENCY-hub", "y"].map(|e| body(e, "t", "minor", now));
            for n in order {
                raise(&alarms, &a, vec![all[n].clone()]).await;
            }
            let before = clusters(&alarms, &a).await.len() as u64;
            let found = settled(&bed, &alarms, &a, 3 * (before + 1)).await;
            assert_eq!((found[0].severity, found[0].is_emergency_service), (Severity::Critical, true));
            bed.clock.advance(Duration::from_secs(1_000));
        }
        assert!(clusters(&alarms, &b).await.is_empty());
        let id = clusters(&alarms, &a).await[0].cluster_id.clone();
        assert!(alarms.cluster(&b, &id).await.is_err());
        raise(&alarms, &b, vec![body("x", "t", "minor", bed.clock.now())]).await;
        assert_eq!(settled(&bed, &alarms, &b, 1).await[0].entity_ids, ["x"]);
        worker.abort();
    }
}

on_each_backend! {
    async fn what_cannot_be_read_is_set_aside_and_the_next_goes_on(bed: Bed) {
        let a = tenant("a");
        let alarms = bed.open(Config::default()).await;
        let worker = work(&alarms);
        let topic = Topic::new("alarms").unwrap();
        let data = Json::encode(&json!({"event_id": 7})).unwrap();
        let poison = NewEvent::new(topic, EventType::new("alarm_ingested").unwrap(), data);
        let batch = Batch { subject: "s".into(), events: vec![poison], idempotency: None };
        alarms.log().publish(&a, batch).await.unwrap();
        raise(&alarms, &a, vec![body("e", "t", "major", bed.clock.now())]).await;
        settled(&bed, &alarms, &a, 1).await;
        let number = alarms.log().tenant(&a).await.unwrap().number;
        let letters = alarms.log().db().read(move |conn| dead_letter::list(conn, number, None, 10)).await.unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].source, "correlation");
        assert!(letters[0].content.contains("\"event_id\":7"));
        worker.abort();
    }
}

/// Makes the database refuse what one entity raises, as a fault in a statement or in the data would.
async fn refuse(alarms: &Alarms, of: &Tenant, entity: &str) {
    let sql = if alarms.log().db().is_postgres() {
        format!(
            "ALTER TABLE cluster_members ADD CONSTRAINT refused CHECK (entity_id <> '{entity}')"
        )
    } else {
        format!(
            "CREATE TRIGGER refused BEFORE INSERT ON cluster_members WHEN NEW.entity_id = '{entity}' \
             BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    };
    let written = alarms.log().write(of, move |tx| tx.batch(&sql));
    written.await.unwrap();
}

on_each_backend! {
    async fn what_the_database_refuses_is_set_aside_alone_and_the_others_go_on(bed: Bed) {
        let a = tenant("a");
        let alarms = bed.open(Config::default()).await;
        refuse(&alarms, &a, "poison").await;
        let all = ["e0", "poison", "e1"].map(|e| body(e, "t", "major", bed.clock.now()));
        let ids = raise(&alarms, &a, all.into()).await;
        let worker = work(&alarms);
        let found = settled(&bed, &alarms, &a, 2).await;
        let mut others = vec![ids[0].clone(), ids[2].clone()];
        others.sort_unstable();
        assert_eq!(partition(&found).concat(), others);
        // What comes next is taken as ever.
        let next = raise(&alarms, &a, vec![body("e1", "t", "minor", bed.clock.now())]).await;
        let found = settled(&bed, &alarms, &a, 3).await;
        assert!(found[0].event_ids.contains(&next[0]), "{found:?}");
        let number = alarms.log().tenant(&a).await.unwrap().number;
        let letters = alarms.log().db().read(move |conn| dead_letter::list(conn, number, None, 10)).await.unwrap();
        assert_eq!(letters.len(), 1);
        assert!(letters[0].content.contains(&ids[1]), "{letters:?}");
        worker.abort();
    }
}

on_each_backend! {
    async fn a_cluster_whose_incident_is_over_takes_nothing_more(bed: Bed) {
        let a = tenant("a");
        let alarms = bed.open(Config::default()).await;
        let worker = work(&alarms);
        raise(&alarms, &a, vec![body("e", "t", "major", bed.clock.now())]).await;
        let first = settled(&bed, &alarms, &a, 1).await.remove(0);
        // Its only alarm clears: the incident is resolved.
        raise(&alarms, &a, vec![body("e", "t", "cleared", bed.clock.now())]).await;
        raise(&alarms, &a, vec![body("e", "t", "major", bed.clock.now().plus(Duration::from_secs(1)))]).await;
        let found = settled(&bed, &alarms, &a, 2).await;
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].continues.as_deref(), Some(first.cluster_id.as_str()));
        let incidents = events(&alarms, &a, "incidents").await;
        let created: Vec<_> = incidents.iter().filter(|(k, _)| k == "incident_created").collect();
        let of: BTreeMap<_, _> = created.iter().map(|(_, d)| (d["cluster_id"].to_string(), ())).collect();
        assert_eq!((created.len(), of.len()), (2, 2));
        worker.abort();
    }
}
