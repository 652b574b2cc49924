//! How a server is addressed, and the requests that end: publish and history.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, Method};
use reqwest::{Certificate, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::error::{Error, Problem};
use crate::event::{Gap, History, HistoryQuery, NewEvent, Placed, Published};
use crate::retry::Backoff;
use crate::stream::{Stream, Subscription};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// An answer that ends is not read past this: a page of history is 1,000 events of 512 KiB at the very most.
const MAX_ANSWER_BYTES: usize = 640 * 1024 * 1024;
/// A problem document is short; more than this is another server's page.
const MAX_PROBLEM_BYTES: usize = 64 * 1024;
/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The wait before a request is tried again, doubled every time.
const PUBLISH_RETRY: Duration = Duration::from_millis(200);

type Provide = dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync;

#[derive(Clone)]
enum Token {
    None,
    Fixed(Arc<str>),
    Provided(Arc<Provide>),
}

/// Makes a [`Client`].
#[derive(Clone)]
#[must_use]
pub struct Builder {
    url: String,
    token: Token,
    certificates: Vec<Vec<u8>>,
    attempts: u32,
    timeout: Duration,
    retry: Duration,
    retry_most: Duration,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// The token that every request carries.
    pub fn token(mut self, token: impl AsRef<str>) -> Self {
        self.token = Token::Fixed(token.as_ref().into());
        self
    }

    /// Asked for a token before every request and every connection, so that an expired one is replaced by itself. The
    /// provider keeps what is still good; its error text must not hold token material.
    pub fn token_provider<F>(mut self, provide: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, String>> + Send + 'static,
    {
        self.token = Token::Provided(Arc::new(move || Box::pin(provide())));
        self
    }

    /// Trusts this certificate (PEM) beside those that the system trusts.
    pub fn certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.push(pem.into());
        self
    }

    /// How often a request that brings something is tried in all (default 3) where a repeat cannot store anything twice. 1
    /// turns that off.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// How long a request that ends may take (default 30 s); streams are not bound by it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The wait before a stream comes back (default 1 s, until the server says `retry:`) and the most that it grows to
    /// (default 30 s).
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        (self.retry, self.retry_most) = (first, most);
        self
    }

    /// The client. Fails on an address or a certificate that cannot be used; connects to nothing yet.
    pub fn build(self) -> Result<Client, Error> {
        let base = Url::parse(&self.url)
            .map_err(|e| Error::Invalid(format!("the server's address {:?}: {e}", self.url)))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(Error::Invalid(format!(
                "the server's address {:?} does not begin with http:// or https://",
                self.url
            )));
        }
        let http = self.http_client(&base, false)?;
        let http1 = self.http_client(&base, true)?;
        Ok(Client(Arc::new(Inner {
            http,
            http1,
            base,
            options: self,
        })))
    }

    fn http_client(&self, base: &Url, is_http1: bool) -> Result<reqwest::Client, Error> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tidings-client/", env!("CARGO_PKG_VERSION")));
        let certificates = self
            .certificates
            .iter()
            .map(|pem| Certificate::from_pem_bundle(pem))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| Error::Invalid(format!("the certificate: {e}")))?;
        if certificates.iter().any(Vec::is_empty) {
            return Err(Error::Invalid("the certificate: there is none".into()));
        }
        let certificates = certificates.concat();
        // Without TLS nothing is asked of the system's store, which a bare machine does not even have.
        builder = if base.scheme() == "http" {
            builder.tls_certs_only(certificates)
        } else {
            builder.tls_certs_merge(certificates)
        };
        if is_loopback(base) {
            builder = builder.no_proxy();
        }
        if is_http1 {
            builder = builder.http1_only();
        }
        builder
            .build()
            .map_err(|e| Error::Invalid(format!("the HTTP client: {e}")))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

/// One server and one credential. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    /// For WebSocket, which begins as HTTP/1.1 also where TLS would offer HTTP/2.
    http1: reqwest::Client,
    base: Url,
    options: Builder,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.0.base.as_str())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `url`, such as `https://tidings.example` or `http://127.0.0.1:8080/behind/a/prefix`.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder {
            url: url.into(),
            token: Token::None,
            certificates: Vec::new(),
            attempts: 3,
            timeout: Duration::from_secs(30),
            retry: Duration::from_secs(1),
            retry_most: Duration::from_secs(30),
        }
    }

    /// Publishes one event; an answer means that it is durable. Tried again only where a repeat is harmless: the event
    /// bears an id, or the server has certainly not taken it.
    pub async fn publish(&self, event: &NewEvent) -> Result<Published, Error> {
        let body = encode(event)?;
        self.send_events(body, None, event.id.is_some()).await
    }

    /// Publishes all events or none, at most 10,000. With a key (printable ASCII, at most 255) a repeat within a day
    /// answers what the first one did, so that it may be tried again after any failure.
    pub async fn publish_batch(
        &self,
        events: &[NewEvent],
        idempotency_key: Option<&str>,
    ) -> Result<Published, Error> {
        let is_repeatable =
            idempotency_key.is_some() || events.iter().all(|event| event.id.is_some());
        self.send_events(encode(&events)?, idempotency_key, is_repeatable)
            .await
    }

    async fn send_events(
        &self,
        body: Bytes,
        key: Option<&str>,
        is_repeatable: bool,
    ) -> Result<Published, Error> {
        self.try_again(is_repeatable, || self.send_events_once(body.clone(), key))
            .await
    }

    /// Attempts a request as often as [`Builder::attempts`] says: after any temporary failure where a repeat is harmless,
    /// else only where the server has certainly not taken it.
    pub(crate) async fn try_again<T, F: Future<Output = Result<T, Error>>>(
        &self,
        is_repeatable: bool,
        attempt: impl Fn() -> F,
    ) -> Result<T, Error> {
        let mut backoff = Backoff::new(PUBLISH_RETRY, self.0.options.retry_most);
        let mut left = self.0.options.attempts;
        loop {
            left = left.saturating_sub(1);
            match attempt().await {
                Err(e) if left > 0 && (e.is_untouched() || is_repeatable && e.is_temporary()) => {
                    let wait = backoff.wait(e.retry_after(), fastrand::f64());
                    tracing::debug!(error = %e, "a request failed, trying again");
                    tokio::time::sleep(wait).await;
                }
                other => return other,
            }
        }
    }

    async fn send_events_once(&self, body: Bytes, key: Option<&str>) -> Result<Published, Error> {
        let mut request = self
            .request(Method::POST, self.url("api/v1/events", &[])?)
            .await?
            .timeout(self.0.options.timeout)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        let response = success(send(request).await?).await?;
        let is_replayed = response
            .headers()
            .get(IDEMPOTENT_REPLAYED)
            .is_some_and(|v| v == "true");
        let published: Published = read_json(response).await?;
        Ok(Published {
            is_replayed,
            ..published
        })
    }

    /// A page of what the log holds, oldest first.
    pub async fn history(&self, query: &HistoryQuery) -> Result<History, Error> {
        #[derive(Deserialize)]
        struct Page {
            events: Vec<Box<RawValue>>,
            cursor: String,
            gap: Option<Gap>,
        }
        let limit = query.limit.map(|limit| limit.to_string());
        let mut pairs: Vec<_> = query.topics.iter().map(|t| ("topic", t.as_str())).collect();
        pairs.extend(query.after.as_deref().map(|after| ("after", after)));
        pairs.extend(limit.as_deref().map(|limit| ("limit", limit)));
        let request = self
            .request(Method::GET, self.url("api/v1/events", &pairs)?)
            .await?
            .timeout(self.0.options.timeout);
        let page: Page = read_json(success(send(request).await?).await?).await?;
        Ok(History {
            events: read_placed(&page.events)?,
            cursor: page.cursor,
            gap: page.gap,
        })
    }

    /// Follows topics. Nothing is sent before [`Stream::next`] is called for the first time.
    #[must_use]
    pub fn stream(&self, subscription: Subscription) -> Stream {
        Stream::new(self.clone(), subscription)
    }

    /// How long a request that ends may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.0.options.timeout
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.0.options.retry, self.0.options.retry_most)
    }

    /// The token is asked for anew at every connection.
    pub(crate) fn has_provider(&self) -> bool {
        matches!(self.0.options.token, Token::Provided(_))
    }

    /// `path` below the server's address, which may itself have a path.
    pub(crate) fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<Url, Error> {
        let mut url = self.0.base.clone();
        let below = format!("{}/{path}", url.path().trim_end_matches('/'));
        url.set_path(&below);
        url.set_fragment(None);
        url.set_query(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// A request with the credential.
    pub(crate) async fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, Error> {
        self.authorize(self.0.http.request(method, url)).await
    }

    /// A request with the credential that may leave HTTP.
    pub(crate) async fn upgrade_request(&self, url: Url) -> Result<RequestBuilder, Error> {
        self.authorize(self.0.http1.get(url)).await
    }

    async fn authorize(&self, request: RequestBuilder) -> Result<RequestBuilder, Error> {
        Ok(match &self.0.options.token {
            Token::None => request,
            Token::Fixed(token) => request.bearer_auth(token),
            Token::Provided(provide) => request.bearer_auth(provide().await.map_err(Error::Token)?),
        })
    }
}

fn encode(value: &impl serde::Serialize) -> Result<Bytes, Error> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|e| Error::Invalid(format!("the events cannot be written as JSON: {e}")))
}

pub(crate) async fn send(request: RequestBuilder) -> Result<Response, Error> {
    request.send().await.map_err(Error::http)
}

/// The answer, where its status is one of success; else what the server says about it.
pub(crate) async fn success(response: Response) -> Result<Response, Error> {
    if response.status().is_success() || response.status() == http::StatusCode::SWITCHING_PROTOCOLS
    {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|v| v.to_str().ok())
        .map(str::to_owned);
    let body = read_body(response, MAX_PROBLEM_BYTES)
        .await
        .unwrap_or_default();
    Err(Error::Refused(Box::new(Problem::read(
        status,
        retry_after.as_deref(),
        &body,
    ))))
}

async fn read_body(mut response: Response, most: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Error::http)? {
        if body.len() + chunk.len() > most {
            return Err(Error::Protocol(format!("an answer of over {most} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

pub(crate) async fn read_json<T: DeserializeOwned>(response: Response) -> Result<T, Error> {
    let body = read_body(response, MAX_ANSWER_BYTES).await?;
    serde_json::from_slice(&body).map_err(|e| Error::Protocol(e.to_string()))
}

pub(crate) fn read_placed(events: &[Box<RawValue>]) -> Result<Vec<Placed>, Error> {
    events
        .iter()
        .map(|json| Placed::read(json))
        .collect::<Result<_, _>>()
        .map_err(|e| Error::Protocol(format!("an event: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_below_the_address() {
        for base in [
            "http://h:1/pre/fix",
            "http://h:1/pre/fix/",
            "http://h:1/pre/fix/?x=1#y",
        ] {
            let client = Client::builder(base).build().unwrap();
            let url = client
                .url("api/v1/stream", &[("topic", "a/**"), ("topic", "b&c")])
                .unwrap();
            assert_eq!(
                url.as_str(),
                "http://h:1/pre/fix/api/v1/stream?topic=a%2F**&topic=b%26c"
            );
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        for bad in ["", "localhost:8080", "ftp://h", "http://", "ws://h"] {
            assert!(
                matches!(Client::builder(bad).build(), Err(Error::Invalid(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_token_is_never_printed() {
        let builder = Client::builder("http://h").token("secret-token");
        assert!(!format!("{builder:?}").contains("secret"));
        assert!(!format!("{:?}", builder.build().unwrap()).contains("secret"));
    }
}
