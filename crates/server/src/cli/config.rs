//! `tidings config`: the configuration in effect, and where each value came from.

use std::process::ExitCode;

use super::{ConfigArgs, Failure, print};
use crate::config::markdown;

/// `tidings config`. Without a flag: the effective configuration as TOML, secrets masked.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Every setting with its value, source, default, environment name and meaning
    #[arg(long)]
    explain: bool,
    /// The same as JSON: an array of objects
    #[arg(long, requires = "explain")]
    json: bool,
    /// The reference of all settings, as docs/configuration.md holds it
    #[arg(long, conflicts_with_all = ["explain", "json"])]
    markdown: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    if args.markdown {
        print(&markdown())?;
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = args.config.load()?;
    let text = match (args.explain, args.json) {
        (true, true) => {
            let mut json =
                serde_json::to_string_pretty(&loaded.explain_json()).map_err(Failure::failed)?;
            json.push('\n');
            json
        }
        (true, false) => loaded.explain(),
        _ => loaded.to_toml(),
    };
    print(&text)?;
    for warning in &loaded.warnings {
        super::warn(warning);
    }
    Ok(ExitCode::SUCCESS)
}
