//! A receiver that does what no receiver should: one behaviour for each [`Mode`], on a port of its own.
//!
//! It speaks in bytes, since no HTTP server would say most of this. Each connection has a thread, which ends when the
//! sender hangs up.

#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "as a path a method has one lifetime, not all"
)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tokio::net::TcpSocket;

/// Who vouches for the certificates of [`Hostile`] that are good. Tests name this file in `SSL_CERT_FILE`.
pub const AUTHORITY: &str = "crates/local/tls/authority_certificate.pem";

/// When the dates are meant to be read that `Retry-After` has: Sun, 06 Nov 1994 08:49:37 GMT, in milliseconds of Unix time.
/// One is two minutes later, another earlier.
pub const MOMENT: u64 = 784_111_777_000;

/// What [`AUTHORITY`] holds.
const AUTHORITY_PEM: &[u8] = include_bytes!("../tls/authority_certificate.pem");

/// How long a drip pauses after each byte.
const DRIP: Duration = Duration::from_secs(1);

/// How much a stream brings at a time, in bytes, and how often.
const STREAM_BYTES: usize = 16 * 1024;
const STREAM_PERIOD: Duration = Duration::from_micros(62_500);

/// How long what was said has, to be read before the connection is reset.
const BEFORE_RESET: Duration = Duration::from_millis(100);

/// How many connections wait at most where nobody accepts any.
const BACKLOG: u32 = 1;

/// The most of a request that is kept, in bytes.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// The receiver, in every mode at once.
#[derive(Debug)]
pub struct Hostile {
    places: Vec<Place>,
    /// Never accepted: they fill the backlog.
    _waiting: Vec<TcpStream>,
}

/// One behaviour.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Its name, also its path.
    pub name: &'static str,
    link: Link,
    act: fn(&mut Visit<'_>) -> io::Result<()>,
}

/// Where a mode is found, and what came there.
#[derive(Debug)]
struct Place {
    mode: &'static Mode,
    address: SocketAddr,
    seen: Arc<Seen>,
    /// Open, where nobody accepts.
    _listener: Option<TcpListener>,
}

/// What came to a mode.
#[derive(Debug, Default)]
struct Seen {
    requests: Mutex<Vec<String>>,
    connections: Mutex<usize>,
}

/// How a mode is connected to.
#[derive(Clone, Copy, Debug)]
enum Link {
    /// By plain HTTP.
    Plain,
    /// By what claims to be HTTPS.
    Raw,
    /// By TLS with this certificate.
    Tls(Certificate),
    /// By TLS with a good certificate, and HTTP/2.
    Http2,
    /// By TLS with a good certificate; the sender must show one too.
    Mutual,
    /// By connections that nobody accepts.
    Crowded,
    /// Not at all: nobody listens.
    Closed,
    /// Not at all: the name has no address.
    Nameless,
}

/// A certificate with its key. These keys open nothing.
#[derive(Clone, Copy, Debug)]
struct Certificate {
    certificate: &'static [u8],
    key: &'static [u8],
}

macro_rules! certificate {
    ($name:literal) => {
        Certificate {
            certificate: include_bytes!(concat!("../tls/", $name, "_certificate.pem")),
            key: include_bytes!(concat!("../tls/", $name, "_key.pem")),
        }
    };
}

const GOOD: Certificate = certificate!("server");
const EXPIRED: Certificate = certificate!("expired");
const ELSEWHERE: Certificate = certificate!("elsewhere");
const SELF_SIGNED: Certificate = certificate!("unvouched");

/// A mode by plain HTTP that says this once to each request, and keeps the connection.
macro_rules! says {
    ($name:literal, $answer:expr) => {
        Mode { name: $name, link: Link::Plain, act: |visit| visit.answer_all($answer.as_bytes()) }
    };
}

/// A mode by a link, with what it does.
const fn mode(name: &'static str, link: Link, act: fn(&mut Visit<'_>) -> io::Result<()>) -> Mode {
    Mode { name, link, act }
}

/// Every mode.
pub const MODES: &[Mode] = &[
    // No answer.
    mode("silent", Link::Plain, |visit| visit.hear().and_then(|()| visit.hold())),
    mode("deaf", Link::Plain, |visit| visit.deaf()),
    mode("status-drip", Link::Plain, |visit| {
        visit.hear()?;
        visit.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    }),
    mode("header-drip", Link::Plain, |visit| {
        visit.hear()?;
        visit.say(b"HTTP/1.1 200 OK\r\n")?;
        visit.drip(&[b'x'; 3600])
    }),
    mode("close", Link::Plain, |visit| visit.hear()),
    mode("reset", Link::Plain, |visit| visit.hear_a_byte()),
    mode("continue-flood", Link::Plain, |visit| {
        visit.hear()?;
        visit.stream(b"HTTP/1.1 100 Continue\r\n\r\n")
    }),
    mode("continue-drip", Link::Plain, |visit| {
        visit.hear()?;
        loop {
            visit.say(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            pause(DRIP);
        }
    }),
    mode("processing-flood", Link::Plain, |visit| {
        visit.hear()?;
        visit.stream(b"HTTP/1.1 102 Processing\r\n\r\n")
    }),
    mode("hints-flood", Link::Plain, |visit| {
        visit.hear()?;
        visit.stream(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    }),
    mode("crowded", Link::Crowded, |_| Ok(())),
    mode("closed", Link::Closed, |_| Ok(())),
    mode("nameless", Link::Nameless, |_| Ok(())),
    // Answers that do not end, or end too soon.
    mode("body-drip", Link::Plain, |visit| {
        visit.hear()?;
        visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 3600\r\n\r\n")?;
        visit.drip(&[b'x'; 3600])
    }),
    mode("refusal-drip", Link::Plain, |visit| {
        visit.hear()?;
        visit.say(b"HTTP/1.1 500 Oh\r\nContent-Length: 3600\r\n\r\nbecause")?;
        visit.drip(&[b'.'; 3600])
    }),
    mode("body-silent", Link::Plain, |visit| {
        visit.hear()?;
        visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 3600\r\n\r\n")?;
        visit.hold()
    }),
    mode("body-flood", Link::Plain, |visit| {
        visit.hear()?;
        visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\n")?;
        visit.flood(&[b'x'; 16 * 1024])
    }),
    mode("refusal-flood", Link::Plain, |visit| {
        visit.hear()?;
        visit.say(b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        visit.flood(b"10\r\n0123456789abcdef\r\n")
    }),
    mode("gzip-bomb", Link::Plain, |visit| {
        visit.hear()?;
        let bomb = &*GZIP_BOMB;
        let head = format!(
            "HTTP/1.1 500 Oh\r\nContent-Encoding: gzip\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            bomb.len()
        );
        visit.say(head.as_bytes())?;
        visit.say(bomb)?;
        visit.hold()
    }),
    mode("body-reset", Link::Plain, |visit| {
        visit.hear_a_byte()?;
        visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhal")?;
        pause(BEFORE_RESET);
        Ok(())
    }),
    mode("refusal-reset", Link::Plain, |visit| {
        visit.hear_a_byte()?;
        visit.say(b"HTTP/1.1 500 Oh\r\nContent-Length: 1000\r\n\r\nhal")?;
        pause(BEFORE_RESET);
        Ok(())
    }),
    mode("body-short", Link::Plain, |visit| {
        visit.hear()?;
        visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort")
    }),
    // Heads of any size.
    mode("header-flood", Link::Plain, |visit| {
        visit.hear()?;
        visit.say(b"HTTP/1.1 200 OK\r\n")?;
        visit.flood(b"X-More: and more\r\n")
    }),
    mode("header-many", Link::Plain, |visit| {
        visit.hear()?;
        let headers = "X-More: and more\r\n".repeat(1000);
        visit.say(format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 0\r\n\r\n").as_bytes())?;
        visit.hold()
    }),
    mode("header-huge", Link::Plain, |visit| {
        visit.hear()?;
        let header = "x".repeat(1024 * 1024);
        visit.say(format!("HTTP/1.1 200 OK\r\nX-Huge: {header}\r\n\r\n").as_bytes())?;
        visit.hold()
    }),
    // No HTTP.
    says!("garbage", "\x16\u{fffd} what is this?\r\n\r\n"),
    says!("status-letters", "HTTP/1.1 two hundred\r\n\r\n"),
    says!("version-0.9", "<html>hello</html>\r\n\r\n"),
    says!("version-9", "HTTP/9.0 200 OK\r\n\r\n"),
    says!("length-negative", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    says!("length-twice", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    says!("chunk-overflow", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nab"),
    says!("chunk-garbage", "HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwhy\r\nzz\r\n"),
    says!("switching", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
    says!("status-099", "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n"),
    says!("status-999", "HTTP/1.1 999 High\r\nContent-Length: 0\r\n\r\n"),
    // Answers that mean something.
    says!(
        "accepted-garbage",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Type: x\r\n\r\n\u{1}\u{2}\u{3}\u{4}"
    ),
    says!("no-content-body", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"),
    says!("two-answers", "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"),
    says!("cookie", "HTTP/1.1 204 No Content\r\nSet-Cookie: spy=1; Path=/\r\n\r\n"),
    says!("unauthorized", "HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n"),
    says!("gone", "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"),
    says!("too-large", "HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n"),
    says!("unsupported", "HTTP/1.1 415 What\r\nContent-Length: 0\r\n\r\n"),
    says!("refused-token", "HTTP/1.1 400 Bad\r\nContent-Length: 25\r\n\r\n{\"err\": \"invalid_issuer\"}"),
    says!("throttled", "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n"),
    says!("retry-seconds", "HTTP/1.1 429 Slow\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n"),
    says!(
        "retry-date",
        "HTTP/1.1 503 Off\r\nRetry-After: Sun, 06 Nov 1994 08:51:37 GMT\r\nContent-Length: 0\r\n\r\n"
    ),
    says!(
        "retry-past",
        "HTTP/1.1 503 Off\r\nRetry-After: Sun, 06 Nov 1994 08:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
    ),
    says!(
        "retry-huge",
        "HTTP/1.1 429 Slow\r\nRetry-After: 99999999999999999999999\r\nContent-Length: 0\r\n\r\n"
    ),
    says!("retry-negative", "HTTP/1.1 429 Slow\r\nRetry-After: -5\r\nContent-Length: 0\r\n\r\n"),
    says!("retry-garbage", "HTTP/1.1 429 Slow\r\nRetry-After: \u{e9} soon\r\nContent-Length: 0\r\n\r\n"),
    says!(
        "retry-twice",
        "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n"
    ),
    says!(
        "redirect-inside",
        "HTTP/1.1 307 Go\r\nLocation: http://169.254.169.254/latest/meta-data/\r\nContent-Length: 0\r\n\r\n"
    ),
    says!("redirect-loop", "HTTP/1.1 308 Go\r\nLocation: /redirect-loop\r\nContent-Length: 0\r\n\r\n"),
    // Connections that were kept and are closed when they are used again.
    mode("idle-close", Link::Plain, |visit| {
        visit.hear()?;
        visit.say(b"HTTP/1.1 204 No Content\r\n\r\n")
    }),
    mode("reuse-close", Link::Plain, |visit| {
        visit.hear()?;
        visit.say(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        visit.hear()
    }),
    mode("reuse-reset", Link::Plain, |visit| {
        visit.hear()?;
        visit.say(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        visit.hear_a_byte()
    }),
    // TLS.
    mode("tls-silent", Link::Raw, |visit| visit.hold()),
    mode("tls-close", Link::Raw, |visit| visit.hear_some()),
    mode("tls-garbage", Link::Raw, |visit| visit.hear_some().and_then(|()| visit.say(&[0xff; 512]))),
    mode("tls-plain", Link::Raw, |visit| {
        visit.hear_some()?;
        visit.say(b"HTTP/1.1 204 No Content\r\n\r\n")
    }),
    mode("tls-flood", Link::Raw, |visit| {
        visit.hear_some()?;
        // Handshake records with messages that promise 16 MiB.
        visit.flood(&[&[0x16, 3, 3, 0x40, 0, 2, 0xff, 0xff, 0xff][..], &[0; 0x3ffc]].concat())
    }),
    mode("tls-1.0", Link::Raw, |visit| {
        visit.hear_some()?;
        visit.say(&server_hello_of_tls_1_0())?;
        visit.hold()
    }),
    mode("tls-alert", Link::Raw, |visit| {
        visit.hear_some()?;
        // Fatal: protocol version.
        visit.say(&[0x15, 3, 1, 0, 2, 2, 70])
    }),
    mode("tls-good", Link::Tls(GOOD), |visit| visit.answer_all(b"HTTP/1.1 204 No Content\r\n\r\n")),
    mode("tls-expired", Link::Tls(EXPIRED), |visit| visit.answer_all(b"HTTP/1.1 204 No Content\r\n\r\n")),
    mode("tls-elsewhere", Link::Tls(ELSEWHERE), |visit| visit.answer_all(b"HTTP/1.1 204 No Content\r\n\r\n")),
    mode("tls-self-signed", Link::Tls(SELF_SIGNED), |visit| {
        visit.answer_all(b"HTTP/1.1 204 No Content\r\n\r\n")
    }),
    mode("tls-mutual", Link::Mutual, |visit| visit.answer_all(b"HTTP/1.1 204 No Content\r\n\r\n")),
    mode("tls-cut", Link::Tls(GOOD), |visit| {
        visit.hear()?;
        visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhal")
    }),
    // HTTP/2.
    mode("h2-good", Link::Http2, |visit| {
        let mut stream = visit.hear_frames()?;
        loop {
            visit.frame(HEADERS, END_STREAM | END_HEADERS, stream, &status(*b"204"))?;
            stream = visit.hear_stream()?;
        }
    }),
    mode("h2-silent", Link::Http2, |visit| visit.hear_frames().and_then(|_| visit.hold())),
    mode("h2-goaway", Link::Http2, |visit| {
        visit.hear_frames()?;
        // The last stream that was seen, and: calm down.
        visit.frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0xb])
    }),
    mode("h2-leave", Link::Http2, |visit| {
        let stream = visit.hear_frames()?;
        visit.frame(HEADERS, END_STREAM | END_HEADERS, stream, &status(*b"204"))?;
        // The next one finds the connection in good order closed.
        visit.hear_stream()?;
        visit.frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])
    }),
    mode("h2-reset", Link::Http2, |visit| {
        let mut stream = visit.hear_frames()?;
        loop {
            // Internal error.
            visit.frame(RST_STREAM, 0, stream, &[0, 0, 0, 2])?;
            stream = visit.hear_stream()?;
        }
    }),
    mode("h2-settings-flood", Link::Http2, |visit| {
        visit.hear_frames()?;
        visit.stream(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]))
    }),
    mode("h2-ping-flood", Link::Http2, |visit| {
        visit.hear_frames()?;
        visit.stream(&frame(PING, 0, 0, &[0; 8]))
    }),
    mode("h2-hints-flood", Link::Http2, |visit| {
        let stream = visit.hear_frames()?;
        visit.stream(&frame(HEADERS, END_HEADERS, stream, &status(*b"103")))
    }),
    mode("h2-continuation-flood", Link::Http2, |visit| {
        let stream = visit.hear_frames()?;
        visit.frame(HEADERS, 0, stream, &status(*b"200"))?;
        visit.flood(&frame(CONTINUATION, 0, stream, &header(b"x-more", &[b'x'; 100])))
    }),
    mode("h2-header-huge", Link::Http2, |visit| {
        let stream = visit.hear_frames()?;
        visit.frame(HEADERS, 0, stream, &status(*b"200"))?;
        for _ in 0..1500 {
            visit.frame(CONTINUATION, 0, stream, &header(b"x-more", &[b'x'; 100]))?;
        }
        visit.frame(CONTINUATION, END_HEADERS, stream, &header(b"x-last", b"x"))?;
        visit.hold()
    }),
    mode("h2-body-flood", Link::Http2, |visit| {
        let stream = visit.hear_frames()?;
        visit.frame(HEADERS, END_HEADERS, stream, &status(*b"200"))?;
        pause(BEFORE_RESET);
        // Beyond any window.
        visit.flood(&frame(DATA, 0, stream, &[b'x'; 16 * 1024]))
    }),
    mode("h2-garbage", Link::Http2, |visit| visit.hear_some().and_then(|()| visit.say(&[0xff; 4096]))),
];

impl Hostile {
    /// Starts every mode. They end with the program.
    pub fn start() -> Result<Self> {
        let mut waiting = Vec::new();
        let places = MODES.iter().map(|mode| Place::open(mode, &mut waiting)).collect::<Result<_>>()?;
        Ok(Self { places, _waiting: waiting })
    }

    /// The URL of a mode.
    pub fn url(&self, name: &str) -> Result<String> {
        let place = self.place(name)?;
        let scheme = match place.mode.link {
            Link::Raw | Link::Tls(_) | Link::Http2 | Link::Mutual => "https",
            Link::Plain | Link::Crowded | Link::Closed => "http",
            Link::Nameless => return Ok(format!("http://name.invalid/{name}")),
        };
        Ok(format!("{scheme}://{}/{name}", place.address))
    }

    /// The requests that came to a mode by HTTP/1.1, as text; the first 16 KiB of each.
    pub fn requests(&self, name: &str) -> Result<Vec<String>> {
        Ok(self.place(name)?.seen.requests.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// How many connections came to a mode.
    pub fn connections(&self, name: &str) -> Result<usize> {
        Ok(*self.place(name)?.seen.connections.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn place(&self, name: &str) -> Result<&Place> {
        self.places.iter().find(|place| place.mode.name == name).with_context(|| format!("no mode {name}"))
    }
}

impl Place {
    fn open(mode: &'static Mode, waiting: &mut Vec<TcpStream>) -> Result<Self> {
        let seen = Arc::<Seen>::default();
        let place = |address, listener| Self { mode, address, seen: Arc::clone(&seen), _listener: listener };
        if let Link::Crowded = mode.link {
            let (listener, address) = crowded(waiting)?;
            return Ok(place(address, Some(listener)));
        }
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let tls = match mode.link {
            Link::Closed | Link::Nameless => return Ok(place(address, None)),
            Link::Plain | Link::Raw | Link::Crowded => None,
            Link::Tls(certificate) => Some(tls(certificate, &[b"http/1.1"], false)?),
            Link::Http2 => Some(tls(GOOD, &[b"h2"], false)?),
            Link::Mutual => Some(tls(GOOD, &[b"http/1.1"], true)?),
        };
        let seen_there = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, tls) = (Arc::clone(&seen_there), tls.clone());
                *seen.connections.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                // That the sender hangs up is how most visits end.
                std::thread::spawn(move || _ = receive(mode, stream, tls, &seen));
            }
        });
        Ok(place(address, None))
    }
}

/// A listener that accepts nothing, with as many connections before it as may wait.
fn crowded(waiting: &mut Vec<TcpStream>) -> Result<(TcpListener, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(BACKLOG)?.into_std()?;
    let address = listener.local_addr()?;
    while let Ok(stream) = TcpStream::connect_timeout(&address, BEFORE_RESET) {
        waiting.push(stream);
    }
    Ok((listener, address))
}

fn tls(certificate: Certificate, alpn: &[&[u8]], mutual: bool) -> Result<Arc<ServerConfig>> {
    let chain = vec![CertificateDer::from_pem_slice(certificate.certificate)?];
    let key = PrivateKeyDer::from_pem_slice(certificate.key)?;
    let provider = Arc::new(default_provider());
    let config =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let config = if mutual {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(AUTHORITY_PEM)?)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        config.with_client_cert_verifier(verifier)
    } else {
        config.with_no_client_auth()
    };
    let mut config = config.with_single_cert(chain, key)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

fn receive(mode: &Mode, stream: TcpStream, tls: Option<Arc<ServerConfig>>, seen: &Seen) -> io::Result<()> {
    match tls {
        None => (mode.act)(&mut Visit { wire: &mut { stream }, seen }),
        Some(tls) => {
            let tls = ServerConnection::new(tls).map_err(io::Error::other)?;
            let mut wire = StreamOwned::new(tls, stream);
            let acted = (mode.act)(&mut Visit { wire: &mut wire, seen });
            _ = wire.sock.shutdown(Shutdown::Both);
            acted
        }
    }
}

/// What a connection can do.
trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// One connection of the sender's.
struct Visit<'a> {
    wire: &'a mut dyn Wire,
    seen: &'a Seen,
}

impl Visit<'_> {
    /// Reads a request over HTTP/1.1 to its end.
    fn hear(&mut self) -> io::Result<()> {
        let mut request = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let count = self.wire.read(&mut bytes)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            request.extend_from_slice(&bytes[..count]);
            let text = String::from_utf8_lossy(&request);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0) {
                let text = text.chars().take(REQUEST_BYTES_MAX).collect();
                self.seen.requests.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                return Ok(());
            }
        }
    }

    /// Reads one byte: what else was sent lies unread, so closing resets the connection.
    fn hear_a_byte(&mut self) -> io::Result<()> {
        self.wire.read_exact(&mut [0])
    }

    /// Reads what comes first.
    fn hear_some(&mut self) -> io::Result<()> {
        self.wire.read(&mut [0; 4096]).map(drop)
    }

    /// Reads nothing, as long as the sender may be there.
    fn deaf(&mut self) -> io::Result<()> {
        pause(DRIP * 60);
        self.hear_some()
    }

    fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes)?;
        self.wire.flush()
    }

    fn answer_all(&mut self, answer: &[u8]) -> io::Result<()> {
        loop {
            self.hear()?;
            self.say(answer)?;
        }
    }

    fn drip(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            self.say(&[*byte])?;
            pause(DRIP);
        }
        Ok(())
    }

    fn flood(&mut self, bytes: &[u8]) -> io::Result<()> {
        loop {
            self.say(bytes)?;
        }
    }

    /// Says this again and again, as fast as a line of 2 Mbit/s lets it.
    fn stream(&mut self, bytes: &[u8]) -> io::Result<()> {
        let much = bytes.repeat(STREAM_BYTES / bytes.len());
        loop {
            self.say(&much)?;
            pause(STREAM_PERIOD);
        }
    }

    /// Waits until the sender hangs up.
    fn hold(&mut self) -> io::Result<()> {
        while self.wire.read(&mut [0; 4096])? > 0 {}
        Ok(())
    }

    /// Takes an HTTP/2 connection, and reads a request to its end. Tells its stream.
    fn hear_frames(&mut self) -> io::Result<u32> {
        self.wire.read_exact(&mut [0; PREFACE_BYTES])?;
        self.frame(SETTINGS, 0, 0, &[])?;
        self.hear_stream()
    }

    /// Reads the next request of an HTTP/2 connection to its end. Tells its stream.
    fn hear_stream(&mut self) -> io::Result<u32> {
        loop {
            let mut head = [0; 9];
            self.wire.read_exact(&mut head)?;
            let [l0, l1, l2, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2)];
            self.wire.read_exact(&mut payload)?;
            if kind == SETTINGS && flags & ACK == 0 {
                self.frame(SETTINGS, ACK, 0, &[])?;
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return Ok(u32::from_be_bytes(stream));
            }
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.say(&frame(kind, flags, stream, payload))
    }
}

/// The length of what an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

// Frames (RFC 9113, section 6) and their flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A status without compression: a literal whose name is the eighth of the static table (RFC 7541, appendix A).
fn status(code: [u8; 3]) -> Vec<u8> {
    [&[0x08, 3][..], &code].concat()
}

/// A header without compression, both shorter than 127 bytes (RFC 7541, section 6.2.2).
fn header(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = |text: &[u8]| u8::try_from(text.len()).unwrap_or(u8::MAX);
    [&[0, length(name)][..], name, &[length(value)], value].concat()
}

/// What a server says that knows no TLS but 1.0: that, 32 bytes of chance, no session, and a cipher of the time
/// (RFC 2246, section 7.4.1.3).
fn server_hello_of_tls_1_0() -> Vec<u8> {
    let hello = [&[3, 1][..], &[7; 32], &[0, 0xc0, 0x13, 0]].concat();
    let length = u8::try_from(hello.len()).unwrap_or(u8::MAX);
    [&[0x16, 3, 1, 0, length + 4, 2, 0, 0, length][..], &hello].concat()
}

/// A mebibyte that unpacks to more than 150: a letter, and then again and again 258 times what was there last (RFC 1951,
/// section 3.2.6). It has no end, as it will not be waited for.
static GZIP_BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    // A block that is not the last, of fixed codes; the letter B.
    let begin = [0, 1, 0].into_iter().chain([0, 1, 1, 1, 0, 0, 1, 0]);
    // The length 258 and the distance 1.
    let again = [1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0].into_iter().cycle();
    let mut bits = begin.chain(again);
    bytes.extend(
        (0..1024 * 1024).map(|_| (0..8).fold(0, |byte, place| byte | bits.next().unwrap_or(0) << place)),
    );
    bytes
});

#[expect(clippy::disallowed_methods, reason = "a receiver that lets wait, in a thread of its own")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bomb_is_one() {
        // Its bits in their order: 0 10 01110010, then 1100010100000 again and again.
        assert_eq!(GZIP_BOMB[10..14], [0b0111_0010, 0b0001_1010, 0b0000_0101, 0b1010_0011]);
    }
}
