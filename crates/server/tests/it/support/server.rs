//! The real binary, started on a folder of its own.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Answer, PATIENCE, Request, SECRET, Sse};

/// What a server is started with.
#[derive(Default, Clone)]
pub(crate) struct Setup {
    pub(crate) set: Vec<String>,
    pub(crate) is_clock_manual: bool,
    pub(crate) database_url: Option<String>,
    pub(crate) listen: Option<String>,
    /// Its data, where that is not in the server's own folder.
    pub(crate) data: Option<std::path::PathBuf>,
    /// A command that the server's own is given to, as its last arguments.
    pub(crate) through: Vec<String>,
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
        const BINARY: &str = env!("CARGO_BIN_EXE_tidings");
        let mut words = setup.through.iter().map(String::as_str).chain([BINARY]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
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
        request.send_to(&self.address)
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
