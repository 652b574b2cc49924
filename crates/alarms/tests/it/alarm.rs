//! Alarms on a database: ingest, repeats, operators, lists, ends.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tidings_alarms::alarm::list::{self as list_of, Filter, Start};
use tidings_alarms::alarm::{Accepted, Condition, Operation, OperatorState, Request, store};
use tidings_alarms::ingest::{Context, alertmanager, cloudevents, native};
use tidings_alarms::{Alarms, Config, Error, Severity};
use tidings_core::clock::Timestamp;
use tidings_core::db::{Conn, DbError, Value};
use tidings_core::tenant::Tenant;

use crate::support::{Bed, START, events, on_each_backend, tenant};

fn raw(entity: &str, severity: &str, secs: i64) -> Json {
    json!({
        "entity_id": entity, "alarm_type": "LINK_DOWN", "severity": severity,
        "raised_at": Timestamp::from_secs(START + secs).to_string(), "source_system": "nms", "vendor": "v"
    })
}

async fn take(alarms: &Alarms, tenant: &Tenant, bodies: Vec<Json>) -> Accepted {
    let context = Context {
        config: alarms.config(),
        now: alarms.clock().now(),
    };
    let request = Request {
        occurrences: native::many(bodies, context).unwrap(),
        trace: None,
    };
    alarms.ingest(tenant, request).await.unwrap()
}

async fn list(alarms: &Alarms, tenant: &Tenant, filter: Filter) -> (Vec<String>, u64) {
    let page = alarms
        .alarms(tenant, filter, Start::After(None), 100)
        .await
        .unwrap();
    let ids = page.alarms.iter().map(|a| a.identity.entity_id.clone());
    (ids.collect(), page.total)
}

on_each_backend! {
    async fn what_comes_in_is_stored_told_and_known_again(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let (a, b) = (tenant("a"), tenant("b"));
        let first = take(&alarms, &a, vec![raw("c1", "major", 0), raw("c2", "MINOR", 1), raw("c1", "major", 0)]).await;
        assert_eq!(first.repeats(), 1);
        assert_eq!(first.0[0].event_id, first.0[2].event_id);
        let again = take(&alarms, &a, vec![raw("c2", "minor", 1), raw("c1", "cleared", 5)]).await;
        assert_eq!((again.repeats(), &again.0[0].event_id), (1, &first.0[1].event_id));
        let told = events(&alarms, &a, "alarms").await;
        let kinds: Vec<_> = told.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["alarm_ingested", "alarm_ingested", "alarm_cleared"]);
        assert_eq!(told[0].1["event_id"], first.0[0].event_id.as_str());
        assert_eq!((&told[0].1["tenant_id"], &told[0].1["attributes"]), (&json!("a"), &json!({"vendor": "v"})));
        assert_eq!(told[2].1["condition"], "cleared");
        let alarm = alarms.alarm(&a, &first.0[0].alarm_id).await.unwrap();
        assert_eq!((alarm.condition, alarm.severity), (Condition::Cleared, Severity::Major));
        // Another tenant has its own.
        assert!(matches!(alarms.alarm(&b, &alarm.id).await, Err(Error::NotFound { .. })));
        let other = take(&alarms, &b, vec![raw("c1", "major", 0)]).await;
        assert_ne!(other.0[0].alarm_id, alarm.id);
        assert_eq!(list(&alarms, &b, Filter::default()).await.1, 1);
        // All of it is there after a restart.
        drop(alarms);
        let alarms = bed.open(Config::default()).await;
        let again = take(&alarms, &a, vec![raw("c1", "major", 0)]).await;
        assert_eq!((again.repeats(), &again.0[0].event_id), (1, &first.0[0].event_id));
    }
}

on_each_backend! {
    async fn a_publishers_key_stands_for_one_alarm(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        let send = |body: Json| {
            let context = Context { config: alarms.config(), now: alarms.clock().now() };
            let occurrence = cloudevents::binary("/nms", "1", body, context).unwrap();
            alarms.ingest(&a, Request { occurrences: vec![occurrence], trace: None })
        };
        let first = send(raw("c1", "major", 0)).await.unwrap();
        assert_eq!(send(raw("c1", "major", 0)).await.unwrap().0[0].event_id, first.0[0].event_id);
        assert!(matches!(send(raw("c2", "major", 0)).await, Err(Error::Illegal { .. })));
        assert_eq!(list(&alarms, &a, Filter::default()).await.1, 1);
    }
}

on_each_backend! {
    async fn people_move_the_operators_axis_and_totals_follow(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        let taken = take(&alarms, &a, (0..5).map(|n| raw(&format!("c{n}"), "major", n)).collect()).await;
        let id = |n: usize| taken.0[n].alarm_id.as_str();
        let alarm = alarms.operate(&a, id(0), "ann", Operation::Acknowledge).await.unwrap();
        assert_eq!(alarm.acknowledged_by.as_deref(), Some("ann"));
        alarms.operate(&a, id(0), "bob", Operation::Acknowledge).await.unwrap();
        let until = Timestamp::from_secs(START + 600);
        let shelve = |expires_at| Operation::Shelve { reason: "works".into(), expires_at };
        alarms.operate(&a, id(1), "ann", shelve(until)).await.unwrap();
        let early = alarms.operate(&a, id(2), "ann", shelve(Timestamp::from_secs(START))).await;
        assert!(matches!(early, Err(Error::Invalid(_))));
        alarms.operate(&a, id(2), "ann", Operation::Clear).await.unwrap();
        let missing = alarms.operate(&tenant("b"), id(0), "eve", Operation::Clear).await;
        assert!(matches!(missing, Err(Error::NotFound { .. })));
        let live = list(&alarms, &a, Filter::live()).await;
        assert_eq!(live, (vec!["c4".into(), "c3".into(), "c0".into()], 3));
        let of = |state| Filter { operator_state: Some(state), ..Filter::default() };
        assert_eq!(list(&alarms, &a, of(OperatorState::Shelved)).await, (vec!["c1".into()], 1));
        assert_eq!(list(&alarms, &a, of(OperatorState::Acknowledged)).await, (vec!["c0".into()], 1));
        assert_eq!(list(&alarms, &a, of(OperatorState::None)).await.1, 3);
        // A shelved alarm records its clear, and comes back when the time is over, also after a restart.
        take(&alarms, &a, vec![raw("c1", "cleared", 9)]).await;
        assert_eq!(list(&alarms, &a, of(OperatorState::Shelved)).await.1, 1);
        drop(alarms);
        let alarms = bed.open(Config::default()).await;
        assert_eq!(alarms.do_due(bed.clock.now()).await.unwrap(), 0);
        bed.clock.advance(Duration::from_secs(600));
        assert_eq!(alarms.do_due(bed.clock.now()).await.unwrap(), 1);
        let told = events(&alarms, &a, "alarms").await;
        let kinds: Vec<_> = told.iter().skip(5).map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["alarm_acknowledged", "alarm_shelved", "alarm_cleared", "alarm_cleared", "alarm_unshelved"]);
        assert_eq!((&told[6].1["actor"], &told[9].1["actor"]), (&json!("ann"), &json!("system")));
    }
}

on_each_backend! {
    async fn an_alert_ends_by_itself_unless_it_is_refreshed(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        let time = |secs: i64| Timestamp::from_secs(START + secs).to_string();
        let send = |ends: i64| {
            let alert = json!({"labels": {"alertname": "Down", "instance": "n1"}, "startsAt": time(0), "endsAt": time(ends)});
            let context = Context { config: alarms.config(), now: alarms.clock().now() };
            let occurrences = alertmanager::alerts(vec![alert], context).unwrap();
            alarms.ingest(&a, Request { occurrences, trace: None })
        };
        send(100).await.unwrap();
        bed.clock.advance(Duration::from_secs(60));
        assert_eq!(send(160).await.unwrap().repeats(), 1);
        bed.clock.advance(Duration::from_secs(60));
        assert_eq!(alarms.do_due(bed.clock.now()).await.unwrap(), 0);
        bed.clock.advance(Duration::from_secs(60));
        assert_eq!(alarms.do_due(bed.clock.now()).await.unwrap(), 1);
        assert_eq!(list(&alarms, &a, Filter::live()).await.1, 0);
        // Its source was only silent for too long.
        send(300).await.unwrap();
        assert_eq!(list(&alarms, &a, Filter::live()).await.1, 1);
        assert_eq!(events(&alarms, &a, "alarms").await.len(), 3);
    }
}

on_each_backend! {
    async fn pages_and_filters(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        // Pairs share a time.
        take(&alarms, &a, (0..25).map(|n| raw(&format!("c{n:02}"), "major", n / 2)).collect()).await;
        let mut after = None;
        let mut seen = Vec::new();
        loop {
            let page = alarms.alarms(&a, Filter::live(), Start::After(after), 7).await.unwrap();
            assert_eq!(page.total, 25);
            seen.extend(page.alarms.into_iter().map(|a| (a.event_at(), a.id)));
            let Some(next) = page.next else { break };
            after = Some(next.to_string().parse().unwrap());
        }
        assert!(seen.len() == 25 && seen.is_sorted_by(|x, y| x > y));
        let filters = [
            (Filter { entity_id: Some("c03".into()), ..Filter::default() }, 1),
            (Filter { alarm_type: Some("LINK_DOWN".into()), ..Filter::default() }, 25),
            (Filter { alarm_type: Some("x".into()), ..Filter::default() }, 0),
            (Filter { severity: Some(Severity::Minor), ..Filter::default() }, 0),
            (Filter { search: Some("C1".into()), ..Filter::default() }, 10),
            (Filter { search: Some("c_1%".into()), ..Filter::default() }, 0),
            (Filter { since: Some(Timestamp::from_secs(START + 11)), ..Filter::live() }, 3),
            (Filter { until: Some(Timestamp::from_secs(START + 1)), ..Filter::live() }, 2),
        ];
        for (filter, total) in filters {
            let (ids, counted) = list(&alarms, &a, filter.clone()).await;
            assert_eq!((ids.len() as u64, counted), (total, total), "{filter:?}");
        }
        let page = alarms.alarms(&a, Filter::live(), Start::Offset(20), 100).await.unwrap();
        assert_eq!(page.alarms.len(), 5);
    }
}

on_each_backend! {
    async fn what_is_raised_among_many_and_in_a_span_of_time_is_found(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        let taken = take(&alarms, &a, (0..70).map(|n| raw(&format!("c{n}"), "major", n)).collect()).await;
        take(&alarms, &a, vec![raw("c0", "cleared", 99)]).await;
        let ids: Vec<_> = taken.0.iter().map(|o| o.alarm_id.clone()).collect();
        let number = alarms.log().tenant(&a).await.unwrap().number;
        let all = ids.clone();
        let read = move |conn: &mut Conn| {
            let twice: Vec<&str> = all.iter().chain(&all).map(String::as_str).collect();
            store::raised_among(conn, number, &twice)
        };
        let raised = alarms.log().db().read(read).await.unwrap();
        assert_eq!((raised.len(), raised.contains(&ids[0])), (69, false));
        let (from, to) = (Timestamp::from_secs(START + 10), Timestamp::from_secs(START + 20));
        let raises = alarms.log().db().read(move |conn| store::raises(conn, number, from, to, 100)).await.unwrap();
        assert_eq!((raises.len(), raises[0].1.entity_id.as_str()), (10, "c10"));
    }
}

/// Rows of open alarms, made by the database itself.
async fn fill(alarms: &Alarms, tenant: &Tenant, count: i64) {
    let run = move |tx: &mut tidings_core::log::Tx<'_>| {
        let number = tx.tenant_number();
        let (numbers, pad) = match **tx {
            Conn::Sqlite(_) => (
                "WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < CAST($2 AS BIGINT)) SELECT n FROM g",
                "printf('%012d', n)",
            ),
            Conn::Postgres(_) => (
                "SELECT generate_series(CAST(1 AS BIGINT), CAST($2 AS BIGINT)) AS n",
                "LPAD(CAST(n AS TEXT), 12, '0')",
            ),
        };
        let sql = format!(
            "INSERT INTO alarms (tenant, id, entity_id, alarm_type, severity, condition, event_at, raised_at, first_raised_at, \
             updated_at, raise_count, flap_count, source_system, attributes, may_return, words) \
             SELECT CAST($1 AS BIGINT), {pad}, 'e' || CAST(n % 1000 AS TEXT), 'T' || CAST(n % 7 AS TEXT), \
             CASE WHEN n % 100 = 0 THEN 'critical' ELSE 'minor' END, 'raised', CAST($3 AS BIGINT) + n, CAST($3 AS BIGINT) + n, CAST($3 AS BIGINT) + n, CAST($3 AS BIGINT), 1, 0, 'nms', '{{}}', 0, \
             'entity ' || CAST(n AS TEXT) FROM ({numbers}) AS numbers"
        );
        let start = START * 1_000_000;
        tx.execute(&sql, &[number.into(), count.into(), start.into()])?;
        for (severity, alarms) in [("critical", count / 100), ("minor", count - count / 100)] {
            tx.execute(
                "INSERT INTO alarm_counts (tenant, condition, severity, operator_state, alarms) \
                 VALUES ($1, 'raised', $2, 'none', $3)",
                &[number.into(), severity.into(), alarms.into()],
            )?;
        }
        Ok::<_, Error>(())
    };
    alarms.log().write(tenant, run).await.unwrap();
}

/// How the database goes about a statement.
fn plan(conn: &mut Conn, sql: &str, params: &[Value<'_>]) -> Result<String, DbError> {
    let (explain, column) = match conn {
        Conn::Sqlite(_) => ("EXPLAIN QUERY PLAN", 3),
        Conn::Postgres(_) => ("EXPLAIN", 0),
    };
    let lines = conn.rows(&format!("{explain} {sql}"), params, |row| {
        row.text(column).map(str::to_owned)
    })?;
    Ok(lines.join("\n"))
}

on_each_backend! {
    async fn pages_of_many_open_alarms_come_from_an_index(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        let count = many(20_000);
        fill(&alarms, &a, count).await;
alarms.log().db().read(|conn| conn.batch("ANALYZE alarms")).await.unwrap();
        let filters = [
            (Filter::live(), "alarms_by_condition", count),
            (Filter::default(), "alarms_by_time", count),
            (Filter { severity: Some(Severity::Critical), ..Filter::live() }, "alarms_by_severity", count / 100),
            (Filter { operator_state: Some(OperatorState::Shelved), ..Filter::default() }, "alarms_by_operator", 0),
            (Filter { entity_id: Some("e7".into()), ..Filter::default() }, "alarms_by_entity", count / 1_000),
            (Filter { alarm_type: Some("T3".into()), ..Filter::live() }, "", (count - 3) / 7 + 1),
            (Filter { search: Some("ENTITY 777".into()), ..Filter::live() }, "", -1),
        ];
        let number = alarms.log().tenant(&a).await.unwrap().number;
        for (filter, index, total) in filters {
            let wanted = filter.clone();
            let shown = alarms.log().db().read(move |conn| {
                let (sql, params) = list_of::statement(number, &wanted);
                plan(conn, &sql, &params)
            });
            let shown = shown.await.unwrap();
            // PostgreSQL takes whichever of several that are as good.
            let is_postgres = shown.contains("cost=");
            assert!(is_postgres || shown.contains(index), "{filter:?}: {shown}");
            assert!(!shown.contains("TEMP B-TREE") && !shown.contains("Seq Scan"), "{filter:?}: {shown}");
            let started = Instant::now();
            let page = alarms.alarms(&a, filter.clone(), Start::After(None), 100).await.unwrap();
            eprintln!("{:?} for {filter:?}", started.elapsed());
            assert!(total < 0 || page.total == total.unsigned_abs(), "{filter:?}: {}", page.total);
        }
    }
}

/// How many rows a test makes: few, where nobody asks for more.
fn many(few: i64) -> i64 {
    let asked = std::env::var("TIDINGS_TEST_MANY").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(few)
}

// What many alarms cost beside each other; figures with `--nocapture`, large ones with `TIDINGS_TEST_MANY`.
on_each_backend! {
    async fn people_are_served_while_many_alarms_come_in(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        fill(&alarms, &a, many(1_000)).await;
        let taken = take(&alarms, &a, vec![raw("own", "major", 0)]).await;
        let id = taken.0[0].alarm_id.clone();
        let rounds = many(3_000) / 1_000;
        let (loading, owner) = (alarms.clone(), a.clone());
        let load = tokio::spawn(async move {
            let started = Instant::now();
            for round in 0..rounds {
                let bodies = (0..1_000).map(|n| raw(&format!("c{}", round * 1_000 + n), "major", round)).collect();
                assert_eq!(take(&loading, &owner, bodies).await.repeats(), 0);
            }
            started.elapsed() / u32::try_from(rounds).unwrap()
        });
        let mut waits = Vec::new();
        while !load.is_finished() {
            for operation in [Operation::Acknowledge, Operation::Unacknowledge] {
                let started = Instant::now();
                alarms.operate(&a, &id, "ann", operation).await.unwrap();
                waits.push(started.elapsed());
            }
        }
        waits.sort_unstable();
        let p99 = waits[(waits.len() * 99 / 100).min(waits.len() - 1)];
        eprintln!("{:?} a thousand; {} operations, p99 {p99:?}", load.await.unwrap(), waits.len());
        let page = alarms.alarms(&a, Filter::live(), Start::After(None), 20).await.unwrap();
        assert_eq!(page.total, (many(1_000) + 1 + rounds * 1_000).unsigned_abs());
    }
}
