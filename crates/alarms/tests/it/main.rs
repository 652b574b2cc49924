//! The module on a log, on both kinds of database.

mod network;
mod support;
