//! The real binary, from outside: real sockets, real signals, real databases, and parsers that are not ours.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test stops where something is not as it should be, and is as long as its story"
)]

mod alarms_care;
mod alarms_correlate;
mod alarms_denials;
mod alarms_incidents;
mod alarms_ingest;
mod alarms_network;
mod alarms_prometheus;
mod alarms_sources;
mod alarms_stream;
mod cli;
mod cli_alarms;
mod cli_config;
mod cli_export;
mod cli_keys;
mod cli_measure;
mod cli_stream;
mod conformance;
mod crash;
mod drain;
mod framing;
mod history;
mod hostile;
mod http;
mod http2;
mod lifecycle;
mod limits;
mod metrics;
mod poll;
mod resume;
mod slow;
mod storage;
mod support;
mod tenants;
mod tickets;
mod tls;
mod tokens;
mod traces;
mod users;
mod websocket;
