//! Lines that go to a data folder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidings_core::clock::Clock;
use tidings_core::db::{Conn, Db, DbError, Target};
use tidings_core::event::NewEvent;
use tidings_core::hub::Hub;
use tidings_core::ingest::{Limits, native};
use tidings_core::log::{Batch, Log, LogConfig, PublishError, dead_letter};
use tidings_core::retention::TopicRules;
use tidings_core::tenant::Tenant;

use super::super::Failure;
use super::BATCH;
use super::aside::{Count, Known, SOURCE, reason};
use super::line::Line;
use crate::app::{FolderLock, make_folder};

/// What an import takes: whatever an export wrote, whatever the limits were then.
const LIMITS: Limits = Limits {
    event: 64 * 1024 * 1024,
    batch: BATCH,
    json_depth: 1_024,
};
/// Dead letters of one page.
const PAGE: usize = 100;

/// A data folder that is ours alone, and the dead letters that it has.
pub(super) struct Folder {
    log: Log,
    /// Asked for when a tenant's first one is made.
    known: HashMap<Tenant, Known>,
    /// Whether any line has named its tenant: else this is no export of a data folder.
    has_tenants: bool,
    _lock: FolderLock,
}

impl Folder {
    /// Opens a folder, unless another process works on it.
    pub(super) async fn open(folder: PathBuf) -> Result<Self, Failure> {
        let opening = tokio::task::spawn_blocking(move || open(&folder));
        opening.await.map_err(Failure::failed)?
    }

    pub(super) async fn take(
        &mut self,
        lines: Vec<Line>,
        count: &mut Count,
    ) -> Result<(), Failure> {
        self.has_tenants |= lines.iter().any(|line| line.tenant.is_some());
        if !self.has_tenants {
            return Err(Failure::failed(
                "no line names its tenant: this is no export of a data folder; import it with --url and --token",
            ));
        }
        let mut good = HashMap::<Tenant, Vec<(NewEvent, Line)>>::new();
        for line in lines {
            let tenant = line.tenant.as_deref().map(Tenant::new);
            let Some(Ok(tenant)) = tenant else {
                count.leave(line.number, "it does not say whose it is");
                continue;
            };
            let fault = match line.fault {
                Some(fault) => fault.to_owned(),
                None => match native::ndjson(line.text.as_bytes(), &LIMITS, None) {
                    Ok(events) => {
                        let of = good.entry(tenant).or_default();
                        if let Some(event) = events.into_iter().next() {
                            of.push((event, line));
                        }
                        continue;
                    }
                    Err(e) => e.detail,
                },
            };
            self.set_aside(&tenant, &line, &fault, count).await?;
        }
        for (tenant, events) in good {
            self.publish(&tenant, events, count).await?;
        }
        Ok(())
    }

    /// Publishes events of one tenant, but those whose id stands with other content.
    async fn publish(
        &mut self,
        tenant: &Tenant,
        mut events: Vec<(NewEvent, Line)>,
        count: &mut Count,
    ) -> Result<(), Failure> {
        while !events.is_empty() {
            let batch = Batch {
                subject: SOURCE.into(),
                events: events.iter().map(|(e, _)| e.clone()).collect(),
                idempotency: None,
            };
            match self.log.publish(tenant, batch).await {
                Ok(_) => break,
                Err(e @ PublishError::IdConflict { index }) if index < events.len() => {
                    let (_, line) = events.remove(index);
                    self.set_aside(tenant, &line, &e.to_string(), count).await?;
                }
                Err(e) => return Err(Failure::failed(format_args!("cannot store: {e}"))),
            }
        }
        Ok(())
    }

    async fn set_aside(
        &mut self,
        tenant: &Tenant,
        line: &Line,
        why: &str,
        count: &mut Count,
    ) -> Result<(), Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::failed(format_args!("cannot store: {e}"));
        if !self.known.contains_key(tenant) {
            let number = self
                .log
                .tenant(tenant)
                .await
                .map_err(|e| failed(&e))?
                .number;
            let read = self.log.db().read(move |conn| known(conn, number)).await;
            self.known
                .insert(tenant.clone(), read.map_err(|e| failed(&e))?);
        }
        count.set_aside();
        let known = self.known.get_mut(tenant);
        if known.is_some_and(|known| !known.is_new(&line.text)) {
            return Ok(());
        }
        let (text, why) = (line.text.clone(), reason(why).to_owned());
        let write = self.log.write::<_, DbError>(tenant, move |tx| {
            let (number, now) = (tx.tenant_number(), tx.now());
            dead_letter::insert(tx, number, SOURCE, &why, &text, now)
        });
        write.await.map_err(|e| failed(&e))?;
        Ok(())
    }
}

fn open(folder: &Path) -> Result<Folder, Failure> {
    make_folder(folder).map_err(Failure::failed)?;
    let lock = FolderLock::take(folder).map_err(Failure::failed)?;
    let db = Db::open(Target::Sqlite(folder.join("tidings.db"))).map_err(Failure::failed)?;
    let hub = Hub::new(db.clone(), 0);
    let config = LogConfig {
        // Everything is kept here; what retention says of it is the server's business when it starts.
        rules: TopicRules::default(),
        idempotency_ttl: Duration::from_secs(86_400),
        boot_file: None,
    };
    let log = Log::open(db, hub, Clock::System, config).map_err(Failure::failed)?;
    Ok(Folder {
        log,
        known: HashMap::new(),
        has_tenants: false,
        _lock: lock,
    })
}

fn known(conn: &mut Conn, tenant: i64) -> Result<Known, DbError> {
    let (mut known, mut before) = (Known::default(), None::<String>);
    loop {
        let page = dead_letter::list(conn, tenant, before.as_deref(), PAGE)?;
        for letter in &page {
            known.add(&letter.source, &letter.content);
        }
        match page.last() {
            Some(last) => before = Some(last.id.clone()),
            None => return Ok(known),
        }
    }
}
