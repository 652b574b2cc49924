//! Configuration: a TOML file < the environment < flags, over one table of settings.
//!
//! - `settings`: the table: every key with its kind, default, doc line, aliases
//! - `alarms`: the alarms module's part of the table
//! - `input`, `kind`, `value`, `units`, `topics`: what is written, what a setting takes, what it holds
//! - `sources`, `resolve`: the layers, and which of them wins
//! - `explain`: `tidings config`, and `docs/configuration.md`
//! - here: the typed [`Config`] that the rest of the server reads

mod alarms;
mod error;
mod explain;
mod input;
mod kind;
mod resolve;
mod settings;
mod sources;
mod suggest;
#[cfg(test)]
mod tests;
mod topics;
mod typed;
mod units;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tidings_core::auth::AuthConfig;
use tidings_core::db::Target;
use tidings_core::retention::TopicRule;

pub(crate) use error::ConfigErrors;
pub(crate) use explain::markdown;
pub(crate) use sources::{CA, FlagValue, Sources, TOKEN, URL};
pub(crate) use units::parse_duration;

/// Everything that can be set, checked. Each field is the setting of its name; [`settings`](self) documents them.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Address that the server listens on.
    pub(crate) listen: SocketAddr,
    /// Folder of the embedded database and of what the server keeps.
    pub(crate) data_dir: PathBuf,
    /// PostgreSQL that holds the state; without it, SQLite in `data_dir`.
    pub(crate) database_url: Option<SecretString>,
    /// Who may come in.
    pub(crate) auth: AuthSection,
    /// What browsers may do.
    pub(crate) http: HttpSection,
    /// TLS, where it is on.
    pub(crate) tls: Option<TlsSection>,
    /// Folder of policies that replace the built-in set.
    pub(crate) policies: Option<PathBuf>,
    /// Streams of no kind of their own.
    pub(crate) stream: StreamSection,
    /// Streams of the four kinds.
    pub(crate) kinds: Kinds,
    /// How the server stops.
    pub(crate) drain: DrainSection,
    /// What a request may hold.
    pub(crate) limits: LimitsSection,
    /// `alarms.*`, `correlation.*`, `incidents.*` and `sleeping.*`.
    pub(crate) alarms: tidings_alarms::Config,
    /// How long events are kept.
    pub(crate) retention: RetentionSection,
    /// How long the answer to an `Idempotency-Key` is kept.
    pub(crate) idempotency_ttl: Duration,
    /// What is logged, and how.
    pub(crate) log: LogSection,
    /// OTLP collector that traces are sent to.
    pub(crate) otlp_endpoint: Option<String>,
    /// Where metrics are served.
    pub(crate) metrics: MetricsSection,
}

/// `auth.*`.
#[derive(Debug, Clone)]
pub(crate) struct AuthSection {
    /// How tokens are checked and read.
    pub(crate) core: AuthConfig,
    /// Name of the cookie that may carry a token.
    pub(crate) cookie: String,
    /// Where `?token=` is accepted.
    pub(crate) query_token: QueryToken,
    /// Whether people sign in here.
    pub(crate) local_users: bool,
}

/// Where a token in the query is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryToken {
    /// Nowhere.
    Off,
    /// On the paths whose existing clients have no other way.
    Compat,
    /// On all streams.
    Streams,
}

/// `http.*`.
#[derive(Debug, Clone)]
pub(crate) struct HttpSection {
    /// Foreign origins that may call, as browsers send them: no path, no default port, small letters.
    pub(crate) allowed_origins: Vec<String>,
}

/// `tls.*`.
#[derive(Debug, Clone)]
pub(crate) struct TlsSection {
    /// PEM file with the certificate chain.
    pub(crate) cert: PathBuf,
    /// PEM file with the private key.
    pub(crate) key: PathBuf,
}

/// `stream.*`, or that of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamSection {
    /// Silence after which a heartbeat is sent; zero is never.
    pub(crate) heartbeat: Duration,
    /// Time without data after which a stream is closed; zero is never.
    pub(crate) idle: Duration,
    /// Most open streams on this node; zero is any number.
    pub(crate) max_connections: usize,
    /// Most open streams of a tenant; zero is any number.
    pub(crate) max_connections_per_tenant: usize,
    /// Most open streams of a subject; zero is any number.
    pub(crate) max_connections_per_user: usize,
    /// Events that a reader may be behind in memory.
    pub(crate) queue_size: usize,
    /// Bytes that a reader may be behind in memory.
    pub(crate) queue_bytes: u64,
    /// Time after which a reader that takes nothing is closed; zero is never.
    pub(crate) write_timeout: Duration,
    /// Time after which a client is told to come back, before jitter; at least one second.
    pub(crate) retry: Duration,
}

/// The streams of each kind.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "the other modules will read theirs; until then setting one is warned about"
    )
)]
pub(crate) struct Kinds {
    /// `stream.alarms.*`.
    pub(crate) alarms: StreamSection,
    /// `stream.alerts.*`.
    pub(crate) alerts: StreamSection,
    /// `stream.notifications.*`.
    pub(crate) notifications: StreamSection,
    /// `stream.devices.*`.
    pub(crate) devices: StreamSection,
}

/// `drain.*`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DrainSection {
    /// Time over which clients are told to come back.
    pub(crate) spread: Duration,
    /// How long late comers are still answered.
    pub(crate) grace: Duration,
}

/// `limits.*`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitsSection {
    /// Largest body of a publish, in bytes.
    pub(crate) body: usize,
    /// Largest body of every other request, in bytes.
    pub(crate) body_other: usize,
    /// Largest single event, in bytes.
    pub(crate) event: usize,
    /// Most events in one publish.
    pub(crate) batch: usize,
    /// Largest head of a request, in bytes.
    pub(crate) headers: usize,
    /// Deepest nesting of JSON.
    pub(crate) json_depth: usize,
}

/// `retention.*` and `[[topics]]`.
#[derive(Debug, Clone)]
pub(crate) struct RetentionSection {
    /// Time between two rounds.
    pub(crate) interval: Duration,
    /// The rules in their order of precedence.
    pub(crate) topics: Vec<TopicRule>,
}

/// `log.*`.
#[derive(Debug, Clone)]
pub(crate) struct LogSection {
    /// How records are written.
    pub(crate) format: LogFormat,
    /// Directives of the filter.
    pub(crate) level: String,
}

/// How log records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Text on a terminal, else JSON lines.
    Auto,
    /// JSON lines.
    Json,
    /// Text for people.
    Text,
}

/// `metrics.*`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetricsSection {
    /// Address of a listener of its own.
    pub(crate) listen: Option<SocketAddr>,
    /// Whether metrics carry the tenant.
    pub(crate) tenant_label: bool,
}

/// A checked configuration, where each value came from, and what to warn about.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// The configuration.
    pub(crate) config: Config,
    /// What should be said once at start, a sentence each.
    pub(crate) warnings: Vec<String>,
    settled: resolve::Settled,
}

/// Reads all sources. An error names everything that is wrong.
pub(crate) fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let settled = resolve::settle(sources)?;
    let config = typed::build(&settled)?;
    let mut warnings = settled.warnings.clone();
    warnings.extend(typed::doubts(&config));
    Ok(Loaded {
        config,
        warnings,
        settled,
    })
}

impl Config {
    /// Where the state lives: PostgreSQL if it is set, else `tidings.db` in the data folder.
    pub(crate) fn database(&self) -> Target {
        match &self.database_url {
            Some(url) => Target::Postgres(url.expose_secret().to_owned()),
            None => Target::Sqlite(self.data_dir.join("tidings.db")),
        }
    }
}
