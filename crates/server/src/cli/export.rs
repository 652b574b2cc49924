//! `tidings export`: writes a log's events as NDJSON.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;

/// `tidings export`: from a server with a token, or from a data folder, where each line also has its tenant.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("from").required(true).args(["url", "data_dir"]))]
pub(crate) struct Args {
    /// Address of the server
    #[arg(long, value_name = "URL", requires = "token")]
    pub(crate) url: Option<String>,
    /// Token of the tenant
    #[arg(long, value_name = "TOKEN", requires = "url")]
    pub(crate) token: Option<String>,
    /// Data folder of a server, running or not
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Topic or pattern; may be repeated. Without it, everything
    #[arg(long = "topic", value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// File to write; without it, standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

pub(crate) async fn run(_args: Args) -> Result<ExitCode, Failure> {
    Err(Failure::failed("export is not built yet"))
}
