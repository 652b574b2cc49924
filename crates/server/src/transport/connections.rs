//! Every open connection: who, on what, until when. Admits, lists, closes, and follows what its credential is worth.
//!
//! Rights are asked for at connect, and again whenever something that they depend on changes: the token's time, a
//! revocation, the policies, a refresh. A connection that is no longer entitled to anything is closed; one that has lost
//! a part goes on without it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tidings_core::auth::{Action, Policies, PolicyStore, Principal, Revocations};
use tidings_core::clock::{Clock, Timestamp};
use tidings_core::cursor::{Cursor, Seq};
use tidings_core::hub::Rights;
use tidings_core::log::TenantLog;
use tidings_core::tenant::Tenant;
use tidings_core::topic::{Pattern, Patterns, Topic};
use tokio::sync::Notify;
use uuid::Uuid;

use super::frame::Reason;
use crate::config::StreamSection;

/// How events reach the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    /// Server-Sent Events.
    Sse,
    /// WebSocket.
    Websocket,
    /// A waiting long-poll.
    LongPoll,
}

impl Transport {
    /// The word in metrics and in the API.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Websocket => "websocket",
            Self::LongPoll => "long_poll",
        }
    }
}

/// Which limit a connection would be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The node's: 503.
    Node(usize),
    /// The tenant's: 503.
    Tenant(usize),
    /// The user's: 429.
    User(usize),
}

impl Refused {
    /// The word in metrics.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Node(_) => "node_limit",
            Self::Tenant(_) => "tenant_limit",
            Self::User(_) => "user_limit",
        }
    }
}

/// What a connection is told to do by somebody else.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// End, with a last frame that says why.
    Close(Reason),
    /// Go on with what the policy still allows.
    Narrow {
        /// That.
        scope: Scope,
        /// What is gone.
        lost: Vec<Pattern>,
    },
}

/// What a principal may read of what was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// The patterns that can lead to something.
    pub(crate) patterns: Patterns,
    /// What may be seen of them.
    pub(crate) rights: Rights,
    /// Equal for equal scopes.
    class: Option<Arc<str>>,
}

impl Scope {
    /// Asks the policies. What is forbidden comes beside what is left.
    #[must_use]
    pub(crate) fn of(
        policies: &Arc<Policies>,
        version: u64,
        principal: &Arc<Principal>,
        asked: &Patterns,
    ) -> (Self, Vec<Pattern>) {
        let (mut allowed, mut lost, mut is_exact) = (Vec::new(), Vec::new(), true);
        for pattern in asked.as_slice() {
            let may = match pattern.as_topic() {
                Some(topic) => policies.allows(principal, Action::Subscribe, &topic),
                None => {
                    is_exact = false;
                    policies.may_allow(principal, Action::Subscribe, pattern)
                }
            };
            if may {
                allowed.push(pattern.clone());
            } else {
                lost.push(pattern.clone());
            }
        }
        let patterns = Patterns::new(allowed);
        if is_exact {
            return (
                Self {
                    patterns,
                    rights: Rights::All,
                    class: None,
                },
                lost,
            );
        }
        let of = policies.class(principal);
        let class: Arc<str> = format!("{version}:{of:?}").into();
        let (policies, principal) = (policies.clone(), principal.clone());
        let admits = Arc::new(move |topic: &str| {
            Topic::new(topic).is_ok_and(|topic| {
                policies.allows_class(&of, &principal, Action::Subscribe, &topic)
            })
        });
        let rights = Rights::Filtered {
            class: class.clone(),
            admits,
        };
        (
            Self {
                patterns,
                rights,
                class: Some(class),
            },
            lost,
        )
    }

    fn is_same(&self, other: &Self) -> bool {
        self.patterns == other.patterns && self.class == other.class
    }
}

/// How a connection's driver is woken when there is an order for it.
pub(crate) type Wake = Box<dyn Fn() + Send + Sync>;

#[derive(Debug)]
struct State {
    principal: Arc<Principal>,
    /// What was asked for, whatever the policy says of it today.
    asked: Patterns,
    scope: Scope,
    orders: Vec<Order>,
}

/// One open connection.
pub(crate) struct Connection {
    /// Its id.
    pub(crate) id: Uuid,
    /// How events reach it.
    pub(crate) transport: Transport,
    /// Its kind of stream, as `native`.
    pub(crate) kind: &'static str,
    /// The tenant's log.
    pub(crate) log: Arc<TenantLog>,
    /// When it was opened.
    pub(crate) connected_at: Timestamp,
    remote: SocketAddr,
    user_agent: Option<Box<str>>,
    subject: Arc<str>,
    state: Mutex<State>,
    seq: AtomicU64,
    wake: Mutex<Option<Wake>>,
    notify: Notify,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// The orders that have come since the last call.
    #[must_use]
    pub(crate) fn take_orders(&self) -> Vec<Order> {
        std::mem::take(&mut self.state.lock().orders)
    }

    /// Waits until there is an order, for a driver that is a task.
    pub(crate) async fn ordered(&self) {
        self.notify.notified().await;
    }

    /// Says how a driver that is no task is woken.
    pub(crate) fn on_wake(&self, wake: Wake) {
        *self.wake.lock() = Some(wake);
    }

    /// Notes where the client stands, for the list.
    pub(crate) fn set_seq(&self, seq: Seq) {
        self.seq.store(seq, Ordering::Relaxed);
    }

    /// Who it belongs to.
    #[must_use]
    pub(crate) fn principal(&self) -> Arc<Principal> {
        self.state.lock().principal.clone()
    }

    /// What it asked for.
    #[must_use]
    pub(crate) fn asked(&self) -> Patterns {
        self.state.lock().asked.clone()
    }

    /// It asks for something else now (WebSocket `subscribe` and `unsubscribe`).
    pub(crate) fn set_scope(&self, asked: Patterns, scope: Scope) {
        let mut state = self.state.lock();
        state.asked = asked;
        state.scope = scope;
    }

    fn order(&self, order: Order) {
        self.state.lock().orders.push(order);
        match &*self.wake.lock() {
            Some(wake) => wake(),
            None => self.notify.notify_one(),
        }
    }
}

/// A connection as the API lists it.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectionInfo {
    /// Its id.
    pub(crate) connection_id: String,
    /// `sse`, `websocket` or `long_poll`.
    pub(crate) transport: Transport,
    /// Its kind of stream.
    pub(crate) kind: &'static str,
    /// Who.
    pub(crate) subject: String,
    /// What it asked for.
    pub(crate) topics: Vec<String>,
    /// Where it stands.
    pub(crate) cursor: String,
    /// How many places of the log it has not seen.
    pub(crate) behind: u64,
    /// Since when.
    pub(crate) connected_at: String,
    /// When its credential ends.
    pub(crate) expires_at: String,
    /// From where.
    pub(crate) remote: String,
    /// With what.
    pub(crate) user_agent: Option<String>,
}

#[derive(Default)]
struct Table {
    by_id: HashMap<Uuid, Arc<Connection>>,
    per_tenant: HashMap<Tenant, usize>,
    per_user: HashMap<(Tenant, Arc<str>), usize>,
    per_kind: HashMap<&'static str, usize>,
    expiries: BTreeMap<(Timestamp, Uuid), Arc<Connection>>,
}

struct Shared {
    clock: Clock,
    leeway: Duration,
    policies: PolicyStore,
    revocations: Revocations,
    table: Mutex<Table>,
}

/// All open connections of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Shared>);

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connections")
    }
}

/// What a connection is admitted for.
#[derive(Debug)]
pub(crate) struct Application {
    /// How events reach it.
    pub(crate) transport: Transport,
    /// Its kind of stream.
    pub(crate) kind: &'static str,
    /// The tenant's log.
    pub(crate) log: Arc<TenantLog>,
    /// Who.
    pub(crate) principal: Arc<Principal>,
    /// What is asked for.
    pub(crate) asked: Patterns,
    /// What of it is allowed.
    pub(crate) scope: Scope,
    /// From where.
    pub(crate) remote: SocketAddr,
    /// With what.
    pub(crate) user_agent: Option<Box<str>>,
}

/// Holds a connection's place; dropping it frees all that it held, exactly once.
#[derive(Debug)]
pub(crate) struct Admitted {
    connections: Connections,
    /// The connection.
    pub(crate) connection: Arc<Connection>,
}

impl Connections {
    /// No connections yet. `leeway` is how long after its token's end a connection may stay.
    #[must_use]
    pub(crate) fn new(
        clock: Clock,
        leeway: Duration,
        policies: PolicyStore,
        revocations: Revocations,
    ) -> Self {
        let shared = Shared {
            clock,
            leeway,
            policies,
            revocations,
            table: Mutex::default(),
        };
        Self(Arc::new(shared))
    }

    /// Asks today's policies what a principal may read of what it asks for.
    #[must_use]
    pub(crate) fn scope(
        &self,
        principal: &Arc<Principal>,
        asked: &Patterns,
    ) -> (Scope, Vec<Pattern>) {
        let version = *self.0.policies.changes().borrow();
        Scope::of(&self.0.policies.current(), version, principal, asked)
    }

    /// Takes a connection in, unless a limit stands against it.
    pub(crate) fn admit(
        &self,
        limits: &StreamSection,
        by: Application,
    ) -> Result<Admitted, Refused> {
        let user = (by.principal.tenant.clone(), by.principal.subject.clone());
        let mut table = self.0.table.lock();
        let count = |limit: usize, held: usize| limit > 0 && held >= limit;
        let refused = if count(
            limits.max_connections,
            table.per_kind.get(by.kind).copied().unwrap_or(0),
        ) {
            Some(Refused::Node(limits.max_connections))
        } else if count(
            limits.max_connections_per_tenant,
            table.per_tenant.get(&user.0).copied().unwrap_or(0),
        ) {
            Some(Refused::Tenant(limits.max_connections_per_tenant))
        } else if count(
            limits.max_connections_per_user,
            table.per_user.get(&user).copied().unwrap_or(0),
        ) {
            Some(Refused::User(limits.max_connections_per_user))
        } else {
            None
        };
        if let Some(refused) = refused {
            metrics::counter!("tidings_refused_connections_total", "reason" => refused.as_str())
                .increment(1);
            return Err(refused);
        }
        let connection = Arc::new(Connection {
            id: Uuid::new_v4(),
            transport: by.transport,
            kind: by.kind,
            seq: AtomicU64::new(by.log.head()),
            log: by.log,
            connected_at: self.0.clock.now(),
            remote: by.remote,
            user_agent: by.user_agent,
            subject: by.principal.subject.clone(),
            state: Mutex::new(State {
                principal: by.principal,
                asked: by.asked,
                scope: by.scope,
                orders: Vec::new(),
            }),
            wake: Mutex::new(None),
            notify: Notify::new(),
        });
        *table.per_kind.entry(by.kind).or_default() += 1;
        *table.per_tenant.entry(user.0.clone()).or_default() += 1;
        *table.per_user.entry(user).or_default() += 1;
        table.expiries.insert(
            (self.expiry(&connection.principal()), connection.id),
            connection.clone(),
        );
        table.by_id.insert(connection.id, connection.clone());
        drop(table);
        Self::gauge(by.transport, by.kind).increment(1.0);
        // What changed between the decision and now has told everybody but this one.
        let admitted = Admitted {
            connections: self.clone(),
            connection,
        };
        self.review(&admitted.connection);
        Ok(admitted)
    }

    fn expiry(&self, principal: &Principal) -> Timestamp {
        principal.expires_at.plus(self.0.leeway)
    }

    fn gauge(transport: Transport, kind: &'static str) -> metrics::Gauge {
        metrics::gauge!("tidings_connections", "transport" => transport.as_str(), "kind" => kind)
    }

    /// One tenant's: SSE, WebSocket, long-poll.
    #[must_use]
    pub(crate) fn counts_of(&self, tenant: &Tenant) -> [usize; 3] {
        let of = |transport| {
            self.of(tenant)
                .iter()
                .filter(|c| c.transport == transport)
                .count()
        };
        [
            of(Transport::Sse),
            of(Transport::Websocket),
            of(Transport::LongPoll),
        ]
    }

    fn of(&self, tenant: &Tenant) -> Vec<Arc<Connection>> {
        self.0
            .table
            .lock()
            .by_id
            .values()
            .filter(|c| c.log.tenant == *tenant)
            .cloned()
            .collect()
    }

    /// A tenant's connections, the newest first.
    #[must_use]
    pub(crate) fn list(&self, tenant: &Tenant) -> Vec<ConnectionInfo> {
        let mut all = self.of(tenant);
        all.sort_unstable_by_key(|c| (std::cmp::Reverse(c.connected_at), c.id));
        all.iter()
            .map(|c| {
                let state = c.state.lock();
                let seq = c.seq.load(Ordering::Relaxed);
                ConnectionInfo {
                    connection_id: c.id.to_string(),
                    transport: c.transport,
                    kind: c.kind,
                    subject: c.subject.to_string(),
                    topics: state
                        .asked
                        .as_slice()
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                    cursor: Cursor {
                        epoch: c.log.epoch.clone(),
                        seq,
                    }
                    .to_string(),
                    behind: c.log.head().saturating_sub(seq),
                    connected_at: c.connected_at.to_string(),
                    expires_at: state.principal.expires_at.to_string(),
                    remote: c.remote.to_string(),
                    user_agent: c.user_agent.as_deref().map(str::to_owned),
                }
            })
            .collect()
    }

    /// One of a tenant's connections.
    #[must_use]
    pub(crate) fn find(&self, tenant: &Tenant, id: Uuid) -> Option<Arc<Connection>> {
        self.0
            .table
            .lock()
            .by_id
            .get(&id)
            .filter(|c| c.log.tenant == *tenant)
            .cloned()
    }

    /// Tells a connection to end. False where the tenant has none of that id.
    #[must_use]
    pub(crate) fn close(&self, tenant: &Tenant, id: Uuid, reason: Reason) -> bool {
        let found = self.find(tenant, id);
        if let Some(connection) = &found {
            connection.order(Order::Close(reason));
        }
        found.is_some()
    }

    /// Gives a connection another token of the same subject. False where the tenant has none of that id.
    #[must_use]
    pub(crate) fn refresh(&self, tenant: &Tenant, id: Uuid, principal: Arc<Principal>) -> bool {
        let Some(connection) = self.find(tenant, id) else {
            return false;
        };
        {
            let mut table = self.0.table.lock();
            let mut state = connection.state.lock();
            table.expiries.remove(&(self.expiry(&state.principal), id));
            table
                .expiries
                .insert((self.expiry(&principal), id), connection.clone());
            state.principal = principal;
        }
        self.review(&connection);
        true
    }

    /// Asks again what a connection is entitled to.
    fn review(&self, connection: &Connection) {
        let (principal, asked) = {
            let state = connection.state.lock();
            (state.principal.clone(), state.asked.clone())
        };
        if self.0.revocations.refuses(&principal) {
            connection.order(Order::Close(Reason::Revoked));
            return;
        }
        if asked.as_slice().is_empty() {
            return;
        }
        let (scope, _) = self.scope(&principal, &asked);
        let lost = {
            let mut state = connection.state.lock();
            if scope.is_same(&state.scope) {
                return;
            }
            let kept = scope.patterns.as_slice();
            let lost: Vec<Pattern> = state
                .scope
                .patterns
                .as_slice()
                .iter()
                .filter(|p| !kept.contains(p))
                .cloned()
                .collect();
            state.scope = scope.clone();
            lost
        };
        let order = if scope.patterns.as_slice().is_empty() {
            Order::Close(Reason::Forbidden)
        } else {
            Order::Narrow { scope, lost }
        };
        connection.order(order);
    }

    /// Asks again for all of them: the policies or the revocations have changed.
    pub(crate) fn review_all(&self) {
        let all: Vec<_> = self.0.table.lock().by_id.values().cloned().collect();
        all.iter().for_each(|connection| self.review(connection));
    }

    /// Closes those whose credential's time is over.
    pub(crate) fn expire(&self) {
        let now = self.0.clock.now();
        loop {
            let expired = {
                let mut table = self.0.table.lock();
                match table.expiries.first_key_value() {
                    Some(((at, _), _)) if *at <= now => table.expiries.pop_first(),
                    _ => None,
                }
            };
            match expired {
                Some((_, connection)) => connection.order(Order::Close(Reason::TokenExpired)),
                None => return,
            }
        }
    }

    /// Tells every connection to end.
    pub(crate) fn close_all(&self, reason: Reason) {
        let all: Vec<_> = self.0.table.lock().by_id.values().cloned().collect();
        all.iter()
            .for_each(|connection| connection.order(Order::Close(reason)));
    }

    fn remove(&self, connection: &Connection) {
        fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
            if let Some(count) = counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
        let mut table = self.0.table.lock();
        table.by_id.remove(&connection.id);
        table
            .expiries
            .remove(&(self.expiry(&connection.principal()), connection.id));
        less(&mut table.per_kind, &connection.kind);
        less(&mut table.per_tenant, &connection.log.tenant);
        less(
            &mut table.per_user,
            &(connection.log.tenant.clone(), connection.subject.clone()),
        );
        drop(table);
        Self::gauge(connection.transport, connection.kind).decrement(1.0);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.remove(&self.connection);
        tracing::debug!(
            connection_id = %self.connection.id,
            transport = self.connection.transport.as_str(),
            "connection closed"
        );
    }
}
