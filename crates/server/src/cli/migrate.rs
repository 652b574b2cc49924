//! `tidings migrate`: brings the database's schema up to date, as `serve` does at start.

use std::process::ExitCode;

use tidings_core::db::Db;

use super::{ConfigArgs, Failure, print};
use crate::app::make_folder;

/// `tidings migrate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let config = args.config.load()?.config;
    if config.database_url.is_none() {
        make_folder(&config.data_dir).map_err(Failure::failed)?;
    }
    let db = Db::open(config.database()).map_err(Failure::failed)?;
    let kind = if db.is_postgres() {
        "PostgreSQL"
    } else {
        "SQLite"
    };
    print(&format!(
        "the schema of the {kind} database is up to date\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}
