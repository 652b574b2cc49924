//! `tidings policy`: checks a folder of policies, or shows the built-in set.

use std::path::PathBuf;
use std::process::ExitCode;

use tidings_core::auth::{BUILTIN, Policies};

use super::{Failure, print};

/// `tidings policy`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Parse and validate every *.cedar file of a folder, as the server does before it uses them: 0 if good, 1 if not.
    Check {
        /// The folder
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Print the built-in set, the best start for one's own.
    Show,
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Check { dir } => {
            Policies::load(&dir).map_err(Failure::failed)?;
            print(&format!("{}: good\n", dir.display()))?;
        }
        Command::Show => print(BUILTIN)?,
    }
    Ok(ExitCode::SUCCESS)
}
