//! The real binary, from outside: real sockets, real signals, real databases, and parsers that are not ours.

mod crash;
mod drain;
mod hostile;
mod http;
mod lifecycle;
mod limits;
mod resume;
mod slow;
mod support;
mod tenants;
mod tokens;
mod websocket;
