//! The core on real databases: each body runs on SQLite, and on PostgreSQL where `TIDINGS_TEST_POSTGRES_URL` names one.

mod hub;
mod log;
mod support;
