//! `tidings import`: reads events that `export` wrote.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;

/// `tidings import`: ids and times are kept, cursors are new, a second import adds nothing.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("to").required(true).args(["url", "data_dir"]))]
pub(crate) struct Args {
    /// Address of the server
    #[arg(long, value_name = "URL", requires = "token")]
    pub(crate) url: Option<String>,
    /// Token; all events go to its tenant
    #[arg(long, value_name = "TOKEN", requires = "url")]
    pub(crate) token: Option<String>,
    /// Data folder of a server that is not running
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// File to read; without it, standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

pub(crate) async fn run(_args: Args) -> Result<ExitCode, Failure> {
    Err(Failure::failed("import is not built yet"))
}
