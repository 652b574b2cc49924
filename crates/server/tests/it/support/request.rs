//! Requests, byte for byte, and whole answers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::PATIENCE;

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

    /// Sends it to any address, and leaves the answer to be read.
    pub(crate) fn send_to(&self, address: &str) -> TcpStream {
        self.send_on(TcpStream::connect(address).unwrap(), address)
    }

    /// The same on a connection of the caller's.
    pub(crate) fn send_on(&self, mut socket: TcpStream, address: &str) -> TcpStream {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = format!(
            "{} {} HTTP/1.1\r\nHost: {address}\r\n",
            self.method, self.path
        );
        if let Some(token) = self.token {
            text.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || self.method == "POST" {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        text.push_str("\r\n");
        // A server that has refused a body may have closed already.
        let _ = socket.write_all(text.as_bytes());
        let _ = socket.write_all(&self.body);
        socket
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
    pub(super) fn head(from: &mut impl BufRead) -> Self {
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

    /// Reads the whole of it.
    pub(crate) fn read(socket: &mut TcpStream) -> Self {
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
