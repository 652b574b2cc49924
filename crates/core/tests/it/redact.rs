//! What an event told is taken out again: from the database, from memory, from what others are about to read.

use std::time::Duration;

use tidings_core::db::{DbError, Target};
use tidings_core::event::{EventId, EventType, Json, NewEvent};
use tidings_core::hub::{Delivery, FeedKey, Reader, Rights, RingSize, Start, Style};
use tidings_core::log::store;
use tidings_core::retention::TopicRules;
use tidings_core::topic::Topic;

use crate::support::{Bed, Core, event, on_each_backend, patterns, tenant};

const SECRET: &str = "Agnes-of-Harbour-Street";

static PLAIN: Style = Style {
    name: "data",
    encode: |event, out| out.extend_from_slice(format!("{}\n", event.data).as_bytes()),
};

fn told(id: &str, topic: &str, text: &str) -> NewEvent {
    let data = Json::encode(&serde_json::json!({ "name": text })).unwrap();
    let mut event = NewEvent::new(
        Topic::new(topic).unwrap(),
        EventType::new("t").unwrap(),
        data,
    );
    event.id = Some(EventId::new(id).unwrap());
    event.source = Some("care".into());
    event
}

async fn redact(core: &Core, of: &str, ids: &[&str]) {
    let ids: Vec<String> = ids.iter().map(|&id| id.to_owned()).collect();
    let data = Json::encode(&serde_json::json!({ "redacted": true })).unwrap();
    let of = tenant(of);
    let write = core.log.write(&of, move |tx| tx.redact("care", ids, &data));
    write.await.unwrap();
}

async fn reader(core: &Core, start: Start) -> Reader {
    let log = core.log.tenant(&tenant("a")).await.unwrap();
    let size = RingSize {
        events: 100,
        bytes: 1 << 20,
        ephemeral_age: Duration::from_secs(30),
    };
    let key = FeedKey {
        patterns: patterns(&["**"]),
        rights: Rights::All,
        style: &PLAIN,
        size,
    };
    core.hub.reader(&log, key, start, None)
}

async fn lines(reader: &mut Reader, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        if let Delivery::Frames { bytes, .. } = reader.next().await {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    lines
}

/// What the topics are said to hold, and what they hold.
async fn bytes(core: &Core) -> (u64, u64) {
    core.log.flush().await;
    let log = core.log.tenant(&tenant("a")).await.unwrap();
    let sum = "SELECT CAST(COALESCE(SUM(OCTET_LENGTH(json)), 0) AS BIGINT) FROM events";
    let read = move |conn: &mut tidings_core::db::Conn| {
        let held = conn.row(sum, &[], |row| row.int(0))?.unwrap();
        Ok((store::bytes(conn, &log)?, u64::try_from(held).unwrap()))
    };
    core.log.db().read(read).await.unwrap()
}

on_each_backend! {
    async fn what_is_redacted_is_gone_for_every_reader_to_come(bed: Bed) {
        let core = bed.open(TopicRules::default()).await;
        let (a, b) = (tenant("a"), tenant("b"));
        let mut live = reader(&core, Start::Live).await;
        core.publish(&a, vec![told("1", "x", SECRET), event("x", 7), told("2", "y/z", SECRET), told("3", "x", "kept")]).await;
        core.publish(&b, vec![told("1", "x", "of another tenant")]).await;
        assert_eq!(lines(&mut live, 4).await[0], format!("{{\"name\":\"{SECRET}\"}}"));
        redact(&core, "a", &["1", "2", "none"]).await;
        let expected = [r#"{"redacted":true}"#, "7", r#"{"redacted":true}"#, r#"{"name":"kept"}"#];
        // Who comes now finds neither the ring nor a page that holds it.
        assert_eq!(lines(&mut reader(&core, Start::After(0)).await, 4).await, expected);
        let page = core.read(&a, 0, &patterns(&["**"]), 100).await;
        assert_eq!(page.events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(page.events[0].json.starts_with(r#"{"id":"1","topic":"x","type":"t","#));
        let other = core.read(&b, 0, &patterns(&["**"]), 100).await;
        assert!(other.events[0].json.contains("of another tenant"));
        // Who was here reads on, without a repeat.
        core.publish(&a, vec![event("x", 8)]).await;
        assert_eq!(lines(&mut live, 1).await, ["8"]);
        core.publish(&a, vec![event("x", 9)]).await;
        assert_eq!(lines(&mut live, 1).await, ["9"]);
        if let Target::Sqlite(_) = bed.target {
            for file in std::fs::read_dir(bed.folder()).unwrap() {
                let bytes = std::fs::read(file.unwrap().path()).unwrap();
                assert!(!bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()));
            }
        }
        drop((live, core.hub.clone()));
    }
}

on_each_backend! {
    async fn the_bytes_of_topics_stay_right(bed: Bed) {
        let core = bed.open(TopicRules::default()).await;
        core.publish(&tenant("a"), vec![told("1", "x", &SECRET.repeat(500)), told("2", "y", "a")]).await;
        redact(&core, "a", &["1", "2"]).await;
        let (said, held) = bytes(&core).await;
        assert_eq!(said, held);
        assert!(held < 1_000);
    }
}

on_each_backend! {
    async fn what_came_in_the_same_transaction_is_redacted_too(bed: Bed) {
        let core = bed.open(TopicRules::default()).await;
        let a = tenant("a");
        let mut live = reader(&core, Start::Live).await;
        // The committer is held, so that both find themselves in its next transaction.
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let held = core.log.write(&a, move |_| {
            let _ = wait.recv();
            Ok::<_, DbError>(())
        });
        let publish = core.publish(&a, vec![told("1", "x", SECRET)]);
        let rest = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            go.send(()).unwrap();
        };
        let (held, _, (), ()) = tokio::join!(held, publish, redact(&core, "a", &["1"]), rest);
        held.unwrap();
        assert_eq!(lines(&mut live, 1).await, [r#"{"redacted":true}"#]);
        let page = core.read(&a, 0, &patterns(&["**"]), 100).await;
        assert!(page.events[0].json.ends_with(r#""data":{"redacted":true}}"#));
        let (said, held) = bytes(&core).await;
        assert_eq!(said, held);
    }
}

on_each_backend! {
    async fn a_closure_that_fails_has_redacted_nothing(bed: Bed) {
        let core = bed.open(TopicRules::default()).await;
        let a = tenant("a");
        core.publish(&a, vec![told("1", "x", SECRET)]).await;
        let write = core.log.write(&a, |tx| {
            tx.redact("care", ["1".to_owned()], &Json::null())?;
            Err::<(), _>(DbError::Fault("no".into()))
        });
        write.await.unwrap_err();
        let page = core.read(&a, 0, &patterns(&["**"]), 100).await;
        assert!(page.events[0].json.contains(SECRET));
        core.publish(&a, vec![event("x", 1)]).await;
    }
}
