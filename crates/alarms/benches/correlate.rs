//! What correlation costs: the shapes that the original was measured on, one hot type, how it grows, and what the same
//! costs as it comes in.
//!
//! `cargo bench --bench correlate`; compare figures of one run only.

use std::collections::HashSet;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidings_alarms::Topology;
use tidings_alarms::correlate::{Arrival, Component, Occurrence, Rules, Window, correlate};
use tidings_alarms::simulate::{Flaws, Load, run};
use tidings_core::clock::Timestamp;

/// Number `i`, with an id that says nothing of its place.
fn raised(i: u64, entity: String, kind: String, second: u64) -> Occurrence {
    let id = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Occurrence {
        event_id: format!("{id:016x}-{i:08}"),
        entity_id: entity,
        alarm_type: kind,
        raised_at: Timestamp::from_micros(
            1_790_000_000_000_000 + i64::try_from(second).unwrap_or(0) * 1_000_000,
        ),
    }
}

/// 5,000 on 1,000 entities, 5 types, 10 minutes.
fn entities() -> Vec<Occurrence> {
    let of = |i: u64| {
        raised(
            i,
            format!("e{}", i % 1_000),
            format!("t{}", i / 1_000),
            i * 120 % 600,
        )
    };
    (0..5_000).map(of).collect()
}

/// 5,000 on 100 entities, 5 types, 5 minutes.
fn dense() -> Vec<Occurrence> {
    let of = |i: u64| raised(i, format!("e{}", i % 100), format!("t{}", i % 5), i % 300);
    (0..5_000).map(of).collect()
}

/// 1,500 isolated, 2,500 in bunches of 5, 1,000 together.
fn mixed() -> Vec<Occurrence> {
    let of = |i: u64| match i {
        0..1_500 => raised(i, format!("i{i}"), "alone".into(), i * 301),
        1_500..4_000 => raised(
            i,
            format!("b{}", i / 5),
            format!("bunch{}", i / 5),
            i % 5 * 60,
        ),
        _ => raised(i, format!("l{i}"), "large".into(), i % 300),
    };
    (0..5_000).map(of).collect()
}

/// Isolated ones of one type.
fn hot(count: u64) -> Vec<Occurrence> {
    (0..count)
        .map(|i| raised(i, format!("e{i}"), "t".into(), i * 601))
        .collect()
}

fn shapes(c: &mut Criterion) {
    let mut group = c.benchmark_group("shapes");
    let (none, rules) = (Topology::default(), Rules::default());
    for (name, of) in [
        ("1,000 entities, 10 minutes", entities()),
        ("100 entities, 5 minutes", dense()),
        ("isolated, bunches, one large", mixed()),
        ("4,000 isolated of one type", hot(4_000)),
    ] {
        group.throughput(Throughput::Elements(of.len() as u64));
        group.bench_function(name, |b| b.iter(|| correlate(&of, &none, &rules)));
    }
    let storm = run(
        1,
        Load::Storm,
        Flaws::default(),
        Timestamp::from_secs(1_790_000_000),
    );
    let (topology, of): (_, Vec<_>) = (
        storm.topology(),
        storm.alarms.iter().map(|a| a.occurrence.clone()).collect(),
    );
    group.throughput(Throughput::Elements(of.len() as u64));
    group.bench_function("a storm on the simulated network", |b| {
        b.iter(|| correlate(&of, &topology, &rules));
    });
    group.finish();
}

/// Run after run of the simulated network.
fn network(count: usize) -> (Topology, Vec<Occurrence>) {
    let first = run(0, Load::Busy, Flaws::default(), Timestamp::from_secs(0));
    let all = (0..).flat_map(|seed: i64| {
        let start = Timestamp::from_secs(1_790_000_000 + seed * 15_000);
        run(seed.unsigned_abs(), Load::Busy, Flaws::default(), start).alarms
    });
    (
        first.topology(),
        all.take(count).map(|a| a.occurrence).collect(),
    )
}

fn growth(c: &mut Criterion) {
    let rules = Rules::default();
    let mut group = c.benchmark_group("growth");
    group.sample_size(10);
    for count in [1_000usize, 10_000, 100_000, 1_000_000] {
        group.throughput(Throughput::Elements(count as u64));
        let (topology, of) = network(count);
        group.bench_with_input(BenchmarkId::new("network", count), &of, |b, of| {
            b.iter(|| correlate(of, &topology, &rules));
        });
        let of = hot(count as u64);
        group.bench_with_input(BenchmarkId::new("hot type", count), &of, |b, of| {
            b.iter(|| correlate(of, &Topology::default(), &rules));
        });
    }
    group.finish();
}

/// A storm of 100,000 within ten minutes, on 20,000 entities of 40 types, as it comes in.
fn pieces(c: &mut Criterion) {
    let of = |i: u64| {
        raised(
            i,
            format!("e{}", i % 20_000),
            format!("t{}", i % 40),
            i * 600 / 100_000,
        )
    };
    let all: Vec<Occurrence> = (0..100_000).map(of).collect();
    let mut group = c.benchmark_group("pieces");
    group.sample_size(10);
    group.throughput(Throughput::Elements(all.len() as u64));
    group.bench_function("100,000 in pieces of 2,000", |b| {
        b.iter(|| stream(&all, 2_000));
    });
    group.finish();
}

/// Adds, plans and settles, piece after piece.
fn stream(all: &[Occurrence], piece: usize) -> Window {
    let mut window = Window::new(Arc::default(), Rules::default());
    let (none, mut clusters) = (HashSet::new(), 0);
    for some in all.chunks(piece) {
        let now = some[some.len() - 1].raised_at.as_micros();
        let arrival = |o: &Occurrence| Arrival {
            occurrence: o.clone(),
            arrived_at: now,
            cluster: None,
        };
        window.add(some.iter().map(arrival).collect());
        let plan = window.plan(&none);
        let number = |component: &Component| {
            component.cluster.unwrap_or_else(|| {
                clusters += 1;
                clusters
            })
        };
        let ids: Vec<u64> = plan.iter().map(number).collect();
        window.apply(&plan, &ids);
        window.settle(now);
    }
    window
}

criterion_group!(benches, shapes, growth, pieces);
criterion_main!(benches);
