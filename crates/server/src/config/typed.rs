//! From settled values to the typed [`Config`], and the rules that hold between settings.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use tidings_core::auth::{AuthConfig, Claims};
use tidings_core::retention::TopicRule;
use tidings_core::tenant::Tenant;

use super::error::{ConfigError, ConfigErrors};
use super::resolve::{Settled, get};
use super::value::Value;
use super::{
    AuthSection, Config, DrainSection, HttpSection, Kinds, LimitsSection, LogFormat, LogSection,
    MetricsSection, QueryToken, RetentionSection, StreamSection, TlsSection,
};

/// Takes values by key. A key without a value of the right kind is a mistake in the table: noted, never a panic.
pub(super) struct Values<'a> {
    settled: &'a Settled,
    mistakes: RefCell<Vec<String>>,
}

macro_rules! take {
    ($($name:ident: $variant:ident => $type:ty;)*) => {$(
        /// The value of a key of this kind.
        pub(super) fn $name(&self, key: &str) -> Option<$type> {
            match get(&self.settled.all, key).and_then(|r| r.value.clone()) {
                Some(Value::$variant(value)) => Some(value),
                Some(_) => {
                    self.mistakes.borrow_mut().push(key.to_owned());
                    None
                }
                None => None,
            }
        }
    )*};
}

impl Values<'_> {
    take! {
        text: Text => String;
        secret: Secret => SecretString;
        url: Url => String;
        path: Path => PathBuf;
        address: Address => SocketAddr;
        tenant: Tenant => Tenant;
        switch: Switch => bool;
        span: Span => Duration;
        count: Count => u64;
        bytes: Bytes => u64;
        list: List => Vec<String>;
        names: Names => BTreeMap<String, String>;
        lists: Lists => BTreeMap<String, Vec<String>>;
        topics: Topics => Vec<TopicRule>;
    }

    /// The value of a setting that has a default.
    pub(super) fn must<T: Default>(&self, key: &str, value: Option<T>) -> T {
        value.unwrap_or_else(|| {
            self.mistakes.borrow_mut().push(key.to_owned());
            T::default()
        })
    }

    /// The same for a time.
    pub(super) fn must_span(&self, key: &str) -> Duration {
        self.must(key, self.span(key))
    }

    /// The same for a list.
    pub(super) fn must_list(&self, key: &str) -> Vec<String> {
        self.must(key, self.list(key))
    }

    fn must_size(&self, key: &str) -> usize {
        let number = self.count(key);
        usize::try_from(self.must(key, number)).unwrap_or(usize::MAX)
    }

    fn must_bytes(&self, key: &str) -> usize {
        usize::try_from(self.must(key, self.bytes(key))).unwrap_or(usize::MAX)
    }
}

pub(super) fn build(settled: &Settled) -> Result<Config, ConfigErrors> {
    let v = Values {
        settled,
        mistakes: RefCell::new(Vec::new()),
    };
    let mut errors = Vec::new();
    let listen = v.address("listen").unwrap_or_else(|| {
        v.mistakes.borrow_mut().push("listen".to_owned());
        SocketAddr::from(([127, 0, 0, 1], 8080))
    });
    let config = Config {
        listen,
        data_dir: v.must("data_dir", v.path("data_dir")),
        database_url: v.url("database_url").map(SecretString::from),
        auth: auth(&v),
        http: HttpSection {
            allowed_origins: v.must_list("http.allowed_origins"),
        },
        tls: tls(&v, &mut errors),
        policies: v.path("policies"),
        stream: stream(&v, "stream"),
        kinds: Kinds {
            alarms: stream(&v, "stream.alarms"),
            alerts: stream(&v, "stream.alerts"),
            notifications: stream(&v, "stream.notifications"),
            devices: stream(&v, "stream.devices"),
        },
        drain: DrainSection {
            spread: v.must_span("drain.spread"),
            grace: v.must_span("drain.grace"),
        },
        limits: limits(&v),
        alarms: super::alarms::build(&v),
        retention: RetentionSection {
            interval: v.must_span("retention.interval"),
            topics: v.must("topics", v.topics("topics")),
        },
        idempotency_ttl: v.must_span("idempotency.ttl"),
        log: log(&v),
        otlp_endpoint: v.url("otlp.endpoint"),
        metrics: MetricsSection {
            listen: v.address("metrics.listen"),
            tenant_label: v.must("metrics.tenant_label", v.switch("metrics.tenant_label")),
        },
    };
    check(&config, &mut errors);
    errors.extend(v.mistakes.into_inner().into_iter().map(|key| {
        ConfigError::Together(format!(
            "setting {key}: the table of settings is wrong (a bug)"
        ))
    }));
    if errors.is_empty() {
        Ok(config)
    } else {
        Err(ConfigErrors(errors))
    }
}

fn auth(v: &Values<'_>) -> AuthSection {
    let standard = AuthConfig::default();
    let query_token = match v.text("auth.query_token").as_deref() {
        Some("compat") => QueryToken::Compat,
        Some("streams") => QueryToken::Streams,
        _ => QueryToken::Off,
    };
    AuthSection {
        core: AuthConfig {
            jwt_secret: v.secret("auth.jwt_secret"),
            jwks_file: v.path("auth.jwks_file"),
            jwks_url: v.url("auth.jwks_url"),
            issuer: v.text("auth.issuer"),
            audience: v.must_list("auth.audience"),
            default_tenant: v.tenant("auth.default_tenant"),
            leeway: v.must_span("auth.leeway"),
            claims: Claims {
                subject: v.must_list("auth.claims.subject"),
                tenant: v.must_list("auth.claims.tenant"),
                roles: v.must_list("auth.claims.roles"),
                scopes: v.must_list("auth.claims.scopes"),
                patient_ids: v.must_list("auth.claims.patient_ids"),
            },
            issuer_tenants: v.must("auth.issuer_tenants", v.names("auth.issuer_tenants")),
            directory: v.must("auth.directory", v.lists("auth.directory")),
            role_scopes: v.lists("auth.role_scopes").unwrap_or(standard.role_scopes),
            jwks_refresh: v.must_span("auth.jwks_refresh"),
            jwks_floor: v.must_span("auth.jwks_floor"),
        },
        cookie: v.must("auth.cookie", v.text("auth.cookie")),
        query_token,
        local_users: v.must("auth.local_users", v.switch("auth.local_users")),
    }
}

fn tls(v: &Values<'_>, errors: &mut Vec<ConfigError>) -> Option<TlsSection> {
    match (v.path("tls.cert"), v.path("tls.key")) {
        (Some(cert), Some(key)) => Some(TlsSection { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            let text = "setting tls.cert is set and tls.key is not: TLS needs both";
            errors.push(ConfigError::Together(text.to_owned()));
            None
        }
        (None, Some(_)) => {
            let text = "setting tls.key is set and tls.cert is not: TLS needs both";
            errors.push(ConfigError::Together(text.to_owned()));
            None
        }
    }
}

fn stream(v: &Values<'_>, prefix: &str) -> StreamSection {
    let key = |name: &str| format!("{prefix}.{name}");
    StreamSection {
        heartbeat: v.must_span(&key("heartbeat")),
        idle: v.must_span(&key("idle")),
        max_connections: v.must_size(&key("max_connections")),
        max_connections_per_tenant: v.must_size(&key("max_connections_per_tenant")),
        max_connections_per_user: v.must_size(&key("max_connections_per_user")),
        queue_size: v.must_size(&key("queue_size")),
        queue_bytes: v.must(&key("queue_bytes"), v.bytes(&key("queue_bytes"))),
        write_timeout: v.must_span(&key("write_timeout")),
        retry: v.must_span(&key("retry")),
    }
}

fn limits(v: &Values<'_>) -> LimitsSection {
    LimitsSection {
        body: v.must_bytes("limits.body"),
        body_other: v.must_bytes("limits.body_other"),
        event: v.must_bytes("limits.event"),
        batch: v.must_size("limits.batch"),
        headers: v.must_bytes("limits.headers"),
        json_depth: v.must_size("limits.json_depth"),
    }
}

fn log(v: &Values<'_>) -> LogSection {
    LogSection {
        format: match v.text("log.format").as_deref() {
            Some("json") => LogFormat::Json,
            Some("text") => LogFormat::Text,
            _ => LogFormat::Auto,
        },
        level: v.must("log.level", v.text("log.level")),
    }
}

/// The rules between settings.
fn check(config: &Config, errors: &mut Vec<ConfigError>) {
    if config.limits.event > config.limits.body {
        let text = "setting limits.event is larger than limits.body: no such event could come in";
        errors.push(ConfigError::Together(text.to_owned()));
    }
    let auth = &config.auth.core;
    if config.auth.local_users && auth.jwt_secret.is_none() {
        let text =
            "setting auth.local_users is on and auth.jwt_secret is not set: it signs their tokens";
        errors.push(ConfigError::Together(text.to_owned()));
    }
    if auth.jwks_file.is_some() && auth.jwks_url.is_some() {
        let text =
            "settings auth.jwks_file and auth.jwks_url are both set: keys come from one place";
        errors.push(ConfigError::Together(text.to_owned()));
    }
    if config
        .metrics
        .listen
        .is_some_and(|a| a == config.listen && a.port() != 0)
    {
        let text = "setting metrics.listen is the same address as listen";
        errors.push(ConfigError::Together(text.to_owned()));
    }
}

/// What is allowed but probably not meant.
pub(super) fn doubts(config: &Config) -> Vec<String> {
    let auth = &config.auth.core;
    let mut doubts = Vec::new();
    let has_keys = auth.jwt_secret.is_some()
        || auth.jwks_file.is_some()
        || auth.jwks_url.is_some()
        || auth.issuer.is_some();
    if !has_keys {
        let text = "no token can be accepted: set auth.jwt_secret, auth.jwks_file, auth.jwks_url or auth.issuer";
        doubts.push(text.to_owned());
    }
    if config.tls.is_none() && !config.listen.ip().is_loopback() {
        let text = "listening beyond this machine without TLS: tokens are readable on the way unless a proxy in front encrypts";
        doubts.push(text.to_owned());
    }
    doubts
}
