//! Client of a tidings server.
