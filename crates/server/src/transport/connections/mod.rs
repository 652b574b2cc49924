//! Every open connection: who, on what, until when. Admits, lists, closes, and follows what its credential is worth.
//!
//! Rights are asked for at connect, and again whenever something that they depend on changes: the token's time, a
//! revocation, the policies, a refresh. A connection that is no longer entitled to anything is closed; one that has lost
//! a part goes on without it.
//!
//! - `table`: who is connected, and the limits
//! - `connection`: one of them, and what its driver is told
//! - `scope`: what a principal may read of what it asks for

mod connection;
mod scope;
mod table;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tidings_core::auth::{PolicyStore, Principal, Revocations};
use tidings_core::clock::{Clock, Timestamp};
use tidings_core::log::TenantLog;
use tidings_core::tenant::Tenant;
use tidings_core::topic::{Pattern, Patterns};
use uuid::Uuid;

use super::frame::Reason;
use super::request::Origin;
use crate::config::StreamSection;
pub(crate) use connection::{Connection, ConnectionInfo, Order};
pub(crate) use scope::Scope;
pub(crate) use table::Refused;
use table::Table;

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
    /// From where, with what.
    pub(crate) origin: Origin,
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
        if let Some(refused) = table.refuses(limits, by.kind, &user) {
            metrics::counter!("tidings_refused_connections_total", "reason" => refused.as_str())
                .increment(1);
            return Err(refused);
        }
        let until = self.expiry(&by.principal);
        let connection = Arc::new(Connection::new(by, self.0.clock.now()));
        table.insert(connection.clone(), user, until);
        drop(table);
        Self::gauge(&connection).increment(1.0);
        let admitted = Admitted {
            connections: self.clone(),
            connection,
        };
        // What changed between the decision and now has told everybody but this one.
        self.review(&admitted.connection);
        Ok(admitted)
    }

    fn expiry(&self, principal: &Principal) -> Timestamp {
        principal.expires_at.plus(self.0.leeway)
    }

    fn gauge(of: &Connection) -> metrics::Gauge {
        metrics::gauge!("tidings_connections", "transport" => of.transport.as_str(), "kind" => of.kind)
    }

    /// One tenant's: SSE, WebSocket, long-poll.
    #[must_use]
    pub(crate) fn counts_of(&self, tenant: &Tenant) -> [usize; 3] {
        let all = self.0.table.lock().of(tenant);
        [Transport::Sse, Transport::Websocket, Transport::LongPoll]
            .map(|transport| all.iter().filter(|c| c.transport == transport).count())
    }

    /// A tenant's connections, the newest first.
    #[must_use]
    pub(crate) fn list(&self, tenant: &Tenant) -> Vec<ConnectionInfo> {
        let mut all = self.0.table.lock().of(tenant);
        all.sort_unstable_by_key(|c| (std::cmp::Reverse(c.connected_at), c.id));
        all.iter().map(|connection| connection.info()).collect()
    }

    /// One of a tenant's connections.
    #[must_use]
    pub(crate) fn find(&self, tenant: &Tenant, id: Uuid) -> Option<Arc<Connection>> {
        self.0.table.lock().find(tenant, id)
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
            let (was_until, until) = (self.expiry(&state.principal), self.expiry(&principal));
            if !table.extend(&connection, was_until, until) {
                return false;
            }
            state.principal = principal;
        }
        self.review(&connection);
        true
    }

    /// Asks again what a connection is entitled to.
    fn review(&self, connection: &Connection) {
        let (principal, asked) = connection.claim();
        if self.0.revocations.refuses(&principal) {
            connection.order(Order::Close(Reason::Revoked));
            return;
        }
        if asked.as_slice().is_empty() {
            return;
        }
        let (scope, _) = self.scope(&principal, &asked);
        connection.entitle(scope);
    }

    /// Asks again for all of them: the policies or the revocations have changed.
    pub(crate) fn review_all(&self) {
        let all = self.0.table.lock().all();
        all.iter().for_each(|connection| self.review(connection));
    }

    /// Closes those whose credential's time is over.
    pub(crate) fn expire(&self) {
        let now = self.0.clock.now();
        let next = || self.0.table.lock().next_expired(now);
        while let Some(connection) = next() {
            connection.order(Order::Close(Reason::TokenExpired));
        }
    }

    /// Tells every connection to end.
    pub(crate) fn close_all(&self, reason: Reason) {
        let all = self.0.table.lock().all();
        all.iter()
            .for_each(|connection| connection.order(Order::Close(reason)));
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let (shared, connection) = (&self.connections.0, &self.connection);
        let mut table = shared.table.lock();
        let until = self.connections.expiry(&connection.principal());
        table.remove(connection, until);
        drop(table);
        Connections::gauge(connection).decrement(1.0);
        tracing::debug!(
            connection_id = %connection.id,
            transport = connection.transport.as_str(),
            "connection closed"
        );
    }
}
