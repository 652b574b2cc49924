//! `tidings dead-letter`: what could not be taken in.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::value::RawValue;
use tidings_client::Client;

use super::{Failure, ServerArgs, print, warn};

/// `tidings dead-letter`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print what was kept aside with its reason, one JSON object a line, the newest first.
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Take in again what was kept aside.
    Retry {
        #[command(flatten)]
        server: ServerArgs,
        /// Its ids; without any, everything
        #[arg(value_name = "ID")]
        ids: Vec<String>,
    },
}

#[derive(Deserialize)]
struct Page {
    dead_letters: Vec<Box<RawValue>>,
    cursor: Option<String>,
}

pub(crate) async fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::List { server } => {
            for letter in all(&server.client()?).await? {
                print(&format!("{}\n", letter.get()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Retry { server, ids } => {
            let is_id = |id: &String| {
                !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            };
            if let Some(other) = ids.iter().find(|id| !is_id(id)) {
                return Err(Failure::usage(format_args!(
                    "{other:?} is no id of a dead letter"
                )));
            }
            retry(&server.client()?, ids).await
        }
    }
}

/// Everything that is set aside, the newest first.
pub(super) async fn all(client: &Client) -> Result<Vec<Box<RawValue>>, Failure> {
    let (mut letters, mut after) = (Vec::new(), None::<String>);
    loop {
        // Each may hold a megabyte.
        let mut query = vec![("limit", "100")];
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page = client.get("api/v1/dead-letters", &query).await?;
        let page: Page = serde_json::from_str(page.get())
            .map_err(|e| Failure::failed(format_args!("the answer: {e}")))?;
        letters.extend(page.dead_letters);
        match page.cursor {
            Some(cursor) => after = Some(cursor),
            None => return Ok(letters),
        }
    }
}

async fn retry(client: &Client, ids: Vec<String>) -> Result<ExitCode, Failure> {
    #[derive(Deserialize)]
    struct Letter {
        id: String,
    }
    let ids = if ids.is_empty() {
        let letters = all(client).await?;
        // The oldest first, as they came.
        let read = |letter: &RawValue| serde_json::from_str::<Letter>(letter.get()).map(|l| l.id);
        letters
            .iter()
            .rev()
            .map(|letter| read(letter))
            .collect::<Result<_, _>>()
            .map_err(|e| Failure::failed(format_args!("the answer: {e}")))?
    } else {
        ids
    };
    let mut refused = 0;
    for id in ids {
        match client
            .post(
                &format!("api/v1/dead-letters/{id}/retry"),
                "application/json",
                "".into(),
            )
            .await
        {
            Ok(answer) => print(&format!("{}\n", answer.get()))?,
            Err(e) => {
                warn(&format!("{id}: {e}"));
                refused += 1;
            }
        }
    }
    Ok(if refused == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
