//! The module on a fresh database of each kind.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidings_alarms::{Alarms, Config};
use tidings_core::clock::{Clock, Timestamp};
use tidings_core::db::{Db, Target};
use tidings_core::hub::{Hub, Rights};
use tidings_core::log::{Log, LogConfig};
use tidings_core::retention::TopicRules;
use tidings_core::tenant::Tenant;
use tidings_core::topic::{Pattern, Patterns};

/// When the tests begin.
pub(crate) const START: i64 = 1_790_000_000;

/// Runs a body once for each kind of database.
macro_rules! on_each_backend {
    ($(#[$meta:meta])* async fn $name:ident($bed:ident: Bed) $body:block) => {
        mod $name {
            use super::*;

            async fn on($bed: Bed) $body

            #[tokio::test(flavor = "multi_thread")]
            $(#[$meta])*
            async fn sqlite() {
                on(Bed::sqlite()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            $(#[$meta])*
            async fn postgres() {
                if let Some(bed) = Bed::postgres() {
                    on(bed).await;
                }
            }
        }
    };
}
pub(crate) use on_each_backend;

/// A database, and the module on it.
pub(crate) struct Bed {
    target: Target,
    pub(crate) clock: Clock,
    folder: TempDir,
}

impl Bed {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            target: Target::Sqlite(folder.path().join("tidings.db")),
            clock: Clock::manual(Timestamp::from_secs(START)),
            folder,
        }
    }

    pub(crate) fn postgres() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Ok(url) = std::env::var("TIDINGS_TEST_POSTGRES_URL") else {
            assert!(
                std::env::var("CI").is_err(),
                "TIDINGS_TEST_POSTGRES_URL must name a PostgreSQL server in CI: see ./x test"
            );
            eprintln!(
                "not run on PostgreSQL: TIDINGS_TEST_POSTGRES_URL is not set (./x test sets it)"
            );
            return None;
        };
        let name = format!(
            "alarms_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let base = std::thread::spawn(move || {
            let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
            // A server that outlives the run may have one of an earlier process of this number.
            for statement in ["DROP DATABASE IF EXISTS", "CREATE DATABASE"] {
                client
                    .batch_execute(&format!("{statement} {name}"))
                    .unwrap();
            }
            let (base, query) = url
                .split_once('?')
                .map_or((url.as_str(), String::new()), |(b, q)| (b, format!("?{q}")));
            format!("{}/{name}{query}", base.rsplit_once('/').unwrap().0)
        });
        Some(Self {
            target: Target::Postgres(base.join().unwrap()),
            clock: Clock::manual(Timestamp::from_secs(START)),
            folder: tempfile::tempdir().unwrap(),
        })
    }

    /// The bytes of every file in the folder of the embedded database.
    pub(crate) fn files(&self) -> Vec<Vec<u8>> {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        files
            .map(|f| std::fs::read(f.unwrap().path()).unwrap())
            .collect()
    }

    /// The module, as after a start. May be called again for a restart once the last one is dropped.
    pub(crate) async fn open(&self, config: Config) -> Alarms {
        let (target, clock) = (self.target.clone(), self.clock.clone());
        let boot_file = Some(self.folder.path().join("boot"));
        let opening = move || {
            let db = Db::open(target).unwrap();
            let hub = Hub::new(db.clone(), 1);
            let log_config = LogConfig {
                rules: TopicRules::default(),
                idempotency_ttl: Duration::from_secs(86_400),
                boot_file,
            };
            let log = Log::open(db, hub, clock.clone(), log_config).unwrap();
            Alarms::new(log, clock, config)
        };
        tokio::task::spawn_blocking(opening).await.unwrap()
    }
}

pub(crate) fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

/// Every event of a topic, oldest first: its type and data.
pub(crate) async fn events(alarms: &Alarms, tenant: &Tenant, topic: &str) -> Vec<(String, Value)> {
    let log = alarms.log().tenant(tenant).await.unwrap();
    let patterns = Patterns::new(vec![Pattern::new(topic).unwrap()]);
    let page = alarms
        .log()
        .read(&log, 0, &patterns, &Rights::All, 100_000)
        .await
        .unwrap();
    let data = |json: &str, at: usize| serde_json::from_str(&json[at..json.len() - 1]).unwrap();
    let events = page.events.iter();
    events
        .map(|e| (e.kind.to_string(), data(&e.json, e.data_at)))
        .collect()
}
