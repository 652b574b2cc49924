//! `tidings publish`: publishes one event.

use std::process::ExitCode;

use super::{Failure, ServerArgs};

/// `tidings publish`. Prints the answer: ids and cursor.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Topic to publish to, such as orders/7
    #[arg(long)]
    topic: String,
    /// Type of the event, such as order.created
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// JSON of the event, or - for standard input
    #[arg(
        long,
        value_name = "JSON",
        default_value = "null",
        allow_hyphen_values = true
    )]
    data: String,
    /// Id of the event; a repeated one is stored once
    #[arg(long)]
    id: Option<String>,
    /// What the event is about
    #[arg(long)]
    subject: Option<String>,
    /// Makes a retry of this publish harmless
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

pub(crate) async fn run(_args: Args) -> Result<ExitCode, Failure> {
    Err(Failure::failed("publish is not built yet"))
}
