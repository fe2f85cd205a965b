//! The least of NATS' protocol: PUB lines gathered in a buffer, and PONGs counted.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context, Result};

/// Bytes gathered for one write.
const BUFFER: usize = 256 * 1024;

/// A publishing connection.
pub(super) struct Publisher {
    stream: TcpStream,
    buffer: Vec<u8>,
    pongs: Receiver<()>,
    asked: &'static AtomicBool,
}

impl Publisher {
    /// Connects to `host:port`.
    pub(super) fn connect(address: &str) -> Result<Self> {
        let mut stream =
            TcpStream::connect(address).with_context(|| format!("no NATS node at {address}"))?;
        stream.set_nodelay(true)?;
        stream.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"ceiling\",\"version\":\"1\",\"protocol\":1}\r\n")?;
        let lines = BufReader::new(stream.try_clone()?).lines();
        let (pong, pongs) = channel();
        // Lives until the process ends, as the thread does.
        let asked: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match line.as_str() {
                    "PONG" if pong.send(()).is_err() => return,
                    // Answered with the next write: only whole frames may go out.
                    "PING" => asked.store(true, Ordering::Relaxed),
                    _ => {}
                }
            }
        });
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(2 * BUFFER),
            pongs,
            asked,
        })
    }

    /// Publishes on `asset.id` the two parts of a payload.
    pub(super) fn publish(&mut self, asset: &[u8], id: &[u8], payload: [&[u8]; 2]) -> Result<()> {
        let out = &mut self.buffer;
        out.extend_from_slice(b"PUB ");
        out.extend_from_slice(asset);
        out.push(b'.');
        out.extend_from_slice(id);
        out.push(b' ');
        push_number(out, payload[0].len() + payload[1].len());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(payload[0]);
        out.extend_from_slice(payload[1]);
        out.extend_from_slice(b"\r\n");
        if out.len() >= BUFFER {
            self.write()
        } else {
            Ok(())
        }
    }

    /// Asks for a PONG behind everything published.
    pub(super) fn ping(&mut self) -> Result<()> {
        self.buffer.extend_from_slice(b"PING\r\n");
        self.write()
    }

    /// Waits for the next PONG.
    pub(super) fn pong(&self) -> Result<()> {
        self.pongs
            .recv()
            .context("the node has closed the connection")
    }

    fn write(&mut self) -> Result<()> {
        if self.asked.swap(false, Ordering::Relaxed) {
            self.buffer.extend_from_slice(b"PONG\r\n");
        }
        self.stream.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

fn push_number(out: &mut Vec<u8>, mut number: usize) {
    let start = out.len();
    loop {
        out.push(b'0' + u8::try_from(number % 10).unwrap_or_default());
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out[start..].reverse();
}

/// Splits an event into its id and what is left without it; `None` when it has none.
pub(super) fn without_id(event: &[u8]) -> Option<(&[u8], [&[u8]; 2])> {
    let mut depth = 0u32;
    let mut at = 0;
    while at < event.len() {
        match event[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                let end = end_of_text(event, at)?;
                let is_id = depth == 1 && &event[at + 1..end] == b"ID";
                if let Some(value) = is_id.then(|| value_behind(event, end)).flatten() {
                    return Some(cut(event, at, value));
                }
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the text that begins at `start` with a quote ends.
fn end_of_text(event: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', event.get(at..)?)?;
        if event[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// First and last quote of the text that is the value of the name ending at `end`.
fn value_behind(event: &[u8], end: usize) -> Option<(usize, usize)> {
    let colon = skip_space(event, end + 1);
    let start = skip_space(event, colon + 1);
    (event.get(colon) == Some(&b':') && event.get(start) == Some(&b'"'))
        .then(|| Some((start, end_of_text(event, start)?)))
        .flatten()
}

fn skip_space(event: &[u8], from: usize) -> usize {
    let rest = event.get(from..).unwrap_or_default();
    from + rest
        .iter()
        .take_while(|byte| byte.is_ascii_whitespace())
        .count()
}

/// Leaves a member out, with the comma behind it or, where it is the last one, before it.
fn cut(event: &[u8], name: usize, (start, end): (usize, usize)) -> (&[u8], [&[u8]; 2]) {
    let id = &event[start + 1..end];
    let behind = skip_space(event, end + 1);
    if event.get(behind) == Some(&b',') {
        return (id, [&event[..name], &event[behind + 1..]]);
    }
    let comma = memchr::memrchr(b',', &event[..name]).unwrap_or(name);
    (id, [&event[..comma], &event[end + 1..]])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn split(event: &str) -> (String, String) {
        let (id, rest) = without_id(event.as_bytes()).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(id), text(&rest.concat()))
    }

    #[test]
    fn the_id_is_cut_out_wherever_it_stands() {
        for (event, rest) in [
            (r#"{"ID":"x","VALUE":1}"#, r#"{"VALUE":1}"#),
            (r#"{"VALUE":1,"ID":"x"}"#, r#"{"VALUE":1}"#),
            (
                r#"{"a":{"ID":"y"},"ID" : "x" ,"b":"\"ID\""}"#,
                r#"{"a":{"ID":"y"},"b":"\"ID\""}"#,
            ),
        ] {
            assert_eq!(split(event), ("x".to_owned(), rest.to_owned()), "{event}");
        }
    }

    #[test]
    fn no_id_is_told() {
        assert!(without_id(br#"{"VALUE":"ID"}"#).is_none());
    }
}
