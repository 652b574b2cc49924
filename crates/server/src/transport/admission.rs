//! What stands between a request and an open stream, for all transports: the drain, the ticket, the policy, the limits,
//! the cursor.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::auth::Principal;
use tidings_core::hub::{FeedKey, Hub, Reader, Start};
use tidings_core::log::TenantLog;
use tidings_core::topic::{Pattern, Patterns};

use super::connections::{Admitted, Application, Connections, Refused, Scope, Transport};
use super::request::{Origin, Query};
use super::{Kind, Transports};
use crate::config::StreamSection;
use crate::http::problem::Problem;

/// What a request for a stream brings with it, beside its topics.
#[derive(Debug)]
pub(crate) struct Ask {
    /// How events are to come.
    pub(crate) transport: Transport,
    /// Who.
    pub(crate) principal: Arc<Principal>,
    /// The query.
    pub(crate) query: Query,
    /// Where the client says that it stands.
    pub(crate) cursor: Option<Vec<u8>>,
    /// From where, with what.
    pub(crate) origin: Origin,
    /// Topics that a ticket was bought for: nothing else may be asked for with it.
    pub(crate) ticket_topics: Option<Patterns>,
}

/// Why a stream is not opened.
#[derive(Debug)]
pub(crate) enum Denied {
    /// The server is going down.
    Draining,
    /// A limit stands against it.
    Full(Refused),
    /// The request is at fault, or the database.
    Problem(Problem),
}

impl From<Problem> for Denied {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Refused> for Denied {
    fn from(refused: Refused) -> Self {
        Self::Full(refused)
    }
}

impl Denied {
    /// What is answered to a client that understands a status.
    #[must_use]
    pub(crate) fn into_problem(self, section: &StreamSection) -> Problem {
        let retry = section.retry.max(Duration::from_secs(1));
        match self {
            Self::Draining => Problem::unavailable("the server is going down", section.retry),
            Self::Problem(problem) => problem,
            Self::Full(Refused::Node(most)) => Problem::unavailable(
                &format!("this server has its maximum of {most} open connections"),
                retry,
            ),
            Self::Full(Refused::Tenant(most)) => Problem::unavailable(
                &format!("this tenant has its maximum of {most} open connections"),
                retry,
            ),
            Self::Full(Refused::User(most)) => Problem::too_many(
                &format!("this user has the maximum of {most} open connections"),
                retry,
            ),
        }
    }
}

/// Opens the way to a stream: everything but a place among the open connections, which is [`Connections::admit`]'s.
pub(super) async fn entitle(
    transports: &Transports,
    kind: &Kind,
    ask: &Ask,
    asked: Patterns,
) -> Result<Application, Denied> {
    if transports.is_draining() {
        return Err(Denied::Draining);
    }
    check_ticket(ask.ticket_topics.as_ref(), &asked)?;
    let scope = whole_scope(&transports.connections, &ask.principal, &asked, "topic")?;
    let log = transports.log.tenant(&ask.principal.tenant).await;
    Ok(Application {
        transport: ask.transport,
        kind: kind.name,
        log: log.map_err(Problem::from)?,
        principal: ask.principal.clone(),
        asked,
        scope,
        origin: ask.origin.clone(),
    })
}

/// Gives a stream its place among the open connections. Beside it: what it may read.
pub(super) async fn admit(
    transports: &Transports,
    kind: &Kind,
    ask: &Ask,
    asked: Patterns,
) -> Result<(Admitted, Scope), Denied> {
    let application = entitle(transports, kind, ask, asked).await?;
    let scope = application.scope.clone();
    let section = &kind.rules.section;
    let admitted = transports.connections.admit(section, application)?;
    Ok((admitted, scope))
}

/// A ticket that was bought for some topics opens a stream on no others.
pub(super) fn check_ticket(bought: Option<&Patterns>, asked: &Patterns) -> Result<(), Problem> {
    let Some(bought) = bought else { return Ok(()) };
    let mut others = asked.as_slice().iter();
    match others.find(|p| !bought.as_slice().contains(p)) {
        None => Ok(()),
        Some(pattern) => Err(Problem::forbidden(
            "topic",
            &format!("the ticket was not bought for {pattern}"),
        )),
    }
}

/// The scope of somebody who is entitled to something of every pattern; `field` names where the patterns stood.
pub(crate) fn whole_scope(
    connections: &Connections,
    principal: &Arc<Principal>,
    asked: &Patterns,
    field: &str,
) -> Result<Scope, Problem> {
    let (scope, lost) = connections.scope(principal, asked);
    match lost.first() {
        None => Ok(scope),
        Some(pattern) => Err(nothing_of(pattern, field)),
    }
}

/// The policy allows nothing of a pattern.
#[must_use]
pub(super) fn nothing_of(pattern: &Pattern, field: &str) -> Problem {
    let detail = format!("the policy allows nothing of {pattern}");
    Problem::forbidden(field, &detail)
}

/// Where a reader begins, by what the client says of where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    /// There.
    pub(super) start: Start,
    /// The cursor names no place of this log: the client is told, and begins with what comes from now on.
    pub(super) is_reset: bool,
}

impl Beginning {
    pub(super) fn of(hub: &Hub, log: &Arc<TenantLog>, cursor: Option<&[u8]>) -> Self {
        let resumed = cursor.map(|bytes| hub.resume(log, bytes));
        Self {
            start: resumed.flatten().map_or(Start::Live, Start::After),
            is_reset: resumed == Some(None),
        }
    }

    /// The reader of an open stream.
    pub(super) fn reader(
        self,
        hub: &Hub,
        log: &Arc<TenantLog>,
        key: FeedKey,
        lane: Option<usize>,
    ) -> Reader {
        let is_resumed = matches!(self.start, Start::After(_));
        metrics::counter!("tidings_resumes_total").increment(u64::from(is_resumed));
        hub.reader(log, key, self.start, lane)
    }
}
