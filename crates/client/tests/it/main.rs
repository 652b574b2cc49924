//! The client against tiny servers that follow a script.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod conformance;
mod long_poll;
mod requests;
mod script;
mod sse;
mod stream;
mod websocket;
