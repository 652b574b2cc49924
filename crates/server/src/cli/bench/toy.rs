//! A server in a few lines for the tests of the commands: one tenant, events in memory, SSE, and faults on demand.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

/// A running toy. It ends with the test's runtime.
#[derive(Clone)]
pub(in crate::cli) struct Toy {
    pub(in crate::cli) url: String,
    log: Arc<Log>,
}

struct Log {
    events: Mutex<Vec<Value>>,
    head: watch::Sender<usize>,
    fault: Fault,
}

/// What the toy does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Fault {
    None,
    /// Readers do not get every tenth event.
    Loses,
    /// Readers get every tenth event twice.
    Repeats,
    /// Every publish is refused.
    Refuses,
}

impl Toy {
    pub(in crate::cli) async fn start(fault: Fault) -> Self {
        let log = Arc::new(Log {
            events: Mutex::default(),
            head: watch::Sender::new(0),
            fault,
        });
        let app = Router::new()
            .route("/api/v1/events", post(publish))
            .route("/api/v1/stream", get(follow))
            .with_state(log.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, log }
    }

    pub(in crate::cli) fn events(&self) -> Vec<Value> {
        self.log.events.lock().clone()
    }
}

async fn publish(State(log): State<Arc<Log>>, headers: HeaderMap, body: Bytes) -> Response {
    if headers
        .get("authorization")
        .is_none_or(|v| v != "Bearer tok")
    {
        return (StatusCode::UNAUTHORIZED, "{}").into_response();
    }
    if log.fault == Fault::Refuses {
        let problem = json!({"status": 403, "detail": "not allowed", "field": "topic"});
        return (StatusCode::FORBIDDEN, problem.to_string()).into_response();
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    let new = match body {
        Value::Array(events) => events,
        one => vec![one],
    };
    let mut events = log.events.lock();
    let ids: Vec<_> = (0..new.len())
        .map(|n| (events.len() + n).to_string())
        .collect();
    events.extend(new);
    log.head.send_replace(events.len());
    let answer = json!({"ids": ids, "cursor": format!("E-{}", events.len())});
    (StatusCode::ACCEPTED, answer.to_string()).into_response()
}

async fn follow(
    State(log): State<Arc<Log>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = query.unwrap_or_default();
    let topic = query.strip_prefix("topic=").unwrap().replace("%2F", "/");
    let since = headers.get("last-event-id").map(|v| v.to_str().unwrap());
    let since = since.map(|c| c.strip_prefix("E-").unwrap().parse::<usize>().unwrap());
    let at = since.unwrap_or(log.events.lock().len());
    let hello = format!(
        "retry: 1000\nevent: connected\nid: E-{at}\ndata: {{\"connection_id\":\"c\",\"cursor\":\"E-{at}\",\"heartbeat_seconds\":30}}\n\n"
    );
    let head = log.head.subscribe();
    let body = stream::unfold((log, topic, at, head, Some(hello)), |state| async move {
        let (log, topic, mut at, mut head, hello) = state;
        if let Some(hello) = hello {
            return Some((Ok::<_, Infallible>(hello), (log, topic, at, head, None)));
        }
        loop {
            let mut out = String::new();
            for event in &log.events.lock()[at..] {
                at += 1;
                if event["topic"] == topic.as_str() {
                    let (kind, subject) = (event["type"].as_str().unwrap(), &event["data"]);
                    let json = format!(
                        r#"{{"id":"{at}","topic":"{topic}","type":"{kind}","time":"t","data":{subject}}}"#
                    );
                    let frame = format!("event: {kind}\nid: E-{at}\ndata: {json}\n\n");
                    let is_tenth = at % 10 == 5;
                    let copies = match log.fault {
                        Fault::Loses if is_tenth => 0,
                        Fault::Repeats if is_tenth => 2,
                        _ => 1,
                    };
                    out.push_str(&frame.repeat(copies));
                }
            }
            if !out.is_empty() {
                return Some((Ok(out), (log, topic, at, head, None)));
            }
            head.changed().await.ok()?;
        }
    });
    (
        [("content-type", "text/event-stream")],
        Body::from_stream(body),
    )
        .into_response()
}
