//! `tidings tail`: prints events as they come.

use std::process::ExitCode;

use super::{Failure, ServerArgs};

/// `tidings tail`. One JSON event a line with its cursor; resumes by itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Topic or pattern, such as orders/** ; may be repeated
    #[arg(long = "topic", value_name = "TOPIC", required = true)]
    topics: Vec<String>,
    /// Begin after this cursor, and not with what comes from now on
    #[arg(long, value_name = "CURSOR")]
    since: Option<String>,
    /// How to connect
    #[arg(long, value_parser = ["sse", "ws", "poll"], default_value = "sse")]
    transport: String,
}

pub(crate) async fn run(_args: Args) -> Result<ExitCode, Failure> {
    Err(Failure::failed("tail is not built yet"))
}
