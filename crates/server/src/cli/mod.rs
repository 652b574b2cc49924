//! The command line: one file per subcommand. Exit codes: 0 done, 1 failed, 2 wrong usage.
#![expect(
    clippy::print_stderr,
    reason = "what a command has to say goes to the terminal"
)]

mod bench;
mod completions;
mod config;
mod dead_letter;
mod demo;
mod export;
mod import;
mod keygen;
mod migrate;
mod openapi;
mod policy;
mod progress;
mod publish;
mod serve;
mod simulate;
mod tail;
mod token;
mod user;

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use tidings_client::{Client, Error};

use crate::config::{CA, FlagValue, Loaded, Sources, TOKEN, URL};

/// A self-hosted real-time push server: durable log, SSE, WebSocket, long-poll.
#[derive(Debug, Parser)]
#[command(
    name = "tidings",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Args),
    /// Print a token that is signed with the server's shared secret.
    Token(token::Args),
    /// Make a shared secret, or a key pair and its JWKS.
    Keygen(keygen::Args),
    /// Publish an event, or one a line.
    Publish(publish::Args),
    /// Print events as they come, one JSON object a line.
    Tail(tail::Args),
    /// Publish realistic, seeded traffic.
    Simulate(simulate::Args),
    /// Measure a server.
    Bench(bench::Args),
    /// Write a log's events as NDJSON.
    Export(export::Args),
    /// Read events that `export` wrote.
    Import(import::Args),
    /// Print the OpenAPI document.
    Openapi(openapi::Args),
    /// Print the configuration in effect.
    Config(config::Args),
    /// Check a folder of policies, or show the built-in set.
    #[command(subcommand)]
    Policy(policy::Command),
    /// List or retry what could not be taken in.
    #[command(subcommand)]
    DeadLetter(dead_letter::Command),
    /// Say who may sign in with a password.
    #[command(subcommand)]
    User(user::Command),
    /// Bring the database's schema up to date, and end.
    Migrate(migrate::Args),
    /// Print the completions of a shell.
    Completions(completions::Args),
}

/// Where a command reads its settings from. Flags are stronger than the environment, which is stronger than the file.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct ConfigArgs {
    /// TOML file with settings [environment: `TIDINGS_CONFIG`]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address to listen on, such as 127.0.0.1:8080; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Folder of the embedded database
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,
    /// Folder of policies that replace the built-in set
    #[arg(long, value_name = "DIR")]
    pub(crate) policies: Option<String>,
    /// How records are written: auto, json or text
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// Least level that is logged, or directives such as `info,tidings::http=debug`
    #[arg(long, value_name = "FILTER")]
    pub(crate) log_level: Option<String>,
    /// Any setting; `tidings config --explain` lists them all. May be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

impl ConfigArgs {
    /// The sources that these flags, the environment and the file make up.
    pub(crate) fn sources(&self) -> Result<Sources, Failure> {
        let mut sources = Sources::from_environment();
        sources.file.clone_from(&self.config);
        let common = [
            ("listen", "--listen", &self.listen),
            ("data_dir", "--data-dir", &self.data_dir),
            ("policies", "--policies", &self.policies),
            ("log.format", "--log-format", &self.log_format),
            ("log.level", "--log-level", &self.log_level),
        ];
        for text in &self.set {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                Failure::usage(format!("--set {text}: it takes a key, '=' and a value"))
            })?;
            sources.flags.push(FlagValue {
                key: key.trim().to_owned(),
                value: value.to_owned(),
                flag: "--set",
            });
        }
        for (key, flag, value) in common {
            if let Some(value) = value {
                sources.flags.push(FlagValue {
                    key: key.to_owned(),
                    value: value.clone(),
                    flag,
                });
            }
        }
        Ok(sources)
    }

    /// Reads the configuration. What is wrong is a usage failure, everything at once.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        let loaded = crate::config::load(&self.sources()?);
        loaded.map_err(Failure::usage)
    }
}

/// The server and the credential of a command that talks to one.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArgs {
    /// Address of the server, such as `http://127.0.0.1:8080` [environment: `TIDINGS_URL`]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Token to authenticate with [environment: `TIDINGS_TOKEN`]
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// PEM file with certificates to trust beside those of the system [environment: `TIDINGS_CA`]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

impl ServerArgs {
    /// The address and the token, from the flags or else the environment.
    pub(crate) fn resolve(&self) -> Result<(String, String), Failure> {
        let environment = Sources::from_environment().environment;
        let pick = |flag: &Option<String>, name: &str, flag_name: &str| {
            let named = environment.get(name).filter(|v| !v.is_empty());
            let text = flag.as_ref().or(named).cloned();
            text.ok_or_else(|| {
                Failure::usage(format!(
                    "{flag_name} is missing (or {name} in the environment)"
                ))
            })
        };
        let (url, token) = (
            pick(&self.url, URL, "--url")?,
            pick(&self.token, TOKEN, "--token")?,
        );
        // A file's last line break is nobody's token.
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Failure::usage(
                "--token is empty, or has a character that no token has",
            ));
        }
        Ok((url, token.to_owned()))
    }

    /// The client of that server.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let (url, token) = self.resolve()?;
        let mut client = Client::builder(url).token(token);
        let named = Sources::from_environment().environment.remove(CA);
        let named = named.filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(file) = self.ca.as_ref().or(named.as_ref()) {
            let pem = std::fs::read(file)
                .map_err(|e| Failure::usage(format_args!("--ca {}: {e}", file.display())))?;
            client = client.certificate(pem);
        }
        client.build().map_err(Failure::from)
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

impl From<Error> for Failure {
    /// What cannot be sent is the command line's fault; all else is a failure.
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(_) => Self::usage(error),
            other => Self::failed(other),
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
    // clap itself prints usage errors and ends with 2; help and version end with 0.
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            for line in failure.message.lines() {
                eprintln!("tidings: {line}");
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Keygen(args) => keygen::run(&args),
        Command::Publish(args) => block_on(publish::run(args)),
        Command::Tail(args) => block_on(tail::run(args)),
        Command::Simulate(args) => block_on(simulate::run(args)),
        Command::Bench(args) => block_on(bench::run(args)),
        Command::Export(args) => block_on(export::run(args)),
        Command::Import(args) => block_on(import::run(args)),
        Command::Openapi(args) => openapi::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Policy(command) => policy::run(command),
        Command::DeadLetter(command) => block_on(dead_letter::run(command)),
        Command::User(command) => user::run(command),
        Command::Migrate(args) => migrate::run(&args),
        Command::Completions(args) => completions::run(&args),
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

/// The whole command tree, as completions need it.
fn tree() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound() {
        tree().debug_assert();
    }

    #[test]
    fn flags_become_settings_and_a_broken_one_is_named() {
        let args = ConfigArgs {
            listen: Some("127.0.0.1:1".into()),
            set: vec!["stream.idle=5s".into()],
            ..ConfigArgs::default()
        };
        let keys: Vec<_> = args
            .sources()
            .unwrap()
            .flags
            .into_iter()
            .map(|f| (f.key, f.flag))
            .collect();
        assert_eq!(
            keys,
            [
                ("stream.idle".to_owned(), "--set"),
                ("listen".to_owned(), "--listen")
            ]
        );
        let args = ConfigArgs {
            set: vec!["stream.idle".into()],
            ..ConfigArgs::default()
        };
        assert!(args.sources().is_err_and(|failure| failure.code == 2));
    }
}
