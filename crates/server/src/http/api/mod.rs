//! A file per resource. A line that names a status, header, path or query stands here or in [`super`].

pub mod connections;
pub mod dead_letters;
pub mod events;
pub mod health;
pub mod metrics;
pub mod openapi;
pub mod page;
pub mod problems;
pub mod revocations;
pub mod status;
pub mod streams;
pub mod test_clock;
pub mod tickets;

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
    Err(Problem::new(super::problem::Kind::Forbidden, "this needs the role admin"))
}
