//! TLS: the three transports over HTTP/1.1 and HTTP/2, and certificates that change under open streams.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;

use http::Version;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::http2::{Connection, Events, eventually};
use crate::support::{PATIENCE, Server, Setup, admin, user};
use crate::websocket::{close_code, next, say};

/// A folder with a certificate and its key, and every certificate that was ever in it.
struct Certificates {
    folder: TempDir,
    known: Vec<CertificateDer<'static>>,
}

impl Certificates {
    fn new() -> Self {
        let mut made = Self {
            folder: tempfile::tempdir().unwrap(),
            known: Vec::new(),
        };
        made.renew();
        made
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Renames a file into place, as mounts and ACME clients do.
    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path("new"), text).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    /// Another certificate with another key.
    fn renew(&mut self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        self.put("key.pem", &made.signing_key.serialize_pem());
        self.put("cert.pem", &made.cert.pem());
        self.known.push(made.cert.der().clone());
        made.cert.der().clone()
    }

    fn start(&self, setup: Setup) -> Server {
        let server = setup
            .set(&format!("tls.cert={}", self.path("cert.pem")))
            .set(&format!("tls.key={}", self.path("key.pem")))
            .start();
        assert!(server.log().is_empty() || !server.log().contains("error"));
        server
    }

    /// A client that knows them all, and speaks one version: HTTP/1.1 alone, or what ALPN gives.
    fn client(&self, version: Version) -> reqwest::Client {
        let roots = self
            .known
            .iter()
            .map(|der| reqwest::Certificate::from_der(der).unwrap());
        let builder = reqwest::Client::builder().no_proxy().tls_certs_only(roots);
        let builder = if version == Version::HTTP_11 {
            builder.http1_only()
        } else {
            builder
        };
        builder.build().unwrap()
    }

    /// A connection by hand.
    async fn connect(&self, server: &Server, alpn: &[&str]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        for der in &self.known {
            roots.add(der.clone()).unwrap();
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        let socket = TcpStream::connect(&server.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, socket).await.unwrap()
    }

    /// The certificate that a new handshake sees.
    async fn shown(&self, server: &Server) -> CertificateDer<'static> {
        let connection = self.connect(server, &[]).await;
        connection.get_ref().1.peer_certificates().unwrap()[0]
            .clone()
            .into_owned()
    }

    /// A WebSocket over HTTP/1.1, by a client that offers no ALPN at all.
    async fn websocket(&self, server: &Server) -> WebSocketStream<TlsStream<TcpStream>> {
        let mut request = format!("wss://{}/api/v1/ws?topic=x", server.address)
            .into_client_request()
            .unwrap();
        let bearer = format!("Bearer {}", user("u")).parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        let io = self.connect(server, &[]).await;
        assert_eq!(io.get_ref().1.alpn_protocol(), None);
        let (socket, answer) = tokio_tungstenite::client_async(request, io).await.unwrap();
        assert_eq!(answer.status(), 101);
        socket
    }

    /// A WebSocket over HTTP/2.
    async fn websocket2(&self, server: &Server) -> impl Socket + use<> {
        let io = self.connect(server, &["h2", "http/1.1"]).await;
        assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let base = format!("https://{}", server.address);
        let bearer = format!("Bearer {}", user("u"));
        Connection::open(io, &base)
            .await
            .websocket(
                "/api/v1/ws?topic=x",
                &[("authorization", &bearer), ("origin", &base)],
            )
            .await
            .unwrap()
    }
}

/// A WebSocket of either version.
trait Socket {
    type Io: AsyncRead + AsyncWrite + Unpin;
    fn it(&mut self) -> &mut WebSocketStream<Self::Io>;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket for WebSocketStream<S> {
    type Io = S;
    fn it(&mut self) -> &mut Self {
        self
    }
}

async fn publish(client: &reqwest::Client, url: &str, data: &Value) {
    let answer = client
        .post(format!("{url}/api/v1/events"))
        .bearer_auth(admin())
        .json(&json!({ "topic": "x", "type": "t", "data": data }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_transports_over_http1() {
    let certificates = Certificates::new();
    let server = certificates.start(Setup::default().set("drain.grace=500ms"));
    let socket = certificates.websocket(&server).await;
    all_transports(&certificates, server, Version::HTTP_11, socket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_transports_over_http2() {
    let certificates = Certificates::new();
    let server = certificates.start(Setup::default().set("drain.grace=500ms"));
    let socket = certificates.websocket2(&server).await;
    all_transports(&certificates, server, Version::HTTP_2, socket).await;
}

async fn all_transports(
    certificates: &Certificates,
    mut server: Server,
    version: Version,
    mut socket: impl Socket,
) {
    let client = certificates.client(version);
    let url = format!("https://{}", server.address);
    let get = |path: &str| client.get(format!("{url}{path}")).bearer_auth(user("u"));
    for (path, status) in [
        ("/healthz", 200),
        ("/nowhere", 404),
        ("/api/v1/status", 200),
    ] {
        let answer = get(path).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.version()),
            (status, version)
        );
    }
    let head = client.head(format!("{url}/api/v1/stream?topic=x"));
    let head = head.bearer_auth(user("u")).send().await.unwrap();
    assert_eq!(head.headers()["content-type"], "text/event-stream");

    let mut stream = Events::open(get("/api/v1/stream?topic=x")).await;
    assert_eq!(stream.response.version(), version);
    let begin = stream.until("connected").await.id;
    assert_eq!(next(socket.it()).await["type"], "connected");
    let poll = || {
        let request = get("/api/v1/poll?topic=x&wait=60");
        tokio::spawn(async move { request.send().await.unwrap().json::<Value>().await.unwrap() })
    };
    let waits = async || {
        let answer = get("/api/v1/status").send().await.unwrap();
        answer.json::<Value>().await.unwrap()["connections"]
            == json!({ "sse": 1, "websocket": 1, "long_poll": 1 })
    };
    let polled = poll();
    eventually("the poll waits", waits).await;
    // Larger than the first window of HTTP/2 and than a record of TLS.
    let large = json!("x".repeat(400_000));
    publish(&client, &url, &large).await;
    assert_eq!(stream.data(1).await[0], large);
    assert_eq!(next(socket.it()).await["event"]["data"], large);
    assert_eq!(polled.await.unwrap()["events"][0]["data"], large);
    say(
        socket.it(),
        &json!({ "type": "publish", "event": { "topic": "x", "type": "t", "data": 2 } }),
    )
    .await;
    assert_eq!(stream.data(1).await, [2]);
    // The answer and the event itself may come in either order.
    let both = [next(socket.it()).await, next(socket.it()).await];
    assert!(both.iter().any(|m| m["type"] == "published"));
    assert!(both.iter().any(|m| m["event"]["data"] == 2));

    let mut resumed =
        Events::open(get("/api/v1/stream?topic=x").header("last-event-id", &begin)).await;
    assert_eq!(resumed.data(2).await, [large, json!(2)]);
    drop(resumed);
    let bought = client.post(format!("{url}/api/v1/stream/tickets"));
    let bought = bought.bearer_auth(user("u")).send().await.unwrap();
    let bought: Value = bought.json().await.unwrap();
    let ticket = bought["ticket"].as_str().unwrap();
    let opened = client.get(format!("{url}/api/v1/stream?topic=x&ticket={ticket}"));
    let mut opened = Events::open(opened).await;
    opened.until("connected").await;
    let cookie = opened.response.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    drop(opened);

    let polled = poll();
    eventually("the other streams have gone and a poll waits", waits).await;
    server.signal("TERM");
    assert_eq!(stream.until("closing").await.json()["reason"], "drain");
    assert_eq!(stream.next().await, None);
    assert_eq!(next(socket.it()).await["reason"], "drain");
    assert_eq!(close_code(socket.it()).await, 1001);
    assert_eq!(
        polled.await.unwrap()["closing"],
        json!({ "reason": "drain" })
    );
    drop((stream, socket, client));
    assert_eq!(server.wait(), Some(0));
    assert!(
        !server.log().contains("still in flight"),
        "{}",
        server.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_under_open_streams() {
    let mut certificates = Certificates::new();
    let first = certificates.known[0].clone();
    let server = certificates.start(Setup::default());
    let url = format!("https://{}", server.address);
    let clients = [Version::HTTP_11, Version::HTTP_2].map(|v| certificates.client(v));
    let mut streams = Vec::new();
    for client in &clients {
        let request = client.get(format!("{url}/api/v1/stream?topic=x"));
        let mut stream = Events::open(request.bearer_auth(user("u"))).await;
        stream.until("connected").await;
        streams.push(stream);
    }
    let mut socket = certificates.websocket(&server).await;
    next(&mut socket).await;
    let mut n = 0;
    let mut all_live = async || {
        n += 1;
        publish(&clients[1], &url, &json!(n)).await;
        for stream in &mut streams {
            assert_eq!(stream.data(1).await, [n]);
        }
        assert_eq!(next(&mut socket).await["event"]["data"], n);
    };
    assert_eq!(certificates.shown(&server).await, first);
    all_live().await;

    let second = certificates.renew();
    eventually("the new certificate is shown", async || {
        certificates.shown(&server).await == second
    })
    .await;
    all_live().await;

    let refusals = || {
        server
            .log()
            .matches("the new certificate cannot be used")
            .count()
    };
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    for (what, text) in [
        ("no certificate at all", "nothing of the kind\n".to_owned()),
        (
            "a certificate that is cut short",
            other.cert.pem()[..200].to_owned(),
        ),
        ("a certificate of another key", other.cert.pem()),
    ] {
        let before = refusals();
        certificates.put("cert.pem", &text);
        eventually(what, async || refusals() > before).await;
        assert_eq!(certificates.shown(&server).await, second, "{what}");
    }
    let before = refusals();
    std::fs::remove_file(certificates.path("key.pem")).unwrap();
    eventually("a key that is gone", async || refusals() > before).await;
    assert_eq!(certificates.shown(&server).await, second);
    all_live().await;

    let third = certificates.renew();
    eventually("a good one is taken after bad ones", async || {
        certificates.shown(&server).await == third
    })
    .await;
    all_live().await;
    assert!(server.log().contains("the certificate was read again"));
    // Each is said once, not once a second: the four above, and the moment between the two files of a renewal.
    assert!(refusals() <= 6, "{}", server.log());
    assert!(!server.log().contains("PRIVATE KEY"));
}

#[test]
fn what_cannot_be_used_at_start_is_named() {
    let certificates = Certificates::new();
    let (cert, key) = (certificates.path("cert.pem"), certificates.path("key.pem"));
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    certificates.put("other.pem", &other.signing_key.serialize_pem());
    certificates.put("empty.pem", "");
    for (cert, key, named) in [
        (certificates.path("missing.pem"), key.clone(), "missing.pem"),
        (certificates.path("empty.pem"), key, "empty.pem"),
        (cert.clone(), certificates.path("empty.pem"), "empty.pem"),
        (cert.clone(), cert.clone(), "cert.pem"),
        (
            cert,
            certificates.path("other.pem"),
            "the certificate and its key",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path())
            .args(["--set", &format!("tls.cert={cert}")])
            .args(["--set", &format!("tls.key={key}")])
            .env("TIDINGS_AUTH_JWT_SECRET", crate::support::SECRET)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(named), "{named} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_speak_no_tls_harm_nobody() {
    let certificates = Certificates::new();
    let server = certificates.start(Setup::default());
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(std::net::TcpStream::connect(&server.address).unwrap());
    }
    for words in [
        &b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x01\xff\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut socket = std::net::TcpStream::connect(&server.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(words).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let url = format!("https://{}/healthz", server.address);
        let answer = certificates.client(version).get(url).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
    }
    let large = "x".repeat(20_000);
    let request = certificates.client(Version::HTTP_2);
    let request = request.get(format!("https://{}/healthz", server.address));
    let answer = request.header("x-large", large).send().await.unwrap();
    assert_eq!(answer.status(), 431);
}
