//! `tidings bench`: measures a server.
use super::Failure;
use std::process::ExitCode;
/// `tidings bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
pub(crate) async fn run(_args: Args) -> Result<ExitCode, Failure> {
    Err(Failure::failed("not yet"))
}
