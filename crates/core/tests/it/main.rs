//! The core on real databases: each body runs on SQLite, and on PostgreSQL where `TIDINGS_TEST_POSTGRES_URL` names one.

mod auth;
mod hub;
mod log;
mod support;
