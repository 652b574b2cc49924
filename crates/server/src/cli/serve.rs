//! `tidings serve`: runs the server.

use std::process::ExitCode;

use tidings_core::clock::Clock;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{ConfigArgs, Failure, block_on, demo, print};
use crate::app::{self, App, StartError};
use crate::config::{Config, Loaded, Sources};
use crate::telemetry::Telemetry;

/// Lets tests move the server's clock; see `http::api::test_clock`.
const TEST_CLOCK: &str = "TIDINGS_TEST_CLOCK";

/// `tidings serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ready to look at: a generated secret, a demo tenant, live traffic, and a sign-in link
    #[arg(long)]
    pub(crate) demo: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let loaded = if args.demo {
        demo::load(&args.config)?
    } else {
        args.config.load()?
    };
    let Loaded {
        config, warnings, ..
    } = loaded;
    let is_manual = Sources::from_environment()
        .environment
        .get(TEST_CLOCK)
        .is_some_and(|v| v == "manual");
    let clock = app::clock(is_manual);
    let telemetry = Telemetry::start(&config, clock.clone()).map_err(Failure::usage)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // Every connection is a descriptor: take all that the system gives.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let result = block_on(serve(config, clock, args.demo));
    telemetry.shutdown();
    result
}

async fn serve(config: Config, clock: Clock, is_demo: bool) -> Result<ExitCode, Failure> {
    let (address, is_tls) = (config.listen, config.tls.is_some());
    let app = App::open(config, clock).await.map_err(failed)?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| Failure::failed(format_args!("cannot listen on {address}: {e}")))?;
    let address = listener
        .local_addr()
        .map_err(|e| Failure::failed(format_args!("cannot listen: {e}")))?;
    let shutdown = CancellationToken::new();
    follow_signals(&app, &shutdown)?;
    let address = format!("{}://{address}", if is_tls { "https" } else { "http" });
    print(&format!("listening on {address}\n"))?;
    if is_demo {
        print(&demo::welcome(&app.config, &address)?)?;
        app.spawn(demo::traffic(app.clone()));
    }
    app.serve(listener, shutdown).await;
    Ok(ExitCode::SUCCESS)
}

fn failed(e: StartError) -> Failure {
    if e.is_usage() {
        Failure::usage(e)
    } else {
        Failure::failed(e)
    }
}

/// SIGTERM and SIGINT take the server down, SIGHUP reads the policies again.
fn follow_signals(app: &App, shutdown: &CancellationToken) -> Result<(), Failure> {
    let on = |kind| {
        signal(kind).map_err(|e| Failure::failed(format_args!("cannot wait for signals: {e}")))
    };
    let (mut terminate, mut interrupt, mut hang_up) = (
        on(SignalKind::terminate())?,
        on(SignalKind::interrupt())?,
        on(SignalKind::hangup())?,
    );
    let (app, shutdown) = (app.clone(), shutdown.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    let policies = app.policies.clone();
                    // What is wrong with them is in the log.
                    let _ = tokio::task::spawn_blocking(move || policies.reload()).await;
                }
            }
        }
        shutdown.cancel();
    });
    Ok(())
}
