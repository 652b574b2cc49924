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

pub mod accept;
pub mod api;
pub mod body;
pub mod cors;
pub mod credential;
pub mod entry;
pub mod problem;
pub mod routes;
pub mod tls;
