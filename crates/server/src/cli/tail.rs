//! `tidings tail`: prints events as they come.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use tidings_client::{Delivery, Event, Subscription, Transport};
use tidings_core::cursor::Cursor;
use tidings_core::topic::{MAX_PATTERNS, Pattern};

use super::{Failure, ServerArgs};

/// `tidings tail`. One JSON event a line with its cursor, until it is interrupted. Once it was connected it comes back by
/// itself, and goes on where it was.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Topic or pattern, such as orders/** ; may be repeated
    #[arg(long = "topic", value_name = "TOPIC", required = true)]
    topics: Vec<String>,
    /// Begin after this cursor, and not with what comes from now on
    #[arg(long, value_name = "CURSOR")]
    since: Option<String>,
    /// How to connect
    #[arg(long, value_parser = ["sse", "ws", "poll"], default_value = "sse")]
    transport: String,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let mut stream = args.server.client()?.stream(subscription(&args)?);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut is_connected = false;
    loop {
        let delivery = tokio::select! {
            delivery = stream.next() => delivery?,
            _ = &mut interrupted => return Ok(ExitCode::SUCCESS),
        };
        match delivery {
            Delivery::Event { cursor, event } => match write(&line(cursor.as_deref(), &event)?) {
                Ok(()) => {}
                // Whoever reads has seen enough, as `head` does.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                Err(e) => {
                    return Err(Failure::failed(format_args!(
                        "cannot write to standard output: {e}"
                    )));
                }
            },
            // A server that was never there is a mistake; one that goes away comes back.
            Delivery::Lost { error, .. } if !is_connected => return Err(error.into()),
            other => {
                is_connected |= matches!(other, Delivery::Connected { .. });
                if let Some(note) = note(&other) {
                    tell(&note);
                }
            }
        }
    }
}

/// What the arguments ask for, read as a server reads it.
fn subscription(args: &Args) -> Result<Subscription, Failure> {
    for topic in &args.topics {
        Pattern::new(topic).map_err(|e| Failure::usage(format_args!("--topic {topic}: {e}")))?;
    }
    if args.topics.len() > MAX_PATTERNS {
        return Err(Failure::usage(format_args!(
            "--topic may be given {MAX_PATTERNS} times"
        )));
    }
    let transport = match args.transport.as_str() {
        "ws" => Transport::WebSocket,
        "poll" => Transport::LongPoll,
        _ => Transport::Sse,
    };
    let subscription = Subscription::new(args.topics.clone()).transport(transport);
    let Some(cursor) = &args.since else {
        return Ok(subscription);
    };
    Cursor::parse(cursor.as_bytes())
        .map_err(|_| Failure::usage(format_args!("--since {cursor}: this is no cursor")))?;
    Ok(subscription.since(cursor))
}

/// What a person beside the output should know. The output itself holds events and nothing else.
fn note(delivery: &Delivery) -> Option<String> {
    Some(match delivery {
        Delivery::Connected {
            cursor: Some(cursor),
            ..
        } => format!("connected at {cursor}"),
        Delivery::Gap { oldest } => {
            format!("gap: retention has removed events; the oldest kept is after {oldest}")
        }
        Delivery::Reset { cursor } => {
            format!("reset: the cursor is not of this log; going on from {cursor}")
        }
        Delivery::Dropped { count } => format!("dropped: {count} ephemeral events"),
        Delivery::Unsubscribed { topics, reason } => {
            format!("unsubscribed: {} ({reason})", topics.join(" "))
        }
        Delivery::Closing { reason, retry_ms } => {
            format!("closing: {reason}, retry in {retry_ms} ms")
        }
        Delivery::Lost { error, retry_ms } => format!("{error}; trying again in {retry_ms} ms"),
        _ => return None,
    })
}

/// The event as one line of JSON, its cursor first; ephemeral events have none.
fn line(cursor: Option<&str>, event: &Event) -> Result<String, Failure> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<&'a str>,
        #[serde(flatten)]
        event: &'a Event,
    }
    let mut line = serde_json::to_string(&Line { cursor, event })
        .map_err(|e| Failure::failed(format_args!("an event cannot be written: {e}")))?;
    line.push('\n');
    Ok(line)
}

fn write(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

/// Beside the output. Nobody listening there is no reason to stop.
fn tell(note: &str) {
    let _ = writeln!(std::io::stderr().lock(), "tidings: {note}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_the_events_own_text() {
        let json = r#"{"id":"1","topic":"a","type":"t","time":"2026-01-01T00:00:00Z","extensions":{"x":1},"data":{"b":1.00,"a":[1e5]}}"#;
        let event: Event = serde_json::from_str(json).unwrap();
        assert_eq!(line(None, &event).unwrap(), format!("{json}\n"));
        let placed = line(Some("E-7"), &event).unwrap();
        assert_eq!(
            placed,
            format!("{}\n", json.replacen('{', r#"{"cursor":"E-7","#, 1))
        );
    }
}
