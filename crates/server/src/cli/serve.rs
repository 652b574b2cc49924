//! `tidings serve`: runs the server.

use std::process::ExitCode;

use super::{ConfigArgs, Failure};

/// `tidings serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ready to look at: a generated secret, a demo tenant, live traffic, and a sign-in link
    #[arg(long)]
    pub(crate) demo: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

pub(crate) fn run(_args: Args) -> Result<ExitCode, Failure> {
    Err(Failure::failed("serve is not built yet"))
}
