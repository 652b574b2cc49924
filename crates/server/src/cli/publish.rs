//! `tidings publish`: publishes one event.

use std::io::Read as _;
use std::process::ExitCode;

use serde_json::value::RawValue;
use tidings_client::{Client, Error, NewEvent};

use super::{Failure, ServerArgs, print};

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
    /// JSON of the event, or - for standard input
    #[arg(
        long,
        value_name = "JSON",
        default_value = "null",
        allow_hyphen_values = true
    )]
    data: String,
    /// Id of the event; a repeated one is stored once
    #[arg(long)]
    id: Option<String>,
    /// What the event is about
    #[arg(long)]
    subject: Option<String>,
    /// Makes a retry of this publish harmless
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let event = event(&args)?;
    let client = client(&args.server)?;
    let published = match &args.idempotency_key {
        Some(key) => client.publish_batch(&[event], Some(key)).await,
        None => client.publish(&event).await,
    };
    let published = published.map_err(failure)?;
    let answer = serde_json::json!({"ids": published.ids, "cursor": published.cursor});
    print(&format!("{answer}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn event(args: &Args) -> Result<NewEvent, Failure> {
    let text = if args.data == "-" {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        read.map_err(|e| Failure::usage(format_args!("--data -: standard input: {e}")))?;
        text
    } else {
        args.data.clone()
    };
    let data: Box<RawValue> = serde_json::from_str(&text)
        .map_err(|e| Failure::usage(format_args!("--data is not JSON: {e}")))?;
    let mut event = NewEvent::raw(&args.topic, &args.kind, data);
    event.id.clone_from(&args.id);
    event.subject.clone_from(&args.subject);
    Ok(event)
}

/// The client that a command's arguments name.
pub(super) fn client(server: &ServerArgs) -> Result<Client, Failure> {
    let (url, token) = server.resolve()?;
    let client = Client::builder(url).token(token);
    client.build().map_err(failure)
}

/// What cannot be sent is the command line's fault; all else is a failure.
pub(super) fn failure(error: Error) -> Failure {
    match error {
        Error::Invalid(_) => Failure::usage(error),
        other => Failure::failed(other),
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
