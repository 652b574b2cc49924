//! Who is connected: found by id, counted by what the limits count, in the order in which credentials end.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use tidings_core::clock::Timestamp;
use tidings_core::tenant::Tenant;
use uuid::Uuid;

use super::Connection;
use crate::config::StreamSection;

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

/// The name of a kind of stream: each has limits of its own, and what is counted is of the kind.
type Kind = &'static str;

/// A subject of a tenant.
pub(super) type User = (Tenant, Arc<str>);

#[derive(Default)]
pub(super) struct Table {
    by_id: HashMap<Uuid, Arc<Connection>>,
    per_tenant: HashMap<(Kind, Tenant), usize>,
    per_user: HashMap<(Kind, User), usize>,
    per_kind: HashMap<Kind, usize>,
    expiries: BTreeMap<(Timestamp, Uuid), Arc<Connection>>,
}

impl Table {
    /// The limit that stands against one more connection of a user.
    pub(super) fn refuses(
        &self,
        limits: &StreamSection,
        kind: Kind,
        user: &User,
    ) -> Option<Refused> {
        fn is_full<K: Hash + Eq>(held: &HashMap<K, usize>, key: &K, limit: usize) -> bool {
            limit > 0 && held.get(key).copied().unwrap_or(0) >= limit
        }
        if is_full(&self.per_kind, &kind, limits.max_connections) {
            return Some(Refused::Node(limits.max_connections));
        }
        let tenant = (kind, user.0.clone());
        if is_full(&self.per_tenant, &tenant, limits.max_connections_per_tenant) {
            return Some(Refused::Tenant(limits.max_connections_per_tenant));
        }
        let user = (kind, user.clone());
        if is_full(&self.per_user, &user, limits.max_connections_per_user) {
            return Some(Refused::User(limits.max_connections_per_user));
        }
        None
    }

    /// Takes a connection in, until its credential ends.
    pub(super) fn insert(&mut self, connection: Arc<Connection>, user: User, until: Timestamp) {
        let kind = connection.kind;
        *self.per_kind.entry(kind).or_default() += 1;
        *self.per_tenant.entry((kind, user.0.clone())).or_default() += 1;
        *self.per_user.entry((kind, user)).or_default() += 1;
        self.expiries
            .insert((until, connection.id), connection.clone());
        self.by_id.insert(connection.id, connection);
    }

    /// Forgets a connection whose credential would have ended then.
    pub(super) fn remove(&mut self, connection: &Connection, until: Timestamp) {
        fn less<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
            if let Some(count) = counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
        self.by_id.remove(&connection.id);
        self.expiries.remove(&(until, connection.id));
        let (kind, tenant) = (connection.kind, connection.log.tenant.clone());
        less(&mut self.per_kind, &kind);
        less(&mut self.per_tenant, &(kind, tenant.clone()));
        less(
            &mut self.per_user,
            &(kind, (tenant, connection.subject.clone())),
        );
    }

    /// A connection has another credential, which ends at another time. False where it has gone meanwhile.
    pub(super) fn extend(
        &mut self,
        connection: &Arc<Connection>,
        was_until: Timestamp,
        until: Timestamp,
    ) -> bool {
        let id = connection.id;
        let is_here = self.by_id.contains_key(&id);
        if is_here {
            self.expiries.remove(&(was_until, id));
            self.expiries.insert((until, id), connection.clone());
        }
        is_here
    }

    /// The next connection whose credential's time is over; each is given once.
    pub(super) fn next_expired(&mut self, now: Timestamp) -> Option<Arc<Connection>> {
        let (at, _) = *self.expiries.first_key_value()?.0;
        if at > now {
            return None;
        }
        self.expiries.pop_first().map(|(_, connection)| connection)
    }

    /// One of a tenant's connections.
    pub(super) fn find(&self, tenant: &Tenant, id: Uuid) -> Option<Arc<Connection>> {
        let found = self.by_id.get(&id);
        found.filter(|c| c.log.tenant == *tenant).cloned()
    }

    /// All of a tenant's connections.
    pub(super) fn of(&self, tenant: &Tenant) -> Vec<Arc<Connection>> {
        let all = self.by_id.values();
        all.filter(|c| c.log.tenant == *tenant).cloned().collect()
    }

    /// All connections.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        self.by_id.values().cloned().collect()
    }
}
