//! `tidings publish`: publishes an event, or one for each line of its data.

use std::io::Read as _;
use std::process::ExitCode;

use serde_json::value::RawValue;
use tidings_client::NewEvent;
use tidings_core::ingest::{Limits, native};

use super::{Failure, ServerArgs, print};
use crate::http::api::events::{KEY, is_key};

/// What any event must be, whatever the server's limits are: those are its own to state.
const LIMITS: Limits = Limits {
    event: usize::MAX,
    batch: usize::MAX,
    json_depth: usize::MAX / 2,
};

/// `tidings publish`. Prints the answer: ids and cursor.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Topic to publish to, such as orders/7
    #[arg(long)]
    topic: String,
    /// Type of the event, such as order.created
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// Data of the event as JSON; - for standard input, @FILE for a file
    #[arg(
        long,
        value_name = "JSON",
        default_value = "null",
        allow_hyphen_values = true
    )]
    data: String,
    /// Make an event of every line of the data; all of them are published, or none
    #[arg(long)]
    ndjson: bool,
    /// Id of the event; a repeated one is stored once
    #[arg(long, conflicts_with = "ndjson")]
    id: Option<String>,
    /// What the event is about
    #[arg(long)]
    subject: Option<String>,
    /// Makes a retry of this publish harmless
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let key = args.idempotency_key.as_deref();
    if key.is_some_and(|key| !is_key(key)) {
        return Err(Failure::usage(format_args!("--idempotency-key: {KEY}")));
    }
    let client = args.server.client()?;
    let events = events(&args)?;
    let published = match (&events[..], key) {
        ([event], None) => client.publish(event).await?,
        (events, key) => client.publish_batch(events, key).await?,
    };
    let answer = serde_json::json!({"ids": published.ids, "cursor": published.cursor});
    print(&format!("{answer}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// The events that the arguments make, at least one, each as a server reads it.
fn events(args: &Args) -> Result<Vec<NewEvent>, Failure> {
    let text = text(&args.data)?;
    let event = |text: &str, place: &str| -> Result<NewEvent, Failure> {
        let data: Box<RawValue> = serde_json::from_str(text)
            .map_err(|e| Failure::usage(format_args!("--data{place} is not JSON: {e}")))?;
        let mut event = NewEvent::raw(&args.topic, &args.kind, data);
        event.id.clone_from(&args.id);
        event.subject.clone_from(&args.subject);
        Ok(event)
    };
    if !args.ndjson {
        let event = event(&text, "")?;
        check(&event)?;
        return Ok(vec![event]);
    }
    let lines = text.lines().enumerate();
    let events = lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| event(line, &format!(": line {}", at + 1)))
        .collect::<Result<Vec<_>, _>>()?;
    let first = events
        .first()
        .ok_or_else(|| Failure::usage("--data has no line"))?;
    // They differ in nothing but their data, which is JSON.
    check(first)?;
    Ok(events)
}

/// What `--data` stands for.
fn text(data: &str) -> Result<String, Failure> {
    let from = |e: std::io::Error| Failure::usage(format_args!("--data {data}: {e}"));
    if data == "-" {
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .read_to_string(&mut text)
            .map_err(from)?;
        return Ok(text);
    }
    match data.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(from),
        None => Ok(data.to_owned()),
    }
}

/// Reads the event as a server would: what is wrong with it is the command line's fault.
fn check(event: &NewEvent) -> Result<(), Failure> {
    let json = serde_json::to_vec(event).map_err(Failure::usage)?;
    match native::json(&json, &LIMITS, None) {
        Ok(_) => Ok(()),
        Err(e) => Err(Failure::usage(format_args!("--{}", e.detail))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::bench::toy::{Fault, Toy};
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    async fn publish(url: &str, token: &str, data: &str) -> Result<ExitCode, Failure> {
        let line = [
            "publish", "--url", url, "--token", token, "--topic", "a/b", "--type", "t", "--data",
            data,
        ];
        run(Line::try_parse_from(line).unwrap().args).await
    }

    #[tokio::test]
    async fn data_is_passed_on_as_it_stands() {
        let toy = Toy::start(Fault::None).await;
        publish(&toy.url, "tok", "-1.50").await.unwrap();
        let event = &toy.events()[0];
        assert_eq!(
            (event["topic"].as_str(), event["data"].to_string().as_str()),
            (Some("a/b"), "-1.5")
        );
    }

    #[tokio::test]
    async fn exit_codes_tell_the_command_lines_fault_from_a_failure() {
        let toy = Toy::start(Fault::Refuses).await;
        for (url, token, data, code) in [
            (toy.url.as_str(), "tok", "{not json", 2),
            (&toy.url, "tok", "@/nowhere", 2),
            (&toy.url, "t k", "1", 2),
            ("not an address", "tok", "1", 2),
            (&toy.url, "tok", "1", 1),
            (&toy.url, "other", "1", 1),
            ("http://127.0.0.1:1", "tok", "1", 1),
        ] {
            let failure = publish(url, token, data).await.unwrap_err();
            assert_eq!(failure.code, code, "{url} {token} {data}: {failure:?}");
        }
    }
}
