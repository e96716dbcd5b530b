//! HTTP/1.1 of the barest kind, one thread for each connection: a server that takes as little as can be of the processor
//! that the measured process runs on.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::Result;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A request, read to its end.
pub(super) struct Request {
    head: String,
    pub(super) body: Vec<u8>,
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    /// Whole lines.
    pub(super) headers: String,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// The path with its query.
    pub(super) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The value of a header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

impl Reply {
    pub(super) fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: "content-type: application/x-amz-json-1.0\r\n".to_owned(), body: body.into() }
    }
}

/// Answers requests on a free port of this machine until this program ends; `None` ends the connection without a word.
pub(super) fn serve(answer: impl Fn(Request) -> Option<Reply> + Send + Sync + 'static) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            // An error is a client that went away.
            thread::spawn(move || converse(connection, &*answer));
        }
    });
    Ok(address)
}

fn converse(mut connection: TcpStream, answer: &impl Fn(Request) -> Option<Reply>) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut received = Vec::with_capacity(READ_BYTES);
    let mut sent = Vec::with_capacity(READ_BYTES);
    while let Some(request) = read(&mut connection, &mut received)? {
        let Some(reply) = answer(request) else { return Ok(()) };
        sent.clear();
        let Reply { status, headers, body } = reply;
        write!(sent, "HTTP/1.1 {status} \r\n{headers}content-length: {}\r\n\r\n", body.len())?;
        sent.extend_from_slice(&body);
        connection.write_all(&sent)?;
    }
    Ok(())
}

/// The next request; `None` at the end of the connection. What was received behind it stays in `received`.
fn read(connection: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let mut looked_at = 0;
    let body_at = loop {
        let found = received[looked_at..].windows(END_OF_HEAD.len()).position(|bytes| bytes == END_OF_HEAD);
        if let Some(place) = found {
            break looked_at + place + END_OF_HEAD.len();
        }
        looked_at = received.len().saturating_sub(END_OF_HEAD.len());
        if receive(connection, received)? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&received[..body_at]).into_owned();
    let length = header(&head, "content-length").map_or(Some(0), |length| length.parse::<usize>().ok());
    // Nobody here sends a body in chunks.
    let length = length.filter(|_| header(&head, "transfer-encoding").is_none());
    let Some(length) = length else { return Err(io::ErrorKind::InvalidData.into()) };
    while received.len() < body_at + length {
        if receive(connection, received)? == 0 {
            return Ok(None);
        }
    }
    let rest = received.split_off(body_at + length);
    let body = received.split_off(body_at);
    *received = rest;
    Ok(Some(Request { head, body }))
}

fn receive(connection: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<usize> {
    let end = received.len();
    received.resize(end + READ_BYTES, 0);
    let count = connection.read(&mut received[end..])?;
    received.truncate(end + count);
    Ok(count)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
