//! Storage that fails under a server and comes back: a full disk, a write that is refused, a database that is gone or
//! silent. Meanwhile publishers are told so and readers stay; afterwards all goes on by itself, and nothing is lost.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::history::{Load, Seen, faults, seq};
use crate::support::{
    Answer, PATIENCE, Request, Server, Setup, Sse, admin, eventually, free_address, postgres,
};

const UNAVAILABLE: &str = "/problems/unavailable";

/// Publishes an event whose id is its number.
fn publish(server: &Server, n: u64, bytes: usize) -> Answer {
    let data = json!({ "n": n, "text": "x".repeat(bytes) });
    let event = json!({ "topic": "x", "type": "t", "id": n.to_string(), "data": data });
    server.post("/api/v1/events", Some(&admin()), &event)
}

/// The numbers of all events that the log holds.
fn held(server: &Server) -> Vec<u64> {
    let (mut numbers, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/events?topic=x&limit=100&after={after}");
        let page = server.get(&path, Some(&admin()));
        assert_eq!(page.status, 200, "{}", page.body);
        let page = page.json();
        let events = page["events"].as_array().unwrap();
        if events.is_empty() {
            return numbers;
        }
        numbers.extend(events.iter().map(|e| e["data"]["n"].as_u64().unwrap()));
        page["cursor"].as_str().unwrap().clone_into(&mut after);
    }
}

fn is_refused(answer: &Answer) {
    answer.is_problem(503, None);
    assert_eq!(answer.json()["type"], UNAVAILABLE);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
}

fn ready(server: &Server) -> (u16, Value) {
    let answer = server.get("/readyz", None);
    (answer.status, answer.json())
}

/// Fills the storage until it refuses, gives room, and goes on. `why` is what its log must say of it. Returns how many
/// events there are then.
fn fill_and_give_room(server: &Server, why: &str, give_room: impl FnOnce()) -> u64 {
    let token = admin();
    let mut stream = server.stream("topic=x", &token, None);
    stream.until("connected");
    let mut n = 0;
    let refused = loop {
        let answer = publish(server, n, 20_000);
        if answer.status != 202 {
            break answer;
        }
        n += 1;
        assert!(n < 5_000, "it is never full");
    };
    is_refused(&refused);
    // What is small may still find room: it is then as good as any.
    for _ in 0..20 {
        let answer = publish(server, n, 10);
        match answer.status {
            202 => n += 1,
            _ => is_refused(&answer),
        }
    }
    // A batch is all or nothing, here too.
    let lines: String = (n..n + 50)
        .map(|n| {
            format!(
                "{{\"topic\":\"x\",\"type\":\"t\",\"data\":{{\"n\":{n},\"text\":\"{}\"}}}}\n",
                "x".repeat(20_000)
            )
        })
        .collect();
    let headers = vec![("Content-Type", "application/x-ndjson".to_owned())];
    is_refused(&server.request(&Request {
        token: Some(&token),
        headers,
        body: lines.into_bytes(),
        ..Request::new("POST", "/api/v1/events")
    }));
    let (status, said) = ready(server);
    assert_eq!(
        (status, &said["status"], &said["checks"]["log"]),
        (503, &json!("not ready"), &json!("failing"))
    );
    assert_eq!(server.get("/healthz", None).status, 200, "it lives");
    eventually("the server's log says why", || {
        let log = server.log();
        log.contains("\"the log cannot store\"") && log.contains(why)
    });
    // Readers live on: the one that was there, and those who come.
    let all: Vec<u64> = (0..n).collect();
    assert_eq!(numbers(&mut stream, n), all);
    assert_eq!(held(server), all, "nothing that was refused is there");
    let mut late = server.stream("topic=x", &token, Some(&first_cursor(server)));
    assert_eq!(numbers(&mut late, n - 1), all[1..]);

    give_room();
    eventually("it stores again", || {
        publish(server, n, 20_000).status == 202
    });
    assert_eq!(ready(server).0, 200);
    eventually("the server's log says so", || {
        server.log().contains("the log stores again")
    });
    for n in n + 1..n + 50 {
        assert_eq!(publish(server, n, 20_000).status, 202);
    }
    // What was told to be stored is not stored again.
    assert_eq!(publish(server, n, 20_000).status, 202);
    let all: Vec<u64> = (n..n + 50).collect();
    assert_eq!(numbers(&mut stream, 50), all);
    assert_eq!(numbers(&mut late, 50), all);
    n + 50
}

fn numbers(stream: &mut Sse, count: u64) -> Vec<u64> {
    let data = stream.data(usize::try_from(count).unwrap());
    data.iter()
        .map(|data| data["n"].as_u64().unwrap())
        .collect()
}

fn first_cursor(server: &Server) -> String {
    let page = server.get("/api/v1/events?topic=x&limit=1", Some(&admin()));
    page.json()["cursor"].as_str().unwrap().to_owned()
}

/// A folder on a disk of its own, which only the server sees; none where the system does not allow that.
fn small_disk(folder: &Path) -> Option<Vec<String>> {
    let mount = "mount -t tmpfs -o size=12m tmpfs \"$1\" && shift && exec \"$@\"";
    let folder = folder.to_str().unwrap();
    let through = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        mount,
        "sh",
        folder,
    ];
    let tried = Command::new(through[0])
        .args(&through[1..])
        .arg("true")
        .status();
    tried
        .is_ok_and(|status| status.success())
        .then(|| through.map(str::to_owned).into())
}

#[test]
fn a_full_disk_is_told_and_outlived() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let Some(through) = small_disk(folder.path()) else {
        eprintln!("not run: no file system can be mounted here");
        return;
    };
    let server = Server::start(
        folder.clone(),
        Setup {
            through,
            ..Setup::default()
        },
    );
    // The disk as the server sees it.
    let inside =
        |path: &Path| PathBuf::from(format!("/proc/{}/root{}", server.pid(), path.display()));
    let ballast = inside(folder.path()).join("ballast");
    std::fs::write(&ballast, vec![1; 8 << 20]).unwrap();
    let count = fill_and_give_room(&server, "the database has no room", || {
        std::fs::remove_file(&ballast).unwrap();
    });
    // All of it is on the disk: what stands there now makes the same log elsewhere.
    let copy = Arc::new(tempfile::tempdir().unwrap());
    for name in ["tidings.db", "tidings.db-wal", "boot"] {
        std::fs::copy(inside(folder.path()).join(name), copy.path().join(name)).unwrap();
    }
    let last = first_cursor(&server);
    drop(server);
    let server = Server::start(copy, Setup::default());
    assert_eq!(held(&server), (0..count).collect::<Vec<_>>());
    assert_eq!(first_cursor(&server), last, "the same log");
}

#[test]
fn a_write_that_the_system_refuses_is_told_and_outlived() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    // Without this a process that writes too far is ended.
    let through = ["sh", "-c", "trap '' XFSZ && exec \"$@\"", "sh"]
        .map(str::to_owned)
        .into();
    let server = Server::start(
        folder,
        Setup {
            through,
            ..Setup::default()
        },
    );
    let limit = |bytes: u64| {
        let pid = i32::try_from(server.pid()).unwrap();
        rlimit::prlimit(pid, rlimit::Resource::FSIZE, Some((bytes, u64::MAX)), None).unwrap();
    };
    limit(3 << 20);
    let count = fill_and_give_room(&server, "disk I/O error", || limit(u64::MAX));
    let (folder, _) = server.kill();
    let server = Server::start(folder, Setup::default());
    assert_eq!(held(&server), (0..count).collect::<Vec<_>>());
}

/// Stands between a server and its database.
struct Proxy {
    address: String,
    state: Arc<AtomicU8>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

const OPEN: u8 = 0;
const CUT: u8 = 1;
const SILENT: u8 = 2;

impl Proxy {
    fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap().to_string(),
            state: Arc::default(),
            sockets: Arc::default(),
        };
        let (state, sockets) = (proxy.state.clone(), proxy.sockets.clone());
        // Ends with the test's process.
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if state.load(Ordering::SeqCst) == CUT {
                    continue;
                }
                let far = TcpStream::connect(&to).unwrap();
                for (from, into) in [(&near, &far), (&far, &near)] {
                    let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                    let state = state.clone();
                    std::thread::spawn(move || forward(from, into, &state));
                }
                sockets.lock().unwrap().extend([near, far]);
            }
        });
        proxy
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
        if state == CUT {
            for socket in self.sockets.lock().unwrap().drain(..) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(CUT);
    }
}

fn forward(mut from: TcpStream, mut into: TcpStream, state: &AtomicU8) {
    from.set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mut bytes = [0; 16_384];
    loop {
        let count = match from.read(&mut bytes) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) | Ok(0) => break,
            Ok(count) => count,
        };
        while state.load(Ordering::SeqCst) == SILENT {
            std::thread::sleep(Duration::from_millis(5));
        }
        if into.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), into.shutdown(Shutdown::Both));
}

/// Reads one stream, opened once, for as long as the test goes on.
fn stays(server: &Server) -> (Seen, std::thread::JoinHandle<()>) {
    let mut stream = server.stream("topic=crash/*&topic=other", &admin(), None);
    stream.until("connected");
    let seen = Seen::default();
    let into = seen.clone();
    let reading = std::thread::spawn(move || {
        while let Some(frame) = stream.next() {
            if frame.event == "t" {
                let id = frame.json()["id"].as_str().unwrap().to_owned();
                into.lock().unwrap().push((seq(&frame.id), id));
            }
        }
    });
    (seen, reading)
}

/// One loss of the database and its return, while the load goes on.
fn lose(server: &Server, proxy: &Proxy, state: u8) {
    proxy.set(state);
    eventually("/readyz says so", || ready(server).0 == 503);
    if state == CUT {
        let event = json!({ "topic": "other", "type": "t", "data": "lost" });
        is_refused(&server.post("/api/v1/events", Some(&admin()), &event));
        let (status, said) = ready(server);
        assert_eq!(
            (status, &said["checks"]["database"]),
            (503, &json!("failing"))
        );
    }
    assert_eq!(server.get("/healthz", None).status, 200, "it lives");
    proxy.set(OPEN);
    eventually("it is ready again", || ready(server).0 == 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_told_and_outlived() {
    let Some(url) = tokio::task::spawn_blocking(postgres).await.unwrap() else {
        return;
    };
    let (head, tail) = url.split_once('@').unwrap();
    let (to, database) = tail.split_once('/').unwrap();
    let proxy = Arc::new(Proxy::start(to.to_owned()));
    let setup = Setup {
        database_url: Some(format!("{head}@{}/{database}", proxy.address)),
        listen: Some(free_address()),
        ..Setup::default()
    };
    let server = Arc::new(
        tokio::task::spawn_blocking(move || setup.start())
            .await
            .unwrap(),
    );
    let load = Load::start(&server.address).await;
    let (seen, reading) = stays(&server);
    for round in 0..12 {
        load.goes_on(20).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..50))).await;
        let (server, proxy) = (server.clone(), proxy.clone());
        let state = if round % 4 == 3 { SILENT } else { CUT };
        tokio::task::spawn_blocking(move || lose(&server, &proxy, state))
            .await
            .unwrap();
    }
    let mut history = load.finish().await;
    let end = history.log.last().unwrap().0;
    let until = std::time::Instant::now() + PATIENCE;
    while seen
        .lock()
        .unwrap()
        .last()
        .is_none_or(|(seq, _)| *seq < end)
    {
        assert!(!reading.is_finished(), "the stream was closed");
        assert!(
            std::time::Instant::now() < until,
            "the stream does not get to the end"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    history.saw(
        "a stream that was opened once",
        seen.lock().unwrap().clone(),
    );
    assert_eq!(faults(&history), Vec::<String>::new());
    drop(server);
    reading.join().unwrap();
}
