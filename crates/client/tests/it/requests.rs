//! Requests that end: publish, history, and any other path.

use tidings_client::{Client, Error, HistoryQuery, NewEvent};

use crate::script::{Act, Server, event_json, json};

#[tokio::test]
async fn a_publish_is_tried_again_only_where_that_is_harmless() {
    let done = || {
        Act::Answer(json(
            "202 Accepted",
            "idempotent-replayed: true\r\n",
            r#"{"ids":["1"],"cursor":"E-1"}"#,
        ))
    };
    let busy = || Act::Answer(json("503 Busy", "connection: close\r\n", "{}"));
    let event = NewEvent::new("a/b", "t", &[1]).unwrap();

    let server = Server::play(vec![busy(), done()]).await;
    let published = server.client().publish(&event).await.unwrap();
    assert!(published.is_replayed && published.cursor.as_deref() == Some("E-1"));
    assert!(
        server
            .head(1)
            .await
            .ends_with(r#"{"topic":"a/b","type":"t","data":[1]}"#)
    );

    // The connection broke after the request: it may have been stored.
    let server = Server::play(vec![Act::Close, done()]).await;
    assert!(matches!(
        server.client().publish(&event).await,
        Err(Error::Lost(_))
    ));
    let server = Server::play(vec![Act::Close, done()]).await;
    server
        .client()
        .publish_batch(std::slice::from_ref(&event), Some("key-1"))
        .await
        .unwrap();
    assert!(server.head(1).await.contains("idempotency-key: key-1\r\n"));
    let mut named = event.clone();
    named.id = Some("mine".into());
    let server = Server::play(vec![Act::Close, done()]).await;
    server.client().publish(&named).await.unwrap();

    let problem = json(
        "422 No",
        "",
        r#"{"detail":"reserved","field":"type","index":0}"#,
    );
    let server = Server::play(vec![Act::Answer(problem)]).await;
    let error = server.client().publish(&named).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server answered 422: reserved (at type of item 0)"
    );
}

#[tokio::test]
async fn nobody_there_is_an_error_that_says_so() {
    let client = Client::builder("http://127.0.0.1:1")
        .attempts(1)
        .build()
        .unwrap();
    let event = NewEvent::new("a", "t", &()).unwrap();
    assert!(matches!(
        client.publish(&event).await,
        Err(Error::Unreachable(_))
    ));
}

#[tokio::test]
async fn history_comes_in_pages() {
    let body = format!(
        r#"{{"events":[{}],"cursor":"E-9","gap":{{"oldest":"E-2"}}}}"#,
        event_json("x").replacen('{', r#"{"cursor":"E-3","#, 1)
    );
    let server = Server::play(vec![Act::Answer(json("200 OK", "", &body))]).await;
    let query = HistoryQuery {
        topics: vec!["a/*".into(), "b".into()],
        after: Some("E-1".into()),
        limit: Some(5),
    };
    let page = server.client().history(&query).await.unwrap();
    assert_eq!(page.events[0].cursor.as_deref(), Some("E-3"));
    assert_eq!(page.events[0].event.data.get(), r#"{"n":1.00}"#);
    assert_eq!(
        (page.cursor.as_str(), page.gap.unwrap().oldest.as_str()),
        ("E-9", "E-2")
    );
    assert!(
        server
            .head(0)
            .await
            .starts_with("get /api/v1/events?topic=a%2f*&topic=b&after=e-1&limit=5 ")
    );
}

#[tokio::test]
async fn what_may_be_repeated_is_sent_until_it_is_taken() {
    let done = Act::Answer(json("202 Accepted", "", r#"{"event_ids":["1"]}"#));
    let busy = Act::Answer(json("503 Busy", "connection: close\r\n", "{}"));
    let server = Server::play(vec![Act::Close, busy, done]).await;
    let body = r#"{"entity_id":"e"}"#;
    let path = "api/v1/alarms/ingest/batch";
    let client = server.client();
    let sent = client.post_repeatable(path, "application/x-ndjson", body.into());
    assert_eq!(sent.await.unwrap().get(), r#"{"event_ids":["1"]}"#);
    let head = server.head(2).await;
    assert!(
        head.starts_with("post /api/v1/alarms/ingest/batch ")
            && head.contains("authorization: bearer tok\r\n")
            && head.contains("content-type: application/x-ndjson\r\n")
            && head.ends_with(body),
        "{head}"
    );

    let no = Act::Answer(json("422 No", "", r#"{"detail":"bad","field":"severity"}"#));
    let client = Server::play(vec![no]).await.client();
    let sent = client.post_repeatable(path, "application/json", "[]".into());
    let error = sent.await.unwrap_err().to_string();
    assert_eq!(error, "the server answered 422: bad (at severity)");

    let client = Server::play(vec![Act::Close]).await.client();
    let sent = client.post(path, "application/json", "{}".into());
    assert!(matches!(sent.await, Err(Error::Lost(_))));
}
