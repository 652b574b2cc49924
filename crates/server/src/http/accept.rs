//! The accept loop: TCP or TLS, HTTP/1.1 or HTTP/2, every wait bounded, and a way for a plain HTTP/1.1 socket to leave.
//!
//! hyper reads the request and would keep its buffers and a task for as long as the response lasts. A stream's response
//! lasts for hours, so its handler may answer with [`Detached`]: then the head is written by us, the socket is taken out
//! from under hyper, and whoever wrote the handler owns it from there.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::tls::Certificates;

/// How long a new connection may stay silent: a TLS handshake, or the first bytes of a request.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// How long a request's head may take, so that nobody can hold a connection by dripping it.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Bytes above which the system takes no more of a connection's that the peer has no room for. It would else take
/// megabytes, and thousands of stalled readers all that it has for every connection of the machine.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 32 * 1024;
/// How long the loop waits when the system gives no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The first bytes of HTTP/2 without TLS; no HTTP/1.1 method begins so.
const HTTP2_PREFACE: &[u8] = b"PRI";

/// What a handler may know of its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// The other end.
    pub(crate) remote: SocketAddr,
    /// Whether the socket may leave: plain HTTP/1.1.
    pub(crate) is_detachable: bool,
}

/// A socket that has left hyper, in blocking-free mode.
#[derive(Debug)]
pub(crate) struct DetachedSocket {
    /// The socket.
    pub(crate) socket: std::net::TcpStream,
    /// The response head, ready to be written before anything else.
    pub(crate) head: Bytes,
}

type Take = Box<dyn FnOnce(DetachedSocket) + Send>;

/// Among a response's extensions: take the socket, the response's body is not wanted.
#[derive(Clone)]
pub(crate) struct Detached(Arc<Mutex<Option<Take>>>);

impl Detached {
    /// Says who takes the socket.
    pub(crate) fn new(take: impl FnOnce(DetachedSocket) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(take)))))
    }
}

impl std::fmt::Debug for Detached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Detached")
    }
}

/// How connections are served.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    /// Certificates; none for plain TCP.
    pub(crate) certificates: Option<Arc<Certificates>>,
    /// The most bytes of a request's line and headers.
    pub(crate) max_head_bytes: usize,
    /// No further connection is accepted once this is cancelled, and idle ones are closed.
    pub(crate) stop: CancellationToken,
    /// The connections' tasks.
    pub(crate) tasks: TaskTracker,
}

/// Answers a request.
pub(crate) trait Answer: Clone + Send + Sync + 'static {
    /// The response; it never fails.
    fn answer(&self, request: Request<Body>) -> impl Future<Output = Response> + Send;
}

/// Accepts connections until it is told to stop.
pub(crate) async fn run(listener: TcpListener, serving: Serving, answer: impl Answer) {
    loop {
        let accepted = tokio::select! {
            () = serving.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, remote)) => {
                tune(&socket);
                serving
                    .tasks
                    .spawn(connection(socket, remote, serving.clone(), answer.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What is written goes out at once; what the peer does not take stays with us, where readers share it.
fn tune(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES);
}

async fn connection(socket: TcpStream, remote: SocketAddr, serving: Serving, answer: impl Answer) {
    match &serving.certificates {
        Some(certificates) => {
            let handshake = certificates.acceptor().accept(socket);
            let Ok(Ok(socket)) = tokio::time::timeout(FIRST_BYTES, handshake).await else {
                return;
            };
            let is_http2 = socket.get_ref().1.alpn_protocol() == Some(b"h2");
            let peer = Peer {
                remote,
                is_detachable: false,
            };
            if is_http2 {
                http2(socket, peer, serving, answer).await;
            } else {
                http1(socket, peer, None, serving, answer).await;
            }
        }
        None => {
            let Ok(Ok(is_http2)) = tokio::time::timeout(FIRST_BYTES, is_http2(&socket)).await
            else {
                return;
            };
            if is_http2 {
                http2(
                    socket,
                    Peer {
                        remote,
                        is_detachable: false,
                    },
                    serving,
                    answer,
                )
                .await;
            } else {
                let shared = Shared(Arc::new(Mutex::new(Some(socket))));
                let peer = Peer {
                    remote,
                    is_detachable: true,
                };
                http1(shared.clone(), peer, Some(shared), serving, answer).await;
            }
        }
    }
}

/// Looks at the first bytes without taking them.
async fn is_http2(socket: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0u8; HTTP2_PREFACE.len()];
    loop {
        let seen = socket.peek(&mut first).await?;
        if seen == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if first[..seen] != HTTP2_PREFACE[..seen] {
            return Ok(false);
        }
        if seen == first.len() {
            return Ok(true);
        }
        // Fewer than three bytes that begin alike: the rest is on its way.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn http1<S>(io: S, peer: Peer, shared: Option<Shared>, serving: Serving, answer: impl Answer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let left = Arc::new(Notify::new());
    let service = {
        let left = left.clone();
        service_fn(move |request: Request<Incoming>| {
            let (answer, shared, left) = (answer.clone(), shared.clone(), left.clone());
            async move {
                let mut response = answer.answer(prepared(request, peer)).await;
                if let (Some(detached), Some(shared)) =
                    (response.extensions_mut().remove::<Detached>(), shared)
                    && detach(&detached, &shared, &response)
                {
                    left.notify_one();
                    // The connection's task ends without waiting for this answer.
                    std::future::pending::<()>().await;
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        })
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        // Answers are small: their head and body in one piece are cheaper than two pieces side by side.
        .writev(false)
        .max_buf_size(serving.max_head_bytes.max(8 * 1024))
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = left.notified() => return,
        () = serving.stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection => {}
        () = left.notified() => {}
    }
}

async fn http2<S>(io: S, peer: Peer, serving: Serving, answer: impl Answer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            let mut response = answer.answer(prepared(request, peer)).await;
            response.extensions_mut().remove::<Detached>();
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_header_list_size(u32::try_from(serving.max_head_bytes).unwrap_or(u32::MAX))
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = serving.stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn prepared(request: Request<Incoming>, peer: Peer) -> Request<Body> {
    let mut request = request.map(Body::new);
    // Only a request whose whole message has been read leaves nothing behind in hyper.
    let is_detachable = peer.is_detachable
        && request.version() >= Version::HTTP_10
        && request.method() == http::Method::GET
        && !request.headers().contains_key(TRANSFER_ENCODING)
        && request
            .headers()
            .get(CONTENT_LENGTH)
            .is_none_or(|length| length == "0");
    request.extensions_mut().insert(Peer {
        is_detachable,
        ..peer
    });
    request
}

/// Takes the socket out. False where it has gone already.
fn detach(detached: &Detached, shared: &Shared, response: &Response) -> bool {
    let Some(take) = detached.0.lock().take() else {
        return false;
    };
    let Some(socket) = shared.0.lock().take() else {
        return true;
    };
    match socket.into_std() {
        Ok(socket) => take(DetachedSocket {
            socket,
            head: head(response.status(), response.headers()),
        }),
        Err(error) => tracing::warn!(%error, "a socket could not be taken over"),
    }
    true
}

/// The head of a response that ends when the connection does (RFC 9112, section 6.3).
fn head(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(format!("HTTP/1.1 {status}\r\n").as_bytes());
    let date = HeaderValue::from_str(&httpdate::fmt_http_date(
        std::time::UNIX_EPOCH + since_epoch(),
    ))
    .ok();
    let added = [
        (CONNECTION, Some(HeaderValue::from_static("close"))),
        (DATE, date),
    ];
    let own = headers
        .iter()
        .filter(|(name, _)| ![CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING].contains(name));
    for (name, value) in own.chain(
        added
            .iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?))),
    ) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.into()
}

fn since_epoch() -> Duration {
    let now = tidings_core::clock::Clock::System.now();
    Duration::from_micros(u64::try_from(now.as_micros()).unwrap_or(0))
}

/// A socket that can be taken out while hyper holds it. From then on hyper waits for bytes that never come.
#[derive(Debug, Clone)]
struct Shared(Arc<Mutex<Option<TcpStream>>>);

impl Shared {
    fn with<T>(&self, poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<T>) -> Poll<T> {
        match self.0.lock().as_mut() {
            Some(socket) => poll(Pin::new(socket)),
            None => Poll::Pending,
        }
    }
}

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.with(|socket| socket.poll_read(cx, buf))
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.with(|socket| socket.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.with(|socket| socket.poll_flush(cx)))?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.with(|socket| socket.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.with(|socket| socket.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
