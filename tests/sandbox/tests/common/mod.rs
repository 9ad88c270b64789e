//! A blocking HTTP client that hides nothing: no redirects, no retries, one connection a request.

#![allow(dead_code, missing_docs, reason = "each test binary uses a part of it")]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rdm_sandbox::{ALICE, Sandbox};
use serde_json::Value;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether all bytes came that `Content-Length` promised.
    pub complete: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A request to be sent.
pub struct Ask {
    origin: String,
    pub head: String,
    body: Vec<u8>,
    has_body: bool,
}

pub fn connect(origin: &str) -> TcpStream {
    let stream = TcpStream::connect(origin.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// A request as a guest; the path is below the origin, or a whole URL.
pub fn ask(sandbox: &Sandbox, method: &str, path: &str) -> Ask {
    let (origin, path) = match path.strip_prefix("http://") {
        Some(rest) => {
            let (host, path) = rest.split_once('/').unwrap();
            (format!("http://{host}"), format!("/{path}"))
        }
        None => (sandbox.url(), path.to_string()),
    };
    let host = origin.trim_start_matches("http://");
    Ask {
        head: format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n"),
        origin,
        body: Vec::new(),
        has_body: false,
    }
}

impl Ask {
    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub fn token(self, token: &str) -> Ask {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub fn json(self, body: Value) -> Ask {
        self.header("Content-Type", "application/json")
            .body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Ask {
        self.body = body.into();
        self.has_body = true;
        self
    }

    /// The answer, or the error of a connection that broke before its headers were complete.
    pub fn send(self) -> io::Result<Answer> {
        let mut stream = connect(&self.origin);
        self.send_on(&mut stream)
    }

    pub fn send_on(self, stream: &mut TcpStream) -> io::Result<Answer> {
        let method = self.head.split(' ').next().unwrap().to_string();
        let length = if self.has_body {
            format!("Content-Length: {}\r\n", self.body.len())
        } else {
            String::new()
        };
        stream.write_all(format!("{}{length}\r\n", self.head).as_bytes())?;
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(&self.body);
        read_answer(stream, &method)
    }

    pub fn get(self) -> Answer {
        self.send().unwrap()
    }
}

pub fn read_answer(stream: &mut TcpStream, method: &str) -> io::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "")))
        .map(|(name, value)| (name.to_lowercase(), value.to_string()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().unwrap());
    let length = if method == "HEAD" { 0 } else { length };
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
        complete: true,
    };
    let outcome = stream.take(length).read_to_end(&mut answer.body);
    answer.complete = outcome.is_ok() && answer.body.len() as u64 == length;
    Ok(answer)
}

/// Requests as alice.
pub fn get(sandbox: &Sandbox, path: &str) -> Answer {
    ask(sandbox, "GET", path).token(ALICE).get()
}

pub fn post(sandbox: &Sandbox, path: &str, body: Value) -> Answer {
    ask(sandbox, "POST", path).token(ALICE).json(body).get()
}

pub fn put(sandbox: &Sandbox, path: &str, body: &[u8]) -> Answer {
    ask(sandbox, "PUT", path).token(ALICE).body(body).get()
}

pub fn delete(sandbox: &Sandbox, path: &str) -> Answer {
    ask(sandbox, "DELETE", path).token(ALICE).get()
}

/// Complete metadata.
pub fn metadata(title: &str) -> Value {
    serde_json::json!({
        "title": title, "resource_type": {"id": "dataset"}, "publication_date": "2024", "publisher": "Example",
        "creators": [{"person_or_org": {"type": "personal", "family_name": "Bee", "given_name": "Ann"}}]})
}

/// Start, PUT and commit of a file whose key needs no encoding.
pub fn upload(sandbox: &Sandbox, draft: &str, key: &str, body: &[u8]) {
    let files = format!("/api/records/{draft}/draft/files");
    assert_eq!(
        post(sandbox, &files, serde_json::json!([{"key": key}])).status,
        201
    );
    assert_eq!(put(sandbox, &format!("{files}/{key}/content"), body).status, 200);
    assert_eq!(
        post(sandbox, &format!("{files}/{key}/commit"), Value::Null).status,
        200
    );
}
