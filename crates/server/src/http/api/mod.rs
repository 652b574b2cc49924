//! A file per resource. A line that names a status, header, path or query stands here or in [`super`].

pub(crate) mod alarms;
pub(crate) mod connections;
pub(crate) mod dead_letters;
pub(crate) mod events;
pub(crate) mod health;
mod list;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod problems;
pub(crate) mod revocations;
pub(crate) mod status;
pub(crate) mod streams;
pub(crate) mod test_clock;
pub(crate) mod tickets;
pub(crate) mod users;

use http::request::Parts;
use tidings_core::auth::Principal;

use super::credential::{Credential, Use, verify};
use super::problem::Problem;
use crate::app::App;
use crate::transport::request::Query;

/// The role that may do anything in its tenant.
const ADMIN: &str = "admin";

/// Who makes an ordinary request.
async fn caller(app: &App, parts: &Parts) -> Result<std::sync::Arc<Principal>, Problem> {
    let Credential { principal, .. } = verify(app, parts, &Query::default(), Use::Request).await?;
    Ok(principal)
}

/// The same for what only an administrator may do.
async fn admin(app: &App, parts: &Parts) -> Result<std::sync::Arc<Principal>, Problem> {
    let principal = caller(app, parts).await?;
    if principal.has_role(ADMIN) {
        return Ok(principal);
    }
    Err(Problem::new(
        super::problem::Kind::Forbidden,
        "this needs the role admin",
    ))
}
