//! The core's costs: durable appends, the hub's work per publish, and replay.
//!
//! `cargo bench --bench core`; compare figures of one run only.

#![expect(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidings_core::clock::Clock;
use tidings_core::db::{Db, Target};
use tidings_core::event::{EventType, Json, NewEvent};
use tidings_core::hub::{FeedKey, Hub, Reader, Rights, RingSize, Start, Style};
use tidings_core::log::{Batch, Log, LogConfig};
use tidings_core::retention::TopicRules;
use tidings_core::tenant::Tenant;
use tidings_core::topic::{Pattern, Patterns, Topic};
use tokio::runtime::Runtime;

static STYLE: Style = Style {
    name: "bench",
    encode: |event, out| out.extend_from_slice(event.json.as_bytes()),
};

struct Bed {
    runtime: Runtime,
    hub: Hub,
    log: Log,
    tenant: Tenant,
    _folder: tempfile::TempDir,
}

fn bed() -> Bed {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let db = Db::open(Target::Sqlite(folder.path().join("bench.db"))).unwrap();
    let hub = Hub::new(db.clone(), 1);
    let config = LogConfig {
        rules: TopicRules::default(),
        idempotency_ttl: Duration::from_secs(86_400),
        boot_file: None,
    };
    let log = Log::open(db, hub.clone(), Clock::System, config).unwrap();
    Bed {
        runtime,
        hub,
        log,
        tenant: Tenant::new("t").unwrap(),
        _folder: folder,
    }
}

fn event(topic: &str) -> NewEvent {
    let data = Json::encode(&"x".repeat(200)).unwrap();
    NewEvent::new(
        Topic::new(topic).unwrap(),
        EventType::new("bench").unwrap(),
        data,
    )
}

fn batch(topic: &str, events: usize) -> Batch {
    Batch {
        subject: "s".into(),
        events: (0..events).map(|_| event(topic)).collect(),
        idempotency: None,
    }
}

fn append(c: &mut Criterion) {
    let bed = bed();
    let mut group = c.benchmark_group("append");
    for events in [1usize, 100, 10_000] {
        group.throughput(Throughput::Elements(events as u64));
        group.bench_function(
            BenchmarkId::new("one publisher, events a publish", events),
            |b| {
                b.iter_batched(
                    || batch("a/b", events),
                    |batch| {
                        bed.runtime
                            .block_on(bed.log.publish(&bed.tenant, batch))
                            .unwrap()
                    },
                    BatchSize::LargeInput,
                );
            },
        );
    }
    for publishers in [16usize, 256] {
        group.throughput(Throughput::Elements(publishers as u64));
        group.bench_function(BenchmarkId::new("publishers at once", publishers), |b| {
            b.iter(|| {
                bed.runtime.block_on(async {
                    let all = (0..publishers).map(|_| {
                        let (log, tenant) = (bed.log.clone(), bed.tenant.clone());
                        tokio::spawn(
                            async move { log.publish(&tenant, batch("a/b", 1)).await.unwrap() },
                        )
                    });
                    for task in all.collect::<Vec<_>>() {
                        task.await.unwrap();
                    }
                });
            });
        });
    }
}

fn readers(bed: &Bed, patterns: impl Fn(usize) -> String, count: usize) -> Vec<Reader> {
    let log = bed.runtime.block_on(bed.log.tenant(&bed.tenant)).unwrap();
    (0..count)
        .map(|n| {
            let size = RingSize {
                events: 100,
                bytes: 1 << 20,
                ephemeral_age: Duration::from_secs(30),
            };
            let patterns = Patterns::new(vec![Pattern::new(&patterns(n)).unwrap()]);
            let key = FeedKey {
                patterns,
                rights: Rights::All,
                style: &STYLE,
                size,
            };
            bed.hub.reader(&log, key, Start::Live, None)
        })
        .collect()
}

/// What a publish costs the hub while 10,000 readers stand on topics and patterns of their own: to a topic that was never
/// published to, and to one that was.
fn publish_to_a_new_topic(c: &mut Criterion) {
    let bed = bed();
    let log = bed.runtime.block_on(bed.log.tenant(&bed.tenant)).unwrap();
    let _topics = readers(&bed, |n| format!("users/{n}"), 9_000);
    let _patterns = readers(&bed, |n| format!("groups/{n}/**"), 1_000);
    let mut group = c.benchmark_group("hub, 10,000 readers");
    let seal = |topic: &str| event(topic).seal(Clock::System.now());
    let warm = seal("warm/topic");
    group.bench_function("publish to a warm topic", |b| {
        b.iter(|| bed.hub.ephemeral(&log, std::iter::once(warm.clone())));
    });
    let mut n = 0u64;
    group.bench_function("first publish to a new topic", |b| {
        b.iter_batched(
            || {
                n += 1;
                seal(&format!("new/{n}"))
            },
            |event| bed.hub.ephemeral(&log, std::iter::once(event)),
            BatchSize::SmallInput,
        );
    });
    let one = seal("users/77");
    group.bench_function("publish to one of the readers", |b| {
        b.iter(|| bed.hub.ephemeral(&log, std::iter::once(one.clone())));
    });
}

fn replay(c: &mut Criterion) {
    let bed = bed();
    for _ in 0..20 {
        bed.runtime
            .block_on(bed.log.publish(&bed.tenant, batch("a/b", 5_000)))
            .unwrap();
    }
    let log = bed.runtime.block_on(bed.log.tenant(&bed.tenant)).unwrap();
    let mut group = c.benchmark_group("replay");
    group.throughput(Throughput::Elements(100_000));
    group.sample_size(10);
    for pattern in ["a/b", "a/*"] {
        group.bench_function(BenchmarkId::new("100,000 events by", pattern), |b| {
            b.iter(|| {
                let patterns = Patterns::new(vec![Pattern::new(pattern).unwrap()]);
                let mut after = 0;
                loop {
                    let page = bed
                        .runtime
                        .block_on(bed.log.read(&log, after, &patterns, &Rights::All, 500))
                        .unwrap();
                    after = page.end.next;
                    if page.end.is_end {
                        break;
                    }
                }
            });
        });
    }
}

criterion_group!(benches, append, publish_to_a_new_topic, replay);
criterion_main!(benches);
