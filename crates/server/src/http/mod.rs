//! All that speaks HTTP: the accept loop, what every request goes through, who is asking, errors, routes.
//!
//! - `accept`, `tls`: connections
//! - `entry`: what every request goes through on its way in and out
//! - `cors`: which pages of other origins may read the answers
//! - `credential`: who is asking
//! - `body`: reading a request's body within bounds
//! - `problem`: every error, in one table
//! - `routes`: every route, on one page
//! - `api`: a file per resource

pub(crate) mod accept;
pub(crate) mod api;
pub(crate) mod body;
pub(crate) mod cors;
pub(crate) mod credential;
pub(crate) mod entry;
pub(crate) mod problem;
pub(crate) mod routes;
pub(crate) mod tls;
