//! tidings: a self-hosted real-time push server.
//!
//! - `cli`: the command line, one file per subcommand
//! - `config`: settings from a file, the environment, flags
//! - `telemetry`: records, traces, metrics

mod cli;
mod config;
mod telemetry;

use std::process::ExitCode;

fn main() -> ExitCode {
    // One cryptography for TLS, whoever else is linked. A second installation is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    cli::main()
}
