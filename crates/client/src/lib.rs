//! Client of a tidings server: publish, read history, and follow topics without losing or repeating a durable event.
//!
//! ```no_run
//! # async fn example() -> Result<(), tidings_client::Error> {
//! use tidings_client::{Client, Delivery, NewEvent, Subscription};
//!
//! let client = Client::builder("http://127.0.0.1:8080").token("...").build()?;
//! client.publish(&NewEvent::new("news/today", "headline", &"it works")?).await?;
//! let mut stream = client.stream(Subscription::new(["news/**"]));
//! while let Ok(delivery) = stream.next().await {
//!     if let Delivery::Event { cursor, event } = delivery {
//!         println!("{cursor:?} {} {}", event.topic, event.data);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - `client`: how a server is addressed, and the requests that end
//! - `event`: what goes in and comes out
//! - `raw`: any other path, with its JSON as it stands
//! - `error`: what can go wrong, and whether trying again may help
//! - `stream`: one type over SSE, WebSocket and long-poll, which comes back by itself from where it stood
//! - `sse`: bytes in, frames out: a parser that knows no network
//! - `retry`: how long to wait before the next attempt
//!
//! A stream stops by itself only where coming back is of no use: a credential that is refused, topics that are not
//! allowed, or a server that closed it for good.

mod client;
mod error;
mod event;
mod raw;
mod retry;
pub mod sse;
mod stream;

pub use client::{Builder, Client};
pub use error::{Error, Problem};
pub use event::{Event, Gap, History, HistoryQuery, NewEvent, Placed, Published};
pub use stream::{Delivery, Stream, Subscription, Transport};
