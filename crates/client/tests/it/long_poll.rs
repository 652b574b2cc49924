//! Streams over long-poll.

use tidings_client::{Subscription, Transport};

use crate::script::{Act, Server, event_json, json, words};

#[tokio::test]
async fn long_poll_asks_where_the_log_stands_first() {
    let placed = |cursor: &str, id: &str| {
        event_json(id).replacen('{', &format!(r#"{{"cursor":"{cursor}","#), 1)
    };
    let answer = |body: String| Act::Answer(json("200 OK", "connection: close\r\n", &body));
    let server = Server::play(vec![
        answer(r#"{"events":[],"cursor":"E-1"}"#.into()),
        answer(format!(
            r#"{{"events":[{},{}],"cursor":"E-3"}}"#,
            placed("E-2", "x"),
            event_json("y")
        )),
        Act::Close,
        answer(r#"{"events":[],"cursor":"E-3"}"#.into()),
        answer(format!(
            r#"{{"events":[{}],"cursor":"E-9","gap":{{"oldest":"E-7"}},"dropped":2}}"#,
            placed("E-9", "z")
        )),
        answer(
            r#"{"events":[],"cursor":"F-1","reset":true,"closing":{"reason":"forbidden"}}"#.into(),
        ),
    ])
    .await;
    let subscription = Subscription::new(["a/**"]).transport(Transport::LongPoll);
    let mut stream = server.client().stream(subscription);
    let wanted = [
        "connected E-1",
        "event x E-2",
        "event y",
        "checkpoint E-3",
        "lost",
        "connected E-3",
        "gap E-7",
        "dropped 2",
        "event z E-9",
        "reset F-1",
        "closing forbidden",
        "end forbidden",
    ];
    assert_eq!(words(&mut stream, wanted.len()).await, wanted);
    let asked = |wait, after: &str| {
        format!("get /api/v1/poll?topic=a%2f**{after}&wait={wait}&limit=1000 http/1.1")
    };
    assert!(server.head(0).await.starts_with(&asked(0, "")));
    assert!(server.head(1).await.starts_with(&asked(25, "&after=e-1")));
    assert!(server.head(3).await.starts_with(&asked(0, "&after=e-3")));
    assert!(server.head(4).await.starts_with(&asked(25, "&after=e-3")));
}
