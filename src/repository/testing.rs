//! A server in a thread for the tests beside the code: it says exactly what a test tells it to, also nonsense.
//!
//! For what the sandbox can't do: broken answers, early refusals, slow bytes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Limits, Repository, Settings, Token};

/// The head of a request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn length(&self) -> usize {
        self.header("content-length")
            .map_or(0, |text| text.parse().unwrap())
    }
}

/// A server that calls a function for every request; it may read the body from the stream and writes the answer.
/// The connection is closed after each.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) heads: Arc<Mutex<Vec<Head>>>,
}

impl Server {
    /// `answer` gets the number of the request, from 1.
    pub(crate) fn start(answer: impl Fn(usize, &Head, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let Some(head) = read_head(&mut stream) else {
                        return;
                    };
                    let number = {
                        let mut seen = seen.lock();
                        seen.push(head.clone());
                        seen.len()
                    };
                    answer(number, &head, &mut stream);
                });
            }
        });
        Server { url, heads }
    }

    pub(crate) fn repository(&self) -> Repository {
        Repository::connect(Settings {
            url: self.url.clone(),
            token: Some(Token::new("s3cret").unwrap()),
            limits: quick(),
            ..Settings::default()
        })
        .unwrap()
    }

    pub(crate) fn count(&self) -> usize {
        self.heads.lock().len()
    }
}

pub(crate) fn quick() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        stall: Duration::from_millis(400),
        whole: Duration::from_secs(5),
        tries: 3,
        first_pause: Duration::from_millis(10),
    }
}

pub(crate) fn answer(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}

pub(crate) fn read_body(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    body
}

fn read_head(stream: &mut TcpStream) -> Option<Head> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    let text = String::from_utf8(text).unwrap();
    let mut lines = text.lines();
    Some(Head {
        line: lines.next()?.to_owned(),
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    })
}
