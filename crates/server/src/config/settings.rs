//! The table of settings: the one place that says what can be set. Parsing, errors, `tidings config` and
//! `docs/configuration.md` all come from it.

use std::sync::LazyLock;

use tidings_core::auth::MIN_SECRET_BYTES;

use super::kind::Kind;

/// A millisecond, as [`Kind::Span`] counts.
pub(super) const MS: u64 = 1;
/// A second.
pub(super) const S: u64 = 1_000 * MS;
/// An hour.
pub(super) const H: u64 = 3_600 * S;
/// A day.
pub(super) const D: u64 = 24 * H;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The four kinds of streams that have settings of their own.
pub(super) const KINDS: [&str; 4] = ["alarms", "alerts", "notifications", "devices"];

/// What a setting's value is where nothing sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Default {
    /// None: the feature is off, or the doc line says what holds.
    None,
    /// This text.
    Text(&'static str),
    /// What the setting of this key has.
    Of(String),
}

/// Whether the code uses a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It does.
    Used,
    /// Not yet: it is read and checked, and a warning at start says that it has no effect.
    Waits(&'static str),
    /// Not yet, and a server that ran without it would deceive: start is refused.
    Refused(&'static str),
}

/// One setting.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// The dotted key.
    pub(super) key: String,
    /// What it takes.
    pub(super) kind: Kind,
    /// What it is where nothing sets it.
    pub(super) default: Default,
    /// One line of meaning.
    pub(super) doc: String,
    /// Environment names of existing deployments, the strongest first.
    pub(super) aliases: &'static [&'static str],
    /// Whether the code uses it.
    pub(super) standing: Standing,
}

impl Setting {
    /// Its own name in the environment.
    pub(super) fn environment(&self) -> String {
        format!(
            "TIDINGS_{}",
            self.key.replace('.', "_").to_ascii_uppercase()
        )
    }

    /// Gives it names of existing deployments.
    pub(super) fn aliases(mut self, names: &'static [&'static str]) -> Self {
        self.aliases = names;
        self
    }

    fn waits(mut self, for_what: &'static str) -> Self {
        self.standing = Standing::Waits(for_what);
        self
    }
}

/// A setting that is used and has no other names.
fn new(key: &str, kind: Kind, default: Default, doc: &str) -> Setting {
    Setting {
        key: key.to_owned(),
        kind,
        default,
        doc: doc.to_owned(),
        aliases: &[],
        standing: Standing::Used,
    }
}

/// A setting with a default.
pub(super) fn with(key: &str, kind: Kind, default: &'static str, doc: &str) -> Setting {
    new(key, kind, Default::Text(default), doc)
}

/// A setting without one.
pub(super) fn off(key: &str, kind: Kind, doc: &str) -> Setting {
    new(key, kind, Default::None, doc)
}

/// Every setting, in the order in which they are shown.
pub(super) static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let mut settings = general();
    settings.extend(auth());
    settings.extend(http());
    settings.extend(stream("stream"));
    for kind in KINDS {
        settings.extend(kind_of_stream(kind));
    }
    settings.extend(limits());
    settings.extend(super::alarms::settings());
    settings.extend(telemetry());
    settings.extend(devices());
    settings
});

/// The setting of a key.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.key == key)
}

fn general() -> Vec<Setting> {
    let postgres = Kind::Url(&["postgres://", "postgresql://"]);
    let mut nats = off(
        "nats_url",
        Kind::Url(&["nats://", "tls://"]),
        "NATS JetStream that carries the log between nodes.",
    );
    nats.standing = Standing::Refused(
        "NATS JetStream is not part of this version; run one node, with or without PostgreSQL",
    );
    vec![
        with(
            "listen",
            Kind::Address,
            "127.0.0.1:8080",
            "Address that the server listens on; port 0 takes a free one.",
        ),
        with(
            "data_dir",
            Kind::Path,
            "tidings-data",
            "Folder of the embedded database and of what the server keeps; made where it is missing.",
        ),
        off(
            "database_url",
            postgres,
            "PostgreSQL that holds the state; without it, a SQLite file in `data_dir`.",
        ),
        nats,
        off(
            "policies",
            Kind::Path,
            "Folder of `*.cedar` policies that replace the built-in set.",
        ),
        with(
            "idempotency.ttl",
            Kind::Span(S, 365 * D, false),
            "24h",
            "How long the answer to an `Idempotency-Key` is kept.",
        ),
        with(
            "retention.interval",
            Kind::Span(100 * MS, D, false),
            "10s",
            "Time between two rounds of removing what retention has passed.",
        ),
        with(
            "topics",
            Kind::Topics,
            "[]",
            "How long topics are kept; the first entry that matches counts, a topic that none matches is durable for 30d.",
        ),
    ]
}

fn auth() -> Vec<Setting> {
    let http = Kind::Url(&["https://", "http://"]);
    vec![
        off("auth.jwt_secret", Kind::Secret(MIN_SECRET_BYTES), "Shared secret of HS256, HS384 and HS512 tokens; `tidings keygen` makes one.").aliases(&["SECRET_KEY"]),
        off("auth.jwks_file", Kind::Path, "JWKS file with the public keys of RS*, PS256, ES* and EdDSA tokens; read again when it changes."),
        off("auth.jwks_url", http, "Address of the issuer's JWKS; without it, the one that `auth.issuer` publishes by OIDC discovery.").aliases(&["OIDC_JWKS_URL", "OIDC_JWKS_URI"]),
        off("auth.issuer", Kind::Text, "The `iss` that tokens must name; without it, any.").aliases(&["OIDC_ISSUER_URL", "OIDC_ISSUER"]),
        with("auth.audience", Kind::List, "", "The audiences of which a token's `aud` must name one; empty accepts any.").aliases(&["OIDC_AUDIENCE", "OIDC_CLIENT_ID"]),
        with("auth.cookie", Kind::CookieName, "access_token", "Name of the cookie that may carry a token.").aliases(&["OIDC_COOKIE_NAME"]),
        with("auth.query_token", Kind::Choice(&["off", "compat", "streams"]), "off", "Where `?token=` is accepted: nowhere, on the paths whose existing clients have no other way, or on all streams."),
        off("auth.default_tenant", Kind::Tenant, "Tenant of tokens that name none; without it they are refused with 403."),
        with("auth.leeway", Kind::Span(S, H, true), "30s", "How far clocks may differ when `exp` and `nbf` are checked, at connect and on open streams.").aliases(&["OIDC_CLOCK_SKEW_SECONDS"]),
        with("auth.issuer_tenants", Kind::Names, "{}", "Issuer to tenant, for tokens that name no tenant."),
        with("auth.directory", Kind::Lists, "{}", "Subject to roles, for tokens that name no role."),
        off("auth.role_scopes", Kind::Lists, "Role to scopes, for tokens that name no scope; replaces the built-in table."),
        with("auth.local_users", Kind::Switch, "false", "Whether users of `tidings user` sign in here with a password (`/api/v1/auth/token`); needs `auth.jwt_secret`."),
        with("auth.jwks_refresh", Kind::Span(S, 7 * D, false), "5m", "How long fetched keys are used before they are fetched again."),
        with("auth.jwks_floor", Kind::Span(S, D, false), "60s", "Shortest time between two fetches that an unknown `kid` causes."),
        with("auth.claims.subject", Kind::Claims, "sub", "Where a token names its subject; of several paths the first that is there counts."),
        with("auth.claims.tenant", Kind::Claims, "tenant_id,company_id", "Where a token names its tenant."),
        with("auth.claims.roles", Kind::Claims, "roles,role,realm_access.roles,resource_access.<audience>.roles", "Where a token names its roles; `<audience>` stands for the audience."),
        with("auth.claims.scopes", Kind::Claims, "scope,scopes", "Where a token names its scopes."),
        with("auth.claims.patient_ids", Kind::Claims, "patient_ids", "Where a token names the patients that its subject may see."),
    ]
}

fn http() -> Vec<Setting> {
    vec![
        with("http.allowed_origins", Kind::Origins, "", "Origins of front ends that may call from a browser (CORS, WebSocket, cookies); the server's own always may.").aliases(&["ALLOWED_ORIGINS"]),
        off("tls.cert", Kind::Path, "PEM file with the certificate chain; with `tls.key` it switches TLS on, and is read again when it changes."),
        off("tls.key", Kind::Path, "PEM file with the certificate's private key."),
        with("drain.spread", Kind::Span(S, H, true), "10s", "Time over which the clients of a server that stops are told to come back."),
        with("drain.grace", Kind::Span(MS, H, true), "2s", "How long a server that stops still answers late comers."),
    ]
}

/// Every setting of a stream as (name, kind, default, doc).
const STREAM: [(&str, Kind, &str, &str); 9] = [
    (
        "heartbeat",
        Kind::Span(S, D, true),
        "30s",
        "Silence after which a stream sends a heartbeat.",
    ),
    (
        "idle",
        Kind::Span(S, 365 * D, true),
        "0",
        "Time without data after which a stream is closed.",
    ),
    (
        "max_connections",
        Kind::Count(1, 10_000_000, true),
        "100000",
        "Most open streams on this node; SSE, WebSocket and waiting polls together.",
    ),
    (
        "max_connections_per_tenant",
        Kind::Count(1, 10_000_000, true),
        "0",
        "Most open streams of one tenant.",
    ),
    (
        "max_connections_per_user",
        Kind::Count(1, 10_000_000, true),
        "0",
        "Most open streams of one subject.",
    ),
    (
        "queue_size",
        Kind::Count(1, 1_000_000, false),
        "100",
        "Events that a reader may be behind in memory before it reads from the log (ephemeral topics: before it is told `dropped`).",
    ),
    (
        "queue_bytes",
        Kind::Bytes(KIB, GIB, false),
        "1MiB",
        "Bytes that a reader may be behind in memory; as `queue_size`.",
    ),
    (
        "write_timeout",
        Kind::Span(S, D, true),
        "30s",
        "Time after which a reader that takes nothing is closed.",
    ),
    (
        "retry",
        Kind::Span(S, H, false),
        "2s",
        "Time after which a client is told to come back, before jitter.",
    ),
];

fn stream(prefix: &str) -> Vec<Setting> {
    let settings = STREAM.iter();
    settings
        .map(|&(name, kind, default, doc)| with(&format!("{prefix}.{name}"), kind, default, doc))
        .collect()
}

/// A kind's own settings: what it does not set is as under `stream`.
fn kind_of_stream(name: &str) -> Vec<Setting> {
    let standing = match name {
        "alarms" => Standing::Used,
        "alerts" => Standing::Waits("the alert streams are not part of this version"),
        "notifications" => Standing::Waits("the notification streams are not part of this version"),
        _ => Standing::Waits("the device streams are not part of this version"),
    };
    let mut settings = stream(&format!("stream.{name}"));
    for (setting, (member, ..)) in settings.iter_mut().zip(STREAM) {
        setting.doc = format!("`stream.{member}` for the streams of {name}.");
        setting.standing = standing;
        setting.default = match (name, member) {
            ("alarms", "idle") => Default::Text("5m"),
            ("alarms", "max_connections") => Default::Text("100"),
            ("notifications", "max_connections_per_user") => Default::Text("5"),
            ("devices", "heartbeat") => Default::Text("15s"),
            _ => Default::Of(format!("stream.{member}")),
        };
        setting.aliases = match (name, member) {
            ("alarms", "heartbeat") => &["SSE_HEARTBEAT_INTERVAL_SECONDS"],
            ("alarms", "idle") => &["SSE_MAX_IDLE_SECONDS"],
            ("alarms", "max_connections") => &["SSE_MAX_CONNECTIONS"],
            ("notifications", "heartbeat") => &["SSE_KEEPALIVE_TIMEOUT"],
            ("notifications", "max_connections_per_user") => &["SSE_MAX_CONNECTIONS_PER_USER"],
            ("notifications", "queue_size") => &["SSE_QUEUE_SIZE"],
            _ => &[],
        };
    }
    settings
}

fn limits() -> Vec<Setting> {
    vec![
        with(
            "limits.body",
            Kind::Bytes(KIB, GIB, false),
            "16MiB",
            "Largest body of a publish; more is answered 413.",
        ),
        with(
            "limits.body_other",
            Kind::Bytes(KIB, GIB, false),
            "1MiB",
            "Largest body of every other request.",
        ),
        with(
            "limits.event",
            Kind::Bytes(KIB, GIB, false),
            "512KiB",
            "Largest single event.",
        ),
        with(
            "limits.batch",
            Kind::Count(1, 1_000_000, false),
            "10000",
            "Most events in one publish.",
        ),
        with(
            "limits.headers",
            Kind::Bytes(8 * KIB, MIB, false),
            "16KiB",
            "Largest head of a request; more is answered 431.",
        ),
        with(
            "limits.json_depth",
            Kind::Count(2, 120, false),
            "64",
            "Deepest nesting of JSON.",
        ),
    ]
}

fn telemetry() -> Vec<Setting> {
    vec![
        with(
            "log.format",
            Kind::Choice(&["auto", "json", "text"]),
            "auto",
            "How records are written to standard error: JSON lines, text for people, or text only on a terminal.",
        ),
        with(
            "log.level",
            Kind::LogFilter,
            "info",
            "Least level that is logged, for all or per target.",
        ),
        off(
            "otlp.endpoint",
            Kind::Url(&["http://", "https://"]),
            "OTLP collector (HTTP, protobuf) that traces are sent to, such as http://localhost:4318; without it nothing is traced.",
        ),
        off(
            "metrics.listen",
            Kind::Address,
            "Address of a listener of its own for `/metrics`, which then leaves the public one.",
        ),
        with(
            "metrics.tenant_label",
            Kind::Switch,
            "false",
            "Whether metrics carry the tenant as a label; `/metrics` needs no token.",
        ),
    ]
}

fn devices() -> Vec<Setting> {
    let mqtt = "the MQTT source is not part of this version";
    let search = "the Elasticsearch sink is not part of this version";
    vec![
        off(
            "devices.mqtt.url",
            Kind::Url(&["mqtt://", "mqtts://"]),
            "Broker that device logs come from.",
        )
        .aliases(&["MQTT_URL"])
        .waits(mqtt),
        off(
            "devices.mqtt.client_id",
            Kind::Text,
            "Client id at the broker; it names the persistent session.",
        )
        .aliases(&["MQTT_CLIENT_ID"])
        .waits(mqtt),
        off("devices.mqtt.username", Kind::Text, "User at the broker.")
            .aliases(&["MQTT_USERNAME"])
            .waits(mqtt),
        off(
            "devices.mqtt.password",
            Kind::Secret(0),
            "Password at the broker.",
        )
        .aliases(&["MQTT_PASSWORD"])
        .waits(mqtt),
        off(
            "devices.elasticsearch.url",
            Kind::Url(&["http://", "https://"]),
            "Elasticsearch or OpenSearch that device logs are copied to.",
        )
        .aliases(&["ELASTICSEARCH_URL"])
        .waits(search),
        off(
            "devices.elasticsearch.username",
            Kind::Text,
            "User at Elasticsearch.",
        )
        .aliases(&["ELASTICSEARCH_USERNAME"])
        .waits(search),
        off(
            "devices.elasticsearch.password",
            Kind::Secret(0),
            "Password at Elasticsearch.",
        )
        .aliases(&["ELASTICSEARCH_PASSWORD"])
        .waits(search),
        off(
            "devices.elasticsearch.index_pattern",
            Kind::Text,
            "Pattern of the daily indexes.",
        )
        .aliases(&["ELASTICSEARCH_INDEX_PATTERN"])
        .waits(search),
        off(
            "devices.internal_api_url",
            Kind::Url(&["http://", "https://"]),
            "Server that `tidings nudge` calls.",
        )
        .aliases(&["INTERNAL_API_URL"])
        .waits("`tidings nudge` is not part of this version"),
    ]
}

/// Names of existing deployments that look like ours but set nothing here, with what they did there.
pub(super) const FOREIGN_PREFIXES: [(&str, &str); 2] = [
    ("OIDC_", "tidings checks tokens and does not sign people in"),
    (
        "ELASTICSEARCH_",
        "the Elasticsearch sink is not part of this version",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::input::Input;

    #[test]
    fn keys_names_and_aliases_are_distinct_and_documented() {
        let mut names = BTreeSet::new();
        for setting in SETTINGS.iter() {
            assert!(names.insert(setting.environment()), "{}", setting.key);
            for alias in setting.aliases {
                assert!(names.insert((*alias).to_owned()), "{alias}");
                assert_eq!(*alias, alias.to_ascii_uppercase());
            }
            assert!(
                setting.doc.ends_with('.') && !setting.doc.contains('\n'),
                "{}",
                setting.key
            );
        }
    }

    #[test]
    fn defaults_are_values_that_their_setting_takes() {
        for setting in SETTINGS.iter() {
            match &setting.default {
                Default::Text(text) => {
                    let read = setting.kind.read(&Input::Raw((*text).to_owned()));
                    assert!(read.is_ok(), "{}: {read:?}", setting.key);
                }
                Default::Of(key) => assert!(find(key).is_some(), "{key}"),
                Default::None => {}
            }
        }
    }
}
