//! What a NATS server sends to a client, parsed from a stream of bytes.
//!
//! Source: <https://docs.nats.io/reference/reference-protocols/nats-protocol>.

use bytes::{Buf, BytesMut};
use serde::Deserialize;
use thiserror::Error;

/// Longest control line taken: nats-server's INFO grows with the nodes it lists, so well over its own 4 KiB.
const MAX_LINE: usize = 1024 * 1024;

/// Largest message taken. Only witness markers, a few bytes each, are ever subscribed to.
const MAX_MESSAGE: usize = 64 * 1024;

/// The part of a server's INFO that matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ServerInfo {
    pub(crate) server_id: String,
    pub(crate) server_name: String,
    pub(crate) version: String,
    pub(crate) max_payload: usize,
    pub(crate) headers: bool,
    pub(crate) tls_required: bool,
    /// Lame duck mode: the server is about to stop.
    pub(crate) ldm: bool,
    pub(crate) connect_urls: Vec<String>,
}

/// One thing a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerOp {
    Info(Box<ServerInfo>),
    Ping,
    Pong,
    Ok,
    Error(String),
    /// A message on a subject; payloads of markers are empty, so only the subject is kept.
    Message {
        subject: String,
    },
}

/// Bytes that no NATS server sends.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this is not what a NATS server says: {0}; check that the URL leads to NATS")]
pub(crate) struct ProtocolError(String);

/// Takes the next complete operation out of `buffer`; `None` until more bytes have come.
pub(crate) fn parse(buffer: &mut BytesMut) -> Result<Option<ServerOp>, ProtocolError> {
    let Some(end) = memchr::memchr(b'\n', buffer) else {
        return if buffer.len() > MAX_LINE {
            Err(refused(buffer))
        } else {
            Ok(None)
        };
    };
    let line = buffer[..end].trim_ascii_end();
    let (word, rest) = split_word(line);
    let op = match word.to_ascii_uppercase().as_slice() {
        b"PING" => ServerOp::Ping,
        b"PONG" => ServerOp::Pong,
        b"+OK" => ServerOp::Ok,
        b"-ERR" => ServerOp::Error(String::from_utf8_lossy(rest).trim_matches('\'').to_owned()),
        b"INFO" => ServerOp::Info(serde_json::from_slice(rest).map_err(|_| refused(line))?),
        b"MSG" | b"HMSG" => {
            let (subject, size) = message_head(rest).ok_or_else(|| refused(line))?;
            // The payload ends with a line end of its own.
            let whole = end + 1 + size + 2;
            if buffer.len() < whole {
                return Ok(None);
            }
            buffer.advance(whole);
            return Ok(Some(ServerOp::Message { subject }));
        }
        _ => return Err(refused(line)),
    };
    buffer.advance(end + 1);
    Ok(Some(op))
}

/// Subject and size of `MSG <subject> <sid> [reply] <size>`; the last number counts for `HMSG` too.
fn message_head(rest: &[u8]) -> Option<(String, usize)> {
    let rest = std::str::from_utf8(rest).ok()?;
    let mut words = rest.split_ascii_whitespace();
    let subject = words.next()?.to_owned();
    let size = words
        .skip(1)
        .last()?
        .parse()
        .ok()
        .filter(|&size| size <= MAX_MESSAGE)?;
    Some((subject, size))
}

fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(line.len());
    (&line[..end], line[end..].trim_ascii_start())
}

fn refused(bytes: &[u8]) -> ProtocolError {
    ProtocolError(String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8], piece: usize) -> Result<Vec<ServerOp>, ProtocolError> {
        let (mut buffer, mut ops) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            buffer.extend_from_slice(piece);
            while let Some(op) = parse(&mut buffer)? {
                ops.push(op);
            }
        }
        Ok(ops)
    }

    const TALK: &[u8] = b"INFO {\"server_id\":\"A\",\"max_payload\":1048576,\"headers\":true,\"ldm\":true}\r\nPING\r\n+OK\r\n\
        MSG _OFA.w.1 1 5\r\nab\ncd\r\nHMSG _OFA.w.2 1 reply 12 12\r\nNATS/1.0\r\n\r\n\r\n-ERR 'Maximum Payload Violation'\r\nPONG\r\n";

    #[test]
    fn a_talk_is_understood_however_it_is_cut() {
        let info = ServerInfo {
            server_id: "A".into(),
            max_payload: 1_048_576,
            headers: true,
            ldm: true,
            ..Default::default()
        };
        let expected = vec![
            ServerOp::Info(Box::new(info)),
            ServerOp::Ping,
            ServerOp::Ok,
            ServerOp::Message {
                subject: "_OFA.w.1".into(),
            },
            ServerOp::Message {
                subject: "_OFA.w.2".into(),
            },
            ServerOp::Error("Maximum Payload Violation".into()),
            ServerOp::Pong,
        ];
        for piece in 1..TALK.len() {
            assert_eq!(all(TALK, piece), Ok(expected.clone()), "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_not_nats_is_refused() {
        for bad in [
            "HTTP/1.1 400 Bad Request\r\n",
            "MSG x\r\n",
            "MSG x 1 99999999999\r\n",
            "INFO {\r\n",
        ] {
            assert!(all(bad.as_bytes(), 100).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_panic(bytes: Vec<u8>, piece in 1usize..50) {
            let _ = all(&bytes, piece);
        }
    }
}
