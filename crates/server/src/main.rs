//! tidings: a self-hosted real-time push server.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    cli::main()
}
