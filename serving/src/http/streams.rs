//! Streams that cost little while nothing happens.
//!
//! A connection that hyper serves keeps its buffers for as long as an answer lasts: some 20 KiB, and a stream of events lasts for days. So
//! a connection whose first request is one for a stream is served here, with a socket and the answer's body and nothing else; it
//! ends with the answer. All others go to hyper untouched, since what came is only looked at.

use std::fmt::Write as _;
use std::io;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header, response};
use futures::StreamExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What the path of a stream ends with.
const STREAM: &str = "/asset_stream";

/// Longest head that is looked at: the parser of one in several pieces is hyper's.
const HEAD: usize = 16 * 1024;

/// Most header fields of a request; browsers behind proxies send about 30.
pub(super) const MAX_HEADERS: usize = 100;

/// Fields of a request that want more than an answer.
const WANTS_MORE: [header::HeaderName; 4] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// The first request, if it is one for a stream, and the length of its head. Takes nothing from the socket.
pub(super) async fn first_request(stream: &TcpStream) -> Option<(Request<Body>, usize)> {
    let mut head = vec![0; HEAD];
    let length = stream.peek(&mut head).await.ok()?;
    parse(&head[..length])
}

fn parse(head: &[u8]) -> Option<(Request<Body>, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = parsed.parse(head) else {
        return None;
    };
    let path = parsed.path.filter(|_| parsed.method == Some("GET"))?;
    if !path.split('?').next()?.ends_with(STREAM) {
        return None;
    }
    let mut request = Request::builder().method(Method::GET).uri(path);
    for field in &*parsed.headers {
        request = request.header(field.name, field.value);
    }
    let request = request.body(Body::empty()).ok()?;
    let wants_more = |name| request.headers().contains_key(name);
    (!WANTS_MORE.iter().any(wants_more)).then_some((request, length))
}

/// Answers a request whose head is `length` bytes long, and ends the connection.
pub(super) async fn answer(
    mut stream: TcpStream,
    (request, length): (Request<Body>, usize),
    app: Router,
) -> io::Result<()> {
    stream.read_exact(&mut vec![0; length]).await?;
    let answered = Box::pin(TowerToHyperService::new(app).call(request)).await;
    let Ok((parts, body)) = answered.map(response::Response::into_parts);
    stream.write_all(&head_of(&parts)).await?;
    drop(parts);
    let mut body = body.into_data_stream();
    loop {
        let bytes = tokio::select! {
            bytes = body.next() => bytes,
            () = is_gone(&stream) => return Ok(()),
        };
        match bytes {
            Some(Ok(bytes)) => stream.write_all(&bytes).await?,
            // Broken off: so is the connection.
            Some(Err(_)) | None => return stream.shutdown().await,
        }
    }
}

/// The head of an answer that ends with its connection.
fn head_of(parts: &response::Parts) -> Vec<u8> {
    let status = parts.status;
    let mut head = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        head,
        "HTTP/1.1 {} {}\r\nconnection: close\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default()
    );
    let mut head = head.into_bytes();
    for (name, value) in &parts.headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Completes when the client has closed. What it sends meanwhile is a request that nobody will answer.
async fn is_gone(stream: &TcpStream) {
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut [0; 256]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(head: &str) -> Option<String> {
        let (request, length) = parse(head.as_bytes())?;
        assert_eq!(&head[length - 4..length], "\r\n\r\n");
        Some(request.uri().to_string())
    }

    #[test]
    fn a_request_for_a_stream_is_taken() {
        let head = "GET /group/Halle%203/asset_stream?asset_uuid=A HTTP/1.1\r\nhost: h\r\nlast-event-id: t/0/1\r\n\r\n";
        assert_eq!(
            path(head).as_deref(),
            Some("/group/Halle%203/asset_stream?asset_uuid=A")
        );
        let (request, _) = parse(head.as_bytes()).unwrap();
        assert_eq!(request.headers()["last-event-id"], "t/0/1");
    }

    #[test]
    fn anything_else_is_left_to_hyper() {
        for head in [
            "",
            "GET /asset_stream HTTP/1.1\r\nhost: h\r\n",
            "GET /asset_state HTTP/1.1\r\n\r\n",
            "GET /x?/asset_stream HTTP/1.1\r\n\r\n",
            "HEAD /asset_stream HTTP/1.1\r\n\r\n",
            "GET /asset_stream HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc",
            "GET /asset_stream HTTP/1.1\r\nupgrade: h2c\r\n\r\n",
            "GET /asset_stream\r\n\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            assert_eq!(path(head), None, "{head:?}");
        }
    }
}
