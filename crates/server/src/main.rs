//! tidings: a self-hosted real-time push server.
//!
//! - `app`: the composition root
//! - `claims`: claims of tokens that this server signs
//! - `cli`: the command line, one file per subcommand
//! - `config`: settings from a file, the environment, flags
//! - `http`: all that speaks HTTP
//! - `transport`: what writes to open connections
//! - `telemetry`: records, traces, metrics

mod app;
mod claims;
mod cli;
mod config;
mod http;
mod telemetry;
mod transport;

use std::process::ExitCode;

/// Faster than the system's where many threads take and give back small pieces, as each request does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // One cryptography for TLS, whoever else is linked. A second installation is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    cli::main()
}
