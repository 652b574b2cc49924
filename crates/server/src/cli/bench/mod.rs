//! `tidings bench`: measures a server.

use std::process::ExitCode;

use super::Failure;

/// `tidings bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_parser = ["broadcast", "unicast", "idle", "ingest", "replay"])]
    mode: String,
}

pub(crate) async fn run(_args: Args) -> Result<ExitCode, Failure> {
    Err(Failure::failed("bench is not built yet"))
}
