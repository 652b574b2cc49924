//! `tidings openapi`: the OpenAPI document that the server serves at `/api/openapi.json`.

use std::process::ExitCode;

use super::{Failure, print};
use crate::http::api::openapi::document;

/// `tidings openapi`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<ExitCode, Failure> {
    print(document())?;
    Ok(ExitCode::SUCCESS)
}
