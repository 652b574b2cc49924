//! A server of the test's own, and small clients that see every byte.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The secret of every test server.
pub(crate) const SECRET: &str = "a secret that only the tests know, long enough";
/// How long anything may take before the test says that it does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A token of a tenant.
pub(crate) fn token_of(tenant: &str, subject: &str, more: &Value) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut claims =
        json!({ "tenant_id": tenant, "sub": subject, "exp": now + 3_600, "iat": now - 5 });
    claims
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    claims
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    sign(&claims, SECRET)
}

pub(crate) fn sign(claims: &Value, secret: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

/// An administrator of tenant `a`.
pub(crate) fn admin() -> String {
    token_of("a", "root", &json!({ "roles": ["admin"] }))
}

/// Somebody of tenant `a` who may publish and read what no module owns.
pub(crate) fn user(subject: &str) -> String {
    token_of(
        "a",
        subject,
        &json!({ "scope": "events:read events:write" }),
    )
}

/// What a server is started with.
#[derive(Default, Clone)]
pub(crate) struct Setup {
    pub(crate) set: Vec<String>,
    pub(crate) is_clock_manual: bool,
    pub(crate) database_url: Option<String>,
    pub(crate) listen: Option<String>,
    /// Its data, where that is not in the server's own folder.
    pub(crate) data: Option<std::path::PathBuf>,
    /// A configuration file's text.
    pub(crate) file: String,
}

impl Setup {
    pub(crate) fn set(mut self, setting: &str) -> Self {
        self.set.push(setting.to_owned());
        self
    }

    pub(crate) fn file(mut self, text: &str) -> Self {
        text.clone_into(&mut self.file);
        self
    }

    pub(crate) fn manual_clock(mut self) -> Self {
        self.is_clock_manual = true;
        self
    }

    pub(crate) fn start(self) -> Server {
        Server::start(Arc::new(tempfile::tempdir().unwrap()), self)
    }
}

/// The real binary. Killed when it is dropped; its log must then hold no panic and no secret.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) folder: Arc<TempDir>,
    pub(crate) setup: Setup,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Server {
    pub(crate) fn start(folder: Arc<TempDir>, setup: Setup) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command
            .args(["serve", "--log-format", "json", "--data-dir"])
            .arg(setup.data.as_deref().unwrap_or(folder.path()));
        command.args(["--listen", setup.listen.as_deref().unwrap_or("127.0.0.1:0")]);
        for setting in &setup.set {
            command.args(["--set", setting]);
        }
        if let Some(url) = &setup.database_url {
            command.args(["--set", &format!("database_url={url}")]);
        }
        if !setup.file.is_empty() {
            let path = folder.path().join("tidings.toml");
            std::fs::write(&path, &setup.file).unwrap();
            command.arg("--config").arg(path);
        }
        if setup.is_clock_manual {
            command.env("TIDINGS_TEST_CLOCK", "manual");
        }
        command
            .env("TIDINGS_AUTH_JWT_SECRET", SECRET)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (kept, stderr) = (log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        let address = first.trim().rsplit("//").next().unwrap().to_owned();
        assert!(
            first.starts_with("listening on http"),
            "{first}{}",
            log.lock().unwrap()
        );
        Self {
            address,
            folder,
            setup,
            child,
            log,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// `kill -9`, and again on the same folder.
    pub(crate) fn kill(mut self) -> (Arc<TempDir>, Setup) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.folder.clone(), self.setup.clone())
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for the end, and says with what code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                Instant::now() < until,
                "the server does not end: {}",
                self.log()
            );
            std::thread::yield_now();
        }
    }

    pub(crate) fn advance(&self, by: Duration) {
        let body = json!({ "advance_ms": u64::try_from(by.as_millis()).unwrap() });
        assert_eq!(self.post("/test/clock", None, &body).status, 204);
    }

    pub(crate) fn request(&self, request: &Request<'_>) -> Answer {
        Answer::read(&mut self.send(request))
    }

    /// Sends a request and leaves the answer to be read.
    pub(crate) fn send(&self, request: &Request<'_>) -> TcpStream {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            request.method, request.path, self.address
        );
        if let Some(token) = request.token {
            text.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        for (name, value) in &request.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !request.body.is_empty() || request.method == "POST" {
            text.push_str(&format!("Content-Length: {}\r\n", request.body.len()));
        }
        text.push_str("\r\n");
        // A server that has refused a body may have closed already.
        let _ = socket.write_all(text.as_bytes());
        let _ = socket.write_all(&request.body);
        socket
    }

    pub(crate) fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.request(&Request {
            token,
            ..Request::new("GET", path)
        })
    }

    pub(crate) fn post(&self, path: &str, token: Option<&str>, body: &Value) -> Answer {
        let headers = vec![("Content-Type", "application/json".to_owned())];
        self.request(&Request {
            token,
            headers,
            body: body.to_string().into_bytes(),
            ..Request::new("POST", path)
        })
    }

    pub(crate) fn publish(&self, token: &str, topic: &str, data: &Value) -> String {
        let answer = self.post(
            "/api/v1/events",
            Some(token),
            &json!({ "topic": topic, "type": "t", "data": data }),
        );
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.json()["cursor"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Publishes many small events, in bulk.
    pub(crate) fn publish_many(
        &self,
        token: &str,
        topic: &str,
        numbers: std::ops::Range<u64>,
    ) -> String {
        let mut cursor = String::new();
        let all: Vec<u64> = numbers.collect();
        for chunk in all.chunks(10_000) {
            let lines: String = chunk
                .iter()
                .map(|n| format!("{{\"topic\":\"{topic}\",\"type\":\"t\",\"data\":{n}}}\n"))
                .collect();
            let headers = vec![("Content-Type", "application/x-ndjson".to_owned())];
            let request = Request {
                token: Some(token),
                headers,
                body: lines.into_bytes(),
                ..Request::new("POST", "/api/v1/events")
            };
            let answer = self.request(&request);
            assert_eq!(answer.status, 202, "{}", answer.body);
            cursor = answer.json()["cursor"].as_str().unwrap().to_owned();
        }
        cursor
    }

    pub(crate) fn stream(&self, query: &str, token: &str, cursor: Option<&str>) -> Sse {
        let headers = cursor
            .map(|c| ("Last-Event-ID", c.to_owned()))
            .into_iter()
            .collect();
        let path = format!("/api/v1/stream?{query}");
        Sse::new(self.send(&Request {
            token: Some(token),
            headers,
            ..Request::new("GET", &path)
        }))
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics", None).body;
        let lines = text.lines().filter(|l| l.starts_with(name));
        lines
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log());
            return;
        }
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
        assert!(
            !log.contains(SECRET) && !log.contains("eyJ"),
            "a secret or token stands in the log: {log}"
        );
    }
}

/// A request, byte for byte.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) headers: Vec<(&'a str, String)>,
    pub(crate) body: Vec<u8>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: &'a str, path: &'a str) -> Self {
        Self {
            method,
            path,
            token: None,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    fn head(from: &mut impl BufRead) -> Self {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| panic!("no status in {line:?}"));
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            from.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers
                .entry(name.to_ascii_lowercase())
                .or_insert_with(String::new)
                .push_str(value.trim());
        }
        Self {
            status,
            headers,
            body: String::new(),
        }
    }

    fn read(socket: &mut TcpStream) -> Self {
        let mut from = BufReader::new(socket);
        let mut answer = Self::head(&mut from);
        let mut body = Vec::new();
        match answer
            .headers
            .get("content-length")
            .and_then(|l| l.parse().ok())
        {
            Some(length) => {
                body.resize(length, 0);
                from.read_exact(&mut body).unwrap();
            }
            None if answer.status == 204 || answer.status == 304 => {}
            None => {
                from.read_to_end(&mut body).unwrap();
            }
        }
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// A problem document of this status, at this field.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, field: Option<&str>) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], status);
        assert_eq!(document["field"].as_str(), field, "{document}");
        assert!(
            document["type"].as_str().unwrap().starts_with("/problems/")
                && document["correlation_id"].is_string()
        );
    }
}

/// One SSE event, as the standard reads it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Frame {
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: String,
    pub(crate) retry: Option<u64>,
}

impl Frame {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// An open SSE stream.
pub(crate) struct Sse {
    pub(crate) head: Answer,
    from: BufReader<TcpStream>,
}

impl Sse {
    pub(crate) fn new(socket: TcpStream) -> Self {
        let mut from = BufReader::new(socket);
        let head = Answer::head(&mut from);
        Self { head, from }
    }

    /// The next frame or comment; none at the end. A comment is a frame whose event is `:`.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut frame = Frame::default();
        loop {
            let mut line = String::new();
            if self.from.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            let line = line
                .strip_suffix('\n')
                .expect("a stream ends only between lines");
            assert!(!line.contains('\r'));
            if line.is_empty() {
                return Some(frame);
            }
            let (name, value) = line.split_once(':').unwrap();
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                "" => {
                    frame.event = ":".into();
                    frame.data = value;
                }
                "event" => frame.event = value,
                "id" => frame.id = value,
                "data" => frame.data = value,
                "retry" => frame.retry = value.parse().ok(),
                other => panic!("field {other}"),
            }
        }
    }

    /// The next frame of this name; others are passed over.
    #[track_caller]
    pub(crate) fn until(&mut self, event: &str) -> Frame {
        loop {
            let frame = self
                .next()
                .unwrap_or_else(|| panic!("the stream ended before {event}"));
            if frame.event == event {
                return frame;
            }
        }
    }

    /// The data of the next so many events of type `t`.
    #[track_caller]
    pub(crate) fn data(&mut self, count: usize) -> Vec<Value> {
        (0..count)
            .map(|_| self.until("t").json()["data"].clone())
            .collect()
    }

    /// That nothing more comes but the end.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        assert_eq!(self.next(), None);
    }
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what} does not come true");
        std::thread::yield_now();
    }
}

/// A fresh database on the server that the environment names.
pub(crate) fn postgres() -> Option<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let Ok(url) = std::env::var("TIDINGS_TEST_POSTGRES_URL") else {
        assert!(
            std::env::var("CI").is_err(),
            "TIDINGS_TEST_POSTGRES_URL must name a PostgreSQL server in CI: see ./x test"
        );
        eprintln!("not run on PostgreSQL: TIDINGS_TEST_POSTGRES_URL is not set (./x test sets it)");
        return None;
    };
    let name = format!(
        "server_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let made = std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        client
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .unwrap();
        format!("{}/{name}", url.rsplit_once('/').unwrap().0)
    });
    Some(made.join().unwrap())
}

/// A free port that nobody else of this run is given.
pub(crate) fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}
