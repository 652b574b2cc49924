//! `tidings dead-letter`: what could not be taken in.

use std::process::ExitCode;

use super::{Failure, ServerArgs};

/// `tidings dead-letter`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print what was kept aside with its reason, one JSON object a line.
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Take in again what was kept aside.
    Retry {
        #[command(flatten)]
        server: ServerArgs,
        /// Its ids; without any, everything
        #[arg(value_name = "ID")]
        ids: Vec<String>,
    },
}

pub(crate) async fn run(_command: Command) -> Result<ExitCode, Failure> {
    Err(Failure::failed("dead-letter is not built yet"))
}
