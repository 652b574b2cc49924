//! Which server is measured, and what the system says about its process.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use tempfile::TempDir;
use tidings_client::Client;
use tidings_core::clock::Clock;

use super::super::{Failure, ServerArgs};

/// How long a server of our own may take to start.
const START: Duration = Duration::from_secs(30);
/// The kernel's clock tick, in which it counts CPU time: 100 Hz on every Linux of today.
const TICK: Duration = Duration::from_millis(10);

/// Where requests go.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) socket: SocketAddr,
    pub(super) host: String,
    /// The path of the server's address, without a slash at the end.
    pub(super) prefix: String,
    pub(super) token: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// The server under measurement. One that was started for it ends with it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) address: Address,
    pid: Option<u32>,
    _own: Option<Own>,
}

impl Target {
    /// The server that the arguments name, or one of our own.
    pub(super) async fn open(
        server: &ServerArgs,
        pid: Option<u32>,
        allow_remote: bool,
    ) -> Result<Self, Failure> {
        if server.url.is_none() {
            let (own, url, token) = Own::start()?;
            return Ok(Self {
                address: address(&url, token, false).await?,
                pid: Some(own.child.id()),
                _own: Some(own),
            });
        }
        let (url, token) = server.resolve()?;
        Ok(Self {
            address: address(&url, token, allow_remote).await?,
            pid,
            _own: None,
        })
    }

    /// A client of it, for what is not measured.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let Address {
            host,
            prefix,
            token,
            ..
        } = &self.address;
        let client = Client::builder(format!("http://{host}{prefix}")).token(token);
        client.build().map_err(Failure::from)
    }

    /// CPU time that the server has used so far, in steps of 10 ms.
    pub(super) fn cpu(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid?)).ok()?;
        parse_cpu(&stat)
    }

    /// Memory that the server holds, in bytes.
    pub(super) fn rss_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid?)).ok()?;
        parse_rss(&status)
    }
}

/// User and system time. The name before them is in brackets and may hold anything.
fn parse_cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(TICK * user + TICK * system)
}

fn parse_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

async fn address(url: &str, token: String, allow_remote: bool) -> Result<Address, Failure> {
    let wrong = |text: &str| Failure::usage(format_args!("--url {url}: {text}"));
    let parsed = reqwest::Url::parse(url).map_err(|e| wrong(&e.to_string()))?;
    let host = parsed.host_str().unwrap_or_default().to_owned();
    if parsed.scheme() != "http" || host.is_empty() {
        return Err(wrong("the bench speaks plain HTTP: http://HOST:PORT"));
    }
    let port = parsed.port_or_known_default().unwrap_or(80);
    let found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await;
    let socket = found.ok().and_then(|mut all| all.next());
    let socket = socket.ok_or_else(|| Failure::failed(format_args!("{host}: no such host")))?;
    if !socket.ip().is_loopback() && !allow_remote {
        return Err(wrong(
            "not on this machine; --allow-remote if you may put this load on it",
        ));
    }
    Ok(Address {
        socket,
        host: format!("{host}:{port}"),
        prefix: parsed.path().trim_end_matches('/').to_owned(),
        token,
    })
}

/// A server on a folder of its own, both gone when this is dropped.
#[derive(Debug)]
struct Own {
    child: Child,
    _folder: TempDir,
}

impl Own {
    /// Starts it and waits until it listens. Returns its address and a token for it.
    fn start() -> Result<(Self, String, String), Failure> {
        let failed = |e: &dyn fmt::Display| {
            Failure::failed(format_args!("cannot start a server to measure: {e}"))
        };
        let folder = tempfile::Builder::new().prefix("tidings-bench-").tempdir();
        let folder = folder.map_err(|e| failed(&e))?;
        let mut bytes = [0u8; 32];
        let filled = SystemRandom::new().fill(&mut bytes);
        filled.map_err(|_| failed(&"the system gave no random bytes"))?;
        let secret: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let program = std::env::current_exe().map_err(|e| failed(&e))?;
        // Nothing of the caller's environment: its settings name another server's database.
        let child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", "."])
            .current_dir(folder.path())
            .env_clear()
            .env("TIDINGS_AUTH_JWT_SECRET", &secret)
            .env("TIDINGS_LOG_LEVEL", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| failed(&e))?;
        let mut own = Self {
            child,
            _folder: folder,
        };
        let url = own.wait().map_err(|e| failed(&e))?;
        let token = token(&secret).map_err(|e| failed(&e))?;
        Ok((own, url, token))
    }

    /// Waits for the line that names the address, and goes on reading what the server says, so that it never blocks.
    fn wait(&mut self) -> Result<String, String> {
        let (sender, lines) = channel();
        if let Some(out) = self.child.stdout.take() {
            read_lines(out, sender.clone());
        }
        if let Some(err) = self.child.stderr.take() {
            read_lines(err, sender);
        }
        listening(&lines)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(from: impl std::io::Read + Send + 'static, to: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = to.send(line);
        }
    });
}

/// The address in `listening on http://...`; else what the server said instead.
fn listening(lines: &Receiver<String>) -> Result<String, String> {
    let (begun, mut said) = (std::time::Instant::now(), Vec::new());
    loop {
        match lines.recv_timeout(START.saturating_sub(begun.elapsed())) {
            Ok(line) => {
                if let Some((_, url)) = line.split_once("listening on ") {
                    let url = url.split_ascii_whitespace().next().unwrap_or_default();
                    return Ok(url.trim_matches('"').to_owned());
                }
                said.push(line);
                if said.len() > 20 {
                    said.remove(0);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("it did not listen within {} s", START.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(format!("it ended: {}", said.join(" | ")));
            }
        }
    }
}

/// A token for a tenant of the bench's own.
fn token(secret: &str) -> Result<String, jsonwebtoken::errors::Error> {
    let now = Clock::System.now().as_secs();
    let claims = serde_json::json!({
        "sub": "bench",
        "tenant_id": "bench",
        "scopes": ["events:read", "events:write", "alarm:read", "alarm:write", "topology:write"],
        "iat": now,
        "exp": now + 24 * 3_600,
    });
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_figures_are_read() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 1 2 3";
        assert_eq!(parse_cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(
            parse_rss("VmPeak:\t9 kB\nVmRSS:\t   2048 kB\n"),
            Some(2_097_152)
        );
        let me = Target {
            address: Address {
                socket: ([127, 0, 0, 1], 1).into(),
                host: String::new(),
                prefix: String::new(),
                token: "secret".into(),
            },
            pid: Some(std::process::id()),
            _own: None,
        };
        assert!(me.rss_bytes().unwrap() > 100_000);
        assert!(me.cpu().is_some());
        assert!(!format!("{me:?}").contains("secret"));
    }

    #[tokio::test]
    async fn only_this_machine_unless_allowed() {
        let open = |url: &'static str, allow| address(url, "t".into(), allow);
        let local = open("http://127.0.0.1:81/pre/", false).await.unwrap();
        assert_eq!(
            (local.host.as_str(), local.prefix.as_str()),
            ("127.0.0.1:81", "/pre")
        );
        assert!(open("http://[::1]:81", false).await.is_ok());
        for url in [
            "http://192.0.2.1:80",
            "https://127.0.0.1",
            "127.0.0.1:80",
            "http://",
        ] {
            assert!(open(url, false).await.is_err(), "{url}");
        }
        assert!(open("http://192.0.2.1:80", true).await.is_ok());
    }

    #[test]
    fn the_address_is_found_in_what_the_server_says() {
        let (sender, lines) = channel();
        sender.send("tidings 0.1.0".to_owned()).unwrap();
        sender
            .send("listening on http://127.0.0.1:4711".to_owned())
            .unwrap();
        assert_eq!(listening(&lines).unwrap(), "http://127.0.0.1:4711");
        sender.send("address in use".to_owned()).unwrap();
        drop(sender);
        assert_eq!(listening(&lines).unwrap_err(), "it ended: address in use");
    }
}
