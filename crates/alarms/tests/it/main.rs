//! The module on a log: each body runs on SQLite, and on PostgreSQL where `TIDINGS_TEST_POSTGRES_URL` names one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test stops where something is not as it should be"
)]

mod accuracy;
mod alarm;
mod correlation;
mod customer;
mod incident;
mod network;
mod quiet;
mod support;
