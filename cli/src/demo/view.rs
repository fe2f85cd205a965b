//! What the terminal shows: drawn anew every second, or a line a second where there is no terminal.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::scrape::Forwarder;

/// Clears the screen and goes to its top.
const HOME: &str = "\x1b[H\x1b[J";

/// Everything of one second.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) elapsed: Duration,
    pub(crate) events: u64,
    /// Events of the last second.
    pub(crate) rate: f64,
    /// Events of the last second by shard, as the counting client received them.
    pub(crate) shards: BTreeMap<String, f64>,
    /// Figures of each forwarder, and its confirmed messages of the last second.
    pub(crate) forwarders: BTreeMap<String, Option<(Forwarder, f64)>>,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) gaps: u64,
    pub(crate) reconnects: u64,
    pub(crate) asset: String,
    pub(crate) asset_events: VecDeque<String>,
    pub(crate) trouble: Vec<String>,
    pub(crate) hints: Vec<String>,
}

/// Shows a frame.
pub(crate) fn show(frame: &Frame) -> anyhow::Result<()> {
    let mut out = io::stdout();
    let text = if out.is_terminal() {
        format!("{HOME}{}", page(frame))
    } else {
        line(frame)
    };
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn lag(frame: &Frame) -> f64 {
    let known = frame.forwarders.values().flatten();
    known.map(|(forwarder, _)| forwarder.lag).sum()
}

fn line(frame: &Frame) -> String {
    let mut shards = String::new();
    for (name, rate) in &frame.shards {
        // Writing to a String cannot fail.
        let _ = write!(shards, "  {name} {rate:.0}/s");
    }
    let trouble: String = frame.trouble.iter().map(|it| format!("  ! {it}")).collect();
    format!(
        "{:>4} s  {:.0} events/s{shards}  lag {:.0}  p50 {:.1} ms  p99 {:.1} ms  gaps {}{trouble}\n",
        frame.elapsed.as_secs(),
        frame.rate,
        lag(frame),
        frame.p50_ms,
        frame.p99_ms,
        frame.gaps,
    )
}

fn page(frame: &Frame) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = write_page(&mut page, frame);
    page
}

fn write_page(out: &mut String, frame: &Frame) -> std::fmt::Result {
    writeln!(
        out,
        "OpenFactory fan-out   {} s   {} events   {:.0}/s   append to client: p50 {:.1} ms, p99 {:.1} ms   gaps {}   reconnects {}\n",
        frame.elapsed.as_secs(),
        frame.events,
        frame.rate,
        frame.p50_ms,
        frame.p99_ms,
        frame.gaps,
        frame.reconnects,
    )?;
    writeln!(out, "{:<16} {:>12}   CONFIRMED BY", "SHARD", "RECEIVED/S")?;
    for (name, rate) in &frame.shards {
        writeln!(out, "{name:<16} {rate:>12.0}   {}", witness(frame, name))?;
    }
    writeln!(
        out,
        "\n{:<16} {:>12} {:>8}   CONFIRMED POSITION (partition:offset)",
        "FORWARDER", "CONFIRMED/S", "LAG"
    )?;
    for (name, figures) in &frame.forwarders {
        match figures {
            Some((it, rate)) => writeln!(
                out,
                "{name:<16} {rate:>12.0} {:>8.0}   {}",
                it.lag,
                positions(it)
            )?,
            None => writeln!(out, "{name:<16} {:>12}", "not there")?,
        }
    }
    writeln!(out, "\nASSET {}", frame.asset)?;
    for event in &frame.asset_events {
        writeln!(out, "  {event}")?;
    }
    for trouble in &frame.trouble {
        writeln!(out, "\n! {trouble}")?;
    }
    writeln!(out, "\nTRY")?;
    for hint in &frame.hints {
        writeln!(out, "  {hint}")?;
    }
    Ok(())
}

/// The weakest confirmation of any forwarder counts.
fn witness(frame: &Frame, shard: &str) -> &'static str {
    let known = frame.forwarders.values().flatten();
    let modes = known.filter_map(|(forwarder, _)| forwarder.witness.get(shard));
    match modes.copied().reduce(f64::min) {
        None => "-",
        Some(mode) if mode >= 2.0 => "a second node",
        Some(mode) if mode >= 1.0 => "the same node only",
        Some(_) => "nobody: no connection",
    }
}

fn positions(forwarder: &Forwarder) -> String {
    let each = forwarder
        .committed
        .iter()
        .map(|(partition, offset)| format!("{partition}:{offset:.0}"));
    each.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        let forwarder = Forwarder {
            committed: BTreeMap::from([(0, 500.0), (2, 480.0)]),
            witness: BTreeMap::from([("line-1".to_owned(), 2.0), ("line-2".to_owned(), 1.0)]),
            lag: 12.0,
            ..Forwarder::default()
        };
        Frame {
            elapsed: Duration::from_secs(7),
            events: 14_000,
            rate: 2000.0,
            shards: BTreeMap::from([("line-1".to_owned(), 1100.0), ("line-2".to_owned(), 900.0)]),
            forwarders: BTreeMap::from([
                ("forwarders-0".to_owned(), Some((forwarder, 1000.0))),
                ("forwarders-1".to_owned(), None),
            ]),
            p50_ms: 3.1,
            p99_ms: 8.25,
            asset: "MILL-0000".to_owned(),
            asset_events: VecDeque::from(["load = 12.5  (3.0 ms)".to_owned()]),
            trouble: vec!["router-0: the port is in use".to_owned()],
            hints: vec!["http://127.0.0.1:8002/shards".to_owned()],
            ..Frame::default()
        }
    }

    #[test]
    fn the_page_has_everything() {
        insta::assert_snapshot!(page(&frame()));
    }

    #[test]
    fn the_line_has_the_essence() {
        assert_eq!(
            line(&frame()),
            "   7 s  2000 events/s  line-1 1100/s  line-2 900/s  lag 12  p50 3.1 ms  p99 8.2 ms  gaps 0  ! router-0: the port is in use\n"
        );
    }
}
