//! Lines that go to a server.

use serde::Deserialize;
use tidings_client::{Client, Error};

use super::super::{Failure, dead_letter};
use super::aside::{Count, Known, SOURCE, reason};
use super::line::Line;

/// A server, and the dead letters that it has.
pub(super) struct Server {
    client: Client,
    /// Asked for when the first one is made.
    known: Option<Known>,
}

impl Server {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            known: None,
        }
    }

    /// Sends lines on; a batch that is refused is halved until the line that is at fault stands alone.
    pub(super) async fn take(
        &mut self,
        lines: Vec<Line>,
        count: &mut Count,
    ) -> Result<(), Failure> {
        let (broken, whole): (Vec<_>, Vec<_>) = lines.into_iter().partition(|l| l.fault.is_some());
        for line in broken {
            let why = line.fault.unwrap_or_default();
            self.set_aside(&line, why, count).await?;
        }
        let mut work = vec![whole];
        while let Some(mut lines) = work.pop() {
            if lines.is_empty() {
                continue;
            }
            let texts: Vec<&str> = lines.iter().map(|l| l.text.as_str()).collect();
            let body = texts.join("\n").into();
            let sent = self
                .client
                .post("api/v1/events", "application/x-ndjson", body);
            match sent.await {
                Ok(_) => {}
                Err(e) if !is_about_content(&e) => return Err(e.into()),
                Err(_) if lines.len() > 1 => {
                    let second = lines.split_off(lines.len() / 2);
                    work.extend([second, lines]);
                }
                Err(e) => {
                    for line in lines {
                        self.set_aside(&line, &e.to_string(), count).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn set_aside(
        &mut self,
        line: &Line,
        why: &str,
        count: &mut Count,
    ) -> Result<(), Failure> {
        if self.known.is_none() {
            self.known = Some(known(&self.client).await?);
        }
        if self.known.as_mut().is_some_and(|k| !k.is_new(&line.text)) {
            count.set_aside();
            return Ok(());
        }
        let letter =
            serde_json::json!({ "source": SOURCE, "reason": reason(why), "content": line.text });
        let body = letter.to_string().into();
        let sent = self
            .client
            .post("api/v1/dead-letters", "application/json", body);
        match sent.await {
            Ok(_) => count.set_aside(),
            Err(e) if is_about_content(&e) => {
                count.leave(line.number, &format!("{why}; and as a dead letter: {e}"));
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }
}

async fn known(client: &Client) -> Result<Known, Failure> {
    #[derive(Deserialize)]
    struct Letter {
        source: String,
        content: String,
    }
    let mut known = Known::default();
    for letter in dead_letter::all(client).await? {
        let letter: Letter = serde_json::from_str(letter.get())
            .map_err(|e| Failure::failed(format_args!("the answer: {e}")))?;
        known.add(&letter.source, &letter.content);
    }
    Ok(known)
}

fn is_about_content(e: &Error) -> bool {
    matches!(e.status(), Some(400 | 409 | 413 | 422))
}
