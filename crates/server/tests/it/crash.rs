//! `kill -9` in a loop under load: what was acknowledged is there, once, in order, and every reader has all of it.

use std::time::Duration;

use crate::history::{Load, faults};
use crate::support::{Server, Setup, free_address, postgres};

async fn crash(setup: Setup, rounds: u32) {
    let setup = Setup {
        listen: Some(free_address()),
        ..setup
    };
    let mut server = setup.start();
    let load = Load::start(&server.address).await;
    for round in 0..rounds {
        // Every other time it may be killed before it has done anything.
        load.goes_on(usize::try_from(round % 2).unwrap()).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..200))).await;
        let (folder, setup) = server.kill();
        server = tokio::task::spawn_blocking(move || Server::start(folder, setup))
            .await
            .unwrap();
    }
    let history = load.finish().await;
    assert_eq!(faults(&history), Vec::<String>::new());
}

/// So many rounds as the environment says, or as the suite has time for.
fn rounds(default: u32) -> u32 {
    std::env::var("TIDINGS_TEST_CRASH_ROUNDS")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_loses_nothing() {
    crash(Setup::default(), rounds(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_loses_nothing() {
    if let Some(url) = tokio::task::spawn_blocking(postgres).await.unwrap() {
        crash(
            Setup {
                database_url: Some(url),
                ..Setup::default()
            },
            rounds(40),
        )
        .await;
    }
}
