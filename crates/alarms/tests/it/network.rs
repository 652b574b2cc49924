//! Entities, samples and sleeping cells, as the database keeps them.

use std::time::Duration;

use serde_json::{Value, json};
use tidings_alarms::entity::{self, Filter, Place};
use tidings_alarms::kpi::Range;
use tidings_alarms::sleeping::{Cause, Scan};
use tidings_alarms::{Alarms, Config, Error, Step};
use tidings_core::clock::Timestamp;
use tidings_core::tenant::Tenant;

use crate::support::{Bed, START, events, on_each_backend, tenant};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(START + secs)
}

fn range(entity_id: &str, metric_name: &str) -> Range {
    Range {
        entity_id: entity_id.into(),
        metric_name: metric_name.into(),
        from: None,
        to: None,
    }
}

fn sample(entity_id: &str, secs: i64, value: f64) -> Value {
    json!({"entity_id": entity_id, "metric_name": "traffic_volume", "value": value, "timestamp": at(secs).to_string()})
}

/// Samples every five minutes of the hours before the start, the newest at the start.
fn usual(entity_id: &str) -> Vec<Value> {
    let one = |n: i64| sample(entity_id, (n - 40) * 300, 100.0 + (n % 3) as f64);
    (0..=40).map(one).collect()
}

async fn put(alarms: &Alarms, of: &Tenant, id: &str, body: Value) -> bool {
    alarms.put_entity(of, id, body).await.unwrap().1
}

async fn add(alarms: &Alarms, of: &Tenant, samples: Vec<Value>) {
    alarms.add_samples(of, samples).await.unwrap();
}

async fn scan(alarms: &Alarms, of: &Tenant) -> (usize, usize) {
    let Scan {
        detected,
        recovered,
    } = alarms.scan_sleeping_cells(of).await.unwrap();
    (detected, recovered)
}

fn ids(entities: &[entity::Entity]) -> Vec<&str> {
    entities.iter().map(|e| e.id.as_str()).collect()
}

fn is_unknown<T>(result: Result<T, Error>, wanted: &str) -> bool {
    matches!(result, Err(Error::NotFound { what: "entity", id }) if id == wanted)
}

on_each_backend! {
    async fn an_entity_is_created_replaced_and_removed(bed: Bed) {
        let (alarms, a, b) = (bed.open(Config::default()).await, tenant("a"), tenant("b"));
        let body = json!({
            "entity_type": "CELL", "name": "Cell \u{1F6F0}", "external_id": "x-1", "geo_lat": 50.25, "geo_lon": -8.5,
            "revenue_weight": 3, "sla_tier": "GOLD", "embedding_provider": "p", "embedding_model": "m",
            "last_seen_at": "2026-01-01T00:00:00.000001Z", "depends_on": ["s2", "s1"], "part_of": ["s1"]
        });
        assert!(put(&alarms, &a, "c/1", body).await);
        let first = alarms.entity(&a, "c/1").await.unwrap();
        assert_eq!((first.name.as_str(), first.revenue_weight), ("Cell \u{1F6F0}", Some(3.0)));
        assert_eq!((first.geo_lat, first.geo_lon), (Some(50.25), Some(-8.5)));
        assert_eq!(first.last_seen_at.unwrap().to_string(), "2026-01-01T00:00:00.000001Z");
        assert_eq!((first.depends_on.len(), first.depends_on[0].as_str()), (2, "s2"));
        bed.clock.advance(Duration::from_secs(5));
        assert!(!put(&alarms, &a, "c/1", json!({"depends_on": ["s1"]})).await);
        let second = alarms.entity(&a, "c/1").await.unwrap();
        assert_eq!((second.name.as_str(), second.entity_type.as_deref()), ("c/1", None));
        assert_eq!((second.created_at, second.updated_at), (at(0), at(5)));
        assert_eq!((second.depends_on, second.part_of), (vec!["s1".to_owned()], vec![]));
        // The other tenant's id of the same name is another entity.
        assert!(is_unknown(alarms.entity(&b, "c/1").await, "c/1"));
        assert!(is_unknown(alarms.delete_entity(&b, "c/1").await, "c/1"));
        assert!(put(&alarms, &b, "c/1", json!({"name": "b's"})).await);
        alarms.delete_entity(&a, "c/1").await.unwrap();
        assert!(is_unknown(alarms.entity(&a, "c/1").await, "c/1"));
        assert!(is_unknown(alarms.delete_entity(&a, "c/1").await, "c/1"));
        assert_eq!(alarms.entity(&b, "c/1").await.unwrap().name, "b's");
        for id in ["", "a\0b", &"x".repeat(257)] {
            assert!(is_unknown(alarms.entity(&a, id).await, id));
            assert!(is_unknown(alarms.delete_entity(&a, id).await, id));
            assert!(matches!(alarms.put_entity(&a, id, json!({})).await, Err(Error::Invalid(_))));
        }
    }
}

on_each_backend! {
    async fn a_bulk_is_stored_whole_or_not_at_all(bed: Bed) {
        let (alarms, a) = (bed.open(Config::default()).await, tenant("a"));
        let entity = |n: usize| json!({"id": format!("c{n:04}"), "part_of": [format!("s{}", n / 3)], "geo_lat": n % 90});
        let all: Vec<Value> = (0..700).map(entity).collect();
        for (index, wrong) in [(300, json!({"id": "c0001"})), (699, json!({"geo_lat": 1}))] {
            let mut wrong_one = all.clone();
            wrong_one[index] = wrong;
            let Err(Error::Invalid(faults)) = alarms.put_entities(&a, wrong_one).await else {
                panic!("taken");
            };
            assert_eq!(faults[0].at, [Step::Index(index), Step::Member("id".into())]);
        }
        assert_eq!(alarms.entities(&a, Filter::default(), None, 10).await.unwrap(), []);
        assert_eq!(alarms.put_entities(&a, all.clone()).await.unwrap(), 700);
        assert_eq!(alarms.put_entities(&a, all).await.unwrap(), 700, "again");
        assert_eq!(alarms.put_entities(&a, vec![]).await.unwrap(), 0);
        let number = alarms.log().tenant(&a).await.unwrap().number;
        let many = move |conn: &mut _| {
            let ids: Vec<String> = (0..800).rev().map(|n| format!("c{n:04}")).collect();
            let ids: Vec<&str> = ids.iter().map(String::as_str).chain(["c0000"]).collect();
            entity::store::many(conn, number, &ids)
        };
        let many = alarms.log().db().read(many).await.unwrap();
        assert_eq!(many.len(), 700);
        assert!(many.iter().all(|e| e.part_of.len() == 1 && e.depends_on.is_empty()));
    }
}

on_each_backend! {
    async fn the_list_is_newest_first_filtered_and_paged(bed: Bed) {
        let (alarms, a) = (bed.open(Config::default()).await, tenant("a"));
        for n in 0..7 {
            let kind = if n % 2 == 0 { "CELL" } else { "SITE" };
            let body = json!({"entity_type": kind, "external_id": format!("x{}", n / 4), "depends_on": ["e0"]});
            put(&alarms, &a, &format!("e{n}"), body).await;
            if n == 2 {
                bed.clock.advance(Duration::from_secs(1));
            }
        }
        put(&alarms, &tenant("b"), "e9", json!({"entity_type": "CELL"})).await;
        let list = async |entity_type: Option<&str>, external_id: Option<&str>, after: Option<&entity::Entity>, limit| {
            let filter = Filter {
                entity_type: entity_type.map(str::to_owned),
                external_id: external_id.map(str::to_owned),
            };
            let after = after.map(|e| Place(e.created_at, e.id.clone()));
            alarms.entities(&a, filter, after, limit).await.unwrap()
        };
        let all = list(None, None, None, 100).await;
        assert_eq!(ids(&all), ["e6", "e5", "e4", "e3", "e2", "e1", "e0"]);
        assert!(all.iter().all(|e| e.depends_on == ["e0"]));
        assert_eq!(ids(&list(None, None, Some(&all[2]), 3).await), ["e3", "e2", "e1"]);
        assert_eq!(ids(&list(Some("CELL"), None, None, 100).await), ["e6", "e4", "e2", "e0"]);
        assert_eq!(ids(&list(Some("CELL"), Some("x0"), None, 100).await), ["e2", "e0"]);
        assert_eq!(ids(&list(Some("CELL"), Some("x0"), Some(&all[4]), 100).await), ["e0"]);
        assert_eq!(ids(&list(None, Some("x"), None, 100).await), [""; 0]);
    }
}

on_each_backend! {
    async fn the_topology_is_what_is_stored(bed: Bed) {
        let (alarms, a, b) = (bed.open(Config::default()).await, tenant("a"), tenant("b"));
        assert!(!alarms.topology(&a).await.unwrap().knows("c"));
        put(&alarms, &a, "c", json!({"part_of": ["s"], "depends_on": ["r", "s", "c"]})).await;
        put(&alarms, &a, "lone", json!({"depends_on": ["lone"]})).await;
        put(&alarms, &b, "c", json!({})).await;
        let topology = alarms.topology(&a).await.unwrap();
        assert_eq!(topology.parents("c"), ["r", "s"]);
        assert_eq!((topology.children("s"), topology.knows("r")), (&["c".to_owned()][..], true));
        assert!(!topology.knows("lone"));
        assert!(!alarms.topology(&b).await.unwrap().knows("c"));
        let again = alarms.topology(&a).await.unwrap();
        assert!(std::sync::Arc::ptr_eq(&topology, &again), "not read again");
        put(&alarms, &a, "s", json!({"depends_on": ["c"]})).await;
        assert_eq!(alarms.topology(&a).await.unwrap().parents("s"), ["c"], "a cycle");
        alarms.delete_entity(&a, "c").await.unwrap();
        let topology = alarms.topology(&a).await.unwrap();
        assert_eq!((topology.parents("c"), topology.parents("s")), (&[][..], &["c".to_owned()][..]));
    }
}

on_each_backend! {
    async fn samples_are_read_by_range_and_step(bed: Bed) {
        let (alarms, a, b) = (bed.open(Config::default()).await, tenant("a"), tenant("b"));
        put(&alarms, &a, "c", json!({})).await;
        put(&alarms, &b, "d", json!({})).await;
        let samples: Vec<Value> = (0..600).map(|n| sample("c", -6_000 + n * 10, n as f64)).collect();
        assert_eq!(alarms.add_samples(&a, samples).await.unwrap(), 600);
        let some = Range { from: Some(at(-6_000)), to: Some(at(-5_970)), ..range("c", "traffic_volume") };
        let read = alarms.samples(&a, some.clone()).await.unwrap().unwrap();
        assert_eq!(read, [(at(-6_000), 0.0), (at(-5_990), 1.0), (at(-5_980), 2.0)]);
        let steps = alarms.steps(&a, range("c", "traffic_volume"), 3_600).await.unwrap().unwrap();
        assert_eq!(steps.iter().map(|s| s.count).sum::<u64>(), 600);
        assert!(steps.iter().all(|s| s.timestamp.as_secs() % 3_600 == 0 && s.min <= s.mean && s.mean <= s.max));
        // The same time again, from the same source and from another one.
        let mut other = sample("c", -6_000, 7.0);
        other["source"] = json!("BSS");
        add(&alarms, &a, vec![sample("c", -6_000, -1.0), other, sample("c", -6_000, -2.0)]).await;
        let read = alarms.samples(&a, some).await.unwrap().unwrap();
        assert_eq!(read[..2], [(at(-6_000), -2.0), (at(-6_000), 7.0)]);
        assert_eq!(alarms.samples(&a, range("c", "other")).await.unwrap().unwrap(), []);
        assert!(is_unknown(alarms.samples(&b, range("c", "traffic_volume")).await, "c"));
        assert!(is_unknown(alarms.steps(&b, range("c", "traffic_volume"), 60).await, "c"));
        // Nothing of a batch is stored if one entity is not there, also if another tenant has it.
        let mixed = vec![sample("c", -1, 5.0), sample("d", -1, 5.0)];
        assert!(is_unknown(alarms.add_samples(&a, mixed).await, "d"));
        assert_eq!(alarms.samples(&a, range("c", "traffic_volume")).await.unwrap().unwrap().len(), 601);
        let extremes = vec![sample("c", -2, f64::MAX), sample("c", -1, f64::MIN), sample("c", 0, f64::MIN_POSITIVE)];
        add(&alarms, &a, extremes).await;
        let last = Range { from: Some(at(-2)), ..range("c", "traffic_volume") };
        let read = alarms.samples(&a, last.clone()).await.unwrap().unwrap();
        assert_eq!(read.iter().map(|(_, v)| *v).collect::<Vec<_>>(), [f64::MAX, f64::MIN, f64::MIN_POSITIVE]);
        assert!(alarms.steps(&a, last, 60).await.unwrap().unwrap().iter().all(|s| s.mean.is_finite()));
    }
}

on_each_backend! {
    async fn samples_go_with_their_entity_and_with_age(bed: Bed) {
        let alarms = bed.open(Config { kpi_max_age: Duration::from_secs(3_600), ..Config::default() }).await;
        let a = tenant("a");
        put(&alarms, &a, "c", json!({})).await;
        put(&alarms, &a, "d", json!({})).await;
        for of in ["c", "d"] {
            add(&alarms, &a, (0..2_500).map(|n| sample(of, -n, 1.0)).collect()).await;
        }
        assert_eq!(alarms.trim_samples().await.unwrap(), 0);
        alarms.delete_entity(&a, "c").await.unwrap();
        put(&alarms, &a, "c", json!({})).await;
        assert_eq!(alarms.samples(&a, range("c", "traffic_volume")).await.unwrap().unwrap(), []);
        add(&alarms, &a, vec![sample("c", 0, 2.0)]).await;
        assert_eq!(alarms.trim_samples().await.unwrap(), 2_500, "those of the one that is gone");
        bed.clock.advance(Duration::from_secs(3_600 - 499));
        assert_eq!(alarms.trim_samples().await.unwrap(), 2_000);
        let left = alarms.samples(&a, range("d", "traffic_volume")).await.unwrap().unwrap();
        assert_eq!((left.len(), left[0].0), (500, at(-499)));
        assert_eq!(alarms.samples(&a, range("c", "traffic_volume")).await.unwrap().unwrap(), [(at(0), 2.0)]);
    }
}

on_each_backend! {
    async fn a_sleeping_cell_is_told_once_and_so_is_its_recovery(bed: Bed) {
        let (alarms, a, b) = (bed.open(Config::default()).await, tenant("a"), tenant("b"));
        for of in [&a, &b] {
            for id in ["c", "d"] {
                put(&alarms, of, id, json!({})).await;
                add(&alarms, of, usual(id)).await;
            }
        }
        assert_eq!(scan(&alarms, &a).await, (0, 0));
        add(&alarms, &a, vec![sample("c", 60, 1.5), sample("d", 60, 101.0)]).await;
        bed.clock.advance(Duration::from_secs(60));
        assert_eq!(scan(&alarms, &a).await, (1, 0));
        assert_eq!((scan(&alarms, &a).await, scan(&alarms, &b).await), ((0, 0), (0, 0)));
        let told = events(&alarms, &a, "alarms").await;
        let (kind, data) = &told[0];
        assert_eq!((told.len(), kind.as_str()), (1, "sleeping_cell_detected"));
        assert_eq!((&data["entity_id"], &data["metric_name"]), (&json!("c"), &json!("traffic_volume")));
        assert_eq!((&data["tenant_id"], &data["current_value"]), (&json!("a"), &json!(1.5)));
        assert!(data["z_score"].as_f64().unwrap() < -50.0 && data["event_id"].is_string());
        assert!((data["baseline_mean"].as_f64().unwrap() - 101.0).abs() < 0.5);
        assert_eq!(events(&alarms, &b, "alarms").await, []);
        // A restart neither repeats nor forgets.
        drop(alarms);
        let alarms = bed.open(Config::default()).await;
        assert_eq!(scan(&alarms, &a).await, (0, 0));
        let asleep = alarms.sleeping_cells(&a).await.unwrap();
        assert_eq!((asleep.len(), asleep[0].sleep.since, asleep[0].detected_at), (1, at(60), at(60)));
        bed.clock.advance(Duration::from_secs(300));
        add(&alarms, &a, vec![sample("c", 360, 0.5)]).await;
        assert_eq!(scan(&alarms, &a).await, (0, 0));
        assert_eq!(alarms.sleeping_cells(&a).await.unwrap()[0].sleep.current_value, Some(0.5));
        bed.clock.advance(Duration::from_secs(300));
        add(&alarms, &a, vec![sample("c", 660, 100.0)]).await;
        assert_eq!(scan(&alarms, &a).await, (0, 1));
        assert_eq!(scan(&alarms, &a).await, (0, 0));
        let (kind, data) = &events(&alarms, &a, "alarms").await[1];
        assert_eq!(kind, "sleeping_cell_recovered");
        assert_eq!((&data["current_value"], &data["slept_seconds"]), (&json!(100.0), &json!(600)));
        assert_eq!(alarms.sleeping_cells(&a).await.unwrap(), []);
    }
}

on_each_backend! {
    async fn silence_is_told_with_null_and_ends_with_the_next_sample(bed: Bed) {
        let (alarms, a) = (bed.open(Config::default()).await, tenant("a"));
        put(&alarms, &a, "c", json!({})).await;
        put(&alarms, &a, "other", json!({})).await;
        add(&alarms, &a, usual("c")).await;
        let mut unwatched = usual("other");
        unwatched.iter_mut().for_each(|s| s["metric_name"] = json!("latency"));
        add(&alarms, &a, unwatched).await;
        bed.clock.advance(Duration::from_secs(900));
        assert_eq!(scan(&alarms, &a).await, (0, 0));
        bed.clock.advance(Duration::from_secs(1));
        assert_eq!(scan(&alarms, &a).await, (1, 0));
        let (_, data) = &events(&alarms, &a, "alarms").await[0];
        assert_eq!((&data["z_score"], &data["current_value"]), (&Value::Null, &Value::Null));
        assert_eq!(alarms.sleeping_cells(&a).await.unwrap()[0].sleep.cause, Cause::Silence);
        // Beyond the window nothing is left of it, and it sleeps on.
        bed.clock.advance(Duration::from_secs(30 * 86_400));
        assert_eq!(scan(&alarms, &a).await, (0, 0));
        assert_eq!(alarms.sleeping_cells(&a).await.unwrap().len(), 1);
        add(&alarms, &a, vec![sample("c", 30 * 86_400 + 900, 100.0)]).await;
        assert_eq!(scan(&alarms, &a).await, (0, 1));
    }
}

on_each_backend! {
    async fn a_thousand_cells_fall_asleep_at_once_and_those_that_are_gone_do_not(bed: Bed) {
        let (alarms, a) = (bed.open(Config { sleeping_min_samples: 3, ..Config::default() }).await, tenant("a"));
        let ids: Vec<String> = (0..1_100).map(|n| format!("c{n}")).collect();
        alarms.put_entities(&a, ids.iter().map(|id| json!({"id": id})).collect()).await.unwrap();
        let samples = ids.iter().flat_map(|id| (0..4).map(move |n| sample(id, (n - 3) * 60, n as f64)));
        add(&alarms, &a, samples.collect()).await;
        bed.clock.advance(Duration::from_secs(1_000));
        alarms.delete_entity(&a, "c7").await.unwrap();
        assert_eq!(scan(&alarms, &a).await, (1_099, 0));
        assert_eq!(events(&alarms, &a, "alarms").await.len(), 1_099);
        alarms.delete_entity(&a, "c8").await.unwrap();
        assert_eq!(scan(&alarms, &a).await, (0, 0));
        assert_eq!(alarms.sleeping_cells(&a).await.unwrap().len(), 1_098);
        // Metrics that are not watched any more are forgotten without a word.
        drop(alarms);
        let alarms = bed.open(Config { sleeping_metrics: vec!["other".into()], ..Config::default() }).await;
        assert_eq!(scan(&alarms, &a).await, (0, 0));
        assert_eq!(alarms.sleeping_cells(&a).await.unwrap(), []);
    }
}
