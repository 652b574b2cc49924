//! One open connection: what it is, what it is entitled to, and what its driver is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use tidings_core::auth::Principal;
use tidings_core::clock::Timestamp;
use tidings_core::cursor::Seq;
use tidings_core::log::TenantLog;
use tidings_core::topic::{Pattern, Patterns};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Application, Scope, Transport};
use crate::transport::frame::Reason;

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

/// How a connection's driver is woken when there is an order for it.
pub(crate) type Wake = Box<dyn Fn() + Send + Sync>;

#[derive(Debug)]
pub(super) struct State {
    pub(super) principal: Arc<Principal>,
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
    /// Whose place it takes; a refresh does not change it.
    pub(super) subject: Arc<str>,
    pub(super) state: Mutex<State>,
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
    pub(super) fn new(by: Application, now: Timestamp) -> Self {
        Self {
            id: Uuid::new_v4(),
            transport: by.transport,
            kind: by.kind,
            seq: AtomicU64::new(by.log.head()),
            log: by.log,
            connected_at: now,
            remote: by.origin.remote,
            user_agent: by.origin.user_agent,
            subject: by.principal.subject.clone(),
            state: Mutex::new(State {
                principal: by.principal,
                asked: by.asked,
                scope: by.scope,
                orders: Vec::new(),
            }),
            wake: Mutex::new(None),
            notify: Notify::new(),
        }
    }

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

    /// Records that the server ends it, and why.
    pub(crate) fn log_end(&self, reason: Reason) {
        tracing::info!(connection_id = %self.id, reason = reason.as_str(), "stream closed by the server");
    }

    /// Who it belongs to, and what it asked for.
    pub(super) fn claim(&self) -> (Arc<Principal>, Patterns) {
        let state = self.state.lock();
        (state.principal.clone(), state.asked.clone())
    }

    /// What it is entitled to from now on: told to its driver where that is another scope than before.
    pub(super) fn entitle(&self, scope: Scope) {
        let lost = {
            let mut state = self.state.lock();
            if scope.is_same(&state.scope) {
                return;
            }
            let kept = scope.patterns.as_slice();
            let had = state.scope.patterns.as_slice().iter();
            let lost = had.filter(|p| !kept.contains(p)).cloned().collect();
            state.scope = scope.clone();
            lost
        };
        self.order(if scope.patterns.as_slice().is_empty() {
            Order::Close(Reason::Forbidden)
        } else {
            Order::Narrow { scope, lost }
        });
    }

    pub(super) fn order(&self, order: Order) {
        self.state.lock().orders.push(order);
        match &*self.wake.lock() {
            Some(wake) => wake(),
            None => self.notify.notify_one(),
        }
    }

    /// As the API lists it.
    pub(super) fn info(&self) -> ConnectionInfo {
        let state = self.state.lock();
        let seq = self.seq.load(Ordering::Relaxed);
        let asked = state.asked.as_slice();
        ConnectionInfo {
            connection_id: self.id.to_string(),
            transport: self.transport,
            kind: self.kind,
            subject: self.subject.to_string(),
            topics: asked.iter().map(ToString::to_string).collect(),
            cursor: self.log.at(seq).to_string(),
            behind: self.log.head().saturating_sub(seq),
            connected_at: self.connected_at.to_string(),
            expires_at: state.principal.expires_at.to_string(),
            remote: self.remote.to_string(),
            user_agent: self.user_agent.as_deref().map(str::to_owned),
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
