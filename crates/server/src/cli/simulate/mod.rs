//! `tidings simulate`: publishes realistic, seeded traffic.

use std::process::ExitCode;

use super::{Failure, ServerArgs};

/// `tidings simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Events a second
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Seed: the same one makes the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) async fn run(_args: Args) -> Result<ExitCode, Failure> {
    Err(Failure::failed("simulate is not built yet"))
}
