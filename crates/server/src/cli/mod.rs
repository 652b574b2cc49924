//! The command line: one file per subcommand. Exit codes: 0 done, 1 failed, 2 wrong usage.
#![expect(
    clippy::print_stderr,
    reason = "what a command has to say goes to the terminal"
)]

mod bench;
mod publish;
mod simulate;
mod tail;

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "tidings", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish an event.
    Publish(publish::Args),
    /// Print events as they come, one JSON object a line.
    Tail(tail::Args),
    /// Publish realistic, seeded traffic.
    Simulate(simulate::Args),
    /// Measure a server.
    Bench(bench::Args),
}

/// The server and the credential of a command that talks to one.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArgs {
    /// Address of the server, such as http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Token to authenticate with
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
}

impl ServerArgs {
    /// The address and the token.
    pub(crate) fn resolve(&self) -> Result<(String, String), Failure> {
        let pick = |flag: &Option<String>, name: &str| {
            flag.clone()
                .ok_or_else(|| Failure::usage(format!("{name} is missing")))
        };
        Ok((pick(&self.url, "--url")?, pick(&self.token, "--token")?))
    }
}

/// Why a command did not do what it was asked, and the exit code that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The command was right, and failed: exit code 1.
    pub(crate) fn failed(message: impl Display) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
        }
    }

    /// The command line, a setting or an argument is wrong: exit code 2.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self {
            code: 2,
            message: message.to_string(),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format_args!("{error:#}"))
    }
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("tidings: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Publish(args) => block_on(publish::run(args)),
        Command::Tail(args) => block_on(tail::run(args)),
        Command::Simulate(args) => block_on(simulate::run(args)),
        Command::Bench(args) => block_on(bench::run(args)),
    }
}

/// Runs an asynchronous command on a runtime of its own.
pub(crate) fn block_on(
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format_args!("cannot start the runtime: {e}")))?;
    runtime.block_on(command)
}

/// Writes to standard output. A reader that has gone away, as `head` does, is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Failure::failed(format_args!(
            "cannot write to standard output: {e}"
        ))),
        _ => Ok(()),
    }
}

/// Says on standard error what is allowed but probably not meant.
pub(crate) fn warn(text: &str) {
    eprintln!("tidings: warning: {text}");
}
