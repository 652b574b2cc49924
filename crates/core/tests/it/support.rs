//! A log on a fresh database of each kind.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tidings_core::clock::{Clock, Timestamp};
use tidings_core::db::{Db, DbError, Target};
use tidings_core::event::{EventType, Json, NewEvent};
use tidings_core::hub::{Hub, Rights};
use tidings_core::log::{Batch, Log, LogConfig, Page, Published};
use tidings_core::retention::TopicRules;
use tidings_core::tenant::Tenant;
use tidings_core::topic::{Pattern, Patterns, Topic};

/// Runs a body once for each kind of database.
macro_rules! on_each_backend {
    ($(#[$meta:meta])* async fn $name:ident($bed:ident: Bed) $body:block) => {
        mod $name {
            use super::*;

            async fn body($bed: Bed) $body

            #[tokio::test(flavor = "multi_thread")]
            $(#[$meta])*
            async fn sqlite() {
                body(Bed::sqlite()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            $(#[$meta])*
            async fn postgres() {
                if let Some(bed) = Bed::postgres() {
                    body(bed).await;
                }
            }
        }
    };
}
pub(crate) use on_each_backend;

/// A database, and logs on it.
pub(crate) struct Bed {
    pub(crate) target: Target,
    pub(crate) clock: Clock,
    folder: TempDir,
}

#[derive(Clone)]
pub(crate) struct Core {
    pub(crate) log: Log,
    pub(crate) hub: Hub,
}

impl Bed {
    pub(crate) fn sqlite() -> Self {
        let clock = Clock::manual(Timestamp::from_secs(1_790_000_000));
        Self::on(tempfile::tempdir().unwrap(), clock)
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
            "core_{}_{}",
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
        let target = Target::Postgres(base.join().unwrap());
        Some(Self {
            target,
            clock: Clock::manual(Timestamp::from_secs(1_790_000_000)),
            folder: tempfile::tempdir().unwrap(),
        })
    }

    /// SQLite in a folder that may hold a database already.
    pub(crate) fn on(folder: TempDir, clock: Clock) -> Self {
        let target = Target::Sqlite(folder.path().join("tidings.db"));
        Self {
            target,
            clock,
            folder,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn open(&self, rules: TopicRules) -> Core {
        self.try_open(rules).await.unwrap()
    }

    pub(crate) async fn try_open(&self, rules: TopicRules) -> Result<Core, DbError> {
        let (target, clock) = (self.target.clone(), self.clock.clone());
        let boot_file = Some(self.folder.path().join("boot"));
        tokio::task::spawn_blocking(move || {
            let db = Db::open(target)?;
            let hub = Hub::new(db.clone(), 1);
            let config = LogConfig {
                rules,
                idempotency_ttl: Duration::from_secs(86_400),
                boot_file,
            };
            let log = Log::open(db, hub.clone(), clock, config)?;
            Ok(Core { log, hub })
        })
        .await
        .unwrap()
    }
}

impl Core {
    pub(crate) async fn read(
        &self,
        tenant: &Tenant,
        after: u64,
        patterns: &Patterns,
        limit: usize,
    ) -> Page {
        let log = self.log.tenant(tenant).await.unwrap();
        self.log
            .read(&log, after, patterns, &Rights::All, limit)
            .await
            .unwrap()
    }

    pub(crate) async fn publish(&self, tenant: &Tenant, events: Vec<NewEvent>) -> Published {
        self.log
            .publish(
                tenant,
                Batch {
                    subject: "s".into(),
                    events,
                    idempotency: None,
                },
            )
            .await
            .unwrap()
    }
}

pub(crate) fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

pub(crate) fn event(topic: &str, data: i64) -> NewEvent {
    NewEvent::new(
        Topic::new(topic).unwrap(),
        EventType::new("t").unwrap(),
        Json::encode(&data).unwrap(),
    )
}

pub(crate) fn patterns(of: &[&str]) -> Patterns {
    Patterns::new(of.iter().map(|p| Pattern::new(p).unwrap()).collect())
}
