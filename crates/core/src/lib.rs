//! The spine of tidings: who may, what happened, in what order, and who is told. It knows no module, no route, no HTTP.
//!
//! ```text
//! ingest ──► log (durable, ordered) ──► hub (who is subscribed, who may see) ──► a transport
//! ```
//!
//! - `event`, `topic`, `cursor`, `tenant`, `clock`, `retention`: the words
//! - `db`: SQLite and PostgreSQL by one SQL text
//! - `auth`: principal, tokens, tickets, policy, revocation
//! - `log`: append, read, retention, dead letters
//! - `ingest`: what comes in, accepted or refused
//! - `hub`: feeds, rings, readers

pub mod auth;
pub mod clock;
pub mod cursor;
pub mod db;
pub mod event;
pub mod hub;
pub mod ingest;
pub mod log;
pub mod retention;
pub mod tenant;
pub mod topic;
