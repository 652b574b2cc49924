//! The composition root: opens what the server is made of, spawns what runs beside the requests, and takes it down again.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings_alarms::Alarms;
use tidings_core::auth::{
    AuthConfigError, PolicyError, PolicyStore, Principal, Refusal, Revocations, Sealer, Tickets,
    Verifier, Watching,
};
use tidings_core::clock::{Clock, Timestamp};
use tidings_core::db::{Db, DbError};
use tidings_core::hub::Hub;
use tidings_core::log::{Log, LogConfig};
use tidings_core::retention::TopicRules;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::Config;
use crate::http::accept::{self, Serving};
use crate::http::api::alarms::Denials;
use crate::http::api::users::Door;
use crate::http::entry::Entry;
use crate::http::problem::{Kind, Problem};
use crate::http::tls::{Certificates, TlsError};
use crate::transport::Transports;
use crate::transport::board::Boards;
use crate::transport::connections::Connections;
use crate::transport::frame::Reason;

/// How often expired credentials are looked for, and rings are aged. Rights end within a second.
const SWEEP: Duration = Duration::from_millis(250);
/// How often a certificate's files are looked at.
const CERTIFICATES: Duration = Duration::from_secs(1);
/// How long requests in flight may take once the server goes down.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A folder or a socket.
    #[error("{what}: {source}")]
    Io {
        /// What was to be had.
        what: String,
        /// Why it was not.
        source: std::io::Error,
    },
    /// Another process works on the folder.
    #[error("{}: another tidings process works on this data folder", .0.display())]
    Taken(std::path::PathBuf),
    /// The database.
    #[error("{0}")]
    Database(#[from] DbError),
    /// The policies.
    #[error("{0}")]
    Policy(#[from] PolicyError),
    /// How tokens are checked.
    #[error("{0}")]
    Auth(#[from] AuthConfigError),
    /// The certificates.
    #[error("{0}")]
    Tls(#[from] TlsError),
}

impl StartError {
    /// Whether a setting is at fault, rather than the world.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::Policy(_) | Self::Auth(_) | Self::Tls(_))
    }

    fn io(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_string();
        move |source| Self::Io { what, source }
    }
}

/// What the server is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The settings.
    pub(crate) config: Config,
    /// The time.
    pub(crate) clock: Clock,
    /// The log.
    pub(crate) log: Log,
    /// The hub.
    pub(crate) hub: Hub,
    /// Verifies tokens.
    pub(crate) verifier: Verifier,
    /// The policies in force.
    pub(crate) policies: PolicyStore,
    /// What is refused although its signature holds.
    pub(crate) revocations: Revocations,
    /// How many denials of the alarms module have been told.
    pub(crate) denials: Denials,
    /// Checks the passwords of local users.
    pub(crate) door: Door,
    /// Sells tickets.
    pub(crate) tickets: Tickets,
    /// The open connections and what writes to them.
    pub(crate) transports: Transports,
    /// The alarms module.
    pub(crate) alarms: Alarms,
    /// The newest alarms of each tenant that is watched.
    pub(crate) boards: Boards,
    /// This node's name.
    pub(crate) node: String,
    /// When it started.
    pub(crate) started: Instant,
    draining: watch::Sender<bool>,
    tasks: TaskTracker,
    stop: CancellationToken,
    certificates: Option<Arc<Certificates>>,
    _watching: Option<Watching>,
    _lock: FolderLock,
}

/// The server. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Parts>);

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What had to be opened on a thread that may block.
struct Opened {
    log: Log,
    hub: Hub,
    revocations: Revocations,
    sealer: Sealer,
    lock: FolderLock,
}

fn open(config: &Config, clock: &Clock) -> Result<Opened, StartError> {
    let folder = &config.data_dir;
    make_folder(folder)?;
    let lock = FolderLock::take(folder)?;
    let db = Db::open(config.database())?;
    let mut conn = db.connect()?;
    let revocations = Revocations::load(&mut conn)?;
    let sealer = Sealer::load(&mut conn)?;
    drop(conn);
    let hub = Hub::new(db.clone(), lanes());
    let log_config = LogConfig {
        rules: TopicRules::new(config.retention.topics.clone()),
        idempotency_ttl: config.idempotency_ttl,
        boot_file: Some(folder.join("boot")),
    };
    let log = Log::open(db, hub.clone(), clock.clone(), log_config)?;
    Ok(Opened {
        log,
        hub,
        revocations,
        sealer,
        lock,
    })
}

/// Keeps a data folder for one process: two committers on one log would be in each other's way.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: std::fs::File,
}

impl FolderLock {
    /// Takes the folder, unless another process has it. The system gives it back when the process ends, however it does.
    pub(crate) fn take(folder: &Path) -> Result<Self, StartError> {
        let path = folder.join("lock");
        let file = std::fs::File::create(&path).map_err(StartError::io(path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StartError::Taken(folder.to_owned())),
            Err(std::fs::TryLockError::Error(e)) => Err(StartError::io(path.display())(e)),
        }
    }
}

/// Makes a data folder where it is missing.
pub(crate) fn make_folder(folder: &Path) -> Result<(), StartError> {
    std::fs::create_dir_all(folder)
        .and_then(|()| only_ours(folder))
        .map_err(StartError::io(folder.display()))
}

/// The database holds secrets: nobody else's business.
fn only_ours(folder: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mut permissions = std::fs::metadata(folder)?.permissions();
        if permissions.mode() & 0o077 != 0 {
            permissions.set_mode(0o700);
            std::fs::set_permissions(folder, permissions)?;
        }
    }
    Ok(())
}

/// Writer threads: half of the cores, since the other half receives, commits and answers meanwhile.
fn lanes() -> usize {
    std::thread::available_parallelism()
        .map_or(1, |cores| cores.get() / 2)
        .clamp(1, 64)
}

impl App {
    /// Opens everything. Nothing listens yet.
    pub(crate) async fn open(config: Config, clock: Clock) -> Result<Self, StartError> {
        let certificates = match &config.tls {
            Some(tls) => Some(Arc::new(Certificates::open(&tls.cert, &tls.key)?)),
            None => None,
        };
        let policies = PolicyStore::open(config.policies.clone())?;
        let verifier = Verifier::new(config.auth.core.clone(), clock.clone())?;
        let (for_opening, opening_clock) = (config.clone(), clock.clone());
        let opened = tokio::task::spawn_blocking(move || open(&for_opening, &opening_clock)).await;
        let Opened {
            log,
            hub,
            revocations,
            sealer,
            lock,
        } = opened.map_err(|e| DbError::Fault(format!("opening did not finish: {e}")))??;
        let connections = Connections::new(
            clock.clone(),
            config.auth.core.leeway,
            policies.clone(),
            revocations.clone(),
        );
        let (draining, drained) = watch::channel(false);
        let tasks = TaskTracker::new();
        let transports = Transports::start(
            log.clone(),
            hub.clone(),
            clock.clone(),
            connections,
            (config.stream, &config.kinds, config.drain.spread),
            drained,
            tasks.clone(),
        )
        .map_err(StartError::io("the writer threads"))?;
        let watching = policies.watch()?;
        let alarms = Alarms::new(log.clone(), clock.clone(), config.alarms.clone());
        let parts = Parts {
            boards: Boards::new(alarms.clone(), hub.clone(), tasks.clone()),
            alarms,
            denials: Denials::default(),
            door: Door::default(),
            tickets: Tickets::new(clock.clone(), sealer),
            node: Uuid::new_v4().simple().to_string(),
            started: Instant::now(),
            stop: CancellationToken::new(),
            _watching: watching,
            _lock: lock,
            config,
            clock,
            log,
            hub,
            verifier,
            policies,
            revocations,
            transports,
            draining,
            tasks,
            certificates,
        };
        Ok(Self(Arc::new(parts)))
    }

    /// Whether a test moves the clock by hand.
    pub(crate) fn is_clock_manual(&self) -> bool {
        matches!(self.clock, Clock::Manual(_))
    }

    /// Verifies a token, and that it is not revoked.
    pub(crate) async fn verify(&self, token: &str) -> Result<Arc<Principal>, Refusal> {
        let principal = self.verifier.verify(token).await?;
        if self.revocations.refuses(&principal) {
            return Err(Refusal::Revoked);
        }
        Ok(principal)
    }

    /// Verifies the token with which an open connection goes on: of the same tenant and subject.
    pub(crate) async fn verify_refresh(
        &self,
        holder: &Principal,
        token: &str,
    ) -> Result<Arc<Principal>, Problem> {
        let refused = |e: &Refusal| Problem::invalid("token", &e.to_string());
        let principal = self.verifier.verify(token).await.map_err(|e| refused(&e))?;
        if self.revocations.refuses(&principal) {
            return Err(refused(&Refusal::Revoked));
        }
        if principal.tenant != holder.tenant || principal.subject != holder.subject {
            return Err(
                Problem::new(Kind::Forbidden, "the token is of another tenant or subject")
                    .at("token"),
            );
        }
        Ok(principal)
    }

    /// Serves until the token is cancelled, then takes everything down without losing a publish.
    pub(crate) async fn serve(
        &self,
        listener: TcpListener,
        metrics: Option<TcpListener>,
        shutdown: CancellationToken,
    ) {
        self.spawn_workers();
        let serving = Serving {
            certificates: self.certificates.clone(),
            max_head_bytes: self.config.limits.headers,
            stop: self.stop.clone(),
            tasks: self.tasks.clone(),
        };
        let accepting = self.tasks.spawn(accept::run(
            listener,
            serving.clone(),
            Entry::new(self.clone()),
        ));
        if let Some(listener) = metrics {
            // Plain, and until the very end: it is for machines of the house.
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "metrics are on a listener of their own");
            }
            let serving = Serving {
                certificates: None,
                ..serving
            };
            self.tasks
                .spawn(accept::run(listener, serving, Entry::metrics(self.clone())));
        }
        shutdown.cancelled().await;
        self.drain().await;
        let _ = accepting.await;
        tracing::info!("stopped");
    }

    /// Readiness goes first, then the streams, then, after a grace in which late comers are still answered, the rest.
    async fn drain(&self) {
        tracing::info!("draining");
        self.draining.send_replace(true);
        self.transports.connections.close_all(Reason::Drain);
        tokio::time::sleep(self.config.drain.grace).await;
        // Those that were admitted while the flag was on its way.
        self.transports.connections.close_all(Reason::Drain);
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(LAST_REQUESTS, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("requests were still in flight when the time for them was over");
        }
        self.log.flush().await;
    }

    fn spawn_workers(&self) {
        let app = self.clone();
        self.spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP);
            loop {
                ticks.tick().await;
                app.transports.connections.expire();
                app.hub.age(Instant::now());
            }
        });
        let app = self.clone();
        self.spawn(async move {
            let (mut policies, mut revocations) =
                (app.policies.changes(), app.revocations.changes());
            loop {
                let changed = tokio::select! {
                    changed = policies.changed() => changed,
                    changed = revocations.changed() => changed,
                };
                if changed.is_err() {
                    return;
                }
                app.transports.connections.review_all();
            }
        });
        let app = self.clone();
        self.spawn(async move { app.keep_house().await });
        let app = self.clone();
        self.spawn(async move { app.verifier.load_keys().await });
        self.spawn_module_workers();
        if let Some(certificates) = self.certificates.clone() {
            self.spawn(async move {
                let mut ticks = tokio::time::interval(CERTIFICATES);
                loop {
                    ticks.tick().await;
                    let certificates = certificates.clone();
                    let _ = tokio::task::spawn_blocking(move || certificates.refresh()).await;
                }
            });
        }
    }

    /// What the modules do by themselves, a task each. Each sets `tidings_worker_lag_events{worker}`.
    fn spawn_module_workers(&self) {
        let alarms = self.alarms.clone();
        self.spawn(async move { alarms.run_due().await });
        let alarms = self.alarms.clone();
        self.spawn(async move { alarms.run_correlation().await });
        let app = self.clone();
        self.spawn(async move { app.watch_cells().await });
    }

    /// Looks for sleeping cells, by the server's clock. Not at once: after an outage of its own, sources first have to say
    /// what they could not.
    async fn watch_cells(&self) {
        if !self.config.alarms.sleeping_enabled {
            return;
        }
        let every = self.config.alarms.sleeping_scan;
        let mut next = self.clock.now().plus(every);
        loop {
            let wait = if self.is_clock_manual() {
                Duration::from_millis(50)
            } else {
                next.since(self.clock.now())
            };
            tokio::time::sleep(wait.max(Duration::from_millis(50))).await;
            let now = self.clock.now();
            if now < next {
                continue;
            }
            next = now.plus(every);
            for log in self.log.tenants() {
                if let Err(error) = self.alarms.scan_sleeping_cells(&log.tenant).await {
                    tracing::warn!(%error, tenant_id = %log.tenant, "a search for sleeping cells failed; it comes again");
                }
            }
        }
    }

    /// Retention, by the server's clock, and the log's own figures.
    async fn keep_house(&self) {
        let every = self.config.retention.interval;
        let mut next = self.clock.now().plus(every);
        loop {
            let wait = if self.is_clock_manual() {
                Duration::from_millis(50)
            } else {
                every
            };
            tokio::time::sleep(wait.max(Duration::from_millis(50))).await;
            let now = self.clock.now();
            if now < next {
                continue;
            }
            next = now.plus(every);
            if let Err(error) = self.log.trim().await {
                tracing::warn!(%error, "retention could not do its work; it tries again");
            }
            if let Err(error) = self.alarms.trim_samples().await {
                tracing::warn!(%error, "old KPI samples could not be removed; it tries again");
            }
            self.measure().await;
        }
    }

    async fn measure(&self) {
        let (mut head, mut bytes) = (0u64, 0u64);
        for log in self.log.tenants() {
            let of = log.clone();
            let held = self
                .log
                .db()
                .read(move |conn| tidings_core::log::store::bytes(conn, &of))
                .await
                .unwrap_or(0);
            head += log.head();
            bytes += held;
            if self.config.metrics.tenant_label {
                let tenant = log.tenant.to_string();
                metrics::gauge!("tidings_log_head", "tenant" => tenant.clone())
                    .set(log.head() as f64);
                metrics::gauge!("tidings_log_bytes", "tenant" => tenant).set(held as f64);
            }
        }
        if !self.config.metrics.tenant_label {
            metrics::gauge!("tidings_log_head").set(head as f64);
            metrics::gauge!("tidings_log_bytes").set(bytes as f64);
        }
    }

    /// Runs something beside the requests until the server goes down.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }
}

/// The clock that a test asked for: it stands at the system's time until it is moved.
pub(crate) fn clock(is_manual: bool) -> Clock {
    if is_manual {
        Clock::manual(Timestamp::from_micros(Clock::System.now().as_micros()))
    } else {
        Clock::System
    }
}
